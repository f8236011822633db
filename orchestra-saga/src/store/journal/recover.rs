//! Opening: from the files to what is known, and to where the log goes on.
//!
//! Where the frames end, three things can lie:
//! - zeros up to the end of the last segment: the end;
//! - bytes of a batch that was being written when the power went, in any order and in part. Nobody was
//!   told that it is durable. It is cut off, and said so;
//! - damage to what had been acknowledged. Every frame says up to where the log was durable when it was
//!   written, so a sound frame behind the bad place that says so proves it. The store does not open then:
//!   what was acknowledged cannot be given back by dropping it.
//!
//! Damage to the very last group of frames looks like the second. A store that was closed has a
//! checkpoint behind its last group, which tells them apart; it says so by a file of its own, which is gone
//! before anything is written again, so that nobody looks for an end behind it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{self, Checkpoint};
use super::disk::{Disk, DiskFile, write_full};
use super::frame::{ALIGN, HEADER, Header, Kind};
use super::front::JournalId;
use super::log::Log;
use super::place::Place;
use super::segment::{self, FRONT, Found, Name, Opened, Segment, Window, failed};
use super::{Recovered, Torn};
use crate::error::{Error, Result};

/// A segment that waits to be written.
#[derive(Debug, Clone)]
pub(super) struct Room {
    pub(super) number: u32,
    pub(super) capacity: u32,
    pub(super) file: Arc<dyn DiskFile>,
}

/// What opening finds.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) journal: JournalId,
    pub(super) log: Log,
    /// Where the next frame goes.
    pub(super) tail: Place,
    pub(super) current: Room,
    pub(super) spare: Option<Room>,
    /// The checkpoints that are kept, the older first.
    pub(super) checkpoints: Vec<Place>,
    /// The bytes behind the last of them.
    pub(super) replayed: u64,
    pub(super) report: Recovered,
}

/// Reads a directory, and leaves it ready to be appended to. `room` is the size of a new segment.
pub(super) fn recover(disk: &Arc<dyn Disk>, dir: &Path, room: u32) -> Result<Recovery> {
    disk.create_dir(dir)
        .map_err(|source| failed(dir, "creating", source))?;
    let Listing {
        mut names,
        mut places,
        closed,
    } = look(&**disk, dir)?;
    if names.is_empty() && places.is_empty() {
        create(&**disk, dir, room)?;
        names.insert(Name::fresh(1));
    }
    let Beginning {
        journal,
        log,
        place: begin,
        unread,
    } = beginning(&**disk, dir, &names, &mut places)?;
    reopen(&**disk, dir, &closed)?;
    let mut replay = Replay {
        disk: &**disk,
        dir,
        journal,
        log,
        names,
        report: Recovered::default(),
        replayed: 0,
    };
    replay.take_files(begin)?;
    let (tail, synced) = if closed.contains(&begin) && replay.ends_at(begin)? {
        (begin, begin)
    } else {
        replay.frames(begin)?
    };
    replay.check_missing()?;
    replay.make_durable(synced, tail)?;
    let (current, spare) = replay.rooms(tail, room)?;
    // Until here the log might have turned out to be of no use without them.
    unread.iter().try_for_each(|path| remove(&**disk, path))?;
    let mut report = replay.report;
    report.sagas = replay.log.index.len();
    Ok(Recovery {
        journal,
        log: replay.log,
        tail,
        current,
        spare,
        checkpoints: places.into_iter().collect(),
        replayed: replay.replayed,
        report,
    })
}

/// The first segment of a new journal.
fn create(disk: &dyn Disk, dir: &Path, room: u32) -> Result<()> {
    // Whoever made the directory may have died before its name was durable.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    let synced = match disk.sync_dir(parent) {
        // Nor has such a process made a directory there.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    };
    synced
        .and_then(|()| segment::prepare(disk, dir, JournalId::draw(), 1, room))
        .map(drop)
        .map_err(|source| failed(dir, "preparing a segment in", source))
}

/// Nothing says any more that the log is closed, before anything is written to it.
fn reopen(disk: &dyn Disk, dir: &Path, closed: &BTreeSet<Place>) -> Result<()> {
    if closed.is_empty() {
        return Ok(());
    }
    for place in closed {
        remove(disk, &dir.join(checkpoint::closed_file(*place)))?;
    }
    disk.sync_dir(dir)
        .map_err(|source| failed(dir, "syncing", source))
}

/// The files in a directory.
#[derive(Debug, Default)]
struct Listing {
    names: BTreeSet<Name>,
    /// The checkpoints.
    places: BTreeSet<Place>,
    /// Where it was closed.
    closed: BTreeSet<Place>,
}

/// The files in a directory. What was never finished is taken away.
fn look(disk: &dyn Disk, dir: &Path) -> Result<Listing> {
    let files = disk
        .list(dir)
        .map_err(|source| failed(dir, "listing", source))?;
    let mut listing = Listing::default();
    for file in files {
        if let Some(name) = Name::parse(&file) {
            listing.names.insert(name);
        } else if let Some(place) = checkpoint::parse(&file) {
            listing.places.insert(place);
        } else if let Some(place) = checkpoint::parse_closed(&file) {
            listing.closed.insert(place);
        } else if let Some(made) = file.strip_suffix(".tmp")
            && (Name::parse(made).is_some() || checkpoint::parse(made).is_some())
        {
            remove(disk, &dir.join(file))?;
        }
    }
    Ok(listing)
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    disk.remove(path)
        .map_err(|source| failed(path, "removing", source))
}

/// What is known without reading the log.
struct Beginning {
    journal: JournalId,
    log: Log,
    /// Where the log goes on.
    place: Place,
    /// Checkpoints that cannot be read.
    unread: Vec<PathBuf>,
}

/// What the youngest checkpoint that can be read knows, and where the log goes on after it.
fn beginning(
    disk: &dyn Disk,
    dir: &Path,
    names: &BTreeSet<Name>,
    places: &mut BTreeSet<Place>,
) -> Result<Beginning> {
    let mut unread = Vec::new();
    let mut found = None;
    while let Some(place) = places.last().copied() {
        let path = dir.join(checkpoint::file(place));
        if let Some((journal, log)) = Checkpoint::read(disk, dir, place)? {
            found = Some((journal, log, place));
            break;
        }
        tracing::warn!(file = %path.display(), "a checkpoint cannot be read; what is before it is");
        unread.push(path);
        places.remove(&place);
    }
    // A log that nobody has rewritten says everything by itself.
    let is_whole = (1..)
        .zip(names)
        .all(|(number, name)| *name == Name::fresh(number));
    match (found, unread.first()) {
        (Some((journal, log, place)), _) => Ok(Beginning {
            journal,
            log,
            place,
            unread,
        }),
        (None, Some(path)) if !is_whole => {
            Err(segment::corrupt(path, 0, "a checkpoint makes no sense"))
        }
        (None, _) => {
            let Some(first) = names.first() else {
                let path = dir.join(Name::fresh(1).file());
                return Err(segment::corrupt(&path, 0, "a segment is missing"));
            };
            Ok(Beginning {
                journal: Opened::open(disk, dir, *first, None)?.journal,
                log: Log::default(),
                place: Place::new(1, FRONT),
                unread,
            })
        }
    }
}

struct Replay<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    journal: JournalId,
    log: Log,
    names: BTreeSet<Name>,
    report: Recovered,
    replayed: u64,
}

impl Replay<'_> {
    fn path(&self, name: Name) -> PathBuf {
        self.dir.join(name.file())
    }

    fn open(&self, name: Name) -> Result<Opened> {
        Opened::open(self.disk, self.dir, name, Some(self.journal))
    }

    /// Brings the files that are there together with those that the checkpoint knows.
    fn take_files(&mut self, begin: Place) -> Result<()> {
        let names = self.names.clone();
        for name in &names {
            let by = names.iter().find(|other| name.is_replaced_by(**other));
            if let Some(by) = by {
                // A name alone replaces nothing.
                let _sound = self.open(*by)?;
                remove(self.disk, &self.path(*name))?;
                self.names.remove(name);
            }
        }
        let known = std::mem::take(&mut self.log.table);
        for name in &self.names {
            let total = self.packed_total(*name)?;
            self.log.table.insert(Segment {
                name: *name,
                total,
                live: 0,
            });
        }
        for Segment { name, total, live } in known.iter() {
            match self.log.table.find(name.first).copied() {
                Some(found) => self.log.table.insert(Segment {
                    total: if found.name.generation == 0 {
                        *total
                    } else {
                        found.total
                    },
                    live: found.live + live,
                    ..found
                }),
                // A purge that follows may account for it.
                None => self.log.table.insert(Segment {
                    name: *name,
                    total: 0,
                    live: *live,
                }),
            }
        }
        let first = begin.segment();
        if !self.names.contains(&Name::fresh(first)) {
            return Err(self.missing(Name::fresh(first)));
        }
        Ok(())
    }

    /// About the bytes of the frames of a packed segment; zero for one that is not.
    fn packed_total(&self, name: Name) -> Result<u64> {
        if name.generation == 0 {
            return Ok(0);
        }
        let path = self.path(name);
        let length = self.disk.open(&path).and_then(|file| file.length());
        length.map_err(|source| failed(&path, "opening", source))
    }

    fn missing(&self, name: Name) -> Error {
        segment::corrupt(&self.path(name), 0, "a segment is missing")
    }

    /// Whether everything that somebody needs is there.
    fn check_missing(&mut self) -> Result<()> {
        let gone = self.log.table.iter();
        let gone: Vec<_> = gone
            .filter(|segment| !self.names.contains(&segment.name))
            .copied()
            .collect();
        for segment in gone {
            if segment.live > 0 {
                return Err(self.missing(segment.name));
            }
            self.log.table.remove(segment.name.first);
        }
        Ok(())
    }

    /// Whether nothing follows that place, where a close said so; if anything does, it is not trusted.
    fn ends_at(&mut self, place: Place) -> Result<bool> {
        let opened = self.open(Name::fresh(place.segment()))?;
        let mut window = Window::new(Arc::clone(&opened.file));
        let count = BLOCK.min(opened.end.saturating_sub(place.offset()));
        let rest = window.bytes(u64::from(place.offset()), count as usize);
        let rest = rest.map_err(|source| opened.failed("reading", source))?;
        if Some(rest) != ZEROS.get(..rest.len()) {
            return Ok(false);
        }
        self.set_total(place, u64::from(opened.end - FRONT));
        Ok(true)
    }

    /// Follows all frames from there on. Returns where they end, and up to where they were durable for
    /// certain.
    fn frames(&mut self, begin: Place) -> Result<(Place, Place)> {
        let (mut place, mut synced) = (begin, begin);
        loop {
            let name = Name::fresh(place.segment());
            let opened = self.open(name)?;
            let mut window = Window::new(Arc::clone(&opened.file));
            let sealed = loop {
                if place.offset() + HEADER > opened.end {
                    break false;
                }
                let found = window.frame(place.offset(), opened.end);
                let found = found.map_err(|source| opened.failed("reading", source))?;
                let (header, body) = match found {
                    Found::Frame(header, body) if header.place == place => (header, body),
                    Found::Frame(..) | Found::Bad(_) => break false,
                };
                if self.log.replay(&header, body).is_none() {
                    return Err(opened.corrupt(place.offset(), "a frame does not fit its saga"));
                }
                self.report.frames += 1;
                self.replayed += u64::from(header.length);
                (place, synced) = (header.end(), header.synced);
                if header.kind == Kind::Seal {
                    break true;
                }
            };
            if !sealed {
                self.set_total(place, u64::from(opened.end - FRONT));
                self.cut(&opened, place)?;
                return Ok((place, synced));
            }
            self.set_total(place, u64::from(place.offset() - FRONT));
            let next = Name::fresh(place.segment() + 1);
            if !self.names.contains(&next) {
                return Err(self.missing(next));
            }
            place = Place::new(next.first, FRONT);
        }
    }

    fn set_total(&mut self, place: Place, total: u64) {
        if let Some(found) = self.log.table.find(place.segment()).copied() {
            self.log.table.insert(Segment { total, ..found });
        }
    }

    /// Cuts off what lies behind the last frame, unless it proves that more had been durable.
    fn cut(&mut self, opened: &Opened, end: Place) -> Result<()> {
        let rest = look_behind(opened, end, end)?;
        let mut behind = vec![(Name::fresh(end.segment()), end.offset(), rest.last)];
        let mut torn = rest.last.map_or(0, |last| last - end.offset());
        let mut proof = rest.proof;
        let later = self.names.iter().copied();
        let later = later.filter(|name| name.first > end.segment());
        for name in later {
            let opened = self.open(name)?;
            let rest = look_behind(&opened, Place::new(name.first, FRONT), end)?;
            torn += rest.last.map_or(0, |last| last - FRONT);
            proof = proof.or(rest.proof);
            behind.push((name, FRONT, rest.last));
        }
        if proof.is_some() {
            let what = "a frame is damaged that had been acknowledged";
            return Err(opened.corrupt(end.offset(), what));
        }
        if torn == 0 {
            return Ok(());
        }
        for (name, from, last) in behind {
            if let Some(last) = last {
                self.clear(name, from, last)?;
            }
        }
        let file = opened.path.clone();
        tracing::warn!(
            file = %file.display(), offset = end.offset(), bytes = torn,
            "the end of the saga journal was torn and is cut off; nothing of it had been acknowledged"
        );
        self.report.torn = Some(Torn {
            file,
            offset: end.offset(),
            bytes: torn,
        });
        Ok(())
    }

    /// Makes zeros of these bytes, for good: later frames must not be followed by what was cut off.
    fn clear(&self, name: Name, from: u32, to: u32) -> Result<()> {
        let opened = self.open(name)?;
        let zeros = vec![0; (to - from) as usize];
        write_full(&*opened.file, &zeros, u64::from(from))
            .and_then(|()| opened.file.sync())
            .map_err(|source| opened.failed("clearing", source))
    }

    /// Writes the last group again. The process that wrote it may have died of a sync that failed, and
    /// the operating system shows such bytes although the disk does not have them.
    fn make_durable(&self, from: Place, to: Place) -> Result<()> {
        for number in from.segment()..=to.segment() {
            let opened = self.open(Name::fresh(number))?;
            let begin = if number == from.segment() {
                from.offset()
            } else {
                FRONT
            };
            let end = if number == to.segment() {
                to.offset()
            } else {
                opened.end
            };
            let mut window = Window::new(Arc::clone(&opened.file));
            let mut rewrite = || {
                let count = end.saturating_sub(begin) as usize;
                if count == 0 {
                    return Ok(());
                }
                let bytes = window.bytes(u64::from(begin), count)?;
                write_full(&*opened.file, bytes, u64::from(begin))?;
                opened.file.sync()
            };
            rewrite().map_err(|source| opened.failed("syncing", source))?;
        }
        Ok(())
    }

    /// The segment that is written, and the one after it if it was prepared.
    fn rooms(&mut self, tail: Place, bytes: u32) -> Result<(Room, Option<Room>)> {
        let room = |number| {
            let opened = self.open(Name::fresh(number))?;
            Ok::<_, Error>(Room {
                number,
                capacity: opened.end,
                file: opened.file,
            })
        };
        let current = room(tail.segment())?;
        let next = tail.segment() + 1;
        let spare = self.names.contains(&Name::fresh(next));
        let spare = spare.then(|| room(next)).transpose()?;
        // Whatever is said to fit into a segment must fit into the next.
        let spare = spare.filter(|spare| spare.capacity == bytes);
        let names = self.names.iter().copied();
        let unused: Vec<_> = names.filter(|name| name.first >= next).collect();
        for name in unused {
            self.log.table.remove(name.first);
            if name.first > next || spare.is_none() {
                remove(self.disk, &self.path(name))?;
            }
        }
        Ok((current, spare))
    }
}

/// Bytes that are compared with zeros at once.
const BLOCK: u32 = 4096;
static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

/// What lies behind the end of frames.
struct Behind {
    /// Where the last byte ends that is not zero.
    last: Option<u32>,
    /// A sound frame that was written when the end was durable already.
    proof: Option<Place>,
}

/// Looks through the rest of a segment, from `from` on, for bytes and for frames that speak of `end`.
fn look_behind(opened: &Opened, from: Place, end: Place) -> Result<Behind> {
    let mut behind = Behind {
        last: None,
        proof: None,
    };
    let mut window = Window::new(Arc::clone(&opened.file));
    let fail = |source| opened.failed("reading", source);
    let mut offset = from.offset();
    while offset < opened.end {
        let step = BLOCK.min(opened.end - offset);
        let block = window
            .bytes(u64::from(offset), step as usize)
            .map_err(fail)?;
        if Some(block) == ZEROS.get(..block.len()) {
            offset += step;
            continue;
        }
        for offset in (offset..offset + step).step_by(ALIGN as usize) {
            let bytes = window
                .bytes(u64::from(offset), HEADER as usize)
                .map_err(fail)?;
            let word = bytes.get(..ALIGN as usize).unwrap_or(bytes);
            if Some(word) == ZEROS.get(..word.len()) {
                continue;
            }
            behind.last = Some(opened.end.min(offset + ALIGN));
            if let Some(header) = Header::decode(bytes)
                && header.place == Place::new(from.segment(), offset)
                && header.synced > end
            {
                behind.proof = Some(header.place);
            }
        }
        offset += step;
    }
    Ok(behind)
}
