//! The children that a runtime knows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestra_core::InstanceId;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::watch;

use super::output::Ring;
use super::{Inner, unknown};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{Container, Exit};

/// How many ended children are remembered.
const REMEMBERED: usize = 1_024;

/// A process group led by a child that is not reaped yet.
#[derive(Debug)]
pub(super) struct Group {
    /// `None` once the leader may be reaped: from then on the number may be anyone's.
    leader: Mutex<Option<Pid>>,
    forced: AtomicBool,
}

impl Group {
    pub(super) fn new(leader: Pid) -> Self {
        Self {
            leader: Mutex::new(Some(leader)),
            forced: AtomicBool::new(false),
        }
    }

    /// Signals every process of the group, if it is still ours.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(leader) = *self.leader.lock() {
            // Nobody left to signal is as good.
            let _gone = kill_process_group(leader, signal);
        }
    }

    /// Kills the group on behalf of the runtime.
    pub(super) fn force(&self) {
        self.forced.store(true, Ordering::Relaxed);
        self.signal(Signal::KILL);
    }

    pub(super) fn was_forced(&self) -> bool {
        self.forced.load(Ordering::Relaxed)
    }

    /// Kills what is left of the group and lets go of its number.
    pub(super) fn finish(&self) {
        if let Some(leader) = self.leader.lock().take() {
            let _gone = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// One child, running or ended.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) container: Container,
    pub(super) group: Arc<Group>,
    pub(super) output: Arc<Mutex<Ring>>,
    pub(super) exit: watch::Receiver<Option<Exit>>,
}

impl Slot {
    /// Returns when the child has ended.
    pub(super) async fn ended(&self) -> Result<Exit> {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await;
        let exit = ended.ok().and_then(|exit| *exit);
        exit.ok_or_else(|| unknown(&self.container.instance))
    }
}

/// Every child, by the id of its instance.
#[derive(Debug)]
pub(super) struct Slots {
    /// `None` while a start is under way.
    known: HashMap<InstanceId, Option<Slot>>,
    ended: VecDeque<InstanceId>,
    max_running: usize,
}

impl Slots {
    pub(super) fn new(max_running: usize) -> Self {
        Self {
            known: HashMap::new(),
            ended: VecDeque::new(),
            max_running,
        }
    }

    pub(super) fn known(&self, id: &InstanceId) -> Option<Slot> {
        self.known.get(id).cloned().flatten()
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Slot> {
        let slots = self.known.values().flatten();
        slots.filter(|slot| slot.exit.borrow().is_none())
    }

    /// Remembers the end of a child, and forgets the oldest end beyond the bound.
    pub(super) fn ended(&mut self, id: InstanceId) {
        self.ended.push_back(id);
        if self.ended.len() > REMEMBERED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// An id under way: given up when dropped, unless the start succeeded.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) inner: Arc<Inner>,
    id: InstanceId,
    is_filled: bool,
}

impl Claim {
    /// Refused if the id is known, the runtime is full or closing.
    pub(super) fn new(inner: &Arc<Inner>, id: &InstanceId) -> Result<Self> {
        let mut slots = inner.slots.lock();
        if inner.closing.is_cancelled() {
            let context = format!("runtime is shut down, {id} not started");
            return Err(Error::new(ErrorKind::ShutDown, context));
        }
        if slots.known.contains_key(id) {
            let context = format!("container {id} exists already");
            return Err(Error::new(ErrorKind::AlreadyExists, context));
        }
        let running = slots.known.len().saturating_sub(slots.ended.len());
        if running >= slots.max_running {
            let context = format!("{running} containers run already, {id} not started");
            return Err(Error::new(ErrorKind::Full, context));
        }
        slots.known.insert(id.clone(), None);
        Ok(Self {
            inner: Arc::clone(inner),
            id: id.clone(),
            is_filled: false,
        })
    }

    /// The child runs.
    pub(super) fn fill(mut self, slot: Slot) {
        self.is_filled = true;
        let mut slots = self.inner.slots.lock();
        slots.known.insert(self.id.clone(), Some(slot));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_filled {
            self.inner.slots.lock().known.remove(&self.id);
        }
    }
}
