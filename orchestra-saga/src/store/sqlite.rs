//! A durable store in one file.
//!
//! Write-ahead log, `synchronous=FULL`, one writer thread. Each append is turned into text by its own
//! task. The writer takes all that wait, checks each against what it remembers, writes them as one
//! transaction and only then acknowledges: concurrent sagas share the sync of the disk (group commit).
//! An append is one row at the end of a table and a change in place; rows are keyed by integers in the
//! order of writing, since random keys cost a B-tree several times as much. Readers have connections of
//! their own, and look-ups that come together share a transaction as well.
//!
//! The file belongs to one process: an operating-system lock on `<path>.lock` is held until the store
//! is closed or its process dies. So leases are kept in memory; that they raise the epoch is in the file.
//!
//! The file does not shrink: what a purge sets free is written again by what comes later.

mod batch;
mod cache;
mod checkpoint;
mod job;
mod ledger;
mod lookup;
mod read;
mod schema;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::lock::Lock;
use super::term::Terms;
use super::{
    Append, Blueprint, Claim, Entry, Filter, Holder, Position, SagaStore, Snapshot, Summary, Timer,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Recorded;
use crate::id::{Partition, SagaId, Version};
use batch::{Batch, nanos};
use checkpoint::Checkpoint;
use job::{Job, Written};
use ledger::Ledger;
use lookup::Readers;

/// Jobs that wait for the writer before senders wait for room.
const QUEUE: usize = 4096;

/// The most sagas, and about the most frames, that a purge forgets before others have their turn.
const PIECE: (usize, usize) = (128, 512);

/// A durable [`SagaStore`] in an SQLite file of this process alone.
///
/// A file whose layout is older or newer is refused as [`ErrorKind::Corrupt`] and left as it is. What waits
/// for the disk is bounded by its callers: an append that finds the queue full waits for room.
///
/// Drop: the writer thread ends by itself after what was queued. [`SqliteStore::close`] waits for that
/// and releases the lock.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("sagas.db");
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use orchestra_saga::{ErrorKind, SqliteStore};
///
/// let store = SqliteStore::open(&path).await?;
/// let second = SqliteStore::open(&path).await.expect_err("the file is taken");
/// assert_eq!(second.kind(), ErrorKind::Locked);
/// store.close().await?;
/// SqliteStore::open(&path).await?.close().await?;
/// # Ok::<(), orchestra_saga::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    jobs: mpsc::Sender<Box<dyn Job>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Arc<Readers>,
    terms: Terms,
    /// Whoever looks whether a partition is free has it to itself until it is taken.
    claiming: tokio::sync::Mutex<()>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens or creates the file. Another process that has it is named by [`ErrorKind::Locked`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        blocking(move || Self::open_blocking(path)).await
    }

    fn open_blocking(path: PathBuf) -> Result<Self> {
        let lock = Lock::take(&path, &path)?;
        let connection = schema::open(&path)?;
        let copier = schema::open_copier(&path)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let fail = |source: std::io::Error| {
            let message = format!("the writer of saga store {} cannot start", path.display());
            Error::new(ErrorKind::Store, message).caused_by(source)
        };
        let checkpoint = Checkpoint::start(copier).map_err(fail)?;
        let writer = std::thread::Builder::new()
            .name("saga-store".to_owned())
            .spawn(move || {
                write::run(&connection, checkpoint, queue);
                drop(connection);
                drop(lock);
            })
            .map_err(fail)?;
        Ok(Self {
            inner: Arc::new(Inner {
                readers: Arc::new(Readers::new(path.clone())),
                path,
                jobs,
                writer: Mutex::new(Some(writer)),
                terms: Terms::default(),
                claiming: tokio::sync::Mutex::default(),
            }),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Waits until everything queued is durable, ends the writer and releases the lock. Later writes
    /// fail.
    pub async fn close(&self) -> Result<()> {
        // The answer comes after everything before it; none comes from a store that is closed.
        let _closed = self
            .write(|ledger| {
                ledger.close();
                Ok(())
            })
            .await;
        let writer = self.inner.writer.lock().take();
        let path = self.inner.path.clone();
        blocking(move || match writer.map(std::thread::JoinHandle::join) {
            Some(Err(_panic)) => {
                let message = format!("the writer of saga store {} panicked", path.display());
                Err(Error::new(ErrorKind::Store, message))
            }
            Some(Ok(())) | None => Ok(()),
        })
        .await
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Ledger<'_>) -> Written<T> + Send + 'static,
    ) -> Result<T> {
        let closed = || {
            let message = format!("saga store {} is closed", self.inner.path.display());
            Error::new(ErrorKind::Store, message)
        };
        let (job, answer) = job::job(work);
        let sent = self.inner.jobs.send(job).await;
        sent.map_err(|_gone| closed())?;
        answer.await.map_err(|_gone| closed())?
    }

    async fn raise_epoch(&self, partition: Partition, owner: &str) -> Result<Claim> {
        let owner = owner.to_owned();
        self.write(move |ledger| ledger.claim(partition, &owner))
            .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| {
        Error::new(ErrorKind::Store, "a read of the saga store was lost").caused_by(source)
    })?
}

/// The meaning of an error of the library.
fn failed(what: &str, source: rusqlite::Error) -> Error {
    let kind = match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            ErrorKind::Busy
        }
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            ErrorKind::Corrupt
        }
        Some(rusqlite::ErrorCode::DiskFull) => ErrorKind::Full,
        _ => ErrorKind::Store,
    };
    Error::new(kind, format!("saga store: {what} failed")).caused_by(source)
}

/// Numbers are stored as the library's signed integers; all of ours are far below their limit.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[async_trait]
impl SagaStore for SqliteStore {
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
        let _turn = self.inner.claiming.lock().await;
        let claim = self.raise_epoch(partition, owner).await?;
        self.inner.terms.begin(claim, owner, None);
        Ok(claim)
    }

    async fn lease(
        &self,
        partition: Partition,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Claim>> {
        let _turn = self.inner.claiming.lock().await;
        if !self.inner.terms.is_free(partition) {
            return Ok(None);
        }
        let claim = self.raise_epoch(partition, owner).await?;
        self.inner.terms.begin(claim, owner, Some(term));
        Ok(Some(claim))
    }

    async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        self.inner.terms.renew(claim, term)
    }

    async fn release(&self, claim: Claim) -> Result<()> {
        self.inner.terms.release(claim);
        Ok(())
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        Ok(self.inner.terms.holders())
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        let batch = Batch::of(claim, append)?;
        self.write(move |ledger| ledger.append(&batch)).await
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        let readers = &self.inner.readers;
        readers.look_up(move |db| read::load(db, saga, after)).await
    }

    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        let key = key.clone();
        let readers = &self.inner.readers;
        readers.look_up(move |db| read::find_start(db, &key)).await
    }

    async fn timers(
        &self,
        partition: Partition,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timer>> {
        let readers = &self.inner.readers;
        readers
            .query(move |db| read::timers(db, partition, now, limit))
            .await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        let filter = filter.clone();
        let readers = &self.inner.readers;
        readers.query(move |db| read::list(db, &filter)).await
    }

    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
        self.write(move |ledger| ledger.save(saga, &snapshot)).await
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        let readers = &self.inner.readers;
        readers.look_up(move |db| read::snapshot(db, saga)).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
        let readers = &self.inner.readers;
        readers
            .query(move |db| read::stream(db, after, limit))
            .await
    }

    async fn define(&self, blueprint: &Blueprint) -> Result<()> {
        let blueprint = blueprint.clone();
        self.write(move |ledger| ledger.define(&blueprint)).await
    }

    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
        let hash = hash.to_owned();
        let readers = &self.inner.readers;
        readers.look_up(move |db| read::definition(db, &hash)).await
    }

    /// In pieces, so that appends wait for no more than one of them.
    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        let (before, mut purged) = (nanos(before), 0);
        let (sagas, frames) = PIECE;
        loop {
            let most = sagas.min(limit - purged);
            let find = move |db: &_| read::ended(db, claim.partition, before, most);
            let found = self.inner.readers.query(find).await?;
            let work = move |ledger: &mut Ledger<'_>| ledger.purge(claim, &found, before, frames);
            let piece = self.write(work).await?;
            purged += piece;
            if piece == 0 || purged >= limit {
                return Ok(purged);
            }
        }
    }
}
