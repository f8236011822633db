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

use std::time::Duration;

use super::checkpoint::{self, Checkpoint};
use super::core::{Core, State};
use super::frame::{self, Header, Kind};
use super::place::Place;
use super::segment::{FRONT, Found, Name, Packer, Segment, Window, failed};
use crate::error::Result;

/// Frames whose fate is decided under one hold of the lock.
const BATCH: usize = 256;
/// Bytes that are read ahead of those who continue sagas.
const MOST_WARMED: u64 = 512 << 20;
/// And at a time.
const TOUCHED: u32 = 1 << 20;
/// How soon what failed is tried again, twice as long each time.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(60);
/// So many segments with little in them become one even if nothing is dead.
const MANY: usize = 8;

/// Takes checkpoints and gives room back when asked, until the store stops.
pub(super) fn keep(core: &Core) {
    warm(core);
    let mut pause = SOONEST;
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
            pause = SOONEST;
        } else if !state.stopping {
            // On a full disk nobody else may ever ask.
            let _timed_out = core.keeping.wait_for(&mut state, pause);
            pause = (pause * 2).min(LATEST);
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
    let written = taken.write(&*core.disk, core.dir())?;
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

impl State {
    /// About the bytes of the log behind a checkpoint.
    fn log_since(&self, checkpoint: &Checkpoint) -> u64 {
        if checkpoint.place.segment() == self.tail.segment() {
            return u64::from(self.tail.offset() - checkpoint.place.offset());
        }
        u64::from(self.tail.offset())
    }

    /// Neighbouring segments that are worth rewriting.
    fn run(&self, room: u64) -> Vec<Segment> {
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
        let dead = full.clone().skip_while(|segment| segment.live > 0);
        let dead: Vec<_> = dead
            .take_while(|segment| segment.live == 0)
            .copied()
            .collect();
        if !dead.is_empty() {
            return dead;
        }
        let mut run: Vec<Segment> = Vec::new();
        for segment in full {
            let live: u64 = run.iter().map(|segment| segment.live).sum();
            let sparse = segment.live * 2 <= segment.total;
            let small = segment.live * 4 <= room;
            let joins = (sparse || small) && live + segment.live <= room;
            if !joins {
                if is_worthwhile(&run) {
                    break;
                }
                run.clear();
            }
            if sparse || small {
                run.push(*segment);
            }
        }
        if is_worthwhile(&run) { run } else { Vec::new() }
    }
}

fn is_worthwhile(run: &[Segment]) -> bool {
    let total: u64 = run.iter().map(|segment| segment.total).sum();
    let live: u64 = run.iter().map(|segment| segment.live).sum();
    !run.is_empty() && (live * 2 <= total || run.len() >= MANY)
}

/// Rewrites whatever is worth it.
pub(super) fn compact(core: &Core) -> Result<()> {
    let room = u64::from(core.config.room() - FRONT);
    loop {
        let state = core.state();
        if state.stopping || state.poison.is_some() {
            return Ok(());
        }
        let run = state.run(room);
        drop(state);
        if run.is_empty() {
            return Ok(());
        }
        rewrite(core, &run)?;
    }
}

/// Puts one file in place of several, or none if nobody needs anything of them.
fn rewrite(core: &Core, run: &[Segment]) -> Result<()> {
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
) -> Result<u64> {
    for segment in run {
        let opened = core.files.open(segment.name)?;
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
                let found = window.frame(offset, end);
                let found = found.map_err(|source| opened.failed("reading", source))?;
                let (header, body) = match found {
                    Found::Frame(header, body) => (header, body),
                    Found::Bad(what) => return Err(opened.corrupt(offset, what)),
                };
                batch.push((header, hash(&header, body)));
                offset += header.length;
            }
            let mut at = begin;
            for (header, lives) in judge(core, batch) {
                if lives {
                    let bytes = window.bytes(u64::from(at), header.length as usize);
                    let bytes = bytes.map_err(|source| opened.failed("reading", source))?;
                    if packer.is_none() {
                        *packer = Some(Packer::begin(&*core.disk, core.dir(), name)?);
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
