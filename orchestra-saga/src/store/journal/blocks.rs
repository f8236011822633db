//! Parts of segments that are read from again and again.
//!
//! Whoever continues many sagas reads one short frame here and one there, most of them near each other: sagas
//! that began together stand together. The second read from a part of a segment reads all of it, and those
//! that follow ask the operating system for nothing. Reads that are far apart cost what they cost without.

use std::collections::{HashMap, VecDeque};
use std::io;

use parking_lot::Mutex;

use super::disk::read_full;
use super::place::Place;
use super::segment::{Name, Opened};

/// The length of a part.
const BLOCK: u32 = 64 << 10;
/// Parts that are kept.
const MOST: usize = 24;
/// Parts of which it is known that they were read from lately.
const REMEMBERED: usize = 64;

/// A part of a segment, by its number.
type Key = (Name, u32);

/// Keeps the parts that were read last.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// How often one was asked for.
    asked: u64,
    /// And when each was, in that count.
    blocks: HashMap<Key, (u64, Vec<u8>)>,
    lately: VecDeque<Key>,
}

/// What is to be done about a part.
enum Plan {
    /// The frame was copied, and is so long.
    Done(usize),
    /// Nobody else reads from it, or it does not hold the frame whole.
    Leave,
    Read,
}

impl Kept {
    /// Copies the frame at an offset of the part, if the part has all of it.
    fn copy(&mut self, key: Key, offset: u32, frame: &mut [u8]) -> Plan {
        self.asked += 1;
        let Some((asked, block)) = self.blocks.get_mut(&key) else {
            return self.plan(key);
        };
        *asked = self.asked;
        let found = block.get(offset as usize..).and_then(|rest| {
            let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
            let found = rest.get(..length)?;
            frame.get_mut(..length)?.copy_from_slice(found);
            Some(length)
        });
        found.map_or(Plan::Leave, Plan::Done)
    }

    fn plan(&mut self, key: Key) -> Plan {
        if self.lately.contains(&key) {
            return Plan::Read;
        }
        if self.lately.len() >= REMEMBERED {
            self.lately.pop_front();
        }
        self.lately.push_back(key);
        Plan::Leave
    }

    fn keep(&mut self, key: Key, block: Vec<u8>) {
        if self.blocks.len() >= MOST
            && let Some(oldest) = self.blocks.iter().min_by_key(|(_, (asked, _))| *asked)
        {
            let oldest = *oldest.0;
            self.blocks.remove(&oldest);
        }
        self.blocks.insert(key, (self.asked, block));
    }
}

impl Blocks {
    /// Copies the frame at an offset to the front of the bytes, and says how long it is; none if it has to
    /// be read by itself. A part that goes on behind the durable place may change and is not kept.
    pub(super) fn copy(
        &self,
        segment: &Opened,
        offset: u32,
        durable: Place,
        frame: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let (key, begin) = ((segment.name, offset / BLOCK), offset / BLOCK * BLOCK);
        let plan = self.0.lock().copy(key, offset - begin, frame);
        match plan {
            Plan::Done(length) => return Ok(Some(length)),
            Plan::Leave => return Ok(None),
            Plan::Read => {}
        }
        let length = BLOCK.min(segment.end.saturating_sub(begin));
        if segment.name.last >= durable.segment()
            && Place::new(segment.name.last, begin + length) > durable
        {
            return Ok(None);
        }
        let mut block = vec![0; length as usize];
        let read = read_full(&*segment.file, &mut block, u64::from(begin))?;
        block.truncate(read);
        let mut kept = self.0.lock();
        kept.keep(key, block);
        match kept.copy(key, offset - begin, frame) {
            Plan::Done(length) => Ok(Some(length)),
            Plan::Leave | Plan::Read => Ok(None),
        }
    }
}
