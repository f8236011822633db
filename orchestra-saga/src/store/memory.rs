//! A store that lives as long as its process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use parking_lot::Mutex;

use super::{Append, Claim, Filter, Open, SagaStore, Snapshot, Summary, Timer};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Recorded};
use crate::id::{Epoch, Partition, SagaId, Version};

/// A bounded [`SagaStore`] in memory: for tests, and where losing sagas with the process is right.
///
/// When full it forgets the oldest saga that has ended, with its start key; if none has, a start is
/// refused as [`Full`](ErrorKind::Full).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use orchestra_saga::{MemoryStore, Partition, SagaStore};
///
/// let store = MemoryStore::new(1_000);
/// let first = store.claim(Partition(0), "a").await?;
/// let second = store.claim(Partition(0), "b").await?;
/// assert!(second.epoch > first.epoch);
/// # Ok::<(), orchestra_saga::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MemoryStore {
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sagas: BTreeMap<SagaId, Row>,
    keys: HashMap<IdempotencyKey, SagaId>,
    epochs: HashMap<Partition, Epoch>,
}

#[derive(Debug)]
struct Row {
    partition: Partition,
    summary: Summary,
    start_key: Option<IdempotencyKey>,
    events: Vec<Recorded>,
    snapshot: Option<Snapshot>,
}

impl MemoryStore {
    /// A store for at most this many sagas.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            inner: Mutex::default(),
        }
    }
}

/// A hundred thousand sagas.
impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(100_000)
    }
}

impl Inner {
    fn check_claim(&self, claim: Claim) -> Result<()> {
        let current = self.epochs.get(&claim.partition).copied();
        let current = current.unwrap_or_default();
        if claim.epoch == current {
            return Ok(());
        }
        let Claim { partition, epoch } = claim;
        let message = format!("epoch {epoch} of partition {partition} ended with epoch {current}");
        Err(Error::new(ErrorKind::Fenced, message).at_epoch(current))
    }

    fn start(&mut self, claim: Claim, append: &Append, capacity: usize) -> Result<()> {
        if let Some(existing) = append.start_key.as_ref().and_then(|key| self.keys.get(key)) {
            let message = "the start key belongs to an earlier start";
            return Err(Error::new(ErrorKind::DuplicateStart, message).of(*existing));
        }
        let Some(Event::SagaStarted { definition, .. }) = append.events.first() else {
            return Err(Error::corrupt("a log begins with saga_started").of(append.saga));
        };
        let definition = Arc::clone(definition);
        self.make_room(capacity)?;
        if let Some(key) = &append.start_key {
            self.keys.insert(key.clone(), append.saga);
        }
        let row = Row {
            partition: claim.partition,
            summary: Summary::of(append, definition),
            start_key: append.start_key.clone(),
            events: append.recorded(claim.epoch).collect(),
            snapshot: None,
        };
        self.sagas.insert(append.saga, row);
        Ok(())
    }

    fn make_room(&mut self, capacity: usize) -> Result<()> {
        if self.sagas.len() < capacity {
            return Ok(());
        }
        let ended = |(id, row): (&SagaId, &Row)| row.summary.status.is_terminal().then_some(*id);
        let Some(oldest) = self.sagas.iter().find_map(ended) else {
            let message = format!("the store holds {capacity} sagas and none has ended");
            return Err(Error::new(ErrorKind::Full, message));
        };
        if let Some(key) = self.sagas.remove(&oldest).and_then(|row| row.start_key) {
            self.keys.remove(&key);
        }
        Ok(())
    }
}

pub(super) fn stale(append: &Append, found: Version) -> Error {
    let expected = append.expected;
    let message = format!("version {found} where {expected} was expected");
    Error::new(ErrorKind::StaleVersion, message).of(append.saga)
}

pub(super) fn foreign(append: &Append, claim: Claim, home: Partition) -> Error {
    let message = format!("partition {home} has the saga, not {}", claim.partition);
    Error::new(ErrorKind::ForeignPartition, message).of(append.saga)
}

#[async_trait]
impl SagaStore for MemoryStore {
    async fn claim(&self, partition: Partition, _owner: &str) -> Result<Claim> {
        let mut inner = self.inner.lock();
        let epoch = inner.epochs.entry(partition).or_default();
        epoch.0 += 1;
        Ok(Claim::new(partition, *epoch))
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        let mut inner = self.inner.lock();
        inner.check_claim(claim)?;
        let version = append.version();
        match inner.sagas.get_mut(&append.saga) {
            None if append.expected == Version(0) => inner.start(claim, append, self.capacity)?,
            None => return Err(stale(append, Version(0))),
            Some(row) if row.partition != claim.partition => {
                return Err(foreign(append, claim, row.partition));
            }
            Some(row) if row.summary.version != append.expected => {
                return Err(stale(append, row.summary.version));
            }
            Some(row) => {
                row.events.extend(append.recorded(claim.epoch));
                row.summary = Summary::of(append, Arc::clone(&row.summary.definition));
            }
        }
        Ok(version)
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        let inner = self.inner.lock();
        let events = inner.sagas.get(&saga).map(|row| row.events.iter());
        let events = events.into_iter().flatten();
        Ok(events
            .filter(|event| event.version > after)
            .cloned()
            .collect())
    }

    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        Ok(self.inner.lock().keys.get(key).copied())
    }

    async fn timers(
        &self,
        partition: Partition,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Timer>> {
        let inner = self.inner.lock();
        let rows = inner
            .sagas
            .values()
            .filter(|row| row.partition == partition);
        let mut due: Vec<_> = rows
            .filter_map(|row| {
                let at = row.summary.wake.filter(|at| *at <= now)?;
                let saga = row.summary.saga;
                Some(Timer { at, saga })
            })
            .collect();
        due.sort_by_key(|timer| (timer.at, timer.saga));
        due.truncate(limit);
        Ok(due)
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        let inner = self.inner.lock();
        let passes = |row: &&Row| {
            let status = row.summary.status;
            filter.status.is_none_or(|wanted| wanted == status)
                && (filter.open == Open::Any || !status.is_terminal())
                && filter
                    .partition
                    .is_none_or(|wanted| wanted == row.partition)
                && filter.after.is_none_or(|after| row.summary.saga > after)
        };
        let rows = inner.sagas.values().filter(passes).take(filter.limit);
        Ok(rows.map(|row| row.summary.clone()).collect())
    }

    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
        if let Some(row) = self.inner.lock().sagas.get_mut(&saga) {
            row.snapshot = Some(snapshot);
        }
        Ok(())
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        let inner = self.inner.lock();
        Ok(inner.sagas.get(&saga).and_then(|row| row.snapshot.clone()))
    }
}
