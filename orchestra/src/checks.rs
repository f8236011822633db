//! Health checks of the services that are called.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{Clock, Listener, ServiceName};
use orchestra_discovery::health::{self, Reach};
use orchestra_discovery::{Event, HealthCheck, Instance, Probe, Resolver, Verdict};

/// How the instances of services are checked, and how far that may go.
#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) general: Option<Check>,
    pub(crate) services: HashMap<ServiceName, Check>,
    pub(crate) reach: Reach,
}

pub(crate) struct Check {
    probe: Arc<dyn Probe>,
    config: health::Config,
}

impl Check {
    pub(crate) fn new(probe: Arc<dyn Probe>, config: health::Config) -> Self {
        Self { probe, config }
    }
}

impl Checks {
    /// Begins to check the members of this resolver, if its service is to be checked.
    pub(crate) fn start(
        &self,
        resolver: &Resolver,
        clock: &Arc<dyn Clock>,
        seed: Option<u64>,
        events: &Arc<dyn Listener<Event>>,
    ) -> Option<HealthCheck> {
        let own = self.services.get(resolver.service());
        let Check { probe, config } = own.or(self.general.as_ref())?;
        let probe = Within {
            inner: Arc::clone(probe),
            reach: self.reach.clone(),
        };
        let mut config = config
            .clone()
            .clock(Arc::clone(clock))
            .listener(Arc::clone(events));
        config.seed = config.seed.or(seed);
        Some(HealthCheck::start(
            Arc::new(probe),
            resolver.clone(),
            config,
        ))
    }
}

/// Another probe, made only of those whom the platform may reach: a probe of the user's own need not know
/// that part of its target is the registration's word.
struct Within {
    inner: Arc<dyn Probe>,
    reach: Reach,
}

#[async_trait]
impl Probe for Within {
    async fn probe(&self, instance: &Instance) -> Verdict {
        let target = instance.probe.as_deref().cloned().unwrap_or_default();
        match self.reach.check(&instance.endpoint, &target) {
            Ok(()) => self.inner.probe(instance).await,
            Err(forbidden) => Verdict::Forbidden(forbidden.to_string()),
        }
    }

    fn forget(&self, instance: &Instance) {
        self.inner.forget(instance);
    }
}
