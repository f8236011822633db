//! The one lock: what is decided under it is in the order of the file.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Semaphore;

use super::blocks::Blocks;
use super::checkpoint::Checkpoint;
use super::disk::Disk;
use super::files::Files;
use super::frame::{Draft, HEADER, Header};
use super::front::JournalId;
use super::group::{Flying, Group, Queue, Ticket};
use super::log::Log;
use super::place::Place;
use super::recover::{Recovery, Room};
use super::segment::{FRONT, Name, Segment};
use super::{Config, Recovered};
use crate::error::{Error, ErrorKind, Result};
use crate::store::lock::Lock;
use crate::store::term::Terms;

/// Bytes that may wait for the writer before appends wait for it.
const MOST_WAITING: usize = 64 << 20;
/// Reads of files at once. Whoever comes later waits for one of them to end, not only to be given up: work
/// that was begun goes on, and a disk that hangs must not gather it.
const MOST_JOBS: usize = 64;
/// Bytes of frames for which nobody waits before they are written all the same.
const MOST_LAZY: usize = 1 << 20;
/// A part of the last segment that is left to purges and claims when there is no other.
const RESERVE: u32 = 16 << 10;

/// What the threads and the handles of a store share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) dir: PathBuf,
    pub(super) journal: JournalId,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) config: Config,
    pub(super) files: Files,
    pub(super) blocks: Blocks,
    pub(super) terms: Terms,
    /// Work that may block.
    pub(super) jobs: Arc<Semaphore>,
    /// Everything before this place is durable. As in [`State`], to be read without the lock.
    durable: AtomicU64,
    state: Mutex<State>,
    /// Something waits to be written.
    pub(super) writing: Condvar,
    /// The next segment is needed.
    pub(super) preparing: Condvar,
    /// A checkpoint is due, or room may be given back.
    pub(super) keeping: Condvar,
    /// A group is durable, or never will be: for threads, where tasks have wakers.
    pub(super) settled: Condvar,
    /// Whoever has it may change segments that are full, and checkpoints.
    pub(super) tidying: Mutex<()>,
    pub(super) lock: Mutex<Option<Lock>>,
}

/// Why nothing is written any more.
#[derive(Debug, Clone)]
pub(super) struct Poison {
    kind: ErrorKind,
    reason: String,
}

/// Whether the writer has to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    Awake,
    Asleep,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) log: Log,
    /// Where the next frame goes.
    pub(super) tail: Place,
    /// Behind the last frame that changed what lists show.
    pub(super) decided: Place,
    pub(super) durable: Place,
    /// The last purge: that a saga is not there may rest on it.
    pub(super) purged: Place,
    current: Room,
    pub(super) spare: Option<Room>,
    /// Why there is no spare segment.
    pub(super) no_room: Option<Poison>,
    /// Those who wait for a spare segment, or for the writer to catch up.
    pub(super) room: Queue,
    pub(super) group: Group,
    pub(super) flying: Option<Flying>,
    buffers: Vec<Vec<u8>>,
    pub(super) poison: Option<Poison>,
    pub(super) stopping: bool,
    pub(super) writer: Writer,
    pub(super) wants_write: bool,
    pub(super) wants_keeping: bool,
    /// The checkpoints that are kept, the older first.
    pub(super) checkpoints: VecDeque<Place>,
    pub(super) since_checkpoint: u64,
    pub(super) checkpoint_bytes: u64,
    /// The first segment that this process has written or read: its bytes are in memory, most likely.
    pub(super) warm: u32,
}

/// What a future waits for. Once it is dropped, it waits for nothing.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    core: &'a Core,
    pub(super) durable: Option<Ticket>,
    room: Option<Ticket>,
}

impl<'a> Waiting<'a> {
    pub(super) const fn new(core: &'a Core) -> Self {
        Self {
            core,
            durable: None,
            room: None,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.durable.is_none() && self.room.is_none() {
            return;
        }
        let mut state = self.core.state();
        if let Some(ticket) = self.durable {
            if let Some(flying) = &mut state.flying {
                flying.waiters.leave(ticket);
            }
            state.group.waiters.leave(ticket);
        }
        if let Some(ticket) = self.room {
            state.room.leave(ticket);
        }
    }
}

/// Wakes them all, whatever a waker of a strange executor does.
pub(super) fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        let _panicked = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}

/// Whether there is room for a frame.
enum Fit {
    Here,
    Next,
    Not,
}

/// Which frames may take the last of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Ordinary,
    /// Without it no room can be given back.
    Urgent,
}

impl Poison {
    pub(super) fn new(kind: ErrorKind, reason: String) -> Self {
        Self { kind, reason }
    }

    fn error(&self, what: &str) -> Error {
        Error::new(self.kind, format!("saga store: {what}: {}", self.reason))
    }
}

impl Core {
    pub(super) fn new(
        dir: PathBuf,
        disk: Arc<dyn Disk>,
        config: Config,
        recovery: Recovery,
        lock: Option<Lock>,
    ) -> (Self, Recovered) {
        let Recovery {
            journal,
            log,
            tail,
            current,
            spare,
            checkpoints,
            replayed,
            report,
        } = recovery;
        let warm = checkpoints.last().copied().unwrap_or(Place::new(1, 0));
        let state = State {
            tail,
            decided: tail,
            durable: tail,
            purged: Place::NONE,
            current,
            spare,
            no_room: None,
            room: Queue::default(),
            group: Group::default(),
            flying: None,
            buffers: Vec::new(),
            poison: None,
            stopping: false,
            writer: Writer::Awake,
            wants_write: false,
            wants_keeping: false,
            since_checkpoint: replayed,
            checkpoint_bytes: config.checkpoint_bytes,
            checkpoints: checkpoints.into(),
            warm: warm.segment(),
            log,
        };
        let core = Self {
            files: Files::new(Arc::clone(&disk), dir.clone(), journal),
            blocks: Blocks::default(),
            dir,
            journal,
            disk,
            config,
            terms: Terms::default(),
            jobs: Arc::new(Semaphore::new(MOST_JOBS)),
            durable: AtomicU64::new(tail.raw()),
            state: Mutex::new(state),
            writing: Condvar::new(),
            preparing: Condvar::new(),
            keeping: Condvar::new(),
            settled: Condvar::new(),
            tidying: Mutex::default(),
            lock: Mutex::new(lock),
        };
        (core, report)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn durable(&self) -> Place {
        Place::from_raw(self.durable.load(Ordering::Acquire))
    }

    pub(super) fn set_durable(&self, state: &mut State, place: Place) {
        state.durable = place;
        self.durable.store(place.raw(), Ordering::Release);
    }

    /// Tells the writer that somebody waits.
    pub(super) fn wake_writer(&self, state: &mut State) {
        state.wants_write = true;
        if std::mem::replace(&mut state.writer, Writer::Awake) == Writer::Asleep {
            self.writing.notify_one();
        }
    }

    /// Whether everything before the place is durable; an error once it never will be.
    pub(super) fn poll_durable(
        &self,
        place: Place,
        waiting: &mut Waiting<'_>,
        cx: &Context<'_>,
    ) -> Poll<Result<()>> {
        if self.durable() >= place {
            // The seat, if there is one, was of a group that is durable, and is gone with it.
            waiting.durable = None;
            return Poll::Ready(Ok(()));
        }
        let mut state = self.state();
        if state.durable >= place {
            waiting.durable = None;
            return Poll::Ready(Ok(()));
        }
        if let Some(poison) = &state.poison {
            return Poll::Ready(Err(poison.error("it is not known whether this is durable")));
        }
        state.seat(place, &mut waiting.durable, cx.waker());
        self.wake_writer(&mut state);
        Poll::Pending
    }

    /// As [`Core::poll_durable`], for threads.
    pub(super) fn wait_durable(&self, place: Place) -> Result<()> {
        let mut state = self.state();
        while state.durable < place {
            if let Some(poison) = &state.poison {
                return Err(poison.error("it is not known whether this is durable"));
            }
            self.wake_writer(&mut state);
            self.settled.wait(&mut state);
        }
        Ok(())
    }

    /// Enqueues a frame if there is room for it now; whoever called is woken when there may be.
    pub(super) fn poll_push(
        &self,
        state: &mut State,
        draft: &mut Draft,
        previous: Place,
        need: Need,
        waiting: &mut Waiting<'_>,
        cx: &Context<'_>,
    ) -> Poll<Result<Header>> {
        let Some(pushed) = self.push(state, draft, previous, need).transpose() else {
            state.room.seat(&mut waiting.room, cx.waker());
            return Poll::Pending;
        };
        if let Some(ticket) = waiting.room.take() {
            state.room.leave(ticket);
        }
        Poll::Ready(pushed)
    }

    /// Enqueues a frame; none if there is no room at the moment.
    fn push(
        &self,
        state: &mut State,
        draft: &mut Draft,
        previous: Place,
        need: Need,
    ) -> Result<Option<Header>> {
        let length = draft.header.length;
        let most = self.config.room() - FRONT - HEADER - RESERVE;
        if length > most {
            let message = format!("a frame of {length} bytes is more than the {most} of a segment");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if state.group.bytes >= MOST_WAITING {
            self.wake_writer(state);
            return Ok(None);
        }
        match state.fit(length, need) {
            Fit::Here => {}
            Fit::Next => self.roll(state),
            Fit::Not => {
                return match &state.no_room {
                    Some(poison) => Err(poison.error("there is no room for more")),
                    None => Ok(None),
                };
            }
        }
        state.put(draft, previous);
        Ok(Some(draft.header))
    }

    /// Ends the segment and goes on in the next.
    fn roll(&self, state: &mut State) {
        let Some(spare) = state.spare.take() else {
            return;
        };
        state.put(&mut Draft::seal(), Place::NONE);
        let number = state.current.number;
        if let Some(sealed) = state.log.table.find(number).copied() {
            let total = u64::from(state.tail.offset() - FRONT);
            state.log.table.insert(Segment { total, ..sealed });
        }
        state.tail = Place::new(spare.number, FRONT);
        state.log.table.insert(Segment {
            name: Name::fresh(spare.number),
            total: u64::from(spare.capacity - FRONT),
            live: 0,
        });
        state.current = spare;
        self.preparing.notify_one();
        if state.since_checkpoint >= state.checkpoint_bytes {
            state.wants_keeping = true;
            self.keeping.notify_one();
        }
    }

    /// After a frame that nobody waits for.
    pub(super) fn pushed_lazily(&self, state: &mut State) {
        if state.group.bytes >= MOST_LAZY {
            self.wake_writer(state);
        }
    }

    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        let waiting = state.room.take();
        drop(state);
        self.writing.notify_one();
        self.preparing.notify_one();
        self.keeping.notify_one();
        wake(waiting);
    }

    /// Nothing is written any more: whoever waits is told.
    pub(super) fn poison(&self, kind: ErrorKind, reason: String) {
        let mut state = self.state();
        state.poison.get_or_insert(Poison { kind, reason });
        let wakers = state.answered();
        drop(state);
        self.settled.notify_all();
        self.writing.notify_one();
        self.preparing.notify_one();
        self.keeping.notify_one();
        wake(wakers);
    }

    /// What is known at a place that is durable.
    pub(super) fn checkpoint(&self) -> Result<Checkpoint> {
        let checkpoint = {
            let state = self.state();
            Checkpoint::of(&state.log, state.tail)
        };
        self.wait_durable(checkpoint.place)?;
        Ok(checkpoint)
    }
}

impl State {
    /// Whether anything may be decided.
    pub(super) fn check_open(&self) -> Result<()> {
        if let Some(poison) = &self.poison {
            let what = "nothing is written any more until the store is opened again";
            return Err(poison.error(what));
        }
        if self.stopping {
            return Err(Error::new(ErrorKind::Store, "saga store: it is closed"));
        }
        Ok(())
    }

    fn fit(&self, length: u32, need: Need) -> Fit {
        let left = self.current.capacity - self.tail.offset();
        // A seal must always fit behind.
        let wanted = length + HEADER;
        if self.spare.is_some() {
            return if wanted <= left { Fit::Here } else { Fit::Next };
        }
        let reserve = match need {
            Need::Ordinary => RESERVE,
            Need::Urgent => 0,
        };
        if wanted + reserve <= left {
            Fit::Here
        } else {
            Fit::Not
        }
    }

    fn put(&mut self, draft: &mut Draft, previous: Place) {
        let Self {
            group,
            buffers,
            current,
            ..
        } = self;
        let place = self.tail;
        // Groups follow each other, so what came before this one is durable when it is written.
        let synced = group.begin(place);
        let frame = draft.stamp(place, synced, previous);
        group.push(&current.file, place, frame, || {
            buffers.pop().unwrap_or_default()
        });
        let length = draft.header.length;
        self.tail = place.plus(length);
        self.since_checkpoint += u64::from(length);
    }

    /// Whoever has the waker is woken once everything before the place is durable.
    pub(super) fn seat(&mut self, place: Place, ticket: &mut Option<Ticket>, waker: &Waker) {
        match &mut self.flying {
            Some(flying) if place <= flying.end => flying.waiters.seat(ticket, waker),
            _ => self.group.waiters.seat(ticket, waker),
        }
    }

    /// Everyone whose question is answered, after a group was written or never will be.
    pub(super) fn answered(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if let Some(mut flying) = self.flying.take() {
            wakers.extend(flying.waiters.take());
        }
        if self.poison.is_some() {
            wakers.extend(self.group.waiters.take());
        }
        wakers.extend(self.room.take());
        wakers
    }

    /// Keeps a buffer for later groups.
    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < 2 && buffer.capacity() <= 4 * MOST_LAZY {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}
