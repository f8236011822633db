use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Monotonic, ServiceName};
use orchestra_discovery::{
    Incarnation, Instance, PickContext, Registration, Resolver, Revision, Scope, Snapshot,
};

pub(crate) fn service() -> ServiceName {
    "payments".parse().unwrap()
}

pub(crate) fn asked(id: &str, ttl: Duration) -> Registration {
    let endpoint = "127.0.0.1:80".parse().unwrap();
    Registration::new(service(), id.parse().unwrap(), endpoint, ttl)
}

pub(crate) fn instance(id: &str, incarnation: u64) -> Instance {
    let (id, endpoint) = (id.parse().unwrap(), "127.0.0.1:80".parse().unwrap());
    Instance::new(service(), id, Incarnation::new(incarnation), endpoint)
}

pub(crate) fn snapshot(instances: impl IntoIterator<Item = Instance>) -> Snapshot {
    let instances = instances.into_iter().map(Arc::new).collect();
    Snapshot::new(Scope::Service(service()), Revision::new(1), instances)
}

/// Never in panic: whoever may not be picked is not.
pub(crate) fn calm(
    config: orchestra_discovery::resolver::Config,
) -> orchestra_discovery::resolver::Config {
    let mut priorities = orchestra_discovery::priority::Config::default();
    priorities.panic_threshold = 0;
    config.priorities(priorities)
}

/// A resolver with these members that is never in panic.
pub(crate) fn with_members(
    config: orchestra_discovery::resolver::Config,
    instances: impl IntoIterator<Item = Instance>,
) -> Resolver {
    let resolver = Resolver::new(service(), calm(config));
    resolver.apply(&snapshot(instances));
    resolver
}

pub(crate) fn at(millis: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_millis(millis)
}

pub(crate) fn draw(draw: u64) -> PickContext<'static> {
    PickContext::new(Monotonic::ZERO, draw)
}
