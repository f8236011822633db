use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use orchestra_core::{Clock, Monotonic, ServiceName};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::answer::Answer;
use super::config::{Config, SourceOptions};
use super::driver::Driver;
use super::table::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Events;
use crate::source::Source;
use crate::task::Task;

/// A source and how it is treated.
pub(super) struct Feed {
    pub(super) name: Arc<str>,
    pub(super) source: Arc<dyn Source>,
    pub(super) tier: usize,
    pub(super) options: SourceOptions,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("name", &self.name)
            .field("tier", &self.tier)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What the handles, the watches and the tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) feeds: Vec<Feed>,
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: Events,
    pub(super) hits: bool,
    pub(super) state: Mutex<State>,
    #[cfg(feature = "serde")]
    pub(super) disk: Option<super::disk::Disk>,
}

/// The table and the tasks that feed it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) table: Table,
    /// Emptied when the cache ends, as each task holds what it is held by.
    tasks: HashMap<ServiceName, Vec<Task<()>>>,
    closed: bool,
    rng: fastrand::Rng,
}

impl State {
    pub(super) fn new(table: Table, rng: fastrand::Rng) -> Self {
        Self {
            table,
            tasks: HashMap::new(),
            closed: false,
            rng,
        }
    }
}

impl Shared {
    /// Acts on the table and tells the listener, in the order of the acts.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Table, Monotonic) -> T) -> T {
        let mut state = self.state.lock();
        let result = act(&mut state.table, self.clock.now());
        self.tell(&mut state);
        result
    }

    fn tell(&self, state: &mut State) {
        for event in state.table.take_events() {
            self.events.emit(&event);
        }
    }

    /// The same of one service, after which it may be known to have no members.
    pub(super) fn act_on<T>(
        &self,
        service: &ServiceName,
        act: impl FnOnce(&mut Table, Monotonic) -> T,
    ) -> T {
        let mut state = self.state.lock();
        let now = self.clock.now();
        let draw = state.rng.u64(..);
        let result = act(&mut state.table, now);
        state.table.note_barren(service, draw, now);
        self.tell(&mut state);
        result
    }

    /// Keeps the entry of a service, which is made and fed if there is none.
    pub(super) fn pin(self: &Arc<Self>, service: &ServiceName, as_watch: Pinned) -> Result<Pin> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(closed());
        }
        let (new, evicted) = state.table.ensure(service)?;
        let old = evicted.and_then(|evicted| state.tasks.remove(&evicted));
        if new {
            #[cfg(feature = "serde")]
            self.warm(&mut state.table, service);
            let tasks = self.feed(service, &mut state.rng);
            state.tasks.insert(service.clone(), tasks);
        }
        let Some(entry) = state.table.entry(service) else {
            return Err(closed());
        };
        entry.pins += 1;
        entry.watchers += usize::from(as_watch == Pinned::ByWatch);
        let progress = entry.progress.subscribe();
        self.tell(state);
        drop(guard);
        drop(old);
        Ok(Pin {
            shared: Arc::clone(self),
            service: service.clone(),
            kind: as_watch,
            progress,
        })
    }

    #[cfg(feature = "serde")]
    fn warm(&self, table: &mut Table, service: &ServiceName) {
        let now = self.clock.now();
        match self.disk.as_ref().map(|disk| disk.take(service)) {
            Some(Ok(parts)) => {
                for (source, instances) in parts {
                    table.seed(service, &source, instances, now);
                }
            }
            Some(Err(reason)) => {
                tracing::warn!(%service, %reason, "a part of the cache file is ignored");
                self.events
                    .emit(&crate::event::Event::DiskIgnored { reason });
            }
            None => {}
        }
        table.warmed(service, now);
    }

    fn feed(self: &Arc<Self>, service: &ServiceName, rng: &mut fastrand::Rng) -> Vec<Task<()>> {
        let drivers = (0..self.feeds.len())
            .map(|at| Driver::new(Arc::clone(self), service.clone(), at, rng.fork()));
        drivers
            .map(|driver| Task::spawn(|stop| driver.run(stop)))
            .collect()
    }

    /// The answer as soon as there is one.
    pub(super) async fn answer(self: &Arc<Self>, service: &ServiceName) -> Result<Answer> {
        if let Some(answer) = self.at_once(service) {
            return answer;
        }
        let mut pin = self.pin(service, Pinned::ByCall)?;
        loop {
            pin.progress.borrow_and_update();
            if let Some(answer) = self.act(|table, now| table.answer(service, now)) {
                return answer;
            }
            if pin.progress.changed().await.is_err() {
                return Err(closed());
            }
        }
    }

    fn at_once(&self, service: &ServiceName) -> Option<Result<Answer>> {
        self.act(|table, now| {
            let answer = table.touch(service, now)?;
            if self.hits
                && let Ok(answer) = &answer
            {
                table.note_hit(service, answer.freshness);
            }
            Some(answer)
        })
    }

    /// Whatever time alone changes.
    pub(super) fn tick(&self) {
        let mut state = self.state.lock();
        let now = self.clock.now();
        let dropped = state.table.tick(now);
        let tasks: Vec<_> = dropped
            .iter()
            .filter_map(|service| state.tasks.remove(service))
            .collect();
        self.tell(&mut state);
        drop(state);
        drop(tasks);
    }

    /// Takes the tasks that feed the table, which nobody asks for anything new from now on.
    pub(super) fn stop_feeding(&self) -> Vec<Task<()>> {
        let mut state = self.state.lock();
        state.closed = true;
        state.tasks.drain().flat_map(|(_, tasks)| tasks).collect()
    }

    /// Ends: the tasks, and who waits.
    pub(super) fn close(&self) -> Vec<Task<()>> {
        let tasks = self.stop_feeding();
        self.act(|table, _| table.hang_up());
        tasks
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the cache is gone")
}

/// For what an entry is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pinned {
    ByCall,
    ByWatch,
}

/// Keeps an entry until it is dropped.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) shared: Arc<Shared>,
    pub(super) service: ServiceName,
    kind: Pinned,
    pub(super) progress: watch::Receiver<usize>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let by_watch = usize::from(self.kind == Pinned::ByWatch);
        self.shared.act(|table, _| {
            if let Some(entry) = table.entry(&self.service) {
                entry.pins = entry.pins.saturating_sub(1);
                entry.watchers = entry.watchers.saturating_sub(by_watch);
            }
        });
    }
}
