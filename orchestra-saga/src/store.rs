//! Where the logs of sagas live.

mod append;
mod encoded;
mod filter;
pub mod journal;
mod lock;
pub mod memory;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub mod postgres;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub mod sqlite;
mod term;

pub use append::Append;
pub use encoded::{Codec, EncodedStore};
pub use filter::{Filter, Open, Summary};
pub use journal::JournalStore;
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use postgres::PostgresStore;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use sqlite::SqliteStore;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};

use crate::error::Result;
use crate::event::Recorded;
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::payload::Payload;

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

/// Who has a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// What they have.
    pub claim: Claim,
    /// Their name, as they gave it.
    pub owner: Arc<str>,
}

impl Holder {
    /// The holder of a claim.
    pub const fn new(claim: Claim, owner: Arc<str>) -> Self {
        Self { claim, owner }
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

/// A place in the stream of all events of a store, for whoever reads it to go on from.
///
/// ```
/// use orchestra_saga::Position;
///
/// assert!(Position::START < Position::from_u128(1));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u128);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// The place with this number, as a store counts them.
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }

    /// The number of the place.
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

/// An event in the stream of all.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// Its place: greater than that of every entry before it.
    pub position: Position,
    /// The saga.
    pub saga: SagaId,
    /// What happened.
    pub recorded: Recorded,
}

impl Entry {
    /// An event at its place.
    pub const fn new(position: Position, saga: SagaId, recorded: Recorded) -> Self {
        Self {
            position,
            saga,
            recorded,
        }
    }
}

/// A definition as a store keeps it: once, under the hash of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blueprint {
    /// The hash, which `saga_started` names.
    pub hash: Arc<str>,
    /// The definition as a document.
    pub document: Payload,
}

impl Blueprint {
    /// A definition under its hash.
    pub const fn new(hash: Arc<str>, document: Payload) -> Self {
        Self { hash, document }
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
/// 6. `list` shows the status of the last batch of what the filter lets through, ordered by id, in pages.
/// 7. A snapshot is read as it was last saved; it changes nothing else.
/// 8. Sagas do not see each other's events; an unknown one has none.
/// 9. `lease` gives nothing while another claim or lease of the partition lasts, and a higher epoch
///    otherwise. `renew` is refused as [`Fenced`](crate::ErrorKind::Fenced) once somebody else has the
///    partition; `release` ends a lease at once; `holders` names who has what. Time is the store's own, so
///    clocks of owners do not matter.
/// 10. `read` passes every acknowledged event once, each saga's in their order; what it has passed by is
///     never followed by something before it.
/// 11. A definition is kept under its hash as it was first given.
/// 12. `purge` forgets sagas that ended before a moment, with everything of theirs, and no others.
///
/// Cancel: a dropped `append` is either whole or absent, and the caller reads which. Drop: a store
/// that holds a lock releases it; a durable one has an awaited `close`.
#[async_trait]
pub trait SagaStore: fmt::Debug + Send + Sync {
    /// Takes the partition from whoever had it, until someone else does. `owner` is shown to people.
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim>;

    /// Takes the partition for that long, if nobody has it.
    async fn lease(
        &self,
        partition: Partition,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Claim>>;

    /// Lets a lease last that long from now.
    async fn renew(&self, claim: Claim, term: Duration) -> Result<()>;

    /// Ends a lease: the partition is free.
    async fn release(&self, claim: Claim) -> Result<()>;

    /// Who has which partition by a claim or lease that lasts, in the order of partitions.
    async fn holders(&self) -> Result<Vec<Holder>>;

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

    /// Whether a log is read as fast as a snapshot of it, as where both are in memory: nobody takes any then.
    fn prefers_logs(&self) -> bool {
        false
    }

    /// Keeps a snapshot in place of the last.
    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()>;

    /// The last snapshot.
    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>>;

    /// The events of all sagas after that place, at most `limit`.
    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>>;

    /// Keeps a definition.
    async fn define(&self, blueprint: &Blueprint) -> Result<()>;

    /// The definition of this hash.
    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>>;

    /// Forgets at most `limit` sagas of the partition that ended before that moment. Returns how many.
    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize>;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: SagaStore + ?Sized> SagaStore for $pointer<T> {
            async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
                (**self).claim(partition, owner).await
            }

            async fn lease(
                &self,
                partition: Partition,
                owner: &str,
                term: Duration,
            ) -> Result<Option<Claim>> {
                (**self).lease(partition, owner, term).await
            }

            async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
                (**self).renew(claim, term).await
            }

            async fn release(&self, claim: Claim) -> Result<()> {
                (**self).release(claim).await
            }

            async fn holders(&self) -> Result<Vec<Holder>> {
                (**self).holders().await
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

            fn prefers_logs(&self) -> bool {
                (**self).prefers_logs()
            }

            async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
                (**self).save_snapshot(saga, snapshot).await
            }

            async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
                (**self).load_snapshot(saga).await
            }

            async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
                (**self).read(after, limit).await
            }

            async fn define(&self, blueprint: &Blueprint) -> Result<()> {
                (**self).define(blueprint).await
            }

            async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
                (**self).definition(hash).await
            }

            async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
                (**self).purge(claim, before, limit).await
            }
        }
    )+};
}

forward!(Arc, Box);
