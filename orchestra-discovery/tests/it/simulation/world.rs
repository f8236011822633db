//! Instances, a registry, DNS and a fallback; a client's cache, resolver and checks; and what happens to them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::{Clock, InstanceId, Monotonic, TokioClock};
use orchestra_discovery::cache::{self, Freshness, SourceOptions};
use orchestra_discovery::heartbeat::{self, Heartbeat};
use orchestra_discovery::priority::OnPanic;
use orchestra_discovery::registry::memory;
use orchestra_discovery::{
    Cache, Follow, HealthCheck, LeastRequest, MemoryRegistry, P2c, Registration, Registry,
    Resolver, Revision, RoundRobin, Source, Status, Weighted, follow, health, outlier, priority,
    resolver,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::calls::Calls;
use super::ear::Ear;
use super::invariants::Seen;
use super::link::{Channel, Line, Mood, Stepped, Uplink};
use super::plan::{Act, Feed, PROCESSES};
use super::ward::{Condition, Gatehouse, Ward};
use super::{millis, secs};
use crate::cache::scope;
use crate::common::service;

pub(super) const TTL: Duration = Duration::from_secs(6);
pub(super) const TOMBSTONE: Duration = Duration::from_secs(20);
pub(super) const MAX_SERVICES: usize = 8;
pub(super) const MAX_PROBES: usize = 8;
/// Of records that are not there by a lease.
const LASTING: Duration = Duration::from_secs(80_000);

/// A running copy of the service.
pub(super) struct Process {
    pub(super) n: u8,
    pub(super) heartbeat: Heartbeat,
    pub(super) uplink: Arc<Uplink>,
    pub(super) status: Status,
}

/// What is drawn once per run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) calm: bool,
    pub(super) fails_in_panic: bool,
    pub(super) require_check: bool,
    pub(super) bypass: bool,
    statics: bool,
    balancer: u8,
    outliers: u8,
    damping: bool,
    garbled: bool,
}

impl Setup {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        Self {
            calm: rng.u8(..3) == 0,
            fails_in_panic: rng.u8(..4) == 0,
            require_check: rng.bool(),
            bypass: rng.u8(..3) == 0,
            statics: rng.bool(),
            balancer: rng.u8(..4),
            outliers: rng.u8(..4),
            damping: rng.bool(),
            garbled: rng.bool(),
        }
    }

    fn resolver(&self) -> resolver::Config {
        let mut priorities = priority::Config::default();
        if self.calm {
            priorities.panic_threshold = 0;
        }
        if self.fails_in_panic {
            priorities.on_panic = OnPanic::Fail;
        }
        let config = resolver::Config::default()
            .priorities(priorities)
            .pick_events();
        let config = match self.balancer {
            0 => config.balancer(Arc::new(P2c)),
            1 => config.balancer(Arc::new(RoundRobin::default())),
            2 => config.balancer(Arc::new(Weighted::default())),
            _ => config.balancer(Arc::new(LeastRequest::default())),
        };
        let config = match self.outliers {
            0 => config.outliers(outlier::Config::Envoy(outlier::envoy::Config::default())),
            _ => config,
        };
        let config = if self.bypass {
            config.bypass_gates()
        } else {
            config
        };
        if self.require_check {
            config.require_check()
        } else {
            config
        }
    }
}

pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) rng: fastrand::Rng,
    pub(super) clock: TokioClock,
    pub(super) registry_clock: Arc<Stepped>,
    /// The registry's time of day in milliseconds.
    wall: i64,
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

fn asked(id: &str, endpoint: &str, ttl: Duration) -> Registration {
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
            .clock(registry_clock.clone())
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
            .config(gathering(seed))
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
        for n in 1..=PROCESSES {
            world.start(n, 1);
        }
        world.follow.ready().await.unwrap();
        world
    }

    pub(super) fn now(&self) -> Monotonic {
        self.clock.now()
    }

    pub(super) fn runs(&self, n: u8) -> bool {
        self.processes.iter().any(|process| process.n == n)
    }

    fn start(&mut self, n: u8, weight: u32) {
        self.seen.disturbed.insert(n, self.clock.now());
        let asked = asked(id(n).as_str(), &endpoint(n), TTL).weight(weight);
        let uplink = Uplink::new(&self.registry, Line::Up);
        let config = heartbeat::Config::default()
            .seed(self.rng.u64(..))
            .listener(self.ear.listener(&self.registry_clock, &self.house));
        let heartbeat = Heartbeat::start(uplink.clone(), asked, config);
        self.processes.push(Process {
            n,
            heartbeat,
            uplink,
            status: Status::Ready,
        });
        if self.ward_of(n).is_none() {
            self.ward.set(&endpoint(n), Some(Condition::Well));
        }
    }

    fn ward_of(&self, n: u8) -> Option<Condition> {
        let (id, endpoint) = (id(n), endpoint(n).parse().unwrap());
        let instance = orchestra_discovery::Instance::new(
            service(),
            id,
            orchestra_discovery::Incarnation::default(),
            endpoint,
        );
        self.ward.condition(&instance)
    }

    /// Takes the processes of this number out.
    fn take(&mut self, n: u8) -> Vec<Process> {
        self.seen.disturbed.insert(n, self.clock.now());
        self.ward.set(&endpoint(n), None);
        self.processes.extract_if(.., |it| it.n == n).collect()
    }

    pub(super) fn channel(&self, feed: Feed) -> &Channel {
        match feed {
            Feed::Registry => &self.registry,
            Feed::Dns => &self.dns,
            Feed::Fallback => &self.fallback,
        }
    }

    pub(super) async fn act(&mut self, act: &Act) {
        match act {
            Act::Churn(acts) => {
                for (pause, act) in acts {
                    self.do_one(act).await;
                    sleep(millis(u64::from(*pause))).await;
                }
            }
            act => self.do_one(act).await,
        }
    }

    async fn do_one(&mut self, act: &Act) {
        match act {
            Act::Start(n, weight) if !self.runs(*n) => self.start(*n, *weight),
            Act::Twin(n) if self.runs(*n) => {
                self.seen.contested.insert(*n);
                self.start(*n, 1);
            }
            Act::Crash(n) => drop(self.take(*n)),
            Act::Restart(n, weight) => {
                drop(self.take(*n));
                self.start(*n, *weight);
            }
            Act::Stop(n) => {
                self.seen.contested.insert(*n);
                for process in self.take(*n) {
                    self.leaving.spawn(async move {
                        let _lapses = process.heartbeat.shutdown().await.is_err();
                    });
                }
            }
            Act::Drain(n, busy) => {
                self.seen.contested.insert(*n);
                let busy = *busy;
                for process in self.take(*n) {
                    self.leaving.spawn(async move {
                        let drained = process.heartbeat.drain(sleep(busy), secs(4));
                        let _lapses = drained.await.is_err();
                    });
                }
            }
            Act::Status(n, status) => {
                for process in self.processes.iter_mut().filter(|it| it.n == *n) {
                    process.status = *status;
                    process.heartbeat.set_status(*status);
                }
            }
            Act::Override(n, forced) => {
                let (backend, service) = (self.registry.backend(), service());
                backend
                    .set_override(&service, &id(*n), *forced)
                    .await
                    .unwrap();
            }
            Act::Line(n, line) => self.lines(*line, |it| it == *n),
            Act::Lines(line) => self.lines(*line, |_| true),
            act => self.happen(act).await,
        }
    }

    pub(super) fn lines(&mut self, line: Line, of: impl Fn(u8) -> bool) {
        for process in self.processes.iter().filter(|it| of(it.n)) {
            if line != Line::Up || process.uplink.line() != Line::Up {
                self.seen.disturbed.insert(process.n, self.clock.now());
            }
            process.uplink.set(line);
        }
    }

    async fn happen(&mut self, act: &Act) {
        match act {
            Act::Mood(feed, mood) => {
                let lasting = self.channel(*feed).mood() == *mood;
                self.channel(*feed).set(*mood);
                if *feed == Feed::Registry && !lasting {
                    self.seen.mood_changed(*mood, self.clock.now());
                }
                if *feed == Feed::Dns {
                    self.seen.dns_unsynced = self.clock.now();
                }
            }
            Act::Reset(feed) => {
                self.channel(*feed).reset();
                self.seen.unsynced(self.clock.now());
                self.seen.dns_unsynced = self.clock.now();
            }
            Act::Keep => {
                let snapshot = self.registry.backend().snapshot(&scope()).await.unwrap();
                self.registry.keep(snapshot);
            }
            Act::Lag if self.registry.mood() != Mood::Blank => {
                self.registry.lag();
                self.seen.lied(self.clock.now());
            }
            Act::RestartRegistry => self.restart_registry(),
            Act::Freeze(lasting) => self.freeze(*lasting).await,
            Act::Wall(step) => self.wall += step,
            Act::Dns(n, listed) => {
                self.seen.dns_changed.insert(*n, self.clock.now());
                let backend = self.dns.backend();
                let record = asked(&format!("10-0-0-{n}"), &endpoint(*n), LASTING);
                let lease = backend.register(record).await.unwrap();
                if !listed {
                    backend.deregister(&lease).await.unwrap();
                }
            }
            Act::Condition(n, condition) if self.runs(*n) => {
                self.ward.set(&endpoint(*n), Some(*condition));
            }
            Act::Shut(n, shut) => self.house.shut(&id(*n), *shut),
            Act::Gates(shut) => {
                for id in self.members().keys() {
                    self.house.shut(id, *shut);
                }
            }
            Act::Calls(count) => self.call(*count),
            Act::AbortCalls => self.calls.abort(),
            Act::Ask => self.ask().await,
            Act::Lookup(n) => {
                let stranger = format!("stranger-{}", n % 20).parse().unwrap();
                let _none = tokio::time::timeout(secs(2), self.cache.lookup(&stranger)).await;
            }
            _ => {}
        }
    }

    /// What is not fresh is said to be so.
    async fn ask(&mut self) {
        let service = service();
        let answer = tokio::time::timeout(secs(2), self.cache.lookup(&service)).await;
        self.ear.listen(TTL);
        if let Ok(Ok(answer)) = answer
            && answer.freshness > Freshness::Fresh
        {
            assert_eq!(self.ear.stale, Some(answer.freshness), "stale and silent");
        }
    }

    fn restart_registry(&mut self) {
        // Its events are of another life from here on.
        self.ear.listen(TTL);
        self.ear.leases.clear();
        let elapsed = self.clock.now().as_nanos() / 1_000_000;
        let config = memory::Config::default()
            .clock(self.registry_clock.clone())
            .listener(self.ear.listener(&self.registry_clock, &self.house));
        let config = begun(config, self.wall + i64::try_from(elapsed).unwrap());
        self.registry.replace(MemoryRegistry::new(config));
        self.seen.restarted(self.clock.now());
    }

    /// When it wakes up, some leases have lapsed.
    async fn freeze(&mut self, lasting: Duration) {
        let before = self.registry.backend().snapshot(&scope()).await.unwrap();
        let nanos = u64::try_from(lasting.as_nanos()).unwrap();
        self.registry_clock.1.fetch_add(nanos, Ordering::Relaxed);
        let after = self.registry.backend().snapshot(&scope()).await.unwrap();
        let left: BTreeMap<_, _> = after.instances().iter().map(|it| (&it.id, it)).collect();
        // What the client never saw is not held.
        let view = self.members();
        let seen = before.instances().iter().filter(|it| {
            let found = view.get(&it.id);
            found.is_some_and(|found| found.incarnation == it.incarnation)
        });
        let lost = seen.clone().map(|it| it.id.clone());
        let lost: Vec<_> = lost.filter(|id| !left.contains_key(id)).collect();
        self.ear.listen(TTL);
        let (of, holds) = (seen.count(), self.ear.holds_left);
        self.seen.frozen(lost, of, holds, self.clock.now());
    }

    pub(super) async fn end(self) {
        self.follow.shutdown().await.unwrap();
        self.check.shutdown().await.unwrap();
        self.cache.shutdown().await.unwrap();
    }
}

fn begun(mut config: memory::Config, wall: i64) -> memory::Config {
    config.start = Revision::new(u64::try_from(wall).unwrap() << 20);
    config
}

fn gathering(seed: u64) -> cache::Config {
    let mut config = cache::Config::default();
    config.seed = Some(seed);
    config.refresh = secs(10);
    config.tombstone = TOMBSTONE;
    config.negative_ttl = secs(3);
    config.max_services = NonZeroUsize::new(MAX_SERVICES).unwrap();
    config.max_negative = NonZeroUsize::new(4).unwrap();
    config.preserve.window = secs(5);
    config.preserve.confirmations = 3;
    config.preserve.max_hold = secs(30);
    config
}
