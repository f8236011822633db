#[cfg(all(feature = "discovery", feature = "mesh"))]
mod checks;
#[cfg(feature = "discovery")]
mod discovery;
#[cfg(feature = "mesh")]
mod mesh;
#[cfg(feature = "observe")]
mod observe;
#[cfg(feature = "saga")]
mod saga;
#[cfg(feature = "scheduler")]
mod scheduler;
#[cfg(all(feature = "discovery", feature = "mesh"))]
mod sources;

use std::fmt;
use std::sync::Arc;

use orchestra_core::{Clock, TokioClock};

#[cfg(all(feature = "discovery", feature = "mesh"))]
use crate::checks::Checks;
use crate::error::Result;
use crate::running::Orchestra;

/// Takes an implementation of each trait and puts the platform together.
///
/// Nothing is required: the registry is in memory unless one is given, and there is a scheduler only if
/// there is a runtime, and sagas only if there is a store.
#[must_use = "nothing runs before `build`"]
pub struct Builder {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: Option<u64>,
    #[cfg(feature = "discovery")]
    pub(crate) discovery: discovery::Parts,
    #[cfg(all(feature = "discovery", feature = "mesh"))]
    pub(crate) sources: sources::Parts,
    #[cfg(all(feature = "discovery", feature = "mesh"))]
    pub(crate) checks: Checks,
    #[cfg(feature = "scheduler")]
    pub(crate) scheduler: scheduler::Parts,
    #[cfg(feature = "saga")]
    pub(crate) saga: saga::Parts,
    #[cfg(feature = "mesh")]
    pub(crate) mesh: mesh::Parts,
    #[cfg(feature = "observe")]
    pub(crate) observe: observe::Parts,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            clock: Arc::new(TokioClock::new()),
            seed: None,
            #[cfg(feature = "discovery")]
            discovery: discovery::Parts::default(),
            #[cfg(all(feature = "discovery", feature = "mesh"))]
            sources: sources::Parts::default(),
            #[cfg(all(feature = "discovery", feature = "mesh"))]
            checks: Checks::default(),
            #[cfg(feature = "scheduler")]
            scheduler: scheduler::Parts::default(),
            #[cfg(feature = "saga")]
            saga: saga::Parts::default(),
            #[cfg(feature = "mesh")]
            mesh: mesh::Parts::default(),
            #[cfg(feature = "observe")]
            observe: observe::Parts::default(),
        }
    }

    /// Measures time by this clock everywhere; tokio's unless given. Sleeping follows tokio's in any case.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes every draw repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Puts everything together and starts it, sagas first: they are recovered before a process is
    /// started, and a store that is in use fails the build while nothing runs.
    ///
    /// Must be called within a tokio runtime with time and I/O. Cancelled, what was started ends as its
    /// parts are dropped.
    pub async fn build(self) -> Result<Orchestra> {
        Orchestra::start(self).await
    }
}

/// What the parts hear and read in common.
impl Builder {
    /// Adds the metrics to what listens already.
    pub(crate) fn observe_events(&mut self) -> Result<()> {
        #[cfg(all(
            feature = "observe",
            any(
                feature = "discovery",
                feature = "scheduler",
                feature = "saga",
                feature = "mesh"
            )
        ))]
        {
            let metrics = crate::wire::events::Telemetry::register(&self.observe.metrics)?;
            #[cfg(feature = "discovery")]
            self.discovery.events.add(Arc::new(metrics.clone()));
            #[cfg(feature = "scheduler")]
            self.scheduler.events.add(Arc::new(metrics.clone()));
            #[cfg(feature = "mesh")]
            self.mesh.events.add(Arc::new(metrics.clone()));
            #[cfg(feature = "saga")]
            self.saga.listen(metrics);
        }
        Ok(())
    }
}

#[cfg(all(feature = "discovery", feature = "mesh"))]
pub(crate) use mesh::AdjustResolver;
