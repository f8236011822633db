//! An outbox and an inbox in the service's own SQLite file.
//!
//! Several relays and writers may share the file, also in several processes of one machine. Terms and
//! delays go by the wall clock of the machine: when it is set back, keys wait that much longer; when it
//! is set forward, a term may be over early, and some messages are sent again. A process that is frozen
//! inside a transaction keeps the file to itself until it wakes or dies, as it is with SQLite.

mod inbox;
mod rows;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};

pub use inbox::Inbox;

use super::{Backlog, Batch, Lane, Message, MessageId, Parked, Settled};
use crate::error::{Error, ErrorKind, Result};
use crate::sql;

/// How long another process may hold the file before it is [`ErrorKind::Busy`].
const BUSY: Duration = Duration::from_secs(5);

/// Messages that are committed with the state that they tell of, and the [`Backlog`] of a relay.
///
/// ```
/// use orchestra_saga::outbox::sqlite::Outbox;
/// use orchestra_saga::outbox::{Backlog, Batch, Message};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("orders.db");
/// let mut db = rusqlite::Connection::open(&path)?;
/// Outbox::install(&db)?;
/// db.execute_batch("CREATE TABLE paid (id INTEGER)")?;
///
/// let tx = db.transaction()?;
/// tx.execute("INSERT INTO paid VALUES (7)", [])?;
/// Outbox::add(&tx, &[Message::new("orders.paid", "order-7", "{}")?])?;
/// tx.commit()?;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let outbox = Outbox::open(&path).await?; // for `Relay::builder`
/// let lanes = outbox.claim(&Batch::new("reader")).await?;
/// assert_eq!(lanes[0].messages[0].topic(), "orders.paid");
/// # Ok::<(), orchestra_saga::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Outbox {
    path: PathBuf,
    db: Arc<Mutex<Connection>>,
}

impl Outbox {
    /// Creates the tables of the outbox unless they are there.
    pub fn install(db: &Connection) -> Result<()> {
        db.execute_batch(rows::TABLES)
            .map_err(|source| failed("installing the tables", source))
    }

    /// Writes messages in the transaction of the caller: they are sent exactly if it is committed. An id
    /// that is there is not written again.
    pub fn add(tx: &Connection, messages: &[Message]) -> Result<()> {
        if tx.is_autocommit() {
            let message = "an outbox needs the transaction that has the effect";
            return Err(Error::new(ErrorKind::NoTransaction, message));
        }
        rows::add(tx, messages).map_err(|source| failed("writing a message", source))
    }

    /// The backlog of this file, on a connection of its own.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        blocking(move || {
            let opened = Connection::open(&path).and_then(|db| {
                db.busy_timeout(BUSY)?;
                db.execute_batch(rows::TABLES)?;
                Ok(db)
            });
            let db = opened.map_err(|source| failed("opening the file", source))?;
            let db = Arc::new(Mutex::new(db));
            Ok(Self { path, db })
        })
        .await
    }

    /// Does this in one transaction that writes.
    async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let db = Arc::clone(&self.db);
        blocking(move || {
            let mut db = db.lock();
            let tx = db
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(|source| failed(what, source))?;
            let done = work(&tx)?;
            tx.commit().map_err(|source| failed(what, source))?;
            Ok(done)
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let db = Arc::clone(&self.db);
        blocking(move || work(&db.lock())).await
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backlog for Outbox {
    async fn claim(&self, batch: &Batch) -> Result<Vec<Lane>> {
        // Most of the time there is nothing, which is found out without the write lock.
        if !self.read(rows::is_due).await? {
            return Ok(Vec::new());
        }
        let batch = batch.clone();
        self.write("lending", move |tx| rows::lend(tx, &batch))
            .await
    }

    async fn settle(&self, settled: &[Settled]) -> Result<Vec<Arc<str>>> {
        let settled = settled.to_vec();
        self.write("settling", move |tx| {
            let mut lost = Vec::new();
            for one in settled {
                if !rows::settle(tx, &one).map_err(|source| failed("settling", source))? {
                    lost.push(one.key);
                }
            }
            Ok(lost)
        })
        .await
    }

    async fn parked(&self, limit: u32) -> Result<Vec<Parked>> {
        self.read(move |db| rows::parked(db, limit)).await
    }

    async fn retry(&self, id: &MessageId) -> Result<bool> {
        let id = id.clone();
        self.write("retrying", move |tx| {
            rows::retry(tx, &id).map_err(|source| failed("retrying", source))
        })
        .await
    }

    async fn discard(&self, id: &MessageId) -> Result<bool> {
        let id = id.clone();
        self.write("discarding", move |tx| {
            rows::discard(tx, &id).map_err(|source| failed("discarding", source))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| {
        Error::new(ErrorKind::Store, "a call of the outbox was lost").caused_by(source)
    })?
}

fn failed(what: &str, source: rusqlite::Error) -> Error {
    Error::new(sql::sqlite_kind(&source), format!("outbox: {what} failed")).caused_by(source)
}
