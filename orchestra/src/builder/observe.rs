use std::sync::Arc;

use orchestra_core::Clock;
use orchestra_observe::{Registry, Tracer};

use super::Builder;

#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) metrics: Registry,
    tracer: Option<Tracer>,
}

impl Parts {
    pub(crate) fn tracer(&mut self, clock: &Arc<dyn Clock>, seed: Option<u64>) -> Tracer {
        self.tracer.take().unwrap_or_else(|| {
            let builder = Tracer::builder().clock(Arc::clone(clock));
            match seed {
                Some(seed) => builder.seed(seed).build(),
                None => builder.build(),
            }
        })
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "observe")))]
impl Builder {
    /// Where the platform registers its metrics; a registry of its own unless given.
    pub fn metrics(mut self, metrics: Registry) -> Self {
        self.observe.metrics = metrics;
        self
    }

    /// Who begins the spans of saga steps; one that follows the caller's decision unless given.
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        self.observe.tracer = Some(tracer);
        self
    }
}
