use std::fmt;
use std::sync::Arc;

use orchestra_core::{Clock, Listener, Silent, TokioClock};
use tokio::task::JoinSet;

use super::Reconciler;
use super::driver::{Driver, Ports};
use super::handle::{Handle, Shared};
use super::launch::{AsWritten, Launch, PlacementListener, Unheard};
use crate::event::Event;
use crate::reconcile::Tuning;
use crate::runtime::ContainerRuntime;
use crate::schedule::Scheduler;

/// What a [`Reconciler`] is made of.
pub struct Builder {
    runtime: Arc<dyn ContainerRuntime>,
    scheduler: Scheduler,
    clock: Arc<dyn Clock>,
    listener: Arc<dyn Listener<Event>>,
    placements: Arc<dyn PlacementListener>,
    launch: Arc<dyn Launch>,
    tuning: Tuning,
    seed: Option<u64>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("runtime", &self.runtime)
            .field("scheduler", &self.scheduler)
            .field("tuning", &self.tuning)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new(runtime: Arc<dyn ContainerRuntime>) -> Self {
        Self {
            runtime,
            scheduler: Scheduler::default(),
            clock: Arc::new(TokioClock::new()),
            listener: Arc::new(Silent),
            placements: Arc::new(Unheard),
            launch: Arc::new(AsWritten),
            tuning: Tuning::default(),
            seed: None,
        }
    }

    /// Chooses nodes with this scheduler.
    #[must_use]
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// Reads this clock; sleeping follows tokio's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Reports to this listener.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.listener = listener;
        self
    }

    /// Tells this port which instances run.
    #[must_use]
    pub fn placements(mut self, placements: Arc<dyn PlacementListener>) -> Self {
        self.placements = placements;
        self
    }

    /// Completes the spec of every instance.
    #[must_use]
    pub fn launch(mut self, launch: impl Launch + 'static) -> Self {
        self.launch = Arc::new(launch);
        self
    }

    /// Decides with these knobs.
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// Draws from this seed, so that placements and delays can be repeated. The suffixes of instance ids
    /// never repeat, whatever the seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the loop on the current tokio runtime.
    pub fn start(self) -> Reconciler {
        let (version, changes) = tokio::sync::watch::channel(0);
        let shared = Arc::new(Shared::new(self.tuning, self.clock, changes));
        let ports = Ports {
            runtime: self.runtime,
            scheduler: self.scheduler,
            listener: self.listener,
            placements: self.placements,
            launch: self.launch,
        };
        let draws = self
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let driver = Driver::new(Arc::clone(&shared), ports, draws, version);
        let mut task = JoinSet::new();
        task.spawn(driver.run());
        Reconciler {
            handle: Handle::new(shared),
            task,
        }
    }
}
