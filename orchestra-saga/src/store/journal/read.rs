//! Reading the log: one saga backwards, or everything forwards.

use std::sync::Arc;

use super::core::Core;
use super::disk::read_full;
use super::frame::{self, HEADER, Header, Kind};
use super::index::Entry;
use super::place::Place;
use super::segment::{FRONT, Found, Opened, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Recorded;
use crate::id::{SagaId, Version};
use crate::store::{Entry as StreamEntry, Position};

/// Bytes read at once for one frame, in the hope that it is no longer.
const GUESS: usize = 1024;
/// Frames whose sagas are looked up under one hold of the lock.
const BATCH: usize = 64;

/// What frames are read into, one after the other: whoever continues many sagas does not ask for memory
/// for each of their frames.
pub(super) struct Buffer {
    guess: [u8; GUESS],
    /// A frame that is longer.
    long: Vec<u8>,
}

impl Buffer {
    pub(super) const fn new() -> Self {
        Self {
            guess: [0; GUESS],
            long: Vec::new(),
        }
    }
}

/// A frame and its body.
pub(super) struct Frame<'a> {
    pub(super) header: Header,
    bytes: &'a [u8],
    segment: Arc<Opened>,
    offset: u32,
}

impl Frame<'_> {
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(HEADER as usize..).unwrap_or_default()
    }

    pub(super) fn corrupt(&self, what: &str) -> Error {
        self.segment.corrupt(self.offset, what)
    }
}

impl Core {
    /// The open file that a place is in; retried where compaction has just replaced it.
    fn segment(&self, place: Place) -> Result<Arc<Opened>> {
        let mut last = None;
        for _ in 0..3 {
            let Some(name) = self.state().log.table.find(place.segment()).map(|s| s.name) else {
                break;
            };
            match self.files.open(name) {
                Err(error) if error.kind() == ErrorKind::Store => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| {
            let message = format!("saga store: no segment has the place {place}");
            Error::corrupt(message)
        }))
    }

    /// The frame at a place.
    pub(super) fn frame<'a>(&self, place: Place, buffer: &'a mut Buffer) -> Result<Frame<'a>> {
        let segment = self.segment(place)?;
        let mut offset = segment.seek(place);
        let header = loop {
            let header = read_one(self, &segment, offset, buffer)?;
            if header.place == place {
                break header;
            }
            if header.place > place || !segment.is_packed() {
                let what = format!("the frame of place {place} is missing");
                return Err(segment.corrupt(offset, &what));
            }
            offset += header.length;
        };
        let length = header.length as usize;
        let bytes = buffer.guess.get(..length);
        let bytes = bytes.or_else(|| buffer.long.get(..length));
        Ok(Frame {
            header,
            bytes: bytes.unwrap_or_default(),
            segment,
            offset,
        })
    }

    /// The batches of a saga from the last back to the one that holds the version after `after`, last first.
    pub(super) fn chain(
        &self,
        saga: SagaId,
        last: Place,
        after: Version,
        mut visit: impl FnMut(&Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut place = last;
        let mut buffer = Buffer::new();
        loop {
            let frame = self.frame(place, &mut buffer)?;
            let Header {
                kind,
                saga: found,
                version,
                previous,
                ..
            } = frame.header;
            if kind != Kind::Append || found != saga {
                return Err(frame.corrupt("a batch of another saga").of(saga));
            }
            visit(&frame)?;
            if version <= after {
                return Ok(());
            }
            if previous >= place || previous == Place::NONE {
                return Err(frame.corrupt("a batch without the one before it").of(saga));
            }
            place = previous;
        }
    }

    /// The events after a version.
    pub(super) fn events(&self, entry: &Entry, after: Version) -> Result<Vec<Recorded>> {
        let mut batches = Vec::new();
        self.chain(entry.saga, entry.last, after, |frame| {
            let skip = after.0.saturating_sub(frame.header.version.0);
            let events = frame::read_events(&frame.header, frame.body(), skip);
            batches.push(events?);
            Ok(())
        })?;
        let mut events = batches.pop().unwrap_or_default();
        while let Some(more) = batches.pop() {
            events.extend(more);
        }
        Ok(events)
    }

    /// The events of all sagas after a position that are durable.
    pub(super) fn stream(&self, after: Position, limit: usize) -> Result<Vec<StreamEntry>> {
        let durable = self.durable();
        let (mut place, mut skip) = split(after);
        let mut entries = Vec::new();
        while entries.len() < limit && place < durable {
            let found = self.state().log.table.find_from(place.segment()).copied();
            let Some(found) = found else {
                break;
            };
            let segment = match self.files.open(found.name) {
                Ok(segment) => segment,
                // Replaced meanwhile: the table knows by what.
                Err(_) if self.state().log.table.find(found.name.first) != Some(&found) => continue,
                Err(error) => return Err(error),
            };
            if place.segment() < found.name.first {
                (place, skip) = (Place::new(found.name.first, FRONT), 0);
            }
            let mut scan = Scan::new(segment, durable);
            scan.seek(place)?;
            while entries.len() < limit {
                let batch = scan.batch(place)?;
                if batch.is_empty() {
                    break;
                }
                for (header, body) in self.living(batch) {
                    if entries.len() >= limit {
                        break;
                    }
                    let skipped = if header.place == place { skip } else { 0 };
                    let numbers = skipped + 1..;
                    let events = frame::read_events(&header, &body, skipped)?;
                    let events = numbers.zip(events).map(|(number, recorded)| {
                        StreamEntry::new(join(header.place, number), header.saga, recorded)
                    });
                    entries.extend(events.take(limit - entries.len()));
                }
            }
            (place, skip) = (Place::new(found.name.last.saturating_add(1), FRONT), 0);
        }
        Ok(entries)
    }

    /// Those whose sagas were not purged.
    fn living(&self, batch: Vec<(Header, Vec<u8>)>) -> Vec<(Header, Vec<u8>)> {
        let state = self.state();
        let living = batch
            .into_iter()
            .filter(|(header, _)| state.log.is_live(header, None));
        living.collect()
    }
}

/// Reads a frame into the buffer, whole, in front.
fn read_one(core: &Core, segment: &Opened, offset: u32, buffer: &mut Buffer) -> Result<Header> {
    let fail = |source| segment.failed("reading", source);
    let Buffer { guess, long } = buffer;
    let copied = core.blocks.copy(segment, offset, core.durable(), guess);
    let known = match copied.map_err(fail)? {
        Some(length) => length,
        None => read_full(&*segment.file, guess, u64::from(offset)).map_err(fail)?,
    };
    let known = guess.get(..known).unwrap_or_default();
    let Some(header) = Header::decode(known) else {
        return Err(segment.corrupt(offset, "a header makes no sense"));
    };
    if header.length > segment.end.saturating_sub(offset) {
        return Err(segment.corrupt(offset, "a frame is longer than its segment"));
    }
    let length = header.length as usize;
    let bytes = if length <= GUESS {
        known.get(..length).unwrap_or(known)
    } else {
        long.clear();
        long.extend_from_slice(known);
        long.resize(length, 0);
        if let Some(rest) = long.get_mut(known.len()..) {
            let offset = u64::from(offset) + known.len() as u64;
            let _count = read_full(&*segment.file, rest, offset).map_err(fail)?;
        }
        long
    };
    let body = bytes.get(HEADER as usize..).unwrap_or_default();
    if !header.covers(body) {
        return Err(segment.corrupt(offset, "a body does not have its checksum"));
    }
    Ok(header)
}

/// Frames of a segment one after the other, up to what is durable.
struct Scan {
    segment: Arc<Opened>,
    window: Window,
    offset: u32,
    durable: Place,
    over: bool,
}

impl Scan {
    fn new(segment: Arc<Opened>, durable: Place) -> Self {
        Self {
            window: Window::new(Arc::clone(&segment.file)),
            offset: FRONT,
            durable,
            segment,
            over: false,
        }
    }

    /// Goes to where a frame begins, at the place or before it. A place that somebody made up may be in
    /// the middle of a frame.
    fn seek(&mut self, place: Place) -> Result<()> {
        let offset = self.segment.seek(place);
        if !self.segment.is_packed() && offset != FRONT {
            let found = self.window.frame(offset, self.segment.end);
            let found = found.map_err(|source| self.segment.failed("reading", source))?;
            let sound = matches!(found, Found::Frame(header, ..) if header.place == place);
            self.offset = if sound { offset } else { FRONT };
        } else {
            self.offset = offset;
        }
        Ok(())
    }

    /// The next batches of sagas from that place on.
    fn batch(&mut self, from: Place) -> Result<Vec<(Header, Vec<u8>)>> {
        let mut batch = Vec::new();
        let end = self.segment.end;
        while batch.len() < BATCH && !self.over && self.offset < end {
            if !self.segment.is_packed()
                && self.durable.segment() == from.segment()
                && self.offset >= self.durable.offset()
            {
                break;
            }
            let found = self.window.frame(self.offset, end);
            let found = found.map_err(|source| self.segment.failed("reading", source))?;
            let (header, body) = match found {
                Found::Frame(header, body) => (header, body),
                Found::Bad(what) => return Err(self.segment.corrupt(self.offset, what)),
            };
            self.offset += header.length;
            self.over = header.kind == Kind::Seal || header.end() >= self.durable;
            if header.kind == Kind::Append && header.place >= from && header.place < self.durable {
                batch.push((header, body.to_vec()));
            }
        }
        Ok(batch)
    }
}

/// Bits of a position that count the events of a frame.
const EVENT_BITS: u32 = 32;

fn join(place: Place, number: u64) -> Position {
    Position::from_u128((u128::from(place.raw()) << EVENT_BITS) | u128::from(number))
}

/// A frame, and how many of its events have been passed.
fn split(position: Position) -> (Place, u64) {
    let number = position.as_u128();
    let place = u64::try_from(number >> EVENT_BITS).unwrap_or(u64::MAX);
    let passed = u64::try_from(number & u128::from(u32::MAX)).unwrap_or_default();
    (Place::from_raw(place), passed)
}
