//! The files of the log.
//!
//! A segment is written once from front to back, in a file that was filled with zeros beforehand: an
//! `fdatasync` of it has no metadata to write, and zeros after the last frame are a clean end. What is
//! rewritten without the frames that nobody needs ("packed") may stand for several segments. Its frames
//! keep their places; a directory behind them says where some of them are in the file, and its file name
//! has a higher generation than those that it replaces.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bytes::Cursor;
use super::disk::{Disk, DiskFile, read_full, write_full};
use super::frame::{HEADER, Header};
use super::front::{JournalId, Mark};
use super::place::Place;
use crate::error::{Error, ErrorKind, Result};

/// The length of a segment's own header.
pub(super) const FRONT: u32 = 64;
const FRONT_BYTES: usize = FRONT as usize;
/// At least so many bytes of a packed segment lie between places of its directory.
const STRIDE: u32 = 4096;
/// Bytes read at a time.
const WINDOW: usize = 1 << 20;
/// And at first.
const LEAST_WINDOW: usize = 16 << 10;

/// Which segments a file stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    pub(super) first: u32,
    pub(super) last: u32,
    /// How often it was rewritten.
    pub(super) generation: u32,
}

impl Name {
    /// A segment that is still to be written.
    pub(super) const fn fresh(number: u32) -> Self {
        Self {
            first: number,
            last: number,
            generation: 0,
        }
    }

    pub(super) fn file(self) -> String {
        let Self {
            first,
            last,
            generation,
        } = self;
        format!("segment-{first:08x}-{last:08x}-{generation:08x}")
    }

    pub(super) fn parse(file: &str) -> Option<Self> {
        let mut parts = file.strip_prefix("segment-")?.split('-');
        let mut number = || u32::from_str_radix(parts.next()?, 16).ok();
        let name = Self {
            first: number()?,
            last: number()?,
            generation: number()?,
        };
        (name.file() == file && name.first <= name.last && name.first > 0).then_some(name)
    }

    /// Whether this one was replaced by the other.
    pub(super) const fn is_replaced_by(self, other: Self) -> bool {
        other.first <= self.first && self.last <= other.last && self.generation < other.generation
    }
}

/// A segment's file, and how much of it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) name: Name,
    /// The bytes of its frames; for the one that is written the room for them.
    pub(super) total: u64,
    /// The bytes of those that somebody needs.
    pub(super) live: u64,
}

/// All segments, by the first that each file stands for.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(BTreeMap<u32, Segment>);

impl Table {
    pub(super) fn insert(&mut self, segment: Segment) {
        self.0.insert(segment.name.first, segment);
    }

    pub(super) fn remove(&mut self, first: u32) {
        self.0.remove(&first);
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Segment> + Clone {
        self.0.values()
    }

    /// The file of a segment.
    pub(super) fn find(&self, number: u32) -> Option<&Segment> {
        let (_, found) = self.0.range(..=number).next_back()?;
        (number <= found.name.last).then_some(found)
    }

    /// The file of a segment, or of the next there is.
    pub(super) fn find_from(&self, number: u32) -> Option<&Segment> {
        self.find(number)
            .or_else(|| self.0.range(number..).next().map(|(_, found)| found))
    }

    fn find_mut(&mut self, number: u32) -> Option<&mut Segment> {
        let (_, found) = self.0.range_mut(..=number).next_back()?;
        (number <= found.name.last).then_some(found)
    }

    pub(super) fn add_live(&mut self, place: Place, length: u32) {
        if let Some(found) = self.find_mut(place.segment()) {
            found.live += u64::from(length);
        }
    }

    pub(super) fn free(&mut self, segment: u32, bytes: u64) {
        if let Some(found) = self.find_mut(segment) {
            found.live = found.live.saturating_sub(bytes);
        }
    }
}

/// Where some of the frames of a packed segment are in its file, in the order of their places.
type Directory = Vec<(Place, u32)>;

/// An open segment.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) name: Name,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Where frames end; for a fresh segment where its room does.
    pub(super) end: u32,
    pub(super) journal: JournalId,
    /// None where every frame is at its place.
    directory: Option<Directory>,
}

/// An error of a file, as an error of the store.
pub(super) fn failed(path: &Path, what: &str, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Store,
    };
    let message = format!("saga store: {what} {} failed: {source}", path.display());
    Error::new(kind, message).caused_by(source)
}

/// A file makes no sense at an offset.
pub(super) fn corrupt(path: &Path, offset: u32, what: &str) -> Error {
    let path = path.display();
    Error::corrupt(format!("saga store: {what} at byte {offset} of {path}"))
}

/// The header of a segment.
fn front(journal: JournalId, name: Name, end: u32, directory: u32) -> [u8; FRONT_BYTES] {
    let mut bytes = Vec::with_capacity(FRONT_BYTES);
    bytes.extend_from_slice(&Mark::Segment.bytes());
    for number in [name.first, name.last, name.generation, end, directory] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&journal.0);
    bytes.resize(FRONT_BYTES - 4, 0);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.first_chunk().copied().unwrap_or([0; FRONT_BYTES])
}

/// What the header of a segment says.
struct Front {
    journal: JournalId,
    /// Where its frames end.
    end: u32,
    /// How many places its directory has.
    places: u32,
}

/// Refuses another format; none if it is no header of this segment.
fn read_front(bytes: &[u8], name: Name, path: &Path) -> Result<Option<Front>> {
    let Some(checked) = checked(bytes).filter(|_| bytes.len() == FRONT_BYTES) else {
        return Ok(None);
    };
    let mut cursor = Cursor(checked);
    if !Mark::Segment.read(&mut cursor, path)? {
        return Ok(None);
    }
    let mut rest = || {
        let found = Name {
            first: cursor.u32()?,
            last: cursor.u32()?,
            generation: cursor.u32()?,
        };
        let (end, places) = (cursor.u32()?, cursor.u32()?);
        let journal = JournalId(cursor.array()?);
        let front = Front {
            journal,
            end,
            places,
        };
        (found == name && end >= FRONT).then_some(front)
    };
    Ok(rest())
}

/// What stands before a checksum, if it is the right one.
pub(super) fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (checked, crc) = bytes.split_last_chunk::<4>()?;
    (crc32fast::hash(checked) == u32::from_le_bytes(*crc)).then_some(checked)
}

impl Opened {
    /// Opens a segment of a journal, whichever if none is named.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        name: Name,
        journal: Option<JournalId>,
    ) -> Result<Self> {
        let path = dir.join(name.file());
        let file = disk
            .open(&path)
            .map_err(|source| failed(&path, "opening", source))?;
        let fail = |source| failed(&path, "reading", source);
        let mut bytes = [0; FRONT_BYTES];
        let count = read_full(&*file, &mut bytes, 0).map_err(fail)?;
        let front = read_front(bytes.get(..count).unwrap_or_default(), name, &path)?;
        let Some(Front {
            journal: found,
            end,
            places,
        }) = front
        else {
            return Err(corrupt(&path, 0, "a header makes no sense"));
        };
        if let Some(journal) = journal.filter(|journal| *journal != found) {
            let what = format!("a header of journal {found}, where {journal} is expected,");
            return Err(corrupt(&path, 0, &what));
        }
        let length = file.length().map_err(fail)?;
        if length < u64::from(end) {
            return Err(corrupt(&path, end, "the file is cut off"));
        }
        let directory = if name.generation == 0 {
            None
        } else {
            let mut bytes = vec![0; places as usize * 12 + 4];
            let count = read_full(&*file, &mut bytes, u64::from(end)).map_err(fail)?;
            let directory = read_directory(bytes.get(..count).unwrap_or_default());
            let directory = directory.filter(|directory| directory.len() == places as usize);
            Some(directory.ok_or_else(|| corrupt(&path, end, "a directory makes no sense"))?)
        };
        Ok(Self {
            name,
            path,
            file,
            end,
            journal: found,
            directory,
        })
    }

    /// An offset in the file at or before the first frame that is not before this place.
    pub(super) fn seek(&self, place: Place) -> u32 {
        match &self.directory {
            None => place.offset().max(FRONT),
            Some(directory) => {
                let after = directory.partition_point(|(known, _)| *known <= place);
                let before = after.checked_sub(1).and_then(|at| directory.get(at));
                before.map_or(FRONT, |(_, offset)| *offset)
            }
        }
    }

    pub(super) const fn is_packed(&self) -> bool {
        self.directory.is_some()
    }

    pub(super) fn corrupt(&self, offset: u32, what: &str) -> Error {
        corrupt(&self.path, offset, what)
    }

    pub(super) fn failed(&self, what: &str, source: io::Error) -> Error {
        failed(&self.path, what, source)
    }
}

fn read_directory(bytes: &[u8]) -> Option<Directory> {
    let mut cursor = Cursor(checked(bytes)?);
    let mut directory = Directory::new();
    while !cursor.0.is_empty() {
        directory.push((Place::from_raw(cursor.u64()?), cursor.u32()?));
    }
    directory.is_sorted().then_some(directory)
}

/// Makes a segment of zeros under its name, durably; it is not seen before it is whole.
pub(super) fn prepare(
    disk: &dyn Disk,
    dir: &Path,
    journal: JournalId,
    number: u32,
    capacity: u32,
) -> io::Result<Arc<dyn DiskFile>> {
    let name = Name::fresh(number);
    let (path, made) = (
        dir.join(name.file()),
        dir.join(format!("{}.tmp", name.file())),
    );
    let fill = || {
        let file = disk.create(&made)?;
        let zeros = vec![0; WINDOW.min(capacity as usize)];
        let mut offset = 0;
        while offset < capacity {
            let step = zeros.len().min((capacity - offset) as usize);
            write_full(
                &*file,
                zeros.get(..step).unwrap_or_default(),
                u64::from(offset),
            )?;
            offset += super::bytes::length(step);
        }
        write_full(&*file, &front(journal, name, capacity, 0), 0)?;
        file.sync()?;
        Ok::<_, io::Error>(file)
    };
    let file = fill().inspect_err(|_error| {
        // What room it took is of use to others.
        let _gone = disk.remove(&made);
    })?;
    disk.rename(&made, &path)?;
    disk.sync_dir(dir)?;
    Ok(file)
}

/// Writes a packed segment. It is not seen before [`Packer::finish`].
pub(super) struct Packer<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    journal: JournalId,
    name: Name,
    file: Arc<dyn DiskFile>,
    made: PathBuf,
    buffer: Vec<u8>,
    written: u32,
    directory: Directory,
}

impl<'a> Packer<'a> {
    pub(super) fn begin(
        disk: &'a dyn Disk,
        dir: &'a Path,
        journal: JournalId,
        name: Name,
    ) -> Result<Self> {
        let made = dir.join(format!("{}.tmp", name.file()));
        let file = disk
            .create(&made)
            .map_err(|source| failed(&made, "creating", source))?;
        Ok(Self {
            disk,
            dir,
            journal,
            name,
            file,
            made,
            buffer: vec![0; FRONT_BYTES],
            written: 0,
            directory: Directory::new(),
        })
    }

    fn end(&self) -> u32 {
        self.written + super::bytes::length(self.buffer.len())
    }

    pub(super) fn push(&mut self, place: Place, frame: &[u8]) -> Result<()> {
        let at = self.end();
        let far = |(_, last): &(Place, u32)| at - last >= STRIDE;
        if self.directory.last().is_none_or(far) {
            self.directory.push((place, at));
        }
        self.buffer.extend_from_slice(frame);
        if self.buffer.len() >= WINDOW {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        write_full(&*self.file, &self.buffer, u64::from(self.written))
            .map_err(|source| failed(&self.made, "writing", source))?;
        self.written = self.end();
        self.buffer.clear();
        Ok(())
    }

    /// Makes it whole and durable, though not seen. Returns the bytes of its frames.
    pub(super) fn finish(&mut self) -> Result<u64> {
        let end = self.end();
        let mut bytes = Vec::with_capacity(self.directory.len() * 12);
        for (place, offset) in &self.directory {
            bytes.extend_from_slice(&place.raw().to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes);
        self.buffer.extend_from_slice(&bytes);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.flush()?;
        let places = super::bytes::length(self.directory.len());
        let front = front(self.journal, self.name, end, places);
        let fail = |source| failed(&self.made, "writing", source);
        write_full(&*self.file, &front, 0).map_err(fail)?;
        self.file.sync().map_err(fail)?;
        Ok(u64::from(end - FRONT))
    }

    /// Gives it its name.
    pub(super) fn publish(&self) -> Result<()> {
        let path = self.dir.join(self.name.file());
        self.disk
            .rename(&self.made, &path)
            .and_then(|()| self.disk.sync_dir(self.dir))
            .map_err(|source| failed(&path, "naming", source))
    }

    /// Takes it away again.
    pub(super) fn abandon(&self) {
        let _gone = self.disk.remove(&self.made);
    }
}

/// Reads a file through a window that slides.
#[derive(Debug)]
pub(super) struct Window {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    begin: u64,
}

/// What is at an offset.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A frame.
    Frame(Header, &'a [u8]),
    /// No frame, and what is wrong with it.
    Bad(&'static str),
}

impl Window {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            begin: 0,
        }
    }

    /// So many bytes from there on; fewer where the file ends.
    pub(super) fn bytes(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let end = self.begin + self.buffer.len() as u64;
        if offset < self.begin || offset + count as u64 > end {
            // Whoever reads on reads more at a time.
            let step = (self.buffer.len() * 2).clamp(LEAST_WINDOW, WINDOW);
            self.buffer.resize(count.max(step), 0);
            let read = read_full(&*self.file, &mut self.buffer, offset)?;
            self.buffer.truncate(read);
            self.begin = offset;
        }
        let skip = usize::try_from(offset - self.begin).unwrap_or(usize::MAX);
        let rest = self.buffer.get(skip..).unwrap_or_default();
        Ok(rest.get(..count).unwrap_or(rest))
    }

    /// The frame at an offset before `end`.
    pub(super) fn frame(&mut self, offset: u32, end: u32) -> io::Result<Found<'_>> {
        let front = self.bytes(u64::from(offset), HEADER as usize)?;
        let Some(header) = Header::decode(front) else {
            return Ok(Found::Bad("a header makes no sense"));
        };
        if header.length > end.saturating_sub(offset) {
            return Ok(Found::Bad("a frame is longer than its segment"));
        }
        let bytes = self.bytes(u64::from(offset), header.length as usize)?;
        let body = bytes.get(HEADER as usize..).unwrap_or_default();
        if !header.covers(body) {
            return Ok(Found::Bad("a body does not have its checksum"));
        }
        Ok(Found::Frame(header, body))
    }
}
