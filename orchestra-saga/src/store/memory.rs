//! A store that lives as long as its process.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use parking_lot::Mutex;

use super::term::Terms;
use super::{
    Append, Blueprint, Claim, Entry, Filter, Holder, Open, Position, SagaStore, Snapshot, Summary,
    Timer,
};
use crate::definition::count;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Recorded};
use crate::id::{BySaga, Epoch, Partition, SagaId, Version};

/// A bounded [`SagaStore`] in memory: for tests, and where losing sagas with the process is right.
///
/// When full it forgets the saga that ended first, with its start key; if none has, a start is
/// refused as [`Full`](ErrorKind::Full). Each saga that is kept takes some kilobytes with its log.
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
    terms: Terms,
}

#[derive(Debug, Default)]
struct Inner {
    sagas: BySaga<Row>,
    /// The same, in order.
    order: BTreeSet<SagaId>,
    /// Those that ended, in the order in which they did, with their versions then. One that was purged or revoked
    /// since may be among them.
    ended: VecDeque<(SagaId, Version)>,
    keys: HashMap<IdempotencyKey, SagaId>,
    epochs: BTreeMap<Partition, Epoch>,
    timers: BTreeSet<(Partition, Timestamp, SagaId)>,
    stream: Stream,
    definitions: HashMap<Arc<str>, Blueprint>,
}

/// Where the events of all sagas stand, in the order of their appends.
#[derive(Debug, Default)]
struct Stream {
    /// Batches by the number of their last event.
    batches: VecDeque<Batch>,
    last: u64,
    /// How many batches are those of sagas that are gone.
    gone: usize,
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    last: u64,
    saga: SagaId,
    after: Version,
    events: u32,
}

impl Stream {
    fn push(&mut self, append: &Append) {
        let events = count(append.events.len());
        self.last += u64::from(events);
        self.batches.push_back(Batch {
            last: self.last,
            saga: append.saga,
            after: append.expected,
            events,
        });
    }

    /// A saga with so many batches is gone.
    fn forget(&mut self, batches: usize, lives: impl Fn(&SagaId) -> bool) {
        self.gone += batches;
        // Few looks for each that is dropped, whatever lives on in front of them.
        if self.gone > 64 && self.gone > self.batches.len() / 2 {
            self.batches.retain(|batch| lives(&batch.saga));
            self.gone = 0;
        }
    }

    /// The events after that position, with their numbers.
    fn after(&self, position: Position) -> impl Iterator<Item = (u64, SagaId, Version)> + '_ {
        let seen = u64::try_from(position.as_u128()).unwrap_or(u64::MAX);
        let known = self.batches.partition_point(|batch| batch.last <= seen);
        let events = self.batches.range(known..).flat_map(|batch| {
            let first = batch.last - u64::from(batch.events);
            let numbers = (first + 1..).zip(batch.after.0 + 1..);
            let numbers = numbers.take(batch.events as usize);
            numbers.map(|(number, version)| (number, batch.saga, Version(version)))
        });
        events.skip_while(move |(number, ..)| *number <= seen)
    }
}

#[derive(Debug)]
struct Row {
    partition: Partition,
    summary: Summary,
    start_key: Option<IdempotencyKey>,
    events: Vec<Recorded>,
    /// How many appends they came in.
    batches: usize,
    snapshot: Option<Snapshot>,
}

impl MemoryStore {
    /// A store for at most this many sagas.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            inner: Mutex::default(),
            terms: Terms::default(),
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
        let current = self.epoch(claim.partition);
        if claim.epoch == current {
            return Ok(());
        }
        let Claim { partition, epoch } = claim;
        let message = format!("epoch {epoch} of partition {partition} ended with epoch {current}");
        Err(Error::new(ErrorKind::Fenced, message).at_epoch(current))
    }

    /// Those after that one, in the order of their ids.
    fn rows(&self, after: Option<SagaId>) -> impl Iterator<Item = &Row> {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.order.range((first, Bound::Unbounded));
        rest.filter_map(|saga| self.sagas.get(saga))
    }

    /// Whoever was forgotten for it comes back.
    fn start(&mut self, claim: Claim, append: &Append, capacity: usize) -> Result<Option<Row>> {
        if let Some(existing) = append.start_key.as_ref().and_then(|key| self.keys.get(key)) {
            let message = "the start key belongs to an earlier start";
            return Err(Error::new(ErrorKind::DuplicateStart, message).of(*existing));
        }
        let Some(Event::SagaStarted(started)) = append.events.first() else {
            return Err(Error::corrupt("a log begins with saga_started").of(append.saga));
        };
        let definition = Arc::clone(&started.definition);
        let forgotten = self.make_room(capacity)?;
        if let Some(key) = &append.start_key {
            self.keys.insert(key.clone(), append.saga);
        }
        let row = Row {
            partition: claim.partition,
            summary: Summary::of(append, claim.partition, definition),
            start_key: append.start_key.clone(),
            events: append.recorded(claim.epoch).collect(),
            batches: 1,
            snapshot: None,
        };
        self.sagas.insert(append.saga, row);
        self.order.insert(append.saga);
        Ok(forgotten)
    }

    fn make_room(&mut self, capacity: usize) -> Result<Option<Row>> {
        if self.sagas.len() < capacity {
            return Ok(None);
        }
        while let Some((first, version)) = self.ended.pop_front() {
            let row = self.sagas.get(&first);
            if row.is_some_and(|row| row.summary.version == version) {
                return Ok(self.forget(first));
            }
        }
        let message = format!("the store holds {capacity} sagas and none has ended");
        Err(Error::new(ErrorKind::Full, message))
    }

    fn forget(&mut self, saga: SagaId) -> Option<Row> {
        let row = self.sagas.remove(&saga)?;
        self.order.remove(&saga);
        if let Some(key) = &row.start_key {
            self.keys.remove(key);
        }
        self.set_timer(row.partition, saga, (row.summary.wake, None));
        let sagas = &self.sagas;
        self.stream
            .forget(row.batches, |saga| sagas.contains_key(saga));
        Some(row)
    }

    fn set_timer(
        &mut self,
        partition: Partition,
        saga: SagaId,
        (before, after): (Option<Timestamp>, Option<Timestamp>),
    ) {
        if before == after {
            return;
        }
        if let Some(at) = before {
            self.timers.remove(&(partition, at, saga));
        }
        if let Some(at) = after {
            self.timers.insert((partition, at, saga));
        }
    }

    /// As [`Inner::start`].
    fn append(&mut self, claim: Claim, append: &Append, capacity: usize) -> Result<Option<Row>> {
        self.check_claim(claim)?;
        let mut forgotten = None;
        let before = match self.sagas.get_mut(&append.saga) {
            None if append.expected == Version(0) => {
                forgotten = self.start(claim, append, capacity)?;
                None
            }
            None => return Err(stale(append, Version(0))),
            Some(row) if row.partition != claim.partition => {
                return Err(foreign(append, claim, row.partition));
            }
            Some(row) if row.summary.version != append.expected => {
                return Err(stale(append, row.summary.version));
            }
            Some(row) => {
                row.events.extend(append.recorded(claim.epoch));
                row.batches += 1;
                let definition = Arc::clone(&row.summary.definition);
                let summary = Summary::of(append, row.partition, definition);
                std::mem::replace(&mut row.summary, summary).wake
            }
        };
        self.set_timer(claim.partition, append.saga, (before, append.wake));
        self.stream.push(append);
        if append.status.is_terminal() {
            self.ended.push_back((append.saga, append.version()));
        }
        Ok(forgotten)
    }

    fn epoch(&self, partition: Partition) -> Epoch {
        self.epochs.get(&partition).copied().unwrap_or_default()
    }

    fn claim(&mut self, partition: Partition) -> Claim {
        let epoch = self.epochs.entry(partition).or_default();
        epoch.0 += 1;
        Claim::new(partition, *epoch)
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
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
        let mut inner = self.inner.lock();
        let claim = inner.claim(partition);
        self.terms.begin(claim, owner, None);
        Ok(claim)
    }

    async fn lease(
        &self,
        partition: Partition,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Claim>> {
        let mut inner = self.inner.lock();
        if !self.terms.is_free(partition) {
            return Ok(None);
        }
        let claim = inner.claim(partition);
        self.terms.begin(claim, owner, Some(term));
        Ok(Some(claim))
    }

    async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        self.terms.renew(claim, term)
    }

    async fn release(&self, claim: Claim) -> Result<()> {
        self.terms.release(claim);
        Ok(())
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        Ok(self.terms.holders())
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        let forgotten = self.inner.lock().append(claim, append, self.capacity)?;
        // Nobody else waits while it is given back.
        drop(forgotten);
        Ok(append.version())
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
        let first = (
            partition,
            Timestamp::UNIX_EPOCH,
            SagaId::from_bytes([0; 16]),
        );
        let last = (partition, now, SagaId::from_bytes([u8::MAX; 16]));
        let due = inner.timers.range(first..=last).take(limit);
        Ok(due.map(|&(_, at, saga)| Timer { at, saga }).collect())
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        let inner = self.inner.lock();
        let passes = |row: &&Row| {
            let status = row.summary.status;
            filter.status.is_none_or(|wanted| wanted == status)
                && (filter.open == Open::Any || !status.is_terminal())
                && filter
                    .definition
                    .as_ref()
                    .is_none_or(|wanted| *wanted == row.summary.definition)
                && filter
                    .partition
                    .is_none_or(|wanted| wanted == row.partition)
        };
        let rows = inner.rows(filter.after).filter(passes).take(filter.limit);
        Ok(rows.map(|row| row.summary.clone()).collect())
    }

    fn prefers_logs(&self) -> bool {
        true
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

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
        let inner = self.inner.lock();
        let entry = |(number, saga, version): (u64, SagaId, Version)| {
            let row = inner.sagas.get(&saga)?;
            let recorded = row.events.get(usize::try_from(version.0).ok()? - 1)?;
            let position = Position::from_u128(u128::from(number));
            Some(Entry::new(position, saga, recorded.clone()))
        };
        Ok(inner
            .stream
            .after(after)
            .filter_map(entry)
            .take(limit)
            .collect())
    }

    async fn define(&self, blueprint: &Blueprint) -> Result<()> {
        let mut inner = self.inner.lock();
        let known = inner.definitions.entry(Arc::clone(&blueprint.hash));
        let _kept = known.or_insert_with(|| blueprint.clone());
        Ok(())
    }

    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
        Ok(self.inner.lock().definitions.get(hash).cloned())
    }

    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        let mut inner = self.inner.lock();
        inner.check_claim(claim)?;
        let ended = |row: &&Row| {
            let Summary {
                status, updated, ..
            } = row.summary;
            row.partition == claim.partition && status.is_terminal() && updated < before
        };
        let found = inner.rows(None).filter(ended).take(limit);
        let found: Vec<_> = found.map(|row| row.summary.saga).collect();
        if found.is_empty() {
            return Ok(0);
        }
        let forgotten: Vec<_> = found.iter().map(|&saga| inner.forget(saga)).collect();
        // Those that are gone are not looked for one by one when there is no room.
        let Inner { ended, sagas, .. } = &mut *inner;
        ended.retain(|(saga, _)| sagas.contains_key(saga));
        drop(inner);
        drop(forgotten);
        Ok(found.len())
    }
}

#[cfg(test)]
mod tests;
