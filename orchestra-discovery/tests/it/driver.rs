//! Heartbeat, follower and health check against real registries, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_discovery::{
    Capabilities, Change, Error, ErrorKind, Event, Follow, Health, HealthCheck, Heartbeat,
    Instance, Lease, MemoryRegistry, Probe, Registration, Registry, RemovalReason, Resolver,
    Revision, Scope, Snapshot, Source, Status, Verdict, Watch, WatchEvent, follow, health,
    heartbeat, resolver,
};
use parking_lot::Mutex;

use crate::common::{asked, draw, instance, service, with_members};

const TTL: Duration = Duration::from_secs(9);

fn scope() -> Scope {
    Scope::Service(service())
}

/// A registry that can be made unreachable.
#[derive(Debug, Clone)]
struct Flaky {
    inner: MemoryRegistry,
    down: Arc<Mutex<bool>>,
    statuses_set: Arc<Mutex<u32>>,
}

impl Flaky {
    fn new() -> Self {
        Self {
            inner: MemoryRegistry::default(),
            down: Arc::default(),
            statuses_set: Arc::default(),
        }
    }

    fn set_down(&self, down: bool) {
        *self.down.lock() = down;
    }

    fn reachable(&self) -> Result<(), Error> {
        if *self.down.lock() {
            return Err(Error::new(ErrorKind::Unavailable, "registry is down"));
        }
        Ok(())
    }
}

#[async_trait]
impl Source for Flaky {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.reachable()?;
        self.inner.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        self.reachable()?;
        self.inner.watch(scope, after).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[async_trait]
impl Registry for Flaky {
    async fn register(&self, registration: Registration) -> Result<Lease, Error> {
        self.reachable()?;
        self.inner.register(registration).await
    }

    async fn renew(&self, lease: &Lease) -> Result<(), Error> {
        self.reachable()?;
        self.inner.renew(lease).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<(), Error> {
        self.reachable()?;
        *self.statuses_set.lock() += 1;
        self.inner.set_status(lease, status).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<(), Error> {
        self.reachable()?;
        self.inner.deregister(lease).await
    }
}

fn beat(registry: &Flaky) -> Heartbeat {
    let config = heartbeat::Config::default().seed(7);
    Heartbeat::start(Arc::new(registry.clone()), asked("p-1", TTL), config)
}

#[tokio::test(start_paused = true)]
async fn heartbeat_keeps_one_registration_for_many_ttls() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    let lease = heartbeat.registered().await.unwrap();
    let before = registry.snapshot(&scope()).await.unwrap().revision();
    tokio::time::sleep(TTL * 20).await;
    let after = registry.snapshot(&scope()).await.unwrap();
    assert_eq!(after.revision(), before);
    assert_eq!(after.instances()[0].incarnation, lease.incarnation);
    heartbeat.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_gives_the_lease_back() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    heartbeat.registered().await.unwrap();
    heartbeat.shutdown().await.unwrap();
    assert_eq!(registry.snapshot(&scope()).await.unwrap().instances(), []);
}

#[tokio::test(start_paused = true)]
async fn dropped_heartbeat_lets_the_lease_lapse() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    heartbeat.registered().await.unwrap();
    drop(heartbeat);
    assert_eq!(
        registry.snapshot(&scope()).await.unwrap().instances().len(),
        1
    );
    tokio::time::sleep(TTL).await;
    assert_eq!(registry.snapshot(&scope()).await.unwrap().instances(), []);
}

#[tokio::test(start_paused = true)]
async fn lapsed_lease_is_registered_anew_with_a_greater_incarnation() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    let first = heartbeat.registered().await.unwrap();
    registry.set_down(true);
    tokio::time::sleep(TTL * 2).await;
    // It cannot know that the lease lapsed, only the registry can tell.
    assert_eq!(heartbeat.lease(), Some(first.clone()));
    registry.set_down(false);
    tokio::time::sleep(TTL).await;
    let second = heartbeat.lease().unwrap();
    assert!(second.incarnation > first.incarnation);
    let members = registry.snapshot(&scope()).await.unwrap();
    assert_eq!(members.instances()[0].incarnation, second.incarnation);
    heartbeat.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lease_that_is_known_to_be_lost_is_not_shown() {
    let registry = Flaky::new();
    let full = Arc::new(Mutex::new(false));
    let unwilling = Arc::new(Unwilling(registry.clone(), Arc::clone(&full)));
    let heartbeat = Heartbeat::start(unwilling, asked("p-1", TTL), heartbeat::Config::default());
    let first = heartbeat.registered().await.unwrap();
    *full.lock() = true;
    registry.inner.deregister(&first).await.unwrap();
    tokio::time::sleep(TTL).await;
    assert_eq!(heartbeat.lease(), None);
    *full.lock() = false;
    assert!(heartbeat.registered().await.unwrap().incarnation > first.incarnation);
    heartbeat.shutdown().await.unwrap();
}

/// Has no room for new registrations while told so.
#[derive(Debug)]
struct Unwilling(Flaky, Arc<Mutex<bool>>);

#[async_trait]
impl Source for Unwilling {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.0.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        self.0.watch(scope, after).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

#[async_trait]
impl Registry for Unwilling {
    async fn register(&self, registration: Registration) -> Result<Lease, Error> {
        if *self.1.lock() {
            return Err(Error::new(ErrorKind::Full, "no room"));
        }
        self.0.register(registration).await
    }

    async fn renew(&self, lease: &Lease) -> Result<(), Error> {
        self.0.renew(lease).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<(), Error> {
        self.0.set_status(lease, status).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<(), Error> {
        self.0.deregister(lease).await
    }
}

#[tokio::test(start_paused = true)]
async fn short_outage_of_the_registry_costs_nothing() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    let first = heartbeat.registered().await.unwrap();
    registry.set_down(true);
    tokio::time::sleep(TTL / 2).await;
    registry.set_down(false);
    tokio::time::sleep(TTL).await;
    assert_eq!(heartbeat.lease(), Some(first));
    heartbeat.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn replaced_heartbeat_ends_and_leaves_the_new_holder_alone() {
    let registry = Flaky::new();
    let old = beat(&registry);
    old.registered().await.unwrap();
    let new = beat(&registry);
    let lease = new.registered().await.unwrap();
    assert_eq!(old.ended().await.kind(), ErrorKind::Replaced);
    assert_eq!(old.lease(), None);
    old.shutdown().await.unwrap();
    tokio::time::sleep(TTL).await;
    let members = registry.snapshot(&scope()).await.unwrap();
    assert_eq!(members.instances()[0].incarnation, lease.incarnation);
    new.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn draining_is_told_at_once_and_survives_registering_anew() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    let first = heartbeat.registered().await.unwrap();
    heartbeat.set_status(Status::Draining);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let told = registry.snapshot(&scope()).await.unwrap();
    assert_eq!(told.instances()[0].status, Status::Draining);
    registry.inner.deregister(&first).await.unwrap();
    tokio::time::sleep(TTL).await;
    let anew = registry.snapshot(&scope()).await.unwrap();
    assert!(anew.instances()[0].incarnation > first.incarnation);
    assert_eq!(anew.instances()[0].status, Status::Draining);
    assert_eq!(*registry.statuses_set.lock(), 1);
    heartbeat.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn registration_that_is_refused_for_good_ends_the_heartbeat() {
    let registry = Arc::new(MemoryRegistry::default());
    let never = asked("p-1", Duration::ZERO);
    let heartbeat = Heartbeat::start(registry, never, heartbeat::Config::default());
    let refused = heartbeat.registered().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    heartbeat.shutdown().await.unwrap();
}

type Heard = Arc<Mutex<Vec<Event>>>;

fn heard() -> (Heard, Arc<dyn orchestra_core::Listener<Event>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    (
        heard,
        Arc::new(move |event: &Event| sink.lock().push(event.clone())),
    )
}

#[tokio::test(start_paused = true)]
async fn follower_sees_members_come_and_go() {
    let registry = Flaky::new();
    let payments = Resolver::new(service(), resolver::Config::default());
    let source = Arc::new(registry.clone());
    let follow = Follow::start(source, payments.clone(), follow::Config::default());
    follow.ready().await.unwrap();
    assert!(payments.pick(&draw(1)).is_err());

    let lease = registry.register(asked("p-1", TTL)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let picked = payments.pick(&draw(1)).unwrap();
    assert_eq!(picked.instance().incarnation, lease.incarnation);

    tokio::time::sleep(TTL).await;
    assert_eq!(payments.pick(&draw(1)).unwrap_err().registered, 0);
    follow.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn members_known_last_stay_while_the_source_fails() {
    let registry = Flaky::new();
    registry.register(asked("p-1", TTL * 100)).await.unwrap();
    let payments = Resolver::new(service(), resolver::Config::default());
    let (events, listener) = heard();
    let config = follow::Config::default().seed(3).listener(listener);
    let source = ResyncsWhenDown(registry.clone());
    let follow = Follow::start(Arc::new(source), payments.clone(), config);
    follow.ready().await.unwrap();

    registry.set_down(true);
    registry.register_behind("p-2").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(payments.members().len(), 1);
    let failures = |events: &[Event]| {
        let failed = events
            .iter()
            .filter(|event| matches!(event, Event::SourceFailed { .. }));
        failed.count()
    };
    assert!(
        (5..100).contains(&failures(&events.lock())),
        "{:?}",
        events.lock()
    );

    registry.set_down(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(payments.members().len(), 2);
    let recovered = |event: &Event| matches!(event, Event::SourceRecovered { .. });
    assert!(events.lock().iter().any(recovered));
    follow.shutdown().await.unwrap();
}

impl Flaky {
    async fn register_behind(&self, id: &str) {
        self.inner.register(asked(id, TTL * 100)).await.unwrap();
    }
}

/// Its watches break when a change arrives while the registry is down.
#[derive(Debug)]
struct ResyncsWhenDown(Flaky);

struct Breaking(Watch, Flaky);

#[async_trait]
impl orchestra_discovery::WatchStream for Breaking {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        let event = self.0.next().await?;
        self.1.reachable().map(|()| event)
    }

    fn revision(&self) -> Revision {
        self.0.revision()
    }
}

#[async_trait]
impl Source for ResyncsWhenDown {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.0.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        let watch = self.0.watch(scope, after).await?;
        Ok(Watch::new(Breaking(watch, self.0.clone())))
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

#[tokio::test(start_paused = true)]
async fn watch_of_all_services_tells_which_lease_lapsed() {
    let registry = MemoryRegistry::default();
    let from = registry.snapshot(&Scope::All).await.unwrap().revision();
    let lease = registry.register(asked("p-1", TTL)).await.unwrap();
    let mut watch = registry.watch(&Scope::All, from).await.unwrap();
    let mut removals = Vec::new();
    while removals.is_empty() {
        let WatchEvent::Changes { changes, .. } = watch.next().await.unwrap() else {
            panic!("nothing was forgotten");
        };
        removals.extend(changes.into_iter().filter_map(|change| match change {
            Change::Removed(removal) => Some(removal),
            _ => None,
        }));
    }
    assert_eq!(removals[0].service, service());
    assert_eq!(removals[0].incarnation, lease.incarnation);
    assert_eq!(removals[0].reason, RemovalReason::Expired);
}

#[tokio::test(start_paused = true)]
async fn listener_hears_what_the_registry_did_in_order() {
    let (events, listener) = heard();
    let registry = MemoryRegistry::new(
        orchestra_discovery::registry::memory::Config::default().listener(listener),
    );
    registry.register(asked("p-1", TTL)).await.unwrap();
    let second = registry.register(asked("p-1", TTL)).await.unwrap();
    registry.renew(&second).await.unwrap();
    registry.deregister(&second).await.unwrap();
    let words = events.lock().iter().map(word).collect::<Vec<_>>();
    assert_eq!(
        words,
        [
            "registered",
            "replaced",
            "registered",
            "renewed",
            "deregistered"
        ]
    );
}

fn word(event: &Event) -> &'static str {
    match event {
        Event::Registered(_) => "registered",
        Event::Renewed { .. } => "renewed",
        Event::Removed(removal) => match removal.reason {
            RemovalReason::Replaced => "replaced",
            RemovalReason::Deregistered => "deregistered",
            _ => "other removal",
        },
        _ => "other",
    }
}

/// Fails the instances that are listed.
#[derive(Debug, Default)]
struct Sick(Mutex<Vec<String>>);

#[async_trait]
impl Probe for Sick {
    async fn probe(&self, instance: &Instance) -> Verdict {
        let sick = self.0.lock().iter().any(|id| id == instance.id.as_str());
        if sick {
            // Never answers: only the timeout of the driver ends it.
            std::future::pending::<()>().await;
        }
        Verdict::Pass
    }
}

#[tokio::test(start_paused = true)]
async fn unhealthy_member_gets_no_calls_until_it_recovers() {
    let members = [instance("p-1", 1), instance("p-2", 2)];
    let payments = with_members(resolver::Config::default(), members);
    let probe = Arc::new(Sick::default());
    let (events, listener) = heard();
    let config = health::Config::default().listener(listener);
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    tokio::time::sleep(Duration::from_secs(10)).await;

    probe.0.lock().push("p-1".to_owned());
    tokio::time::sleep(Duration::from_secs(40)).await;
    let picked = |n| {
        payments
            .pick(&draw(u64::MAX / 64 * n))
            .unwrap()
            .instance()
            .id
            .to_string()
    };
    assert!((0..64).all(|n| picked(n) == "p-2"));
    probe.0.lock().push("p-2".to_owned());
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(payments.pick(&draw(5)).unwrap_err().unhealthy, 2);

    probe.0.lock().clear();
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!((0..64).any(|n| picked(n) == "p-1"));
    let verdicts = events
        .lock()
        .iter()
        .filter_map(verdict_on_first)
        .collect::<Vec<_>>();
    assert_eq!(
        verdicts,
        [Health::Healthy, Health::Unhealthy, Health::Healthy]
    );
    check.shutdown().await.unwrap();
}

fn verdict_on_first(event: &Event) -> Option<Health> {
    match event {
        Event::HealthChanged { id, health, .. } if id.as_str() == "p-1" => Some(*health),
        _ => None,
    }
}

/// Has nothing to say but that it must be asked again.
#[derive(Debug, Default)]
struct AlwaysResync(Mutex<u32>);

struct Resyncs;

#[async_trait]
impl orchestra_discovery::WatchStream for Resyncs {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        Ok(WatchEvent::Resync)
    }

    fn revision(&self) -> Revision {
        Revision::new(1)
    }
}

#[async_trait]
impl Source for AlwaysResync {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        *self.0.lock() += 1;
        Ok(Snapshot::new(scope.clone(), Revision::new(1), Vec::new()))
    }

    async fn watch(&self, _: &Scope, _: Revision) -> Result<Watch, Error> {
        Ok(Watch::new(Resyncs))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

#[tokio::test(start_paused = true)]
async fn source_that_only_resyncs_is_not_asked_in_a_tight_loop() {
    let source = Arc::new(AlwaysResync::default());
    let payments = Resolver::new(service(), resolver::Config::default());
    let follow = Follow::start(
        Arc::clone(&source) as _,
        payments,
        follow::Config::default().seed(1),
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = *source.0.lock();
    assert!((10..100).contains(&asked), "{asked}");
    follow.shutdown().await.unwrap();
}

/// Never answers a snapshot.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl Source for Hanging {
    async fn snapshot(&self, _: &Scope) -> Result<Snapshot, Error> {
        std::future::pending().await
    }

    async fn watch(&self, _: &Scope, _: Revision) -> Result<Watch, Error> {
        std::future::pending().await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_source_is_a_failing_source() {
    let (events, listener) = heard();
    let payments = Resolver::new(service(), resolver::Config::default());
    let config = follow::Config::default().listener(listener);
    let follow = Follow::start(Arc::new(Hanging), payments, config);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let timed_out = |event: &Event| {
        matches!(
            event,
            Event::SourceFailed {
                kind: ErrorKind::Timeout,
                ..
            }
        )
    };
    assert!(events.lock().iter().any(timed_out), "{:?}", events.lock());
    follow.shutdown().await.unwrap();
}

/// Panics at its first probe; counts how many run at once.
#[derive(Debug, Default)]
struct Clumsy {
    probes: Mutex<u32>,
    running: Mutex<usize>,
    most: Mutex<usize>,
}

#[async_trait]
impl Probe for Clumsy {
    async fn probe(&self, _: &Instance) -> Verdict {
        *self.probes.lock() += 1;
        assert!(*self.probes.lock() > 1, "the first probe panics");
        let running = {
            let mut running = self.running.lock();
            *running += 1;
            *running
        };
        let most = *self.most.lock();
        *self.most.lock() = most.max(running);
        tokio::time::sleep(Duration::from_millis(500)).await;
        *self.running.lock() -= 1;
        Verdict::Fail("clumsy".to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn panicking_probe_is_made_again_and_probes_at_once_are_bounded() {
    let members = (0..20).map(|n| instance(&format!("p-{n:02}"), 1));
    let payments = with_members(resolver::Config::default(), members);
    let probe = Arc::new(Clumsy::default());
    let mut config = health::Config::default();
    config.max_probes = std::num::NonZeroUsize::new(4).unwrap();
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(payments.pick(&draw(0)).unwrap_err().unhealthy, 20);
    assert_eq!(*probe.most.lock(), 4);
    check.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn new_member_is_probed_soon_and_a_new_incarnation_anew() {
    let payments = with_members(resolver::Config::default(), []);
    let probe = Arc::new(Sick(Mutex::new(vec!["p-1".to_owned()])));
    let check = HealthCheck::start(
        Arc::clone(&probe) as _,
        payments.clone(),
        health::Config::default(),
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    payments.apply(&crate::common::snapshot([instance("p-1", 1)]));
    // A tenth of the interval, and the timeout of the probe.
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    assert_eq!(payments.pick(&draw(0)).unwrap_err().unhealthy, 1);
    probe.0.lock().clear();
    payments.apply(&crate::common::snapshot([instance("p-1", 2)]));
    assert!(payments.pick(&draw(0)).is_ok());
    check.shutdown().await.unwrap();
}
