//! Picking, balancing, hashing and following changes, at up to 100,000 endpoints.

pub mod change;
pub mod disk;
pub mod footprint;
pub mod hash;
pub mod pick;
pub mod scoring;
pub mod watch;

use std::sync::Arc;

use orchestra_core::ServiceName;
use orchestra_discovery::resolver::Config;
use orchestra_discovery::{Incarnation, Instance, Resolver, Revision, Scope, Snapshot};

use crate::measure::Session;

pub use pick::Caller;

/// All figures but those that need an allocator which counts.
pub fn figures(session: &Session) {
    pick::figures(session);
    pick::weighted(session);
    hash::figures(session);
    change::figures(session);
    watch::figures(session);
    scoring::figures(session);
    disk::figures(session);
}

fn service() -> ServiceName {
    "payments".parse().expect("a name")
}

/// A ready instance. Its number is its place in the order of the ids.
fn instance(number: u32, weight: u32) -> Arc<Instance> {
    let id = format!("payments-{number:06}").parse().expect("an id");
    let endpoint = address(number).parse().expect("an endpoint");
    let mut instance = Instance::new(service(), id, Incarnation::new(1), endpoint);
    instance.weight = weight;
    Arc::new(instance)
}

fn address(number: u32) -> String {
    let [_, a, b, c] = number.to_be_bytes();
    format!("10.{a}.{b}.{c}:8080")
}

fn snapshot(instances: Vec<Arc<Instance>>) -> Snapshot {
    Snapshot::new(Scope::All, Revision::new(1), instances)
}

/// So many ready instances of the same weight.
fn equal(instances: u32) -> Snapshot {
    snapshot((0..instances).map(|number| instance(number, 1)).collect())
}

/// Weights drawn evenly from all that have 16 bits, and the least and the greatest of them.
fn weights(instances: u32) -> Vec<u32> {
    let mut rng = fastrand::Rng::with_seed(3);
    let drawn = std::iter::repeat_with(|| rng.u32(1..=65_535));
    let weights = [1, 65_535].into_iter().chain(drawn);
    weights.take(instances as usize).collect()
}

fn weighted(weights: &[u32]) -> Snapshot {
    let numbered = (0..).zip(weights);
    snapshot(numbered.map(|(n, &weight)| instance(n, weight)).collect())
}

fn resolver_of(config: Config, members: &Snapshot) -> Resolver {
    let resolver = Resolver::new(service(), config);
    resolver.apply(members);
    resolver
}

/// A resolver with power of two choices over so many ready instances.
pub fn resolver(instances: u32) -> Resolver {
    resolver_of(Config::default(), &equal(instances))
}
