//! The heartbeat, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use orchestra_discovery::heartbeat::Drained;
use orchestra_discovery::{
    ErrorKind, Heartbeat, MemoryRegistry, Registry, Scope, Source, Status, heartbeat,
};
use parking_lot::Mutex;

use crate::common::{asked, service};
use crate::doubles::{Flaky, Overtaken, Unwilling};

const TTL: Duration = Duration::from_secs(9);

fn scope() -> Scope {
    Scope::Service(service())
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
async fn own_registration_that_arrives_late_does_not_end_the_heartbeat() {
    let registry = Arc::new(Overtaken::default());
    let heartbeat = Heartbeat::start(
        Arc::clone(&registry) as _,
        asked("p-1", TTL),
        heartbeat::Config::default().seed(7),
    );
    tokio::time::sleep(TTL * 3).await;
    let lease = heartbeat.lease().expect("it goes on");
    let members = registry.snapshot(&scope()).await.unwrap();
    assert_eq!(members.instances()[0].incarnation, lease.incarnation);
    // From here on a replacement is somebody else's.
    let other = registry.register(asked("p-1", TTL)).await.unwrap();
    assert_eq!(heartbeat.ended().await.kind(), ErrorKind::Replaced);
    registry.renew(&other).await.unwrap();
    heartbeat.shutdown().await.unwrap();
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
async fn drain_that_got_no_answer_and_is_taken_back_does_not_last() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    heartbeat.registered().await.unwrap();
    *registry.silent_statuses.lock() = 1;
    heartbeat.set_status(Status::Draining);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(listed(&registry).await, Some(Status::Draining));
    // The last answer that the heartbeat had was that it is ready.
    heartbeat.set_status(Status::Ready);
    tokio::time::sleep(TTL).await;
    assert_eq!(listed(&registry).await, Some(Status::Ready));
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

/// What the registry says of the only instance.
async fn listed(registry: &Flaky) -> Option<Status> {
    let members = registry.inner.snapshot(&scope()).await.unwrap();
    members.instances().first().map(|it| it.status)
}

#[tokio::test(start_paused = true)]
async fn drain_tells_the_registry_then_waits_then_deregisters() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    heartbeat.registered().await.unwrap();
    let seen = Mutex::new(Vec::new());
    let in_flight_done = async {
        let status = listed(&registry).await;
        seen.lock().push(status);
        // Longer than the lease: it is renewed all the while.
        tokio::time::sleep(TTL * 3).await;
        let status = listed(&registry).await;
        seen.lock().push(status);
    };
    let drained = heartbeat.drain(in_flight_done, TTL * 10).await.unwrap();
    assert_eq!(drained, Drained::Finished);
    assert_eq!(*seen.lock(), [Some(Status::Draining); 2]);
    assert_eq!(listed(&registry).await, None);
}

#[tokio::test(start_paused = true)]
async fn drain_deregisters_at_its_deadline_whatever_is_in_flight() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    heartbeat.registered().await.unwrap();
    let start = tokio::time::Instant::now();
    let drained = heartbeat.drain(std::future::pending(), TTL * 2).await;
    assert_eq!(drained.unwrap(), Drained::Overdue);
    assert_eq!(start.elapsed(), TTL * 2);
    assert_eq!(listed(&registry).await, None);
}

#[tokio::test(start_paused = true)]
async fn drain_announces_itself_once_the_registry_is_back() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    heartbeat.registered().await.unwrap();
    registry.set_down(true);
    let polled = Mutex::new(None);
    let start = tokio::time::Instant::now();
    let in_flight_done = async { *polled.lock() = Some(start.elapsed()) };
    let repair = async {
        tokio::time::sleep(TTL / 2).await;
        assert_eq!(*polled.lock(), None);
        registry.set_down(false);
    };
    let (drained, ()) = tokio::join!(heartbeat.drain(in_flight_done, TTL * 3), repair);
    assert_eq!(drained.unwrap(), Drained::Finished);
    assert!(polled.lock().unwrap() >= TTL / 2);
    assert_eq!(listed(&registry).await, None);
}

#[tokio::test(start_paused = true)]
async fn drain_ends_though_the_registry_stays_down() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    heartbeat.registered().await.unwrap();
    registry.set_down(true);
    let start = tokio::time::Instant::now();
    let error = heartbeat.drain(async {}, TTL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(start.elapsed() <= TTL * 5 / 3, "{:?}", start.elapsed());
    // What could not be given back has lapsed.
    tokio::time::sleep(TTL).await;
    assert_eq!(listed(&registry).await, None);
}

#[tokio::test(start_paused = true)]
async fn drain_that_is_dropped_leaves_it_draining_until_the_lease_lapses() {
    let registry = Flaky::new();
    let heartbeat = beat(&registry);
    heartbeat.registered().await.unwrap();
    let drain = heartbeat.drain(std::future::pending(), TTL * 10);
    assert!(tokio::time::timeout(TTL / 2, drain).await.is_err());
    assert_eq!(listed(&registry).await, Some(Status::Draining));
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(listed(&registry).await, None);
}

#[tokio::test(start_paused = true)]
async fn drain_of_a_replaced_instance_still_lets_calls_finish_and_leaves_the_other_alone() {
    let registry = Flaky::new();
    let old = beat(&registry);
    old.registered().await.unwrap();
    let new = beat(&registry);
    let lease = new.registered().await.unwrap();
    old.ended().await;
    let drained = old.drain(tokio::time::sleep(TTL), TTL * 2).await;
    assert_eq!(drained.unwrap(), Drained::Finished);
    let members = registry.snapshot(&scope()).await.unwrap();
    assert_eq!(members.instances()[0].incarnation, lease.incarnation);
    assert_eq!(members.instances()[0].status, Status::Ready);
    new.shutdown().await.unwrap();
}
