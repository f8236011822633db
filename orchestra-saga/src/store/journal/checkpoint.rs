//! What is known at one place of the log, in a file, so that a start reads the log only from there.
//!
//! Two are kept. The older one stands in where the younger cannot be read, and the log after it is
//! rewritten by nobody.

use std::io;
use std::path::Path;
use std::sync::Arc;

use orchestra_core::Timestamp;

use super::bytes::{Cursor, length, put_block};
use super::disk::{Disk, DiskFile, read_full, write_full};
use super::frame::{status_code, status_of};
use super::front::{JournalId, Mark};
use super::index::{Entry, Image, KeyHash};
use super::log::{Kept, Log};
use super::place::Place;
use super::segment::{Name, Segment, Table, checked, failed};
use crate::error::Result;
use crate::id::{Epoch, Partition, SagaId, Version};

/// Bytes written at a time.
const STEP: usize = 1 << 20;

/// What a checkpoint holds.
#[derive(Debug, Clone)]
pub(super) struct Checkpoint {
    /// Everything before it is in.
    pub(super) place: Place,
    epochs: Vec<(Partition, Epoch)>,
    definitions: Vec<(Arc<str>, Kept)>,
    table: Table,
    image: Image,
}

pub(super) fn file(place: Place) -> String {
    format!("checkpoint-{:016x}", place.raw())
}

pub(super) fn parse(file: &str) -> Option<Place> {
    let number = file.strip_prefix("checkpoint-")?;
    let place = Place::from_raw(u64::from_str_radix(number, 16).ok()?);
    (self::file(place) == file).then_some(place)
}

/// A file without content that a clean close leaves: nothing follows the checkpoint of this place.
pub(super) fn closed_file(place: Place) -> String {
    format!("closed-{:016x}", place.raw())
}

pub(super) fn parse_closed(file: &str) -> Option<Place> {
    let number = file.strip_prefix("closed-")?;
    let place = Place::from_raw(u64::from_str_radix(number, 16).ok()?);
    (closed_file(place) == file).then_some(place)
}

impl Checkpoint {
    /// What is known now, of the log up to this place. Quick: entries are shared, not copied.
    pub(super) fn of(log: &Log, place: Place) -> Self {
        let definitions = log.definitions.iter();
        Self {
            place,
            epochs: log.epochs.iter().map(|(id, epoch)| (*id, *epoch)).collect(),
            definitions: definitions
                .map(|(hash, kept)| (Arc::clone(hash), *kept))
                .collect(),
            table: log.table.clone(),
            image: log.index.image(),
        }
    }

    /// Writes it durably under its name. Returns how long it is.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path, journal: JournalId) -> Result<u64> {
        let path = dir.join(file(self.place));
        let made = dir.join(format!("{}.tmp", file(self.place)));
        let write = || {
            let mut out = Out::new(disk.create(&made)?);
            self.encode(&mut out, journal)?;
            let written = out.finish()?;
            disk.rename(&made, &path)?;
            disk.sync_dir(dir)?;
            Ok(written)
        };
        write().map_err(|source| {
            let _gone = disk.remove(&made);
            failed(&path, "writing", source)
        })
    }

    fn encode(&self, out: &mut Out, journal: JournalId) -> io::Result<()> {
        out.put(&Mark::Checkpoint.bytes());
        out.put(&journal.0);
        out.put(&self.place.raw().to_le_bytes());
        out.count(self.epochs.len());
        for (partition, epoch) in &self.epochs {
            out.put(&partition.0.to_le_bytes());
            out.put(&epoch.0.to_le_bytes());
        }
        out.count(self.definitions.len());
        for (hash, kept) in &self.definitions {
            put_block(&mut out.buffer, hash.as_bytes());
            out.put(&kept.place.raw().to_le_bytes());
            out.put(&kept.length.to_le_bytes());
            out.step()?;
        }
        out.count(self.table.iter().count());
        for Segment { name, total, live } in self.table.iter() {
            for number in [name.first, name.last, name.generation] {
                out.put(&number.to_le_bytes());
            }
            out.put(&total.to_le_bytes());
            out.put(&live.to_le_bytes());
            out.step()?;
        }
        out.count(self.image.names.len());
        for name in &self.image.names {
            put_block(&mut out.buffer, name.as_bytes());
            out.step()?;
        }
        out.count(self.image.entries().count());
        for entry in self.image.entries() {
            out.entry(entry);
            out.step()?;
        }
        Ok(())
    }

    /// Reads what a checkpoint holds, and of which journal; nothing if it is not what was written. Refuses
    /// another format.
    pub(super) fn read(
        disk: &dyn Disk,
        dir: &Path,
        place: Place,
    ) -> Result<Option<(JournalId, Log)>> {
        let path = dir.join(file(place));
        let read = || {
            let file = disk.open(&path)?;
            let length = usize::try_from(file.length()?).unwrap_or(usize::MAX);
            let mut bytes = vec![0; length];
            let count = read_full(&*file, &mut bytes, 0)?;
            bytes.truncate(count);
            Ok(bytes)
        };
        let bytes = read().map_err(|source| failed(&path, "reading", source))?;
        let Some(checked) = checked(&bytes) else {
            return Ok(None);
        };
        let mut cursor = Cursor(checked);
        if !Mark::Checkpoint.read(&mut cursor, &path)? {
            return Ok(None);
        }
        let journal = cursor.array().map(JournalId);
        Ok(journal.zip(decode(cursor, place)))
    }
}

fn decode(mut cursor: Cursor<'_>, place: Place) -> Option<Log> {
    if cursor.u64()? != place.raw() {
        return None;
    }
    let mut log = Log::default();
    for _ in 0..cursor.u32()? {
        let partition = Partition(cursor.u32()?);
        log.epochs.insert(partition, Epoch(cursor.u64()?));
    }
    for _ in 0..cursor.u32()? {
        let hash = Arc::from(cursor.text()?);
        let kept = Kept {
            place: Place::from_raw(cursor.u64()?),
            length: cursor.u32()?,
        };
        log.definitions.insert(hash, kept);
    }
    for _ in 0..cursor.u32()? {
        let name = Name {
            first: cursor.u32()?,
            last: cursor.u32()?,
            generation: cursor.u32()?,
        };
        log.table.insert(Segment {
            name,
            total: cursor.u64()?,
            live: cursor.u64()?,
        });
    }
    let mut names = Vec::new();
    for _ in 0..cursor.u32()? {
        names.push(log.index.name(cursor.text()?));
    }
    for _ in 0..cursor.u32()? {
        let entry = entry(&mut cursor)?;
        let _known = names.get(entry.definition as usize)?;
        log.index.restore(entry);
    }
    cursor.0.is_empty().then_some(log)
}

fn entry(cursor: &mut Cursor<'_>) -> Option<Entry> {
    Some(Entry {
        saga: SagaId::from_bytes(cursor.array()?),
        key: KeyHash(cursor.array()?),
        version: Version(cursor.u64()?),
        updated: Timestamp::from_unix_nanos(cursor.u64()?),
        wake: cursor.u64()?,
        first: Place::from_raw(cursor.u64()?),
        last: Place::from_raw(cursor.u64()?),
        snapshot: Place::from_raw(cursor.u64()?),
        snapshot_length: cursor.u32()?,
        partition: Partition(cursor.u32()?),
        definition: cursor.u32()?,
        status: status_of(cursor.u8()?)?,
    })
}

/// A file that is written from front to back, and the checksum of it.
struct Out {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    written: u64,
    crc: crc32fast::Hasher,
}

impl Out {
    fn new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(STEP),
            written: 0,
            crc: crc32fast::Hasher::new(),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn count(&mut self, count: usize) {
        self.put(&length(count).to_le_bytes());
    }

    fn entry(&mut self, entry: &Entry) {
        self.put(&entry.saga.to_bytes());
        self.put(&entry.key.0);
        let numbers = [
            entry.version.0,
            entry.updated.as_unix_nanos(),
            entry.wake,
            entry.first.raw(),
            entry.last.raw(),
            entry.snapshot.raw(),
        ];
        for number in numbers {
            self.put(&number.to_le_bytes());
        }
        for number in [entry.snapshot_length, entry.partition.0, entry.definition] {
            self.put(&number.to_le_bytes());
        }
        self.put(&[status_code(entry.status)]);
    }

    /// Writes what has gathered, if it is much.
    fn step(&mut self) -> io::Result<()> {
        if self.buffer.len() < STEP {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc.update(&self.buffer);
        write_full(&*self.file, &self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        let crc = self.crc.clone().finalize();
        write_full(&*self.file, &crc.to_le_bytes(), self.written)?;
        self.file.sync()?;
        Ok(self.written + 4)
    }
}
