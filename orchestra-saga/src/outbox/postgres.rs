//! An outbox and an inbox in the service's own PostgreSQL database.
//!
//! **Writers.** [`Outbox::add`] takes an advisory lock of the transaction on a hash of the key, before
//! the message gets its number. Writers of one key therefore go one after another from there to the end
//! of their transactions, and numbers of a key are committed in their order. Writers of different keys
//! meet only if 16 bits of hash agree. Give several messages to one `add`: it takes the locks in one
//! order, so transactions with one call each cannot be in a deadlock over them. A lock is an entry in
//! PostgreSQL's lock table; a transaction that writes thousands of keys may need a greater
//! `max_locks_per_transaction`.
//!
//! **Relays** do not take that lock to lend keys. A key has a row as long as it has something to send;
//! the row is lent with `FOR UPDATE SKIP LOCKED` and a term on the database's clock, and the messages are
//! read afterwards, in a statement that sees what the relay before has settled. Writers never touch that
//! row once it is there, so a long transaction does not keep a relay from what was committed before it.
//! Only a row that seems to have nothing to send is removed under the writers' lock, which is tried and
//! not waited for.

mod inbox;
mod link;
mod rows;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_postgres::{Client, Config, GenericClient, NoTls, Transaction};

pub use inbox::Inbox;

use self::link::Link;
use super::{Backlog, Batch, Lane, Message, MessageId, Parked, Settled};
use crate::error::{Error, Result};
use crate::sql;

/// Messages that are committed with the state that they tell of, and the [`Backlog`] of a relay.
///
/// ```no_run
/// use orchestra_saga::outbox::postgres::Outbox;
/// use orchestra_saga::outbox::{Message, Relay, memory};
///
/// # async fn pay(db: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// Outbox::install(db).await?;
/// let tx = db.transaction().await?;
/// tx.execute("UPDATE orders SET paid = true WHERE id = 7", &[]).await?;
/// Outbox::add(&tx, &[Message::new("orders.paid", "order-7", "{}")?]).await?;
/// tx.commit().await?;
///
/// let backlog = Outbox::connect("host=127.0.0.1 user=orders".parse()?);
/// let relay = Relay::builder(backlog, memory::Publisher::default()).start();
/// # relay.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct Outbox {
    link: Link,
}

impl Outbox {
    /// Creates the tables of the outbox unless they are there.
    pub async fn install(db: &impl GenericClient) -> Result<()> {
        db.batch_execute(rows::TABLES)
            .await
            .map_err(|source| failed("installing the tables", source))
    }

    /// Writes messages in the transaction of the caller: they are sent exactly if it is committed. An id
    /// that is there is not written again.
    ///
    /// Cancel: roll the transaction back.
    pub async fn add(tx: &Transaction<'_>, messages: &[Message]) -> Result<()> {
        rows::add(tx, messages)
            .await
            .map_err(|source| failed("writing a message", source))
    }

    /// The backlog of this database, on a connection of its own without TLS, which is made when it is
    /// needed and made again when it is lost.
    pub fn connect(config: Config) -> Self {
        let config = Arc::new(config);
        Self::connecting(move || {
            let config = Arc::clone(&config);
            async move { config.connect(NoTls).await }
        })
    }

    /// The backlog of a database to which this connects, as [`Config::connect`] does.
    pub fn connecting<F, D>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(Client, D), tokio_postgres::Error>> + Send + 'static,
        D: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let link = Link::new(connect);
        Self { link }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

#[async_trait]
impl Backlog for Outbox {
    async fn claim(&self, batch: &Batch) -> Result<Vec<Lane>> {
        let mut link = self.link.client().await?;
        rows::lend(link.client()?, batch).await
    }

    async fn settle(&self, settled: &[Settled]) -> Result<Vec<Arc<str>>> {
        let mut link = self.link.client().await?;
        rows::settle(link.client()?, settled)
            .await
            .map_err(|source| failed("settling", source))
    }

    async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
        let mut link = self.link.client().await?;
        rows::parked(link.client()?, limit).await
    }

    async fn retry(&self, id: &MessageId) -> Result<bool> {
        let mut link = self.link.client().await?;
        rows::decide(link.client()?, id, rows::RETRY)
            .await
            .map_err(|source| failed("retrying", source))
    }

    async fn discard(&self, id: &MessageId) -> Result<bool> {
        let mut link = self.link.client().await?;
        rows::decide(link.client()?, id, rows::DISCARD)
            .await
            .map_err(|source| failed("discarding", source))
    }
}

fn failed(what: &str, source: tokio_postgres::Error) -> Error {
    Error::new(
        sql::postgres_kind(&source),
        format!("outbox: {what} failed"),
    )
    .caused_by(source)
}
