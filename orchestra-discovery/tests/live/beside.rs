//! The same members, weights, keys and failures given to Envoy, gRPC and nginx as to us: they decide alike.

mod envoy;
mod grpc;
mod nginx;
mod outliers;
mod proxy;
mod upstream;

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestra_core::Monotonic;
use orchestra_discovery::resolver::Config;
use orchestra_discovery::{
    Balancer, Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot, outlier,
};

use self::upstream::Upstreams;

/// A resolver with the upstreams as members, `p-000` for the first; nobody is ejected.
fn resolver(balancer: impl Balancer + 'static, upstreams: &Upstreams, weights: &[u32]) -> Resolver {
    resolver_at(balancer, upstreams.ports(), weights)
}

fn resolver_at(balancer: impl Balancer + 'static, ports: &[u16], weights: &[u32]) -> Resolver {
    let config = Config::default().balancer(Arc::new(balancer));
    resolver_of(config.outliers(outlier::Config::Off), ports, weights)
}

fn resolver_of(config: Config, ports: &[u16], weights: &[u32]) -> Resolver {
    let service: orchestra_core::ServiceName = "payments".parse().unwrap();
    let member = |(n, (&port, &weight)): (usize, (&u16, &u32))| {
        let (id, endpoint) = (format!("p-{n:03}"), format!("127.0.0.1:{port}"));
        let mut instance = Instance::new(
            service.clone(),
            id.parse().unwrap(),
            Incarnation::new(1),
            endpoint.parse().unwrap(),
        );
        instance.weight = weight;
        Arc::new(instance)
    };
    let members = ports.iter().zip(weights).enumerate();
    let members = members.map(member).collect();
    let resolver = Resolver::new(service.clone(), config);
    resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), members));
    resolver
}

/// The port that our own pick goes to.
fn picked(resolver: &Resolver, context: &PickContext<'_>) -> u16 {
    let endpoint = resolver.pick(context).unwrap().instance().endpoint.clone();
    endpoint
        .to_string()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// A pick for this hash; the draw is to make no difference.
fn by_hash(resolver: &Resolver, hash: u64) -> u16 {
    picked(
        resolver,
        &PickContext::new(Monotonic::ZERO, !hash).hash(hash),
    )
}

fn counted(ports: impl IntoIterator<Item = u16>) -> BTreeMap<u16, u32> {
    let mut counts = BTreeMap::new();
    for port in ports {
        *counts.entry(port).or_default() += 1;
    }
    counts
}

/// Keys as users have them: of different lengths, some of them alike.
fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| match n % 3 {
        0 => format!("user-{n}"),
        1 => format!("{n:x}"),
        _ => format!("/carts/{}/items?page={n}", n * 7_919),
    })
}
