//! The links between instances, registries and clients, which can be cut, and lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{Clock, InstanceId, Monotonic, TokioClock};
use orchestra_discovery::{
    Capabilities, Change, Error, ErrorKind, MemoryRegistry, Revision, Scope, Snapshot, Source,
    Watch, WatchEvent, WatchStream,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// tokio's time, ahead by what it was stepped.
#[derive(Debug)]
pub(super) struct Stepped(pub(super) TokioClock, pub(super) AtomicU64);

impl Clock for Stepped {
    fn now(&self) -> Monotonic {
        self.0.now() + Duration::from_nanos(self.1.load(Ordering::Relaxed))
    }
}

pub(super) fn refused() -> Error {
    Error::new(ErrorKind::Unavailable, "refused")
}

/// How a client reads a registry at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Up,
    Refusing,
    Hanging,
    /// Says that there is nobody.
    Blank,
    /// Answers, and its watches say nothing.
    Mute,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mood: Mood,
    life: u32,
    resets: u32,
}

#[derive(Debug)]
struct Wire {
    backend: Mutex<MemoryRegistry>,
    kept: Mutex<Option<Snapshot>>,
    stale: AtomicBool,
    lagged: AtomicBool,
    asked: AtomicU64,
    garbled: bool,
    state: watch::Sender<State>,
}

/// The client's link to a registry; a clone is another handle.
#[derive(Debug, Clone)]
pub(super) struct Channel(Arc<Wire>);

impl Channel {
    pub(super) fn new(backend: MemoryRegistry, garbled: bool) -> Self {
        let (mood, life, resets) = (Mood::Up, 0, 0);
        Self(Arc::new(Wire {
            backend: Mutex::new(backend),
            kept: Mutex::default(),
            stale: AtomicBool::default(),
            lagged: AtomicBool::default(),
            asked: AtomicU64::default(),
            garbled,
            state: watch::Sender::new(State { mood, life, resets }),
        }))
    }

    pub(super) fn backend(&self) -> MemoryRegistry {
        self.0.backend.lock().clone()
    }

    pub(super) fn mood(&self) -> Mood {
        self.0.state.borrow().mood
    }

    pub(super) fn set(&self, mood: Mood) {
        self.0.state.send_modify(|state| state.mood = mood);
    }

    /// Another registry is in its place, which knows nothing of the former.
    pub(super) fn replace(&self, backend: MemoryRegistry) {
        *self.0.backend.lock() = backend;
        *self.0.kept.lock() = None;
        self.0.stale.store(false, Ordering::Relaxed);
        self.0.state.send_modify(|state| state.life += 1);
    }

    /// Watches say `Resync`.
    pub(super) fn reset(&self) {
        self.0.state.send_modify(|state| state.resets += 1);
    }

    /// Keeps what a snapshot says now, to be served when it is old.
    pub(super) fn keep(&self, snapshot: Snapshot) {
        *self.0.kept.lock() = Some(snapshot);
    }

    /// The next snapshot is the one that was kept, as a replica that is behind would give it.
    pub(super) fn lag(&self) {
        self.0.stale.store(true, Ordering::Relaxed);
        self.reset();
    }

    /// How often it was asked for a snapshot.
    pub(super) fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Whether an old snapshot was served since this was asked last.
    pub(super) fn take_lagged(&self) -> bool {
        self.0.lagged.swap(false, Ordering::Relaxed)
    }

    async fn answers(&self) -> Result<Mood, Error> {
        match self.mood() {
            Mood::Refusing => Err(refused()),
            Mood::Hanging => std::future::pending().await,
            mood => Ok(mood),
        }
    }
}

#[async_trait]
impl Source for Channel {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let mood = self.answers().await?;
        let snapshot = self.backend().snapshot(scope).await?;
        if mood == Mood::Blank {
            return Ok(Snapshot::new(scope.clone(), snapshot.revision(), vec![]));
        }
        if self.0.stale.swap(false, Ordering::Relaxed) {
            let kept = self.0.kept.lock().clone();
            self.0.lagged.store(kept.is_some(), Ordering::Relaxed);
            return Ok(kept.unwrap_or(snapshot));
        }
        Ok(snapshot)
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        self.answers().await?;
        let state = self.0.state.subscribe();
        let State { life, resets, .. } = *state.borrow();
        Ok(Watch::new(Stream {
            inner: self.backend().watch(scope, after).await?,
            garbled: self.0.garbled,
            late: Vec::new(),
            state,
            life,
            resets,
        }))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

struct Stream {
    inner: Watch,
    garbled: bool,
    /// To be told next.
    late: Vec<Change>,
    state: watch::Receiver<State>,
    life: u32,
    resets: u32,
}

#[async_trait]
impl WatchStream for Stream {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            let State { mood, life, resets } = *self.state.borrow_and_update();
            if mood == Mood::Refusing || life != self.life {
                return Err(refused());
            }
            if resets != self.resets {
                return Ok(WatchEvent::Resync);
            }
            if mood == Mood::Up && !self.late.is_empty() {
                let (revision, changes) = (self.revision(), std::mem::take(&mut self.late));
                return Ok(WatchEvent::Changes { revision, changes });
            }
            tokio::select! {
                biased;
                event = self.inner.next(), if mood == Mood::Up => return match event? {
                    WatchEvent::Changes { revision, changes } if self.garbled => {
                        let (changes, late) = garbled(changes);
                        self.late = late;
                        Ok(WatchEvent::Changes { revision, changes })
                    }
                    event => Ok(event),
                },
                changed = self.state.changed() => if changed.is_err() {
                    return Err(refused());
                }
            }
        }
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }
}

fn key(change: &Change) -> (InstanceId, u64) {
    match change {
        Change::Upserted(instance) => (instance.id.clone(), instance.incarnation.as_u64()),
        Change::Removed(removal) => (removal.id.clone(), removal.incarnation.as_u64()),
        _ => panic!("{change:?}"),
    }
}

/// Everything twice, instances in another order; and apart from that, for later, the word that ghosts are gone
/// whose heirs are there.
fn garbled(mut changes: Vec<Change>) -> (Vec<Change>, Vec<Change>) {
    changes.sort_by(|a, b| key(b).0.cmp(&key(a).0));
    let heirs = changes.clone();
    let is_late = |change: &Change| {
        let (id, incarnation) = key(change);
        let mut heirs = heirs.iter().filter(|it| matches!(it, Change::Upserted(_)));
        matches!(change, Change::Removed(_))
            && heirs.any(|heir| key(heir).0 == id && key(heir).1 > incarnation)
    };
    let (late, prompt): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_late);
    let twice = prompt.into_iter().flat_map(|it| [it.clone(), it]);
    (twice.collect(), late)
}
