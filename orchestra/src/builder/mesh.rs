use std::collections::HashMap;
use std::sync::Arc;

#[cfg(feature = "discovery")]
use orchestra_core::Locality;
use orchestra_core::{Listener, ServiceName};
#[cfg(feature = "discovery")]
use orchestra_discovery::{Registry, resolver};
use orchestra_mesh::{Event, Policy, breaker};

use super::Builder;
#[cfg(feature = "discovery")]
use crate::clients::{Clients, Plan};
#[cfg(feature = "discovery")]
use crate::error::Result;
use crate::fan::Fan;
#[cfg(feature = "discovery")]
use crate::wire::gate::Breakers;

#[cfg(feature = "discovery")]
pub(crate) type AdjustResolver =
    Box<dyn Fn(&ServiceName, resolver::Config) -> resolver::Config + Send + Sync>;

#[derive(Default)]
pub(crate) struct Parts {
    #[cfg(feature = "discovery")]
    resolver: Option<AdjustResolver>,
    #[cfg(feature = "discovery")]
    locality: Option<Locality>,
    pub(crate) breaker: breaker::Config,
    pub(crate) policy: Policy,
    pub(crate) policies: HashMap<ServiceName, Policy>,
    pub(crate) headers: http::HeaderMap,
    pub(crate) events: Fan<Event>,
}

#[cfg(feature = "discovery")]
impl Builder {
    /// What makes a client of each service that is called.
    pub(crate) fn clients(&mut self, registry: &Arc<dyn Registry>) -> Result<Clients> {
        let cache = self.open_cache(registry)?;
        let mesh = &mut self.mesh;
        let events = Arc::new(mesh.events.clone());
        Ok(Clients::new(Plan {
            registry: Arc::clone(registry),
            cache,
            checks: std::mem::take(&mut self.checks),
            gates: Arc::new(Breakers::new(mesh.breaker, events)?),
            resolver: mesh.resolver.take(),
            policy: mesh.policy.clone(),
            policies: std::mem::take(&mut mesh.policies),
            headers: std::mem::take(&mut mesh.headers),
            locality: mesh.locality.take(),
            clock: Arc::clone(&self.clock),
            seed: self.seed,
            discovery_events: self.discovery.events.clone(),
            mesh_events: mesh.events.clone(),
        }))
    }
}

#[cfg(feature = "discovery")]
#[cfg_attr(docsrs, doc(cfg(all(feature = "discovery", feature = "mesh"))))]
impl Builder {
    /// Changes how the clients of a service choose an instance: its balancer, its gates. Without it
    /// they take the better of two and each instance has a circuit breaker. The listener is set
    /// afterwards.
    ///
    /// A balancer that goes by hashes takes them from the requests
    /// ([`HashKey`](orchestra_mesh::pick::HashKey)), one that scores by proximity needs to know where this is
    /// ([`locality`](Self::locality)), and zone-aware routing where all the callers are
    /// ([`Resolver::set_callers`](orchestra_discovery::Resolver::set_callers) of
    /// [`Orchestra::resolver`](crate::Orchestra::resolver)).
    pub fn resolver(
        mut self,
        adjust: impl Fn(&ServiceName, resolver::Config) -> resolver::Config + Send + Sync + 'static,
    ) -> Self {
        self.mesh.resolver = Some(Box::new(adjust));
        self
    }

    /// Where this process is, for balancers that score by proximity.
    pub fn locality(mut self, locality: Locality) -> Self {
        self.mesh.locality = Some(locality);
        self
    }
}

#[cfg_attr(docsrs, doc(cfg(feature = "mesh")))]
impl Builder {
    /// How calls to a service are made whose own policy was not set.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.mesh.policy = policy;
        self
    }

    /// How calls to this service are made.
    pub fn policy_for(mut self, service: ServiceName, policy: Policy) -> Self {
        self.mesh.policies.insert(service, policy);
        self
    }

    /// Sent with every request to every service: a token by which services know the platform.
    pub fn header(mut self, name: http::HeaderName, value: http::HeaderValue) -> Self {
        self.mesh.headers.insert(name, value);
        self
    }

    /// How the circuit breaker of each instance decides.
    pub fn breaker(mut self, config: breaker::Config) -> Self {
        self.mesh.breaker = config;
        self
    }

    /// Hears what clients, breakers and gateways do.
    pub fn on_mesh(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.mesh.events.add(listener);
        self
    }
}
