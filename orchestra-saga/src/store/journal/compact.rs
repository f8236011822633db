//! Checkpoints, and giving room back.
//!
//! A purge leaves frames that nobody needs. Where they are half of a run of neighbouring segments, the
//! rest of the run is written into one new file, which takes the place of the old ones by its name: a
//! range of segments and a generation. Whichever of the files are there after a crash, the name with the
//! higher generation counts and what it covers is removed. Frames keep their places, so nothing that
//! refers to them changes, the stream of events stays in order, and appends go on meanwhile: they
//! concern other files.
//!
//! Only segments before the older of the two checkpoints are rewritten: whichever of the two a start
//! uses, the log after it is whole.

use std::collections::BTreeSet;
use std::time::Duration;

use super::checkpoint::{self, Checkpoint};
use super::core::{Core, State};
use super::frame::{self, Header, Kind};
use super::place::Place;
use super::segment::{FRONT, Found, Name, Packer, Segment, Window, failed};
use super::threads::Pause;
use crate::error::{Error, Result};

/// Frames whose fate is decided under one hold of the lock.
const BATCH: usize = 256;
/// Bytes that are read ahead of those who continue sagas.
const MOST_WARMED: u64 = 512 << 20;
/// And at a time.
const TOUCHED: u32 = 1 << 20;
/// How late what failed is tried again.
const LATEST: Duration = Duration::from_secs(60);
/// So many segments with little in them become one even if nothing is dead.
const MANY: usize = 8;

/// Takes checkpoints and gives room back when asked, until the store stops.
pub(super) fn keep(core: &Core) {
    warm(core);
    let mut pause = Pause::up_to(LATEST);
    let mut state = core.state();
    while !state.stopping && state.poison.is_none() {
        if !std::mem::take(&mut state.wants_keeping) {
            core.keeping.wait(&mut state);
            continue;
        }
        drop(state);
        let kept = tidy(core);
        if let Err(error) = &kept {
            tracing::warn!(%error, "the saga journal could not be compacted; it goes on growing");
        }
        state = core.state();
        if kept.is_ok() {
            pause = Pause::up_to(LATEST);
        } else if !state.stopping {
            // On a full disk nobody else may ever ask.
            let _timed_out = core.keeping.wait_for(&mut state, pause.next());
            state.wants_keeping = true;
        }
    }
}

/// Reads the segments of sagas that have not ended, the newest first: whoever continues them reads each of
/// their frames, which is quick once the operating system has the files in memory.
fn warm(core: &Core) {
    let mut left = MOST_WARMED;
    let state = core.state();
    let Some(oldest) = state.log.index.oldest_open() else {
        return;
    };
    let segments = state.log.table.iter().rev();
    let segments = segments.filter(|segment| segment.name.first < state.warm);
    let cold: Vec<_> = segments
        .take_while(|segment| segment.name.last >= oldest.segment())
        .copied()
        .collect();
    drop(state);
    for segment in cold {
        let Some(rest) = left.checked_sub(segment.total) else {
            return;
        };
        left = rest;
        // Whoever needs it meets the error, if it is one.
        if touch(core, segment.name).is_err() || core.state().stopping {
            return;
        }
        core.state().warm = segment.name.first;
    }
}

fn touch(core: &Core, name: Name) -> Result<()> {
    let opened = core.files.open(name)?;
    let mut window = Window::new(std::sync::Arc::clone(&opened.file));
    for offset in (0..opened.end).step_by(TOUCHED as usize) {
        window
            .bytes(u64::from(offset), TOUCHED as usize)
            .map_err(|source| opened.failed("reading", source))?;
    }
    Ok(())
}

/// Takes a checkpoint and gives back what room there is to give.
pub(super) fn tidy(core: &Core) -> Result<()> {
    let _one_at_a_time = core.tidying.lock();
    let checkpointed = checkpoint(core);
    // What nobody needs goes all the same: there may be no room for a checkpoint before.
    compact(core).and(checkpointed)
}

/// Writes down what is known, unless nothing has changed.
pub(super) fn checkpoint(core: &Core) -> Result<()> {
    let place = {
        let state = core.state();
        state.tail
    };
    if core.state().checkpoints.back() == Some(&place) {
        return Ok(());
    }
    let taken = core.checkpoint()?;
    let written = taken.write(&*core.disk, core.dir(), core.journal)?;
    let mut state = core.state();
    let since = state.log_since(&taken);
    state.since_checkpoint = since;
    // The larger it is, the rarer: starting may take as long as reading it does.
    state.checkpoint_bytes = core.config.checkpoint_bytes.max(written);
    state.checkpoints.push_back(taken.place);
    let old = (state.checkpoints.len() > 2).then(|| state.checkpoints.pop_front());
    drop(state);
    if let Some(place) = old.flatten() {
        let path = core.dir().join(checkpoint::file(place));
        core.disk
            .remove(&path)
            .map_err(|source| failed(&path, "removing", source))?;
    }
    Ok(())
}

/// Says that nothing follows the last checkpoint.
pub(super) fn mark_closed(core: &Core) -> Result<()> {
    let place = core.state().checkpoints.back().copied();
    let Some(place) = place.filter(|_| core.state().poison.is_none()) else {
        return Ok(());
    };
    let path = core.dir().join(checkpoint::closed_file(place));
    let made = core.disk.create(&path);
    made.and_then(|_file| core.disk.sync_dir(core.dir()))
        .map_err(|source| failed(&path, "creating", source))
}

impl State {
    /// About the bytes of the log behind a checkpoint.
    fn log_since(&self, checkpoint: &Checkpoint) -> u64 {
        if checkpoint.place.segment() == self.tail.segment() {
            return u64::from(self.tail.offset() - checkpoint.place.offset());
        }
        u64::from(self.tail.offset())
    }

    /// Neighbouring segments that are worth rewriting, none of them damaged.
    fn run(&self, room: u64, damaged: &BTreeSet<Name>) -> Vec<Segment> {
        let Some(oldest) = self
            .checkpoints
            .front()
            .filter(|_| self.checkpoints.len() > 1)
        else {
            return Vec::new();
        };
        let full = self.log.table.iter();
        let full = full.take_while(|segment| segment.name.last < oldest.segment());
        // Those that nobody needs go first: that takes no room.
        let is_dead = |segment: &&Segment| segment.live == 0 && !damaged.contains(&segment.name);
        let dead = full.clone().skip_while(|segment| !is_dead(segment));
        let dead: Vec<_> = dead.take_while(is_dead).copied().collect();
        if !dead.is_empty() {
            return dead;
        }
        let mut run = Run::default();
        for segment in full {
            let sparse = segment.live * 2 <= segment.total;
            let small = segment.live * 4 <= room;
            let may = (sparse || small) && !damaged.contains(&segment.name);
            if !may || run.live + segment.live > room {
                if run.is_worthwhile() {
                    break;
                }
                run = Run::default();
            }
            if may {
                run.push(*segment);
            }
        }
        if run.is_worthwhile() {
            run.segments
        } else {
            Vec::new()
        }
    }
}

/// Neighbours that may become one.
#[derive(Debug, Default)]
struct Run {
    segments: Vec<Segment>,
    total: u64,
    live: u64,
}

impl Run {
    fn push(&mut self, segment: Segment) {
        self.total += segment.total;
        self.live += segment.live;
        self.segments.push(segment);
    }

    fn is_worthwhile(&self) -> bool {
        let count = self.segments.len();
        count > 0 && (self.live * 2 <= self.total || count >= MANY)
    }
}

/// Why a run was not rewritten.
enum Stop {
    /// A segment of it cannot be read.
    Damaged(Name, Error),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Rewrites whatever is worth it. What cannot be read stays as it is, and does not keep the others from it.
pub(super) fn compact(core: &Core) -> Result<()> {
    let room = u64::from(core.config.room() - FRONT);
    let mut damaged = BTreeSet::new();
    let mut first = Ok(());
    loop {
        let state = core.state();
        let over = state.stopping || state.poison.is_some();
        let run = state.run(room, &damaged);
        drop(state);
        if over || run.is_empty() {
            return first;
        }
        match rewrite(core, &run) {
            // Whoever prepares the next segment may find room for it.
            Ok(()) => {
                core.preparing.notify_one();
            }
            Err(Stop::Damaged(name, error)) => {
                damaged.insert(name);
                first = first.and(Err(error));
            }
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
}

/// Puts one file in place of several, or none if nobody needs anything of them.
fn rewrite(core: &Core, run: &[Segment]) -> Result<(), Stop> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(());
    };
    let generations = run.iter().map(|segment| segment.name.generation);
    let name = Name {
        first: first.name.first,
        last: last.name.last,
        generation: generations.max().unwrap_or_default() + 1,
    };
    let mut packer = None;
    let packed = fill(core, run, name, &mut packer).and_then(|total| {
        packer.as_ref().map_or(Ok(()), Packer::publish)?;
        Ok(total)
    });
    let total = packed.inspect_err(|_error| {
        if let Some(packer) = &packer {
            packer.abandon();
        }
    })?;
    let mut state = core.state();
    let mut live = 0;
    for segment in run {
        let current = state.log.table.find(segment.name.first);
        live += current.map_or(0, |current| current.live);
        state.log.table.remove(segment.name.first);
    }
    if total > 0 {
        state.log.table.insert(Segment { name, total, live });
    }
    drop(state);
    for segment in run {
        core.files.forget(segment.name);
        let path = core.dir().join(segment.name.file());
        core.disk
            .remove(&path)
            .map_err(|source| failed(&path, "removing", source))?;
    }
    Ok(())
}

/// Writes what somebody needs, to a file that there is only if somebody does: on a full disk none can be
/// made. Returns how many bytes that is.
fn fill<'a>(
    core: &'a Core,
    run: &[Segment],
    name: Name,
    packer: &mut Option<Packer<'a>>,
) -> Result<u64, Stop> {
    for segment in run {
        let damaged = |error| Stop::Damaged(segment.name, error);
        let opened = core.files.open(segment.name).map_err(damaged)?;
        let unread = |source| damaged(opened.failed("reading", source));
        let mut window = Window::new(std::sync::Arc::clone(&opened.file));
        let end = if opened.is_packed() {
            opened.end
        } else {
            FRONT + super::bytes::length(usize::try_from(segment.total).unwrap_or(usize::MAX))
        };
        let mut offset = FRONT;
        while offset < end {
            let begin = offset;
            let mut batch = Vec::with_capacity(BATCH);
            while offset < end && batch.len() < BATCH {
                let (header, body) = match window.frame(offset, end).map_err(unread)? {
                    Found::Frame(header, body) => (header, body),
                    Found::Bad(what) => return Err(damaged(opened.corrupt(offset, what))),
                };
                batch.push((header, hash(&header, body)));
                offset += header.length;
            }
            let mut at = begin;
            for (header, lives) in judge(core, batch) {
                if lives {
                    let bytes = window.bytes(u64::from(at), header.length as usize);
                    let bytes = bytes.map_err(unread)?;
                    if packer.is_none() {
                        *packer = Some(Packer::begin(&*core.disk, core.dir(), core.journal, name)?);
                    }
                    if let Some(packer) = packer {
                        packer.push(header.place, bytes)?;
                    }
                }
                at += header.length;
            }
        }
    }
    let total = packer.as_mut().map_or(Ok(0), Packer::finish)?;
    // What made frames needless must last before they go.
    let decided: Place = core.state().tail;
    core.wait_durable(decided)?;
    Ok(total)
}

/// The hash of a definition.
fn hash(header: &Header, body: &[u8]) -> Option<String> {
    if header.kind != Kind::Definition {
        return None;
    }
    frame::read_definition(body).map(|(hash, _document)| hash.to_owned())
}

/// Which of these frames somebody needs.
fn judge(core: &Core, batch: Vec<(Header, Option<String>)>) -> Vec<(Header, bool)> {
    let state = core.state();
    let judged = batch.into_iter().map(|(header, hash)| {
        let lives = state.log.is_live(&header, hash.as_deref());
        (header, lives)
    });
    judged.collect()
}
