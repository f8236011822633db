//! The registry in memory against a brute-force model.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::{Clock, Labels, Monotonic};
use orchestra_discovery::registry::memory::Config;
use orchestra_discovery::{
    Change, Error, ErrorKind, Event, Incarnation, Lease, MemoryRegistry, Registry, Removal,
    RemovalReason, Revision, Scope, Snapshot, Source, Status, Watch, WatchEvent,
};
use proptest::prelude::*;

use crate::common::{asked, instance, service, snapshot};
use crate::doubles::heard;

#[derive(Debug, Default)]
struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, millis: u64) {
        self.0.fetch_add(millis * 1_000_000, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Monotonic {
        Monotonic::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

fn bounded(instances: usize, changes: usize, clock: Arc<dyn Clock>) -> MemoryRegistry {
    let mut config = Config::default().clock(clock);
    config.max_instances = NonZeroUsize::new(instances).unwrap();
    config.max_changes = NonZeroUsize::new(changes).unwrap();
    config.start = Revision::new(100);
    MemoryRegistry::new(config)
}

#[derive(Debug, Clone)]
enum Op {
    Register { id: u8, ttl: u64 },
    Renew(usize),
    Drain(usize),
    Deregister(usize),
    Advance(u64),
    Follow,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..5_u8, 1..50_u64).prop_map(|(id, ttl)| Op::Register { id, ttl }),
        3 => (0..20_usize).prop_map(Op::Renew),
        1 => (0..20_usize).prop_map(Op::Drain),
        2 => (0..20_usize).prop_map(Op::Deregister),
        3 => (0..30_u64).prop_map(Op::Advance),
        2 => Just(Op::Follow),
    ]
}

/// Every lease ever granted, newest last.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    leases: Vec<Modelled>,
}

#[derive(Debug)]
struct Modelled {
    lease: Lease,
    status: Status,
    expires: u64,
    given_back: bool,
}

impl Model {
    fn is_newest(&self, index: usize) -> bool {
        let id = &self.leases[index].lease.id;
        self.leases[index + 1..]
            .iter()
            .all(|later| later.lease.id != *id)
    }

    fn is_listed(&self, index: usize) -> bool {
        let lease = &self.leases[index];
        self.is_newest(index) && !lease.given_back && self.now < lease.expires
    }

    fn listed(&self) -> Vec<(String, u64, Status)> {
        let indices = (0..self.leases.len()).filter(|&index| self.is_listed(index));
        let mut listed: Vec<_> = indices
            .map(|index| {
                let Modelled { lease, status, .. } = &self.leases[index];
                (lease.id.to_string(), lease.incarnation.as_u64(), *status)
            })
            .collect();
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        listed
    }

    /// How the use of a lease must end.
    fn verdict(&self, index: usize) -> Option<ErrorKind> {
        let id = &self.leases[index].lease.id;
        let successor = (index + 1..self.leases.len())
            .any(|later| self.leases[later].lease.id == *id && self.is_listed(later));
        match (self.is_listed(index), successor) {
            (true, _) => None,
            (false, true) => Some(ErrorKind::Replaced),
            (false, false) => Some(ErrorKind::LeaseLost),
        }
    }
}

fn listed(snapshot: &Snapshot) -> Vec<(String, u64, Status)> {
    let instances = snapshot.instances().iter();
    instances
        .map(|it| (it.id.to_string(), it.incarnation.as_u64(), it.status))
        .collect()
}

/// A reader that folds what a watch says.
struct Reader {
    members: Snapshot,
    watch: Watch,
}

impl Reader {
    async fn new(registry: &MemoryRegistry) -> Self {
        let scope = Scope::Service(service());
        let members = registry.snapshot(&scope).await.unwrap();
        let watch = registry.watch(&scope, members.revision()).await.unwrap();
        Self { members, watch }
    }

    async fn read(&mut self, registry: &MemoryRegistry) {
        while let Ok(event) = tokio::time::timeout(Duration::ZERO, self.watch.next()).await {
            match event.unwrap() {
                WatchEvent::Changes { revision, changes } => {
                    assert!(revision > self.members.revision());
                    self.members.advance(revision, &changes);
                }
                WatchEvent::Resync => *self = Self::new(registry).await,
                _ => panic!("an event that nobody knows"),
            }
        }
    }
}

fn kind(result: Result<(), Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

const ROOM: usize = 4;

async fn agree(ops: Vec<Op>) {
    let clock = Arc::new(ManualClock::default());
    let registry = bounded(ROOM, 8, Arc::clone(&clock) as _);
    let mut model = Model::default();
    let mut reader = Reader::new(&registry).await;
    for op in ops {
        match op {
            Op::Register { id, ttl } => {
                let id = format!("p-{id}");
                let known = model.listed().iter().any(|listed| listed.0 == id);
                let room = known || model.listed().len() < ROOM;
                let asked = asked(&id, Duration::from_millis(ttl));
                match registry.register(asked).await {
                    Ok(lease) => {
                        assert!(room, "one more than there is room for");
                        let before = model.leases.iter().map(|it| it.lease.incarnation).max();
                        assert!(before < Some(lease.incarnation));
                        model.leases.push(Modelled {
                            lease,
                            status: Status::Ready,
                            expires: model.now + ttl,
                            given_back: false,
                        });
                    }
                    Err(error) => assert_eq!((error.kind(), room), (ErrorKind::Full, false)),
                }
            }
            Op::Renew(index) if index < model.leases.len() => {
                let lease = model.leases[index].lease.clone();
                assert_eq!(kind(registry.renew(&lease).await), model.verdict(index));
                if model.is_listed(index) {
                    let ttl = u64::try_from(lease.ttl.as_millis()).unwrap();
                    model.leases[index].expires = model.now + ttl;
                }
            }
            Op::Drain(index) if index < model.leases.len() => {
                let lease = model.leases[index].lease.clone();
                let set = registry.set_status(&lease, Status::Draining).await;
                assert_eq!(kind(set), model.verdict(index));
                if model.is_listed(index) {
                    model.leases[index].status = Status::Draining;
                }
            }
            Op::Deregister(index) if index < model.leases.len() => {
                let lease = model.leases[index].lease.clone();
                assert_eq!(kind(registry.deregister(&lease).await), None);
                if model.is_listed(index) {
                    model.leases[index].given_back = true;
                }
            }
            Op::Advance(millis) => {
                clock.advance(millis);
                model.now += millis;
            }
            Op::Follow => {
                reader.read(&registry).await;
                assert_eq!(listed(&reader.members), model.listed());
            }
            _ => {}
        }
        let snapshot = registry.snapshot(&Scope::All).await.unwrap();
        assert_eq!(listed(&snapshot), model.listed());
    }
    reader.read(&registry).await;
    assert_eq!(listed(&reader.members), model.listed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn registry_agrees_with_the_model(ops in proptest::collection::vec(op(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(agree(ops));
    }
}

#[tokio::test(start_paused = true)]
async fn quiet_watch_does_not_fall_behind_what_is_remembered() {
    let registry = bounded(10, 4, Arc::new(ManualClock::default()));
    let mut quiet = Reader::new(&registry).await;
    for _ in 0..20 {
        let mut elsewhere = asked("p-1", Duration::from_secs(9));
        elsewhere.service = "orders".parse().unwrap();
        registry.register(elsewhere).await.unwrap();
        let said = tokio::time::timeout(Duration::ZERO, quiet.watch.next()).await;
        assert!(said.is_err(), "{said:?}");
    }
    registry
        .register(asked("p-1", Duration::from_secs(9)))
        .await
        .unwrap();
    let WatchEvent::Changes { changes, .. } = quiet.watch.next().await.unwrap() else {
        panic!("it was always up to date");
    };
    assert!(matches!(&*changes, [Change::Upserted(_)]), "{changes:?}");
}

#[tokio::test(start_paused = true)]
async fn restarted_registry_resyncs_watches_of_its_former_life() {
    let first = MemoryRegistry::default();
    let old = first
        .register(asked("p-1", Duration::from_secs(9)))
        .await
        .unwrap();
    let revision = first.snapshot(&Scope::All).await.unwrap().revision();
    // The wall clock is real: the next life begins at least a millisecond later.
    while orchestra_core::WallClock::wall(&orchestra_core::SystemWallClock).as_unix_millis() << 20
        <= revision.as_u64()
    {
        tokio::task::yield_now().await;
    }
    let second = MemoryRegistry::default();
    let new = second
        .register(asked("p-1", Duration::from_secs(9)))
        .await
        .unwrap();
    assert!(new.incarnation > old.incarnation);
    let mut watch = second.watch(&Scope::All, revision).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchEvent::Resync);
}

#[tokio::test(start_paused = true)]
async fn oversized_registration_is_refused() {
    let registry = MemoryRegistry::default();
    let mut labels = Labels::new();
    for n in 0..60 {
        labels = labels.with(&format!("key-{n}"), &"v".repeat(63)).unwrap();
    }
    let refused = registry
        .register(asked("p-1", Duration::from_secs(9)).labels(labels))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let too_long = asked("p-1", Duration::from_secs(86_401));
    let refused = registry.register(too_long).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("p-1"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn long_backlog_comes_in_pages_without_a_gap() {
    let registry = MemoryRegistry::default();
    let mut reader = Reader::new(&registry).await;
    for n in 0..1_000 {
        let asked = asked(&format!("p-{n}"), Duration::from_secs(9));
        registry.register(asked).await.unwrap();
    }
    let mut pages = Vec::new();
    while reader.members.instances().len() < 1_000 {
        let WatchEvent::Changes { revision, changes } = reader.watch.next().await.unwrap() else {
            panic!("nothing was forgotten");
        };
        reader.members.advance(revision, &changes);
        pages.push(changes.len());
    }
    assert_eq!(pages, [256, 256, 256, 232]);
    let now = registry.snapshot(&Scope::All).await.unwrap();
    assert_eq!(reader.members.instances(), now.instances());
}

#[test]
fn snapshot_keeps_the_greatest_incarnation_of_each_id_in_order() {
    let mut elsewhere = instance("p-1", 9);
    elsewhere.service = "orders".parse().unwrap();
    let given = [
        instance("p-2", 1),
        instance("p-1", 3),
        elsewhere,
        instance("p-1", 5),
        instance("p-1", 4),
    ];
    assert_eq!(
        listed(&snapshot(given)),
        [
            ("p-1".to_owned(), 5, Status::Ready),
            ("p-2".to_owned(), 1, Status::Ready)
        ]
    );
}

#[test]
fn old_news_does_not_undo_new_ones() {
    let mut members = snapshot([instance("p-1", 5)]);
    let stale = Removal {
        service: service(),
        id: "p-1".parse().unwrap(),
        incarnation: Incarnation::new(4),
        reason: RemovalReason::Expired,
    };
    let changes = [
        Change::Removed(stale),
        Change::Upserted(Arc::new(instance("p-1", 4))),
    ];
    members.advance(Revision::new(7), &changes);
    assert_eq!(listed(&members), [("p-1".to_owned(), 5, Status::Ready)]);
    assert_eq!(members.revision(), Revision::new(7));
}

const TTL: Duration = Duration::from_secs(9);

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
    let registry = MemoryRegistry::new(Config::default().listener(listener));
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
