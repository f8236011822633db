//! A durable store in PostgreSQL, for one worker or many.
//!
//! **Appends.** Each of a few connections takes every append that waits and writes them as one transaction in one
//! round trip: a function of the database that unnests their columns, decides each by itself (written, or refused
//! for its version, partition or start key) and returns only the refused. Concurrent sagas share the sync of the
//! disk; while one connection waits for it, the next collects. An append is a row with its events as JSON text: the
//! bytes that were appended are the bytes that are read, which `jsonb` would not keep.
//!
//! **Fencing.** Owners of partitions and their epochs are rows, their terms end by the database's clock. Every
//! transaction that appends first takes an advisory lock of its partitions, shared, and then reads their epochs;
//! taking a partition takes that lock alone. So once a claim is granted no append of an older epoch can commit, however
//! long its sender was frozen, and a claim does not starve behind a busy owner: locks of this kind queue.
//!
//! **The stream.** Transactions get their numbers (`xid`) in one order and commit in another, so a reader that remembers
//! the greatest number seen would pass by whatever commits later under a smaller one. The place of an event is therefore
//! the number of its transaction, and behind it its place within; and a reader goes only as far as the
//! oldest transaction that still runs (`pg_snapshot_xmin`): below it nothing can appear any more. A
//! transaction of anybody on the same server that writes for hours holds the readers of the stream up that long; they
//! lose nothing.
//!
//! **Deadlocks** are avoided by one order of locks: partitions, then start keys, then sagas, each of them sorted.
//!
//! **When the server goes away** connections are opened again with backoff. Appends whose answer was lost fail as
//! [`Store`](crate::ErrorKind::Store): nobody knows whether they were written, and the executor reads the log. Those that were
//! not sent wait, at most [`Config::timeout`] long.
//!
//! Rows are keyed by the ids themselves: version 7 UUIDs grow with time as integers do, and a second number for each
//! saga would be one index more. Ids of another making work too, but cost the indexes more.
//!
//! Connections keep settings and prepared statements, so a proxy between must not share them among clients
//! transaction by transaction. Prepared transactions and replication are none of its business: with several
//! synchronous standbys an acknowledged append is as safe as `synchronous_commit` says, which is only ever raised
//! from `off` to `on` here.

mod config;
mod failure;
mod group;
mod link;
mod queue;
mod reader;
mod schema;
mod serve;
mod values;
mod writer;

pub use config::Config;

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row, Socket};

use crate::error::Result;
use failure::{closed, late};
use group::Pending;
use link::{Dialer, Link, Session, Site};
use queue::Queue;
use reader::{Reader, Wish};
use schema::Statements;
use writer::Writer;

/// A durable [`SagaStore`](crate::SagaStore) in a schema of a PostgreSQL database (13 or later), which several workers share.
///
/// A clone is the same store. Drop: what was queued is still written, in the background;
/// [`PostgresStore::close`] waits for that.
///
/// ```no_run
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use orchestra_saga::store::postgres::Config;
/// use orchestra_saga::{Executor, PostgresStore};
///
/// let config = Config::parse("postgres://app@127.0.0.1/shop")?;
/// let store = PostgresStore::connect(config).await?;
/// let executor = Executor::builder(store.clone()).build().await?;
/// executor.shutdown().await;
/// store.close().await;
/// # Ok::<(), orchestra_saga::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

struct Inner {
    site: Arc<Site>,
    statements: Arc<Statements>,
    /// The first half of the numbers of our advisory locks.
    space: i32,
    appends: Arc<Queue<Pending>>,
    wishes: Arc<Queue<Wish>>,
    /// For partitions and their terms: a renewal waits for nothing else.
    control: Link,
    general: Link,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.appends.close();
        self.wishes.close();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("config", &self.inner.site.config)
            .finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Connects without TLS, and makes the tables unless they are there.
    ///
    /// Connections that demand TLS (`sslmode=require`) fail: they need [`PostgresStore::connect_with`].
    pub async fn connect(config: Config) -> Result<Self> {
        Self::connect_with(config, NoTls).await
    }

    /// Connects by this TLS connector, as those of the crates for `native-tls`, `openssl` and `rustls` are, and
    /// makes the tables unless they are there.
    ///
    /// Must be called inside a tokio runtime, in which the connections then live.
    pub async fn connect_with<T>(config: Config, tls: T) -> Result<Self>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let site = Arc::new(Site::new(config, Box::new(Dialer(tls))));
        let installing = async {
            let session = site.connect().await?;
            schema::install(&session, &site.config.schema).await
        };
        let installed = tokio::time::timeout(site.config.timeout, installing).await;
        installed.map_err(|_elapsed| late("connecting"))??;
        Ok(Self::start(site))
    }

    fn start(site: Arc<Site>) -> Self {
        let statements = Arc::new(Statements::new(&site.config.schema));
        let (_, space) = schema::locks(&site.config.schema);
        let (appends, wishes) = (Arc::new(writer::queue()), Arc::new(reader::queue()));
        for _ in 0..site.config.writers.get() {
            let writer = Writer {
                queue: Arc::clone(&appends),
                site: Arc::clone(&site),
                statements: Arc::clone(&statements),
                space,
            };
            drop(site.tasks.spawn(writer.run()));
        }
        for _ in 0..site.config.readers.get() {
            let reader = Reader {
                queue: Arc::clone(&wishes),
                site: Arc::clone(&site),
                statements: Arc::clone(&statements),
            };
            drop(site.tasks.spawn(reader.run()));
        }
        let inner = Inner {
            control: Link::new(Arc::clone(&site)),
            general: Link::new(Arc::clone(&site)),
            site,
            statements,
            space,
            appends,
            wishes,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Waits until everything queued is durable, and closes the connections. Later calls fail.
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.appends.close();
        inner.wishes.close();
        inner.control.close().await;
        inner.general.close().await;
        inner.site.tasks.close();
        inner.site.tasks.wait().await;
    }

    /// What the queue answers, within the time that operations may take.
    async fn answer<T>(&self, what: &str, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let limit = self.inner.site.config.timeout;
        match tokio::time::timeout(limit, answer).await {
            Ok(answered) => answered.map_err(|_gone| closed())?,
            Err(_elapsed) => Err(late(what)),
        }
    }

    async fn query(
        &self,
        link: &Link,
        what: &str,
        sql: &Arc<str>,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let query = |session: Arc<Session>| async move {
            let statement = session.prepare(sql).await?;
            session.client.query(&statement, values).await
        };
        link.run(what, query).await
    }
}
