//! One resolver and its clients for each service that is called.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Clock, Locality, ServiceName};
use orchestra_discovery::{
    Cache, Follow, Gates, HealthCheck, Registry, Resolver, Source, follow, resolver,
};
use orchestra_mesh::retry::{self, Condition, RetryOn};
use orchestra_mesh::{Client, Policy};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::builder::AdjustResolver;
use crate::checks::Checks;
use crate::error::{Error, ErrorKind, Result};
use crate::fan::Fan;

/// Services that can be called at most: a name out of a request must not grow memory for ever.
pub(crate) const MAX_SERVICES: usize = 4096;

/// What all clients share.
pub(crate) struct Plan {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) cache: Option<Cache>,
    pub(crate) checks: Checks,
    pub(crate) gates: Arc<dyn Gates>,
    pub(crate) resolver: Option<AdjustResolver>,
    pub(crate) policy: Policy,
    pub(crate) policies: HashMap<ServiceName, Policy>,
    pub(crate) headers: http::HeaderMap,
    pub(crate) locality: Option<Locality>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: Option<u64>,
    pub(crate) discovery_events: Fan<orchestra_discovery::Event>,
    pub(crate) mesh_events: Fan<orchestra_mesh::Event>,
}

#[derive(Clone)]
pub(crate) struct Clients(Arc<Shared>);

struct Shared {
    plan: Plan,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    services: HashMap<ServiceName, Service>,
    closed: bool,
}

struct Service {
    resolver: Resolver,
    follow: Follow,
    check: Option<HealthCheck>,
    client: Client,
    #[cfg(feature = "saga")]
    steps: Client,
}

impl Clients {
    pub(crate) fn new(plan: Plan) -> Self {
        Self(Arc::new(Shared {
            plan,
            known: Mutex::default(),
        }))
    }

    pub(crate) fn client(&self, service: &ServiceName) -> Result<Client> {
        self.with(service, |known| known.client.clone())
    }

    /// For a caller that repeats by itself whatever may have been processed.
    #[cfg(feature = "saga")]
    pub(crate) fn for_steps(&self, service: &ServiceName) -> Result<Client> {
        self.with(service, |known| known.steps.clone())
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.0.plan.cache.as_ref()
    }

    pub(crate) fn resolver(&self, service: &ServiceName) -> Result<Resolver> {
        self.with(service, |known| known.resolver.clone())
    }

    /// Waits until the first members are known.
    pub(crate) async fn resolved(&self, service: &ServiceName) -> Result<()> {
        let ready = self.with(service, |known| known.follow.ready())?;
        Ok(ready.await?)
    }

    fn with<T>(&self, service: &ServiceName, take: impl FnOnce(&Service) -> T) -> Result<T> {
        let mut known = self.0.known.lock();
        if known.closed {
            return Err(Error::new(
                ErrorKind::ShutDown,
                "the platform is shutting down",
            ));
        }
        let full = known.services.len() >= MAX_SERVICES;
        match known.services.entry(service.clone()) {
            Entry::Occupied(found) => Ok(take(found.get())),
            Entry::Vacant(_) if full => {
                let message =
                    format!("service {service}: {MAX_SERVICES} services are called already");
                Err(Error::new(ErrorKind::Config, message))
            }
            Entry::Vacant(vacant) => Ok(take(vacant.insert(self.0.plan.open(service)?))),
        }
    }

    /// Ends the clients, then what feeds them. Connections still busy after `grace` are dropped.
    pub(crate) async fn shutdown(&self, grace: Duration) -> Result<()> {
        let services = {
            let mut known = self.0.known.lock();
            known.closed = true;
            std::mem::take(&mut known.services)
        };
        let mut closing = JoinSet::new();
        for (name, service) in services {
            closing.spawn(service.close(name, grace));
        }
        let mut first = Ok(());
        while let Some(closed) = closing.join_next().await {
            first = first.and(closed.unwrap_or(Ok(())));
        }
        // Whoever follows it has ended.
        if let Some(cache) = &self.0.plan.cache {
            first = first.and(cache.shutdown().await);
        }
        Ok(first?)
    }
}

impl Service {
    async fn close(self, name: ServiceName, grace: Duration) -> orchestra_discovery::Result<()> {
        let busy = async {
            self.client.shutdown().await;
            #[cfg(feature = "saga")]
            self.steps.shutdown().await;
        };
        if tokio::time::timeout(grace, busy).await.is_err() {
            tracing::warn!(service = %name, "connections were still busy and are dropped");
        }
        let checked = match self.check {
            Some(check) => check.shutdown().await,
            None => Ok(()),
        };
        self.follow.shutdown().await.and(checked)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.known.lock();
        f.debug_struct("Clients")
            .field("services", &known.services.keys())
            .finish_non_exhaustive()
    }
}

impl Plan {
    fn open(&self, service: &ServiceName) -> Result<Service> {
        let events: Arc<dyn orchestra_core::Listener<_>> = Arc::new(self.discovery_events.clone());
        let config = resolver::Config::default().gates(Arc::clone(&self.gates));
        let config = match &self.resolver {
            Some(adjust) => adjust(service, config),
            None => config,
        };
        let config = config.listener(Arc::clone(&events));
        let resolver = Resolver::new(service.clone(), config);
        let policy = self.policies.get(service).unwrap_or(&self.policy);
        let client = self.client(service, &resolver, policy.clone())?;
        #[cfg(feature = "saga")]
        let steps = {
            let unprocessed = RetryOn::new([Condition::ConnectFailure, Condition::RefusedStream]);
            let retry = retry::Policy::default().retry_on(unprocessed);
            // The attempt's own deadline is the limit.
            let policy = policy
                .clone()
                .retry(retry)
                .without_timeout()
                .without_attempt_timeout();
            self.client(service, &resolver, policy)?
        };
        let check = self
            .checks
            .start(&resolver, &self.clock, self.seed, &events);
        let mut config = follow::Config::default().listener(events);
        if let Some(seed) = self.seed {
            config = config.seed(seed);
        }
        let follow = Follow::start(self.source(), resolver.clone(), config);
        Ok(Service {
            resolver,
            follow,
            check,
            client,
            #[cfg(feature = "saga")]
            steps,
        })
    }

    fn source(&self) -> Arc<dyn Source> {
        match &self.cache {
            Some(cache) => Arc::new(cache.clone()),
            None => Arc::<dyn Registry>::clone(&self.registry),
        }
    }

    fn client(&self, service: &ServiceName, resolver: &Resolver, policy: Policy) -> Result<Client> {
        let mut pick = crate::wire::pick::ResolverPick::new(resolver.clone());
        if let Some(locality) = &self.locality {
            pick = pick.locality(locality.clone());
        }
        let mut builder = Client::builder(service.clone(), Arc::new(pick))
            .policy(policy)
            .headers(&self.headers)
            .clock(Arc::clone(&self.clock))
            .listener(Arc::new(self.mesh_events.clone()));
        if let Some(seed) = self.seed {
            builder = builder.seed(seed);
        }
        Ok(builder.build()?)
    }
}
