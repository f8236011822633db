//! A durable store in one file.
//!
//! Write-ahead log, `synchronous=FULL`, one writer thread. The writer takes every append that waits,
//! puts each in its savepoint, commits them as one transaction and only then acknowledges: concurrent
//! sagas share the sync of the disk (group commit). Rows are keyed by integers in the order of their
//! start, since random keys cost a B-tree several times as much. Readers have connections of their own.
//!
//! The file belongs to one process: an operating-system lock on `<path>.lock` is held until the store
//! is closed or its process dies.

mod read;
mod schema;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::lock::Lock;
use super::term::Terms;
use super::{
    Append, Blueprint, Claim, Entry, Filter, Position, SagaStore, Snapshot, Summary, Timer,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Recorded;
use crate::id::{Partition, SagaId, Version};
use read::Readers;
use write::Job;

/// Jobs that wait for the writer before senders wait for room.
const QUEUE: usize = 4096;

/// A durable [`SagaStore`] in an SQLite file of this process alone.
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
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Readers,
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
        let lock = Lock::take(&path)?;
        let connection = schema::open(&path)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("saga-store".to_owned())
            .spawn(move || {
                write::run(connection, queue);
                drop(lock);
            })
            .map_err(|source| {
                let message = format!("the writer of saga store {} cannot start", path.display());
                Error::new(ErrorKind::Store, message).caused_by(source)
            })?;
        Ok(Self {
            inner: Arc::new(Inner {
                readers: Readers::new(path.clone()),
                path,
                jobs: Mutex::new(Some(jobs)),
                writer: Mutex::new(Some(writer)),
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
        drop(self.inner.jobs.lock().take());
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

    async fn write<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T>>) -> Job) -> Result<T> {
        let closed = || {
            let message = format!("saga store {} is closed", self.inner.path.display());
            Error::new(ErrorKind::Store, message)
        };
        let jobs = self.inner.jobs.lock().clone().ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        jobs.send(job(reply)).await.map_err(|_gone| closed())?;
        answer.await.map_err(|_gone| closed())?
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&rusqlite::Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.readers.with(query)).await
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
        let owner = owner.to_owned();
        self.write(|reply| Job::Claim {
            partition,
            owner,
            reply,
        })
        .await
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        self.write(|reply| Job::Append {
            claim,
            append: Box::new(append.clone()),
            reply,
        })
        .await
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        self.read(move |db| read::load(db, saga, after)).await
    }

    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        let key = key.clone();
        self.read(move |db| read::find_start(db, &key)).await
    }

    async fn timers(
        &self,
        partition: Partition,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timer>> {
        self.read(move |db| read::timers(db, partition, now, limit))
            .await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        let filter = filter.clone();
        self.read(move |db| read::list(db, &filter)).await
    }

    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
        self.write(|reply| Job::Snapshot {
            saga,
            snapshot,
            reply,
        })
        .await
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        self.read(move |db| read::snapshot(db, saga)).await
    }
}
