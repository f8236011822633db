use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::{Clock, Listener, Monotonic, Timestamp, WallClock};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Notice;
use super::admission::{Admission, Permit};
use super::definitions::Definitions;
use super::drive::{self, Letter, Next, Task, Ticket};
use super::limits::Limits;
use super::mailbox::Mailbox;
use crate::error::{Error, ErrorKind, Result};
use crate::id::SagaId;
use crate::machine::Input;
use crate::status::Status;
use crate::step::Caller;
use crate::store::{Claim, SagaStore};

pub(super) type Listening = Arc<dyn for<'a> Listener<Notice<'a>>>;

/// Wall-clock time that never goes back: one reading, and a monotonic clock from there.
#[derive(Debug)]
pub(super) struct Time {
    clock: Arc<dyn Clock>,
    wall: Timestamp,
    origin: Monotonic,
}

impl Time {
    pub(super) fn new(clock: Arc<dyn Clock>, wall: &dyn WallClock) -> Self {
        let origin = clock.now();
        let wall = wall.wall();
        Self {
            clock,
            wall,
            origin,
        }
    }

    pub(super) fn monotonic(&self) -> Monotonic {
        self.clock.now()
    }

    fn now(&self) -> Timestamp {
        self.wall + self.clock.now().since(self.origin)
    }
}

pub(super) struct Parts {
    pub(super) store: Arc<dyn SagaStore>,
    pub(super) definitions: Definitions,
    pub(super) caller: Option<Arc<dyn Caller>>,
    pub(super) time: Time,
    pub(super) listener: Listening,
    pub(super) max_running: usize,
    pub(super) max_waiting: usize,
    pub(super) limits: Limits,
    pub(super) claim: Claim,
    pub(super) rng: fastrand::Rng,
    pub(super) snapshot_every: u32,
    pub(super) poll: Duration,
    pub(super) retention: Option<Duration>,
}

/// What the tasks of an executor have in common.
pub(super) struct Shared {
    pub(super) store: Arc<dyn SagaStore>,
    pub(super) definitions: Definitions,
    pub(super) caller: Option<Arc<dyn Caller>>,
    time: Time,
    listener: Listening,
    pub(super) admission: Arc<Admission>,
    pub(super) limits: Limits,
    pub(super) claim: Claim,
    /// Until when the claim may be relied on; for ever, unless it is a lease.
    reliable: AtomicU64,
    rng: Mutex<fastrand::Rng>,
    pub(super) snapshot_every: u32,
    pub(super) poll: Duration,
    pub(super) retention: Option<Duration>,
    pub(super) running: Mutex<HashMap<SagaId, Arc<Mailbox>>>,
    watchers: Mutex<HashMap<SagaId, watch::Sender<Status>>>,
    /// Sagas that are parts of running ones, and how many calls of those wait for each.
    parts: Mutex<HashMap<SagaId, u32>>,
    unrecoverable: Mutex<HashSet<SagaId>>,
    fenced: Mutex<Option<String>>,
    /// As `stop`, for those who look often.
    stops: AtomicBool,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("store", &self.store)
            .field("claim", &self.claim)
            .field("running", &self.running.lock().len())
            .field("watched", &self.watchers.lock().len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            store: parts.store,
            definitions: parts.definitions,
            caller: parts.caller,
            time: parts.time,
            listener: parts.listener,
            admission: Admission::new(parts.max_running, parts.max_waiting),
            limits: parts.limits,
            claim: parts.claim,
            reliable: AtomicU64::new(u64::MAX),
            rng: Mutex::new(parts.rng),
            snapshot_every: parts.snapshot_every,
            poll: parts.poll,
            retention: parts.retention,
            running: Mutex::default(),
            watchers: Mutex::default(),
            parts: Mutex::default(),
            unrecoverable: Mutex::default(),
            fenced: Mutex::default(),
            stops: AtomicBool::new(false),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.time.now()
    }

    pub(super) fn rely_until(&self, until: Monotonic) {
        self.reliable.store(until.as_nanos(), Ordering::Relaxed);
    }

    /// Whether another owner may have the partition by now.
    pub(super) fn is_unreliable(&self) -> bool {
        let until = self.reliable.load(Ordering::Relaxed);
        until != u64::MAX && self.time.monotonic().as_nanos() >= until
    }

    pub(super) fn draw(&self) -> u64 {
        self.rng.lock().u64(..)
    }

    pub(super) fn draw_wide(&self) -> u128 {
        self.rng.lock().u128(..)
    }

    pub(super) fn tell(&self, notice: &Notice<'_>) {
        self.listener.on_event(notice);
    }

    /// Why nothing is begun any more.
    pub(super) fn stopping(&self) -> Error {
        match &*self.fenced.lock() {
            Some(reason) => Error::new(ErrorKind::Fenced, reason.clone()),
            None => Error::new(
                ErrorKind::ShuttingDown,
                "the saga executor is shutting down",
            ),
        }
    }

    /// Nothing new is begun from here on.
    pub(super) fn halt(&self) {
        self.stops.store(true, Ordering::Release);
        self.stop.cancel();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stops.load(Ordering::Acquire)
    }

    pub(super) fn check_accepting(&self) -> Result<()> {
        if self.is_stopping() {
            return Err(self.stopping());
        }
        Ok(())
    }

    /// A place for a saga that exists, or none once the executor stops.
    pub(super) async fn permit(&self) -> Option<Permit> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            permit = self.admission.enter_again(0) => permit.ok(),
        }
    }

    /// Runs a new saga.
    pub(super) fn spawn(self: &Arc<Self>, saga: SagaId, ticket: Ticket, next: Next) {
        let inbox = Arc::new(Mailbox::default());
        self.running.lock().insert(saga, Arc::clone(&inbox));
        let task = Task::new(Arc::clone(self), saga, inbox, ticket);
        self.track(drive::drive(task, next));
    }

    /// Hands a letter to the task of the saga, which is begun if there is none.
    pub(super) fn deliver(
        self: &Arc<Self>,
        saga: SagaId,
        letter: Letter,
        ticket: Ticket,
    ) -> Result<()> {
        let mut running = self.running.lock();
        // Sending and leaving happen under this lock, so no letter is lost in a mailbox left behind.
        if let Some(mailbox) = running.get(&saga) {
            return mailbox.put(letter).map_err(|_full| {
                Error::new(ErrorKind::Overloaded, "too many requests at once").of(saga)
            });
        }
        let inbox = Arc::new(Mailbox::of(letter));
        running.insert(saga, Arc::clone(&inbox));
        drop(running);
        let ticket = match ticket {
            Ticket::Wanted if self.is_part(saga) => Ticket::NotNeeded,
            ticket => ticket,
        };
        let task = Task::new(Arc::clone(self), saga, inbox, ticket);
        self.track(drive::drive(task, Next::Read));
        Ok(())
    }

    /// Wakes a saga that is a part of a running one, and so needs no place of its own until the answer is
    /// dropped: it must not wait for one that its parent holds.
    pub(super) fn rouse(self: &Arc<Self>, saga: SagaId) -> Part {
        *self.parts.lock().entry(saga).or_default() += 1;
        let part = Part {
            shared: Arc::clone(self),
            saga,
        };
        let mailbox = self.running.lock().get(&saga).cloned();
        match mailbox {
            Some(mailbox) => mailbox.seat(),
            None => drop(self.deliver(saga, Letter::silent(Input::Wake), Ticket::NotNeeded)),
        }
        part
    }

    /// Whether a running saga waits for this one.
    pub(super) fn is_part(&self, saga: SagaId) -> bool {
        self.parts.lock().contains_key(&saga)
    }

    /// Lets every saga that runs see that the executor stops.
    pub(super) fn rouse_all(&self) {
        let running: Vec<_> = self.running.lock().values().cloned().collect();
        for mailbox in &running {
            mailbox.rouse();
        }
    }

    pub(super) fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        // The tracker owns the task; shutdown awaits it.
        drop(self.tasks.spawn(task));
    }

    /// Another owner has the partition: nothing is called any more.
    pub(super) fn fence(&self, error: &Error) {
        let first = self.fenced.lock().replace(error.to_string()).is_none();
        if first {
            tracing::error!(%error, "saga executor fenced off: another owner claimed its partition");
            self.tell(&Notice::Fenced { error });
        }
        self.halt();
    }

    /// A saga that cannot be continued; it is reported once and not woken again.
    pub(super) fn give_up(&self, saga: SagaId, error: &Error) {
        if self.unrecoverable.lock().insert(saga) {
            tracing::error!(%saga, %error, "saga cannot be continued");
            self.tell(&Notice::Unrecoverable { saga, error });
        }
    }

    /// Whether a timer of the saga has someone to wake.
    pub(super) fn is_asleep(&self, saga: SagaId) -> bool {
        !self.running.lock().contains_key(&saga) && !self.unrecoverable.lock().contains(&saga)
    }

    /// How many due timers may have nobody to wake.
    pub(super) fn awake(&self) -> usize {
        self.running.lock().len() + self.unrecoverable.lock().len()
    }

    /// Hears the status after every batch of the saga.
    pub(super) fn watch(self: &Arc<Self>, saga: SagaId) -> Watch {
        let mut watchers = self.watchers.lock();
        let sender = watchers
            .entry(saga)
            .or_insert_with(|| watch::channel(Status::Started).0);
        Watch {
            shared: Arc::clone(self),
            saga,
            changes: sender.subscribe(),
        }
    }

    pub(super) fn changed(&self, saga: SagaId, status: Status) {
        let mut watchers = self.watchers.lock();
        let Some(sender) = watchers.get(&saga) else {
            return;
        };
        let heard = sender.send(status).is_ok();
        if !heard || status.is_terminal() {
            drop(watchers.remove(&saga));
        }
    }
}

/// A saga that a running one waits for.
pub(super) struct Part {
    shared: Arc<Shared>,
    saga: SagaId,
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut parts = self.shared.parts.lock();
        if let Some(count) = parts.get_mut(&self.saga) {
            *count -= 1;
            if *count == 0 {
                parts.remove(&self.saga);
            }
        }
    }
}

/// Hears of one saga; the last to be dropped leaves nothing behind.
pub(super) struct Watch {
    shared: Arc<Shared>,
    saga: SagaId,
    pub(super) changes: watch::Receiver<Status>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watchers = self.shared.watchers.lock();
        // After the end of the saga the entry may be somebody else's.
        let is_last = |sender: &watch::Sender<Status>| {
            sender.receiver_count() == 1 && sender.subscribe().same_channel(&self.changes)
        };
        if watchers.get(&self.saga).is_some_and(is_last) {
            drop(watchers.remove(&self.saga));
        }
    }
}
