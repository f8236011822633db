//! Where the logs of sagas live.

pub mod memory;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub mod sqlite;

pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};

use crate::error::Result;
use crate::event::{Event, Recorded};
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::status::Status;

/// The right to write to a partition, until someone else claims it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// What is owned.
    pub partition: Partition,
    /// The number that fences off older owners.
    pub epoch: Epoch,
}

impl Claim {
    /// A claim, as a store grants it.
    pub const fn new(partition: Partition, epoch: Epoch) -> Self {
        Self { partition, epoch }
    }
}

/// A batch of events of one saga, appended whole or not at all.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Append {
    /// The saga.
    pub saga: SagaId,
    /// The version that it must have; zero starts it.
    pub expected: Version,
    /// When this was decided.
    pub at: Timestamp,
    /// The events, at least one.
    pub events: Vec<Event>,
    /// The status after them.
    pub status: Status,
    /// When the saga wants to be woken, in place of what it wanted before.
    pub wake: Option<Timestamp>,
    /// For a start: the key that no other saga may have.
    pub start_key: Option<IdempotencyKey>,
}

impl Append {
    /// A batch without a timer or start key.
    pub fn new(saga: SagaId, expected: Version, at: Timestamp, events: Vec<Event>) -> Self {
        Self {
            saga,
            expected,
            at,
            events,
            status: Status::Started,
            wake: None,
            start_key: None,
        }
    }

    /// The status after the events.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// When the saga wants to be woken.
    #[must_use]
    pub fn wake(mut self, wake: Option<Timestamp>) -> Self {
        self.wake = wake;
        self
    }

    /// The start key.
    #[must_use]
    pub fn start_key(mut self, key: Option<IdempotencyKey>) -> Self {
        self.start_key = key;
        self
    }

    /// The events with their places.
    pub fn recorded(&self, epoch: Epoch) -> impl Iterator<Item = Recorded> + '_ {
        let first = self.expected.0 + 1;
        (first..).zip(&self.events).map(move |(number, event)| {
            Recorded::new(Version(number), epoch, self.at, event.clone())
        })
    }

    /// The version after the batch.
    pub fn version(&self) -> Version {
        Version(self.expected.0 + self.events.len() as u64)
    }
}

/// A timer of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// When it is due.
    pub at: Timestamp,
    /// Whom it wakes.
    pub saga: SagaId,
}

/// Which sagas to list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// Only those that are not terminal.
    pub open: Open,
    /// Only those of this status.
    pub status: Option<Status>,
    /// Only those of this partition.
    pub partition: Option<Partition>,
    /// Only those with a greater id, for the next page.
    pub after: Option<SagaId>,
    /// At most this many.
    pub limit: usize,
}

/// Whether terminal sagas are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Open {
    /// All sagas.
    #[default]
    Any,
    /// Only those that have not ended.
    Only,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            open: Open::Any,
            status: None,
            partition: None,
            after: None,
            limit: 100,
        }
    }
}

impl Filter {
    /// Those that have not ended.
    pub fn open() -> Self {
        Self {
            open: Open::Only,
            ..Self::default()
        }
    }

    /// Those of this status.
    pub fn of(status: Status) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }

    /// Those of this partition.
    #[must_use]
    pub fn partition(mut self, partition: Partition) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Those with a greater id.
    #[must_use]
    pub fn after(mut self, saga: Option<SagaId>) -> Self {
        self.after = saga;
        self
    }

    /// At most this many.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The saga.
    pub saga: SagaId,
    /// Its definition.
    pub definition: Arc<str>,
    /// Its status.
    pub status: Status,
    /// The number of its events.
    pub version: Version,
    /// When it wants to be woken.
    pub wake: Option<Timestamp>,
    /// The time of its last event.
    pub updated: Timestamp,
}

impl Summary {
    /// The line of a saga after this batch.
    pub fn of(append: &Append, definition: Arc<str>) -> Self {
        Self {
            saga: append.saga,
            definition,
            status: append.status,
            version: append.version(),
            wake: append.wake,
            updated: append.at,
        }
    }
}

/// A folded log, to be read in place of its beginning. Only a cache: the log stays whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The version that it holds.
    pub version: Version,
    /// The BLAKE3 hash of the bytes; a reader that finds another one reads the log.
    pub hash: [u8; 32],
    /// The state, opaque to the store.
    pub bytes: Vec<u8>,
}

impl Snapshot {
    /// A snapshot of these bytes.
    pub fn new(version: Version, bytes: Vec<u8>) -> Self {
        let hash = *blake3::hash(&bytes).as_bytes();
        Self {
            version,
            hash,
            bytes,
        }
    }

    /// Whether the bytes are what was written.
    pub fn is_intact(&self) -> bool {
        *blake3::hash(&self.bytes).as_bytes() == self.hash
    }
}

/// The durable memory of sagas.
///
/// Laws (each is a test of `conformance`):
/// 1. `append` is all or nothing, and what it acknowledged is read by every later `load`, in order, with
///    the versions 1, 2, 3 … and the epoch of the claim. A durable store acknowledges only what
///    survives the loss of power.
/// 2. A batch whose `expected` is not the version of the saga is refused as
///    [`StaleVersion`](crate::ErrorKind::StaleVersion), also when several arrive at once.
/// 3. `claim` gives an epoch greater than any before; a batch with an older one is refused as
///    [`Fenced`](crate::ErrorKind::Fenced). A saga is of the partition that started it; a batch under the
///    claim of another is refused as [`ForeignPartition`](crate::ErrorKind::ForeignPartition).
/// 4. A start key belongs to one saga for ever: another start is refused as
///    [`DuplicateStart`](crate::ErrorKind::DuplicateStart) and names it; `find_start` finds it.
/// 5. `timers` returns the sagas of the partition that are due, the earliest first; the `wake` of the
///    last batch counts and none means none.
/// 6. `list` shows the status of the last batch, ordered by id, in pages.
/// 7. A snapshot is read as it was last saved; it changes nothing else.
/// 8. Sagas do not see each other's events; an unknown one has none.
///
/// Cancel: a dropped `append` is either whole or absent, and the caller reads which. Drop: a store
/// that holds a lock releases it; a durable one has an awaited `close`.
#[async_trait]
pub trait SagaStore: fmt::Debug + Send + Sync {
    /// Takes the partition from whoever had it. `owner` is shown to people.
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim>;

    /// Appends a batch and returns the version after it.
    async fn append(&self, claim: Claim, append: &Append) -> Result<Version>;

    /// The events after that version.
    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>>;

    /// The saga that was started with this key.
    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>>;

    /// The timers of the partition that are due at `now`, at most `limit`.
    async fn timers(
        &self,
        partition: Partition,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timer>>;

    /// A page of the sagas that the filter lets through.
    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>>;

    /// Keeps a snapshot in place of the last.
    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()>;

    /// The last snapshot.
    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>>;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: SagaStore + ?Sized> SagaStore for $pointer<T> {
            async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
                (**self).claim(partition, owner).await
            }

            async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
                (**self).append(claim, append).await
            }

            async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
                (**self).load(saga, after).await
            }

            async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
                (**self).find_start(key).await
            }

            async fn timers(
                &self,
                partition: Partition,
                now: Timestamp,
                limit: usize,
            ) -> Result<Vec<Timer>> {
                (**self).timers(partition, now, limit).await
            }

            async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
                (**self).list(filter).await
            }

            async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
                (**self).save_snapshot(saga, snapshot).await
            }

            async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
                (**self).load_snapshot(saga).await
            }
        }
    )+};
}

forward!(Arc, Box);
