//! The threads of a store: one writes, one prepares segments, one gives room back.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::compact;
use super::core::{Core, Poison, State, Writer, wake};
use super::disk::write_full;
use super::group::{Flying, Group, Part};
use super::recover::Room;
use super::segment::{self, failed};
use crate::error::{Error, ErrorKind, Result};

/// How late a segment that could not be prepared is tried again, unless room is given back: each time
/// writes what the disk has room for.
const LATEST: Duration = Duration::from_secs(10);

/// How long to wait before what failed is tried again: twice as long each time.
#[derive(Debug)]
pub(super) struct Pause {
    next: Duration,
    most: Duration,
}

impl Pause {
    pub(super) const fn up_to(most: Duration) -> Self {
        let next = Duration::from_millis(100);
        Self { next, most }
    }

    pub(super) fn next(&mut self) -> Duration {
        let next = self.next.min(self.most);
        self.next = next * 2;
        next
    }
}

/// A thread's name and what it does.
type Work = (&'static str, fn(&Core));

/// Starts them.
pub(super) fn start(core: &Arc<Core>) -> Result<Vec<JoinHandle<()>>> {
    let works: [Work; 3] = [
        ("saga-journal-write", write),
        ("saga-journal-room", prepare),
        ("saga-journal-keep", compact::keep),
    ];
    let mut threads = Vec::with_capacity(works.len());
    for (name, work) in works {
        let shared = Arc::clone(core);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let mut watch = Watch {
                    core: &shared,
                    name,
                    ended: false,
                };
                work(&shared);
                watch.ended = true;
            });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                core.stop();
                return Err(failed(core.dir(), "starting a thread for", source));
            }
        }
    }
    Ok(threads)
}

/// Poisons the store if a thread of it ends by a panic: what it was about is half done, and those who wait
/// for it would wait for ever.
struct Watch<'a> {
    core: &'a Core,
    name: &'static str,
    ended: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let reason = format!("the thread {} panicked", self.name);
        tracing::error!(
            reason,
            "the saga journal takes no more appends until it is opened again"
        );
        self.core.poison(ErrorKind::Store, reason);
    }
}

/// Writes group after group, until the store stops and nothing waits.
fn write(core: &Core) {
    let mut state = core.state();
    loop {
        if !state.group.parts.is_empty() && (state.wants_write || state.stopping) {
            if state.poison.is_some() {
                return;
            }
            let mut group = take_group(&mut state);
            drop(state);
            let outcome = flush(&group);
            state = core.state();
            settle(core, &mut state, &mut group, outcome);
            let wakers = state.answered();
            drop(state);
            wake(wakers);
            state = core.state();
        } else if state.stopping {
            return;
        } else {
            state.writer = Writer::Asleep;
            core.writing.wait(&mut state);
            state.writer = Writer::Awake;
        }
    }
}

fn take_group(state: &mut State) -> Group {
    let mut group = state.group.take();
    state.flying = Some(Flying {
        end: state.tail,
        waiters: std::mem::take(&mut group.waiters),
    });
    state.wants_write = false;
    group
}

/// Everything of a group, contiguous in each file, and one sync of each: almost always one of one.
fn flush(group: &Group) -> io::Result<()> {
    for part in &group.parts {
        write_full(&*part.file, &part.bytes, u64::from(part.offset))?;
    }
    group.parts.iter().try_for_each(|part| part.file.sync())
}

/// What was written is durable; or nobody knows, and nobody will ask this file again: after a sync that
/// failed the operating system may call bytes clean that the disk does not have.
fn settle(core: &Core, state: &mut State, group: &mut Group, outcome: io::Result<()>) {
    match outcome {
        Ok(()) => {
            if let Some(flying) = &state.flying {
                let end = flying.end;
                core.set_durable(state, end);
            }
        }
        Err(source) => {
            let error = failed(core.dir(), "writing to", source);
            tracing::error!(%error, "the saga journal takes no more appends until it is opened again");
            state.poison = Some(Poison::new(error.kind(), error.to_string()));
        }
    }
    for Part { bytes, .. } in group.parts.drain(..) {
        state.give_back(bytes);
    }
    core.settled.notify_all();
}

/// Keeps a segment ready.
fn prepare(core: &Core) {
    let mut pause = Pause::up_to(LATEST);
    let mut state = core.state();
    while !state.stopping && state.poison.is_none() {
        if state.spare.is_some() {
            core.preparing.wait(&mut state);
            continue;
        }
        let number = state.tail.segment() + 1;
        let capacity = core.config.room();
        let again = state.no_room.is_some();
        drop(state);
        // What it writes before it finds the disk full must not be missing where room is given back.
        let alone = again.then(|| core.tidying.lock());
        let prepared = segment::prepare(&*core.disk, core.dir(), core.journal, number, capacity);
        drop(alone);
        state = core.state();
        let failure = match prepared {
            Ok(file) => {
                state.spare = Some(Room {
                    number,
                    capacity,
                    file,
                });
                state.no_room = None;
                pause = Pause::up_to(LATEST);
                false
            }
            Err(source) => {
                let error = failed(core.dir(), "preparing a segment in", source);
                let poison = Poison::new(error.kind(), error.to_string());
                let known = state.no_room.replace(poison).is_some();
                if !known {
                    report(&error);
                    // What was purged before a crash may give some.
                    state.wants_keeping = true;
                    core.keeping.notify_one();
                }
                true
            }
        };
        let waiting = state.room.take();
        drop(state);
        wake(waiting);
        state = core.state();
        if failure && !state.stopping {
            let _timed_out = core.preparing.wait_for(&mut state, pause.next());
        }
    }
}

fn report(error: &Error) {
    if error.kind() == ErrorKind::Full {
        tracing::error!(%error, "the saga journal has no room for more; it is read only until there is");
    } else {
        tracing::error!(%error, "the saga journal cannot prepare a segment");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_is_tried_ever_later() {
        let mut pause = Pause::up_to(Duration::from_secs(1));
        let pauses = [(); 6].map(|()| pause.next().as_millis());
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
    }
}
