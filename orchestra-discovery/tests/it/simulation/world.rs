//! Instances, a registry, DNS and a fallback; a client's cache, resolver and checks; and what happens to them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use orchestra_core::{Clock, InstanceId, Monotonic, TokioClock};
use orchestra_discovery::cache::SourceOptions;
use orchestra_discovery::heartbeat::Heartbeat;
use orchestra_discovery::registry::memory;
use orchestra_discovery::{
    Cache, Follow, HealthCheck, Instance, MemoryRegistry, Registration, Registry, Resolver, Status,
    follow, health,
};
use tokio::task::JoinSet;

use super::calls::Calls;
use super::ear::Ear;
use super::link::{Channel, Stepped};
use super::plan::Feed;
use super::seen::Seen;
use super::setup::{LASTING, MAX_PROBES, Setup, begun, gathering};
use super::uplink::Uplink;
use super::ward::{Condition, Gatehouse, Ward};
use super::{millis, secs};
use crate::common::service;

/// The members, by id.
pub(super) type View = BTreeMap<InstanceId, Arc<Instance>>;

/// A running copy of the service.
pub(super) struct Process {
    pub(super) n: u8,
    pub(super) heartbeat: Heartbeat,
    pub(super) uplink: Arc<Uplink>,
    pub(super) status: Status,
}

pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) rng: fastrand::Rng,
    pub(super) clock: TokioClock,
    pub(super) registry_clock: Arc<Stepped>,
    /// The registry's time of day in milliseconds.
    pub(super) wall: i64,
    pub(super) registry: Channel,
    pub(super) dns: Channel,
    pub(super) fallback: Channel,
    pub(super) cache: Cache,
    pub(super) resolver: Resolver,
    follow: Follow,
    check: HealthCheck,
    pub(super) ward: Ward,
    pub(super) house: Gatehouse,
    pub(super) ear: Ear,
    pub(super) processes: Vec<Process>,
    pub(super) leaving: JoinSet<()>,
    pub(super) calls: Calls,
    pub(super) seen: Seen,
}

pub(super) fn id(n: u8) -> InstanceId {
    format!("i{n:02}").parse().unwrap()
}

pub(super) fn endpoint(n: u8) -> String {
    format!("10.0.0.{n}:80")
}

pub(super) fn asked(id: &str, endpoint: &str, ttl: Duration) -> Registration {
    let (id, endpoint) = (id.parse().unwrap(), endpoint.parse().unwrap());
    Registration::new(service(), id, endpoint, ttl)
}

impl World {
    pub(super) async fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let setup = Setup::draw(&mut rng);
        let clock = TokioClock::new();
        let registry_clock = Arc::new(Stepped(clock, AtomicU64::new(0)));
        let (ear, house, ward) = (Ear::default(), Gatehouse::new(clock), Ward::default());
        let listener = ear.listener(&registry_clock, &house);
        let wall = 1_700_000_000_000;
        let backend = memory::Config::default()
            .clock(Arc::clone(&registry_clock) as _)
            .listener(Arc::clone(&listener));
        let registry = Channel::new(MemoryRegistry::new(begun(backend, wall)), setup.garbled);
        let dns = Channel::new(MemoryRegistry::default(), setup.garbled);
        let fallback = Channel::new(MemoryRegistry::default(), false);
        let statics: &[&str] = if setup.statics { &["1", "2"] } else { &[] };
        for n in statics {
            let record = asked(&format!("s-{n}"), &format!("10.0.1.{n}:80"), LASTING);
            dns.backend().register(record).await.unwrap();
            ward.set(&format!("10.0.1.{n}:80"), Some(Condition::Well));
        }
        for n in 1..3 {
            let record = asked(&format!("f-{n}"), &format!("10.0.2.{n}:80"), LASTING);
            fallback.backend().register(record).await.unwrap();
            ward.set(&format!("10.0.2.{n}:80"), Some(Condition::Well));
        }
        let leased = SourceOptions::default();
        let unleased = leased.without_leases();
        let cache = Cache::builder()
            .source("registry", Arc::new(registry.clone()), leased)
            .source("dns", Arc::new(dns.clone()), unleased)
            .fallback("fallback", Arc::new(fallback.clone()), unleased)
            .config(gathering(setup, seed))
            .clock(Arc::new(clock))
            .listener(Arc::clone(&listener))
            .build()
            .unwrap();
        let resolver = Resolver::new(
            service(),
            setup
                .resolver()
                .gates(Arc::new(house.clone()))
                .seed(seed)
                .listener(Arc::clone(&listener)),
        );
        let following = follow::Config::default()
            .seed(seed)
            .listener(Arc::clone(&listener));
        let follow = Follow::start(Arc::new(cache.clone()), resolver.clone(), following);
        let mut checking = health::Config::default()
            .interval(secs(2))
            .clock(Arc::new(clock))
            .listener(listener);
        checking.seed = Some(seed);
        checking.timeout = millis(500);
        checking.max_probes = NonZeroUsize::new(MAX_PROBES).unwrap();
        checking.damping = checking.damping.filter(|_| setup.damping);
        let check = HealthCheck::start(Arc::new(ward.clone()), resolver.clone(), checking);
        let mut world = Self {
            setup,
            rng,
            clock,
            registry_clock,
            wall,
            registry,
            dns,
            fallback,
            cache,
            resolver,
            follow,
            check,
            ward,
            house,
            ear,
            processes: Vec::new(),
            leaving: JoinSet::new(),
            calls: Calls::default(),
            seen: Seen::default(),
        };
        for n in 1..=setup.most {
            world.start(n, 1);
        }
        world.follow.ready().await.unwrap();
        world
    }

    pub(super) fn now(&self) -> Monotonic {
        self.clock.now()
    }

    pub(super) fn channel(&self, feed: Feed) -> &Channel {
        match feed {
            Feed::Registry => &self.registry,
            Feed::Dns => &self.dns,
            Feed::Fallback => &self.fallback,
        }
    }

    pub(super) async fn end(self) {
        self.follow.shutdown().await.unwrap();
        self.check.shutdown().await.unwrap();
        self.cache.shutdown().await.unwrap();
    }
}
