use std::sync::Arc;

use orchestra_core::Listener;
use orchestra_discovery::registry::memory;
use orchestra_discovery::{Event, MemoryRegistry, Registry};

use super::Builder;
use crate::fan::Fan;

#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) registry: Option<Arc<dyn Registry>>,
    pub(crate) events: Fan<Event>,
}

#[cfg_attr(docsrs, doc(cfg(feature = "discovery")))]
impl Builder {
    /// Where instances are registered; in memory unless given.
    pub fn registry(mut self, registry: impl Registry + 'static) -> Self {
        self.discovery.registry = Some(Arc::new(registry));
        self
    }

    pub(crate) fn registry_or_memory(&mut self) -> Arc<dyn Registry> {
        self.discovery.registry.take().unwrap_or_else(|| {
            let config = memory::Config::default()
                .clock(Arc::clone(&self.clock))
                .listener(Arc::new(self.discovery.events.clone()));
            Arc::new(MemoryRegistry::new(config))
        })
    }

    /// Hears what resolvers, health checks and the cache do; the cache tells under its lock, so nobody may
    /// call it from here. A registry that is given has a listener of its own.
    pub fn on_discovery(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.discovery.events.add(listener);
        self
    }
}
