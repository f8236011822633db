//! What is known of every saga without reading its log.
//!
//! One entry of fixed size per saga, in chunks that an [`Image`] shares until they change: a checkpoint
//! sees one moment while appends go on. Timers, ids and start keys name entries by number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hashbrown::HashTable;
use orchestra_core::{IdempotencyKey, Timestamp};

use super::frame::{Birth, Header, wake_code, wake_of};
use super::place::Place;
use crate::id::{Partition, SagaId, Version};
use crate::status::Status;
use crate::store::{Filter, Open, Summary, Timer};

/// Entries of a chunk.
const CHUNK: usize = 256;

/// Sagas that a list looks at under one hold of the lock.
const LISTED_AT_ONCE: usize = 4096;

/// The first 16 bytes of the BLAKE3 hash of a start key; zeros for none.
///
/// Keys that agree in them are taken for one. Whoever looks for two such keys must try 2^64 of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct KeyHash(pub(super) [u8; 16]);

impl KeyHash {
    const NONE: Self = Self([0; 16]);

    fn of(text: &str) -> Self {
        if text.is_empty() {
            return Self::NONE;
        }
        let hash = *blake3::hash(text.as_bytes()).as_bytes();
        Self(hash.first_chunk().copied().unwrap_or_default())
    }

    /// Bits of a hash are as good as a hash of them.
    fn bits(self) -> u64 {
        self.0
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// The number of an entry.
type Slot = u32;

/// The number of a definition's name.
pub(super) type NameId = u32;

/// What is known of a saga. An entry of version zero is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) saga: SagaId,
    pub(super) key: KeyHash,
    pub(super) version: Version,
    pub(super) updated: Timestamp,
    /// As a number, in which none is all ones.
    pub(super) wake: u64,
    /// Its first batch. What is of the same id and before it was purged.
    pub(super) first: Place,
    /// Its last batch, which names the one before.
    pub(super) last: Place,
    /// Its snapshot, or nowhere.
    pub(super) snapshot: Place,
    pub(super) snapshot_length: u32,
    pub(super) partition: Partition,
    pub(super) definition: NameId,
    pub(super) status: Status,
}

impl Entry {
    const fn is_free(&self) -> bool {
        self.version.0 == 0
    }

    /// When it ended, if it has.
    fn end(&self) -> Option<Timestamp> {
        self.status.is_terminal().then_some(self.updated)
    }
}

type Chunk = Arc<Vec<Entry>>;

/// The entries as they were at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    chunks: Vec<Chunk>,
    pub(super) names: Vec<Arc<str>>,
}

impl Image {
    /// Every saga.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.chunks.iter().flat_map(|chunk| chunk.iter());
        entries.filter(|entry| !entry.is_free())
    }
}

/// What a look at some sagas found, besides those that passed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Listed {
    /// The last that was looked at, while there are more and the page is not full.
    pub(super) last: Option<SagaId>,
    /// The newest batch of those that were looked at: what is shown of them, and what is not, rests on it.
    pub(super) newest: Place,
}

/// Every saga of the store.
#[derive(Debug, Default)]
pub(super) struct Index {
    chunks: Vec<Chunk>,
    free: Vec<Slot>,
    slots: BTreeMap<SagaId, Slot>,
    keys: HashTable<Slot>,
    timers: HashMap<Partition, BTreeSet<(u64, Slot)>>,
    /// Those that ended, by when.
    ended: HashMap<Partition, BTreeSet<(Timestamp, Slot)>>,
    names: Vec<Arc<str>>,
    name_ids: HashMap<Arc<str>, NameId>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn find(&self, saga: SagaId) -> Option<&Entry> {
        self.slots.get(&saga).map(|slot| self.at(*slot))
    }

    /// Slots are made by this index alone.
    fn at(&self, slot: Slot) -> &Entry {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    fn at_mut(&mut self, slot: Slot) -> &mut Entry {
        let chunk = Arc::make_mut(&mut self.chunks[slot as usize / CHUNK]);
        &mut chunk[slot as usize % CHUNK]
    }

    /// The saga that was started with the key.
    pub(super) fn find_key(&self, key: &IdempotencyKey) -> Option<SagaId> {
        let hash = KeyHash::of(key.as_str());
        let found = self
            .keys
            .find(hash.bits(), |slot| self.at(*slot).key == hash);
        found.map(|slot| self.at(*slot).saga)
    }

    /// Follows a first batch.
    pub(super) fn begin(&mut self, header: &Header, birth: Birth<'_>) {
        let entry = Entry {
            saga: header.saga,
            key: KeyHash::of(birth.key),
            version: header.version_after(),
            updated: header.at,
            wake: wake_code(header.wake),
            first: header.place,
            last: header.place,
            snapshot: Place::NONE,
            snapshot_length: 0,
            partition: header.partition,
            definition: self.name(birth.definition),
            status: header.status,
        };
        self.restore(entry);
    }

    /// Puts an entry in.
    pub(super) fn restore(&mut self, entry: Entry) {
        let slot = self.place(entry);
        self.slots.insert(entry.saga, slot);
        if entry.key != KeyHash::NONE {
            let chunks = &self.chunks;
            let bits = |slot: &Slot| {
                let slot = *slot as usize;
                chunks[slot / CHUNK][slot % CHUNK].key.bits()
            };
            self.keys.insert_unique(entry.key.bits(), slot, bits);
        }
        self.set_timer(entry.partition, slot, (u64::MAX, entry.wake));
        self.set_end(entry.partition, slot, (None, entry.end()));
    }

    fn place(&mut self, entry: Entry) -> Slot {
        if let Some(slot) = self.free.pop() {
            *self.at_mut(slot) = entry;
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Arc::new(Vec::with_capacity(CHUNK)));
        }
        let full = self.chunks.len() - 1;
        let chunk = Arc::make_mut(&mut self.chunks[full]);
        chunk.push(entry);
        super::bytes::length(full * CHUNK + chunk.len() - 1)
    }

    /// Follows a later batch.
    pub(super) fn advance(&mut self, header: &Header) {
        let Some(&slot) = self.slots.get(&header.saga) else {
            return;
        };
        let entry = self.at_mut(slot);
        let (partition, before, end_before) = (entry.partition, entry.wake, entry.end());
        entry.version = header.version_after();
        entry.updated = header.at;
        entry.wake = wake_code(header.wake);
        entry.last = header.place;
        entry.status = header.status;
        let end = entry.end();
        self.set_timer(partition, slot, (before, wake_code(header.wake)));
        self.set_end(partition, slot, (end_before, end));
    }

    /// Follows a snapshot. Returns the place and length of the one before it.
    pub(super) fn keep_snapshot(&mut self, header: &Header) -> Option<(Place, u32)> {
        let slot = *self.slots.get(&header.saga)?;
        let entry = self.at_mut(slot);
        let before = (entry.snapshot, entry.snapshot_length);
        entry.snapshot = header.place;
        entry.snapshot_length = header.length;
        (before.0 != Place::NONE).then_some(before)
    }

    /// Takes a saga out.
    pub(super) fn forget(&mut self, saga: SagaId) -> bool {
        let Some(slot) = self.slots.remove(&saga) else {
            return false;
        };
        let entry = *self.at(slot);
        if let Ok(found) = self
            .keys
            .find_entry(entry.key.bits(), |other| *other == slot)
        {
            let _slot = found.remove();
        }
        self.set_timer(entry.partition, slot, (entry.wake, u64::MAX));
        self.set_end(entry.partition, slot, (entry.end(), None));
        self.at_mut(slot).version = Version(0);
        self.free.push(slot);
        true
    }

    fn set_timer(&mut self, partition: Partition, slot: Slot, (before, after): (u64, u64)) {
        if before == after {
            return;
        }
        let timers = self.timers.entry(partition).or_default();
        if before != u64::MAX {
            timers.remove(&(before, slot));
        }
        if after != u64::MAX {
            timers.insert((after, slot));
        }
    }

    fn set_end(
        &mut self,
        partition: Partition,
        slot: Slot,
        (before, after): (Option<Timestamp>, Option<Timestamp>),
    ) {
        if before == after {
            return;
        }
        let ended = self.ended.entry(partition).or_default();
        if let Some(before) = before {
            ended.remove(&(before, slot));
        }
        if let Some(after) = after {
            ended.insert((after, slot));
        }
    }

    /// Sagas of a partition that ended before that moment, the first to end first. Looks at no others.
    pub(super) fn ended(
        &self,
        partition: Partition,
        before: Timestamp,
        limit: usize,
    ) -> Vec<Entry> {
        let Some(ended) = self.ended.get(&partition) else {
            return Vec::new();
        };
        let found = ended.range(..(before, 0)).take(limit);
        found.map(|(_, slot)| *self.at(*slot)).collect()
    }

    /// The number of a name.
    pub(super) fn name(&mut self, name: &str) -> NameId {
        if let Some(id) = self.name_ids.get(name) {
            return *id;
        }
        let (name, id) = (
            Arc::<str>::from(name),
            super::bytes::length(self.names.len()),
        );
        self.names.push(Arc::clone(&name));
        self.name_ids.insert(name, id);
        id
    }

    pub(super) fn timers(&self, partition: Partition, now: Timestamp, limit: usize) -> Vec<Timer> {
        let Some(timers) = self.timers.get(&partition) else {
            return Vec::new();
        };
        let due = timers
            .range(..=(wake_code(Some(now)), Slot::MAX))
            .take(limit);
        due.map(|&(at, slot)| Timer {
            at: Timestamp::from_unix_nanos(at),
            saga: self.at(slot).saga,
        })
        .collect()
    }

    /// Adds to a page what passes among the next sagas.
    pub(super) fn list(&self, filter: &Filter, page: &mut Vec<Summary>) -> Listed {
        use std::ops::Bound::{Excluded, Unbounded};
        let first = filter.after.map_or(Unbounded, Excluded);
        // A name that no saga ever had has no number.
        let known = filter.definition.as_ref();
        let known = known.map(|name| self.name_ids.get(name).copied());
        let definition = match known {
            Some(None) => return Listed::default(),
            Some(number) => number,
            None => None,
        };
        let (mut last, mut newest) = (None, Place::NONE);
        let entries = self.slots.range((first, Unbounded)).take(LISTED_AT_ONCE);
        let entries = entries.map(|(saga, slot)| {
            let entry = self.at(*slot);
            last = Some(*saga);
            newest = newest.max(entry.last);
            entry
        });
        let passes = |entry: &&Entry| {
            filter.status.is_none_or(|wanted| wanted == entry.status)
                && (filter.open == Open::Any || !entry.status.is_terminal())
                && definition.is_none_or(|wanted| wanted == entry.definition)
                && filter
                    .partition
                    .is_none_or(|wanted| wanted == entry.partition)
        };
        let left = filter.limit.saturating_sub(page.len());
        let found = entries.filter(passes).take(left);
        page.extend(found.map(|entry| {
            Summary {
                saga: entry.saga,
                definition: self
                    .names
                    .get(entry.definition as usize)
                    .map_or_else(|| Arc::from(""), Arc::clone),
                status: entry.status,
                version: entry.version,
                wake: wake_of(entry.wake),
                updated: entry.updated,
                partition: entry.partition,
            }
        }));
        Listed {
            last: last.filter(|_| page.len() < filter.limit),
            newest,
        }
    }

    /// Where the first frame is of those sagas that have not ended.
    pub(super) fn oldest_open(&self) -> Option<Place> {
        let entries = self.chunks.iter().flat_map(|chunk| chunk.iter());
        let open = entries.filter(|entry| !entry.is_free() && !entry.status.is_terminal());
        open.map(|entry| entry.first).min()
    }

    /// The entries as they are now; costs a pointer for each chunk.
    pub(super) fn image(&self) -> Image {
        Image {
            chunks: self.chunks.clone(),
            names: self.names.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 96);
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_unix_nanos(second * 1_000_000_000)
    }

    fn saga(number: u64) -> SagaId {
        SagaId::from_parts(at(1), u128::from(number))
    }

    fn entry(number: u64, updated: u64, status: Status) -> Entry {
        Entry {
            saga: saga(number),
            key: KeyHash::NONE,
            version: Version(1),
            updated: at(updated),
            wake: u64::MAX,
            first: Place::new(1, 64),
            last: Place::new(1, 64),
            snapshot: Place::NONE,
            snapshot_length: 0,
            partition: Partition(u32::from(number.is_multiple_of(2))),
            definition: 0,
            status,
        }
    }

    #[test]
    fn those_that_ended_are_found_by_when_until_they_are_forgotten() {
        let mut index = Index::default();
        let entries = [
            entry(1, 9, Status::Completed),
            entry(3, 2, Status::Started),
            entry(5, 4, Status::Compensated),
            entry(7, 3, Status::Completed),
            entry(9, 12, Status::Completed),
            entry(2, 1, Status::Completed),
        ];
        for entry in entries {
            index.restore(entry);
        }
        let ended = |index: &Index, before, limit| {
            let found = index.ended(Partition(0), at(before), limit);
            found.iter().map(|entry| entry.saga).collect::<Vec<_>>()
        };
        assert_eq!(ended(&index, 12, 9), [saga(7), saga(5), saga(1)]);
        assert_eq!(ended(&index, 12, 2), [saga(7), saga(5)]);
        assert_eq!(ended(&index, 4, 9), [saga(7)]);
        assert!(index.forget(saga(7)));
        assert_eq!(ended(&index, 12, 1), [saga(5)]);
        // Its slot is somebody else's now.
        index.restore(entry(11, 1, Status::Started));
        assert_eq!(ended(&index, 99, 9), [saga(5), saga(1), saga(9)]);
        for number in [1, 5, 9] {
            assert!(index.forget(saga(number)));
        }
        assert!(index.ended.values().map(BTreeSet::len).sum::<usize>() == 1);
    }
}
