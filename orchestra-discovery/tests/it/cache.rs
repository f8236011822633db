//! The cache over sources that refuse, hang, forget and lie.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Labels, ServiceName};
use orchestra_discovery::cache::{Builder, Config, Freshness, SourceOptions};
use orchestra_discovery::merge::Field;
use orchestra_discovery::registry::memory;
use orchestra_discovery::{
    Cache, Change, ErrorKind, Event, Lease, MemoryRegistry, Registration, Registry, RemovalReason,
    Revision, Scope, Source, Watch, WatchEvent, coalesce,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::common::service;
use crate::doubles::{Heard, Mood, Moody, heard};

const LONG: Duration = Duration::from_secs(80_000);

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Lets everything happen that needs no time.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(5)).await;
}

pub(crate) fn scope() -> Scope {
    Scope::Service(service())
}

pub(crate) fn at(id: &str, endpoint: &str, ttl: Duration) -> Registration {
    let (id, endpoint) = (id.parse().unwrap(), endpoint.parse().unwrap());
    Registration::new(service(), id, endpoint, ttl)
}

pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.coalesce = coalesce::Config::off();
    config.seed = Some(7);
    config
}

pub(crate) fn over(source: &Moody) -> Builder {
    let options = SourceOptions::default();
    Cache::builder()
        .config(config())
        .source("registry", Arc::new(source.clone()), options)
}

pub(crate) async fn register(
    source: &Moody,
    ids: impl IntoIterator<Item = u32>,
    ttl: Duration,
) -> Vec<Lease> {
    let mut leases = Vec::new();
    for id in ids {
        let asked = at(&format!("i{id:03}"), &format!("10.0.0.{id}:80"), ttl);
        leases.push(source.registry().register(asked).await.unwrap());
    }
    leases
}

/// A registry of a later life.
pub(crate) fn amnesiac() -> MemoryRegistry {
    let mut config = memory::Config::default();
    config.start = Revision::new(config.start.as_u64() + (1 << 40));
    MemoryRegistry::new(config)
}

async fn count(cache: &Cache) -> usize {
    cache.snapshot(&scope()).await.unwrap().instances().len()
}

async fn ids(cache: &Cache) -> Vec<String> {
    let snapshot = cache.snapshot(&scope()).await.unwrap();
    let ids = snapshot.instances().iter();
    ids.map(|instance| instance.id.to_string()).collect()
}

pub(crate) async fn freshness(cache: &Cache) -> Freshness {
    cache.lookup(&service()).await.unwrap().freshness
}

pub(crate) async fn watch(cache: &Cache) -> Watch {
    let revision = cache.snapshot(&scope()).await.unwrap().revision();
    cache.watch(&scope(), revision).await.unwrap()
}

/// The changes that have come; panics on `Resync`.
async fn told(watch: &mut Watch) -> Vec<Change> {
    let mut all = Vec::new();
    while let Ok(event) = timeout(Duration::from_millis(1), watch.next()).await {
        match event.unwrap() {
            WatchEvent::Changes { changes, .. } => all.extend(changes),
            other => panic!("{other:?}"),
        }
    }
    all
}

fn happened(heard: &Heard, what: impl Fn(&Event) -> bool) -> usize {
    heard.lock().iter().filter(|event| what(event)).count()
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_misses_are_one_call_per_source() {
    let (one, two) = (Moody::new(), Moody::new());
    register(&one, [1], LONG).await;
    let (heard, listener) = heard();
    let options = SourceOptions::default();
    let cache = over(&one)
        .source("second", Arc::new(two.clone()), options)
        .listener(listener)
        .build()
        .unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..10_000 {
        let cache = cache.clone();
        calls.spawn(async move { cache.lookup(&service()).await.unwrap().snapshot });
    }
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|it| it.instances().len() == 1));
    assert_eq!((one.asked(), two.asked()), (1, 1));
    assert_eq!(
        happened(&heard, |it| matches!(it, Event::CacheMiss { .. })),
        1
    );
    assert_eq!(
        happened(&heard, |it| matches!(it, Event::CacheHit { .. })),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn hits_are_told_when_asked_for() {
    let source = Moody::new();
    register(&source, [1], LONG).await;
    let (heard, listener) = heard();
    let cache = over(&source)
        .listener(listener)
        .tell_hits()
        .build()
        .unwrap();
    for _ in 0..4 {
        count(&cache).await;
    }
    assert_eq!(
        happened(&heard, |it| matches!(it, Event::CacheHit { .. })),
        3
    );
}

#[tokio::test(start_paused = true)]
async fn source_that_answers_is_not_held_up_by_one_that_hangs() {
    let (good, bad) = (Moody::new(), Moody::new());
    bad.set(Mood::Hanging);
    let options = SourceOptions::default().deadline(secs(3));
    let cache = over(&good)
        .source("hanging", Arc::new(bad.clone()), options)
        .build()
        .unwrap();
    register(&good, [1], LONG).await;
    let start = Instant::now();
    assert_eq!(count(&cache).await, 1);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn failure_is_not_an_empty_answer() {
    let (empty, bad) = (Moody::new(), Moody::new());
    bad.set(Mood::Hanging);
    let options = SourceOptions::default().deadline(secs(3));
    let cache = over(&empty)
        .source("hanging", Arc::new(bad.clone()), options)
        .build()
        .unwrap();
    let start = Instant::now();
    let error = cache.snapshot(&scope()).await.unwrap_err();
    assert_eq!(start.elapsed(), secs(3));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_retryable());
    assert_eq!(
        error.to_string(),
        "no source knows the members of payments; registry: has none; \
         hanging: no snapshot of service payments within 3s"
    );
    bad.set(Mood::Up);
    sleep(secs(10)).await;
    assert_eq!(count(&cache).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_known_is_served_until_it_is_too_old_and_watchers_are_not_disturbed() {
    let source = Moody::new();
    register(&source, [1, 2], LONG).await;
    let (heard, listener) = heard();
    let cache = over(&source).listener(listener).build().unwrap();
    let mut watch = watch(&cache).await;
    settle().await;
    assert_eq!(freshness(&cache).await, Freshness::Fresh);
    source.set(Mood::Refusing);
    settle().await;
    assert_eq!(freshness(&cache).await, Freshness::StaleWhileRevalidate);
    sleep(secs(121)).await;
    assert_eq!(freshness(&cache).await, Freshness::StaleIfError);
    let answer = cache.lookup(&service()).await.unwrap();
    assert!(
        answer.age >= secs(121) && answer.age < secs(122),
        "{:?}",
        answer.age
    );
    assert_eq!(answer.snapshot.instances().len(), 2);
    assert!(answer.sources[0].failures > 10);
    assert_eq!(answer.sources[0].error.as_deref(), Some("refused"));
    sleep(secs(3_470)).await;
    assert_eq!(freshness(&cache).await, Freshness::StaleIfError);
    let stale = |event: &Event| matches!(event, Event::StaleServed { .. });
    assert_eq!(happened(&heard, stale), 2);

    // No file: there is no state beyond.
    sleep(secs(20)).await;
    let error = cache.snapshot(&scope()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(told(&mut watch).await, []);

    source.set(Mood::Up);
    sleep(secs(6)).await;
    assert_eq!(freshness(&cache).await, Freshness::Fresh);
    assert_eq!(told(&mut watch).await, []);
    let recovered = |event: &Event| matches!(event, Event::UpstreamRecovered { .. });
    assert_eq!(happened(&heard, recovered), 1);
}

#[tokio::test(start_paused = true)]
async fn empty_answer_where_there_were_members_needs_a_second_one() {
    let source = Moody::new();
    register(&source, [1, 2], LONG).await;
    let (heard, listener) = heard();
    let cache = over(&source).listener(listener).build().unwrap();
    let mut watch = watch(&cache).await;
    settle().await;
    let unconfirmed = |event: &Event| matches!(event, Event::EmptyUnconfirmed { .. });

    // A lie that is taken back in time.
    source.replace(amnesiac());
    sleep(secs(3)).await;
    assert_eq!((count(&cache).await, happened(&heard, unconfirmed)), (2, 1));
    register(&source, [1, 2], LONG).await;
    sleep(secs(6)).await;
    assert_eq!(count(&cache).await, 2);
    // They are new incarnations.
    assert_eq!(told(&mut watch).await.len(), 4);

    // And one that is kept up.
    source.replace(amnesiac());
    sleep(secs(4)).await;
    assert_eq!((count(&cache).await, happened(&heard, unconfirmed)), (2, 2));
    sleep(secs(2)).await;
    assert_eq!(count(&cache).await, 0);
    assert_eq!(told(&mut watch).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn two_empty_answers_with_a_failure_in_between_confirm_nothing() {
    let source = Moody::new();
    register(&source, [1, 2], LONG).await;
    let cache = over(&source).build().unwrap();
    let _watch = watch(&cache).await;
    settle().await;
    for _ in 0..3 {
        // The watch fails, the next answer is empty, and the one after that fails again.
        source.set(Mood::Refusing);
        settle().await;
        source.set(Mood::Blank);
        sleep(secs(4)).await;
        source.set(Mood::Refusing);
        sleep(secs(6)).await;
        assert_eq!(count(&cache).await, 2);
    }
    source.set(Mood::Blank);
    sleep(secs(12)).await;
    assert_eq!(count(&cache).await, 0);
}

#[tokio::test(start_paused = true)]
async fn older_answer_than_before_needs_a_second_one() {
    let source = Moody::new();
    register(&source, [1, 2], LONG).await;
    let (heard, listener) = heard();
    let cache = over(&source).listener(listener).build().unwrap();
    let mut watch = watch(&cache).await;
    settle().await;
    let present = source.registry();
    let mut start = memory::Config::default();
    start.start = Revision::new(start.start.as_u64() - (1 << 40));
    let past = MemoryRegistry::new(start);
    let ghost = past
        .register(at("i001", "10.0.0.1:80", LONG))
        .await
        .unwrap();
    let unconfirmed = |event: &Event| matches!(event, Event::OlderUnconfirmed { .. });

    // A replica that catches up in time.
    source.replace(past.clone());
    sleep(secs(3)).await;
    assert_eq!(happened(&heard, unconfirmed), 1);
    source.replace(present);
    sleep(secs(6)).await;
    assert_eq!(told(&mut watch).await, []);

    // And a registry that has come back with its clock behind.
    source.replace(past);
    sleep(secs(7)).await;
    let members = cache.snapshot(&scope()).await.unwrap();
    let found: Vec<_> = members
        .instances()
        .iter()
        .map(|it| it.incarnation)
        .collect();
    assert_eq!(found, [ghost.incarnation]);
    assert_eq!(happened(&heard, unconfirmed), 2);
}

#[tokio::test(start_paused = true)]
async fn deregistrations_are_believed_at_once() {
    let source = Moody::new();
    let leases = register(&source, 0..20, LONG).await;
    let (heard, listener) = heard();
    let cache = over(&source).listener(listener).build().unwrap();
    let mut watch = watch(&cache).await;
    settle().await;
    for lease in &leases {
        source.registry().deregister(lease).await.unwrap();
    }
    settle().await;
    assert_eq!(count(&cache).await, 0);
    let changes = told(&mut watch).await;
    assert!(changes.iter().all(
        |it| matches!(it, Change::Removed(gone) if gone.reason == RemovalReason::Deregistered)
    ));
    assert_eq!(changes.len(), 20);
    let held = |event: &Event| matches!(event, Event::PreservationEntered { .. });
    assert_eq!(happened(&heard, held), 0);
}

#[tokio::test(start_paused = true)]
async fn fallback_is_asked_only_when_the_others_have_nothing() {
    let (first, second, third) = (Moody::new(), Moody::new(), Moody::new());
    let lease = register(&first, [1], LONG).await;
    register(&second, [2], LONG).await;
    register(&third, [3], LONG).await;
    let options = SourceOptions::default();
    let cache = over(&first)
        .fallback("second", Arc::new(second.clone()), options)
        .fallback("third", Arc::new(third.clone()), options)
        .build()
        .unwrap();
    let mut watch = watch(&cache).await;
    settle().await;
    assert_eq!(ids(&cache).await, ["i001"]);
    assert_eq!((second.asked(), third.asked()), (0, 0));

    first.registry().deregister(&lease[0]).await.unwrap();
    settle().await;
    assert_eq!(ids(&cache).await, ["i002"]);
    assert_eq!((second.asked(), third.asked()), (1, 0));
    // Nobody who watches has seen the service without members.
    let changes = told(&mut watch).await;
    assert!(
        matches!(&*changes, [Change::Removed(_), Change::Upserted(_)]),
        "{changes:?}"
    );

    register(&first, [1], LONG).await;
    settle().await;
    assert_eq!(ids(&cache).await, ["i001"]);
    sleep(secs(600)).await;
    assert_eq!((second.asked(), third.asked()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn fallback_serves_when_the_others_fail_from_the_start() {
    let (first, second) = (Moody::new(), Moody::new());
    first.set(Mood::Refusing);
    register(&second, [2], LONG).await;
    let options = SourceOptions::default().without_leases();
    let cache = over(&first)
        .fallback("file", Arc::new(second.clone()), options)
        .build()
        .unwrap();
    assert_eq!(ids(&cache).await, ["i002"]);
    // Both fail: each reason is told.
    let other = over(&first)
        .fallback("file", Arc::new(first.clone()), options)
        .build()
        .unwrap();
    let error = other.snapshot(&scope()).await.unwrap_err().to_string();
    assert!(
        error.ends_with("; registry: refused; file: refused"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn instances_of_several_sources_are_one_with_provenance() {
    let (registry, dns) = (Moody::new(), Moody::new());
    let mut listed = at("orders-1", "10.0.0.1:80", LONG);
    listed.labels = Labels::try_from([("version", "2")]).unwrap();
    let lease = registry.registry().register(listed).await.unwrap();
    let resolved = at("10-0-0-1", "[::ffff:10.0.0.1]:80", LONG).weight(9);
    dns.registry().register(resolved).await.unwrap();
    let other = at("10-0-0-2", "10.0.0.2:80", LONG);
    dns.registry().register(other).await.unwrap();
    let options = SourceOptions::default().without_leases();
    let cache = over(&registry)
        .source("dns", Arc::new(dns.clone()), options)
        .build()
        .unwrap();
    count(&cache).await;
    settle().await;
    let snapshot = cache.snapshot(&scope()).await.unwrap();
    let [other, merged] = snapshot.instances() else {
        panic!("{snapshot:?}");
    };
    assert_eq!(
        (other.id.as_str(), merged.id.as_str()),
        ("10-0-0-2", "orders-1")
    );
    assert_eq!((merged.weight, merged.incarnation), (9, lease.incarnation));
    let provenance = cache.provenance(&service(), &merged.id).unwrap();
    assert_eq!(&*provenance[&Field::Weight], "dns");
    assert_eq!(&*provenance[&Field::Lease], "registry");
    assert_eq!(&*provenance[&Field::Label("version".into())], "registry");
    assert_eq!(
        cache.provenance(&service(), &"nobody".parse().unwrap()),
        None
    );
}

#[tokio::test(start_paused = true)]
async fn deregistered_instance_does_not_live_on_in_another_source() {
    let (registry, dns) = (Moody::new(), Moody::new());
    let asked = at("orders-1", "10.0.0.1:80", LONG);
    let lease = registry.registry().register(asked.clone()).await.unwrap();
    let record = at("10-0-0-1", "10.0.0.1:80", LONG).weight(9);
    let record = dns.registry().register(record).await.unwrap();
    let options = SourceOptions::default().without_leases();
    let cache = over(&registry)
        .source("dns", Arc::new(dns.clone()), options)
        .build()
        .unwrap();
    count(&cache).await;
    settle().await;
    registry.registry().deregister(&lease).await.unwrap();
    settle().await;
    assert_eq!(ids(&cache).await, Vec::<String>::new());
    let sources = cache.lookup(&service()).await.unwrap().sources;
    assert_eq!((sources[0].instances, sources[1].instances), (0, 0));
    // Not even when that source repeats it.
    sleep(secs(120)).await;
    assert_eq!(ids(&cache).await, Vec::<String>::new());
    // The same place is taken by a new registration.
    let lease = registry.registry().register(asked).await.unwrap();
    settle().await;
    assert_eq!(ids(&cache).await, ["orders-1"]);
    // And what the other source says of it counts again.
    let snapshot = cache.snapshot(&scope()).await.unwrap();
    assert_eq!(snapshot.instances()[0].weight, 9);
    // What the other source lists anew is heard, and so is what it lists for long enough.
    registry.registry().deregister(&lease).await.unwrap();
    settle().await;
    dns.registry().deregister(&record).await.unwrap();
    let record = at("10-0-0-1", "10.0.0.1:80", LONG);
    dns.registry().register(record).await.unwrap();
    settle().await;
    assert_eq!(ids(&cache).await, ["10-0-0-1"]);
}

#[tokio::test(start_paused = true)]
async fn few_leases_simply_expire_and_many_are_held_and_released_at_the_end() {
    let source = Moody::new();
    register(&source, 0..17, LONG).await;
    let (heard, listener) = heard();
    let cache = over(&source).listener(listener).build().unwrap();
    let mut watch = watch(&cache).await;
    // Three of twenty are not more than 15 %.
    register(&source, 20..23, secs(10)).await;
    settle().await;
    told(&mut watch).await;
    assert_eq!(count(&cache).await, 20);
    sleep(secs(11)).await;
    assert_eq!((count(&cache).await, told(&mut watch).await.len()), (17, 3));
    let entered = |event: &Event| matches!(event, Event::PreservationEntered { .. });
    assert_eq!(happened(&heard, entered), 0);

    // Four of them within the window are.
    sleep(secs(61)).await;
    register(&source, 20..24, secs(10)).await;
    sleep(secs(11)).await;
    assert_eq!(count(&cache).await, 21);
    assert_eq!(happened(&heard, entered), 2, "the service and the source");
    // One comes back: three of 21 are no mass, and at the end of the window the others lapse.
    register(&source, 20..21, LONG).await;
    sleep(secs(50)).await;
    assert_eq!(count(&cache).await, 21);
    sleep(secs(10)).await;
    assert_eq!(count(&cache).await, 18);
    let left = |event: &Event| matches!(event, Event::PreservationLeft { released: 3, .. });
    assert_eq!(happened(&heard, left), 2);
}

#[tokio::test(start_paused = true)]
async fn held_leases_are_let_go_when_the_source_goes_on_confirming() {
    let source = Moody::new();
    register(&source, 0..12, secs(10)).await;
    let (heard, listener) = heard();
    let cache = over(&source).listener(listener).build().unwrap();
    let mut watch = watch(&cache).await;
    sleep(secs(240)).await;
    assert_eq!((count(&cache).await, told(&mut watch).await.len()), (12, 0));
    sleep(secs(180)).await;
    assert_eq!((count(&cache).await, told(&mut watch).await.len()), (0, 12));
    let left = |event: &Event| matches!(event, Event::PreservationLeft { .. });
    assert_eq!(happened(&heard, left), 2);
    // While the source cannot be asked nothing is confirmed, but the longest hold ends it.
    register(&source, 0..12, secs(10)).await;
    sleep(secs(15)).await;
    source.set(Mood::Hanging);
    sleep(secs(800)).await;
    assert_eq!(count(&cache).await, 12);
    sleep(secs(120)).await;
    assert_eq!(count(&cache).await, 0);
}

#[tokio::test(start_paused = true)]
async fn registry_that_restarts_without_memory_empties_no_service() {
    let source = Moody::new();
    register(&source, 0..30, LONG).await;
    let cache = over(&source).build().unwrap();
    let mut watch = watch(&cache).await;
    settle().await;
    source.replace(amnesiac());
    for second in 0..30 {
        sleep(secs(1)).await;
        // One after the other registers anew.
        register(&source, second..=second, LONG).await;
        assert_eq!(count(&cache).await, 30, "after {second} seconds");
    }
    sleep(secs(70)).await;
    assert_eq!(count(&cache).await, 30);
    let changes = told(&mut watch).await;
    let heirs = changes
        .iter()
        .filter(|it| matches!(it, Change::Upserted(_)));
    assert_eq!(heirs.count(), 30);
}

#[tokio::test(start_paused = true)]
async fn leases_of_small_services_are_held_by_their_source() {
    let source = Moody::new();
    let names: Vec<ServiceName> = (0..5).map(|at| format!("s{at}").parse().unwrap()).collect();
    for name in &names {
        for id in ["a", "b"] {
            let (id, endpoint) = (id.parse().unwrap(), "10.0.0.1:80".parse().unwrap());
            let asked = Registration::new(name.clone(), id, endpoint, secs(10));
            source.registry().register(asked).await.unwrap();
        }
    }
    let (heard, listener) = heard();
    let cache = over(&source).listener(listener).build().unwrap();
    for name in &names {
        cache.lookup(name).await.unwrap();
    }
    sleep(secs(15)).await;
    for name in &names {
        assert_eq!(
            cache.lookup(name).await.unwrap().snapshot.instances().len(),
            2
        );
    }
    let entered = |event: &Event| {
        matches!(event, Event::PreservationEntered { service, held, .. }
            if service.is_none() && (3..=10).contains(held))
    };
    assert_eq!(happened(&heard, entered), 1);
}

#[tokio::test(start_paused = true)]
async fn unknown_names_take_no_memory_and_push_out_nobody() {
    let source = Moody::new();
    register(&source, [1], LONG).await;
    let mut bounded = config();
    bounded.max_services = NonZeroUsize::new(20).unwrap();
    bounded.max_negative = NonZeroUsize::new(8).unwrap();
    let cache = over(&source).config(bounded).build().unwrap();
    count(&cache).await;
    for name in 0..10_000 {
        let name = format!("made-up-{name}").parse().unwrap();
        let answer = cache.lookup(&name).await.unwrap();
        assert!(answer.snapshot.instances().is_empty());
        assert!(cache.services() <= 9);
    }
    let asked = source.asked();
    assert_eq!(count(&cache).await, 1);
    assert_eq!(source.asked(), asked, "the service with members was kept");
}

#[tokio::test(start_paused = true)]
async fn service_without_members_is_asked_for_once_until_its_time_is_over() {
    let source = Moody::new();
    let (heard, listener) = heard();
    let cache = over(&source).listener(listener).build().unwrap();
    for _ in 0..29 {
        assert_eq!(count(&cache).await, 0);
        sleep(secs(1)).await;
    }
    assert_eq!(source.asked(), 1);
    let cached = |event: &Event| matches!(event, Event::NegativeCached { ttl, .. } if (secs(30)..secs(46)).contains(ttl));
    assert_eq!(happened(&heard, cached), 1);
    sleep(secs(17)).await;
    assert_eq!(cache.services(), 0);
    register(&source, [1], LONG).await;
    assert_eq!(count(&cache).await, 1);
    assert_eq!(source.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn least_recently_used_service_goes_and_watched_ones_stay() {
    let source = Moody::new();
    let mut bounded = config();
    bounded.max_services = NonZeroUsize::new(3).unwrap();
    let cache = over(&source).config(bounded).build().unwrap();
    let mut revisions = Vec::new();
    let mut watches = Vec::new();
    let name = |at: usize| -> ServiceName { format!("s{at}").parse().unwrap() };
    for at in 0..5 {
        let (id, endpoint) = ("a".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
        let asked = Registration::new(name(at), id, endpoint, LONG);
        source.registry().register(asked).await.unwrap();
        let scope = Scope::Service(name(at));
        let revision = cache.snapshot(&scope).await.unwrap().revision();
        revisions.push(revision);
        if at == 0 || at == 1 {
            watches.push(cache.watch(&scope, revision).await.unwrap());
        }
    }
    assert_eq!(cache.services(), 3);
    let asked = source.asked();
    cache.lookup(&name(0)).await.unwrap();
    cache.lookup(&name(4)).await.unwrap();
    assert_eq!(source.asked(), asked);
    // A revision of a former entry is unknown to the new one.
    let scope = Scope::Service(name(2));
    let mut watch = cache.watch(&scope, revisions[2]).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchEvent::Resync);
    // Three are watched now: no room.
    let error = cache.lookup(&name(3)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::Full, true)
    );
}

#[tokio::test(start_paused = true)]
async fn churn_reaches_watchers_in_few_batches_and_the_first_change_at_once() {
    let source = Moody::new();
    let mut gathering = config();
    gathering.coalesce = coalesce::Config::default();
    let cache = over(&source).config(gathering).build().unwrap();
    let mut watch = watch(&cache).await;
    sleep(secs(1)).await;
    let start = Instant::now();
    register(&source, [0], LONG).await;
    watch.next().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    let mut batches = 0;
    for round in 0..1_000_u32 {
        register(&source, [round % 10], LONG).await;
        sleep(Duration::from_millis(1)).await;
        while let Ok(event) = timeout(Duration::ZERO, watch.next()).await {
            assert!(matches!(event.unwrap(), WatchEvent::Changes { .. }));
            batches += 1;
        }
    }
    assert!((9..=11).contains(&batches), "{batches} in a second");
    sleep(secs(1)).await;
    let expected = source.snapshot(&scope()).await.unwrap();
    let found = cache.snapshot(&scope()).await.unwrap();
    assert_eq!(found.instances(), expected.instances());
}

#[tokio::test(start_paused = true)]
async fn changes_that_waited_when_the_source_failed_are_not_lost() {
    let source = Moody::new();
    let leases = register(&source, 1..5, LONG).await;
    let mut gathering = config();
    gathering.coalesce = coalesce::Config::default();
    let cache = over(&source).config(gathering).build().unwrap();
    let mut watch = watch(&cache).await;
    settle().await;

    // The first passes at once, the others wait for the end of the window.
    for lease in &leases[..3] {
        source.registry().deregister(lease).await.unwrap();
        settle().await;
    }
    assert_eq!(ids(&cache).await, ["i002", "i003", "i004"]);
    source.set(Mood::Refusing);
    settle().await;
    assert_eq!(ids(&cache).await, ["i004"]);
    let reasons = told(&mut watch).await.into_iter().map(|it| match it {
        Change::Removed(removal) => removal.reason,
        other => panic!("{other:?}"),
    });
    assert_eq!(
        reasons.collect::<Vec<_>>(),
        [RemovalReason::Deregistered; 3]
    );
}

#[tokio::test(start_paused = true)]
async fn dead_watch_is_found_by_the_next_refresh() {
    let source = Moody::new();
    register(&source, [1], LONG).await;
    let cache = over(&source).build().unwrap();
    let mut watch = watch(&cache).await;
    settle().await;
    // Its watches are silent from here on, and it answers nothing.
    source.set(Mood::Hanging);
    register(&source, [2], LONG).await;
    sleep(secs(68)).await;
    assert!(freshness(&cache).await > Freshness::Fresh);
    source.set(Mood::Up);
    sleep(secs(6)).await;
    assert_eq!(count(&cache).await, 2);
    assert_eq!(told(&mut watch).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn scope_of_all_services_is_unsupported() {
    let cache = over(&Moody::new()).build().unwrap();
    assert!(!cache.capabilities().all_services);
    let error = cache.snapshot(&Scope::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = cache
        .watch(&Scope::All, Revision::new(0))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn sources_must_exist_and_differ_in_name() {
    let error = Cache::builder().build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let source = Moody::new();
    let options = SourceOptions::default();
    let twice = over(&source).fallback("registry", Arc::new(source.clone()), options);
    let error = twice.build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "two sources of a cache are named registry"
    );
}

#[tokio::test(start_paused = true)]
async fn end_leaves_no_task_and_wakes_everyone() {
    for in_order in [true, false] {
        let source = Arc::new(Moody::new());
        source.set(Mood::Hanging);
        let options = SourceOptions::default().deadline(LONG);
        let feed: Arc<dyn Source> = Arc::<Moody>::clone(&source);
        let cache = Cache::builder()
            .source("one", feed, options)
            .build()
            .unwrap();
        let mut watch = cache.watch(&scope(), Revision::new(0)).await.unwrap();
        assert_eq!(watch.next().await.unwrap(), WatchEvent::Resync);
        let mut tail = JoinSet::new();
        if in_order {
            let waiting = cache.clone();
            tail.spawn(async move { waiting.snapshot(&scope()).await.unwrap_err().kind() });
            settle().await;
            cache.shutdown().await.unwrap();
            cache.shutdown().await.unwrap();
            assert_eq!(tail.join_all().await, [ErrorKind::Closed]);
            let error = cache.snapshot(&scope()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
        }
        drop(cache);
        drop(watch);
        settle().await;
        assert_eq!(Arc::strong_count(&source), 1, "in order: {in_order}");
    }
}

#[cfg(feature = "serde")]
mod disk {
    use std::fs;
    use std::path::Path;

    use orchestra_core::{Clock as _, SystemClock};
    use orchestra_discovery::cache::disk::Options;
    use orchestra_discovery::{Follow, Resolver, follow, resolver};

    use super::*;
    use crate::common::draw;

    fn kept(source: &Moody, path: &Path) -> Builder {
        over(source).disk(path, Options::default())
    }

    /// A file with so many instances of one service.
    async fn file_of(path: &Path, members: u32) {
        let source = Moody::new();
        for at in 0..members {
            let endpoint = format!("10.0.{}.{}:80", at / 250, at % 250);
            let asked = super::at(&format!("i{at:04}"), &endpoint, LONG);
            source.registry().register(asked).await.unwrap();
        }
        let cache = kept(&source, path).build().unwrap();
        assert_eq!(count(&cache).await, members as usize);
        cache.shutdown().await.unwrap();
    }

    async fn file(path: &Path) {
        file_of(path, 1_000).await;
    }

    /// From nothing to the first pick.
    async fn start(source: &Moody, path: &Path) -> (Duration, usize) {
        let clock = SystemClock::new();
        let cache = Arc::new(kept(source, path).build().unwrap());
        let resolver = Resolver::new(service(), resolver::Config::default());
        let follow = Follow::start(cache, resolver.clone(), follow::Config::default());
        follow.ready().await.unwrap();
        resolver.choose(&draw(1)).unwrap();
        let took = clock.now().since(orchestra_core::Monotonic::ZERO);
        (took, resolver.members().len())
    }

    #[tokio::test]
    async fn every_registry_down_the_first_pick_is_by_the_file_within_milliseconds() {
        // Ten times as many may take ten times as long, and unoptimised code thirty times longer.
        let unoptimised = if cfg!(debug_assertions) { 30 } else { 1 };
        for (members, millis) in [(1_000, 5), (10_000, 50)] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("cache");
            file_of(&path, members).await;
            for mood in [Mood::Refusing, Mood::Hanging] {
                let source = Moody::new();
                source.set(mood);
                let mut best = Duration::MAX;
                for _ in 0..5 {
                    let (took, found) = start(&source, &path).await;
                    assert_eq!(found, members as usize);
                    best = best.min(took);
                }
                println!("{mood:?}: first pick among {members} after {best:?}");
                let limit = Duration::from_millis(millis * unoptimised);
                assert!(best < limit, "{mood:?}, {members}: {best:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_only_read_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        file_of(&path, 3).await;
        let source = Moody::new();
        source.set(Mood::Refusing);
        let cache = kept(&source, &path).build().unwrap();
        assert_eq!(count(&cache).await, 3);
        fs::remove_file(&path).unwrap();
        sleep(secs(5)).await;
        cache.shutdown().await.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_source_says_replaces_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        file(&path).await;
        let source = Moody::new();
        source.set(Mood::Refusing);
        let (heard, listener) = heard();
        let cache = kept(&source, &path).listener(listener).build().unwrap();
        assert_eq!(
            happened(&heard, |it| *it == Event::DiskLoaded { services: 1 }),
            1
        );
        let mut watch = watch(&cache).await;
        assert_eq!(freshness(&cache).await, Freshness::LastGood);
        register(&source, [7], LONG).await;
        source.set(Mood::Up);
        sleep(secs(6)).await;
        // A mass of leases is missing: they are held, and so is their age known.
        assert_eq!(
            (count(&cache).await, freshness(&cache).await),
            (1_001, Freshness::Fresh)
        );
        sleep(secs(400)).await;
        assert_eq!(ids(&cache).await, ["i007"]);
        let changes = told(&mut watch).await;
        assert_eq!(changes.len(), 1_001);
        // The debounce is over long since: it is in the file.
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("i007") && !text.contains("i0001"));
        cache.shutdown().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn last_good_lasts_as_long_as_it_may() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        file(&path).await;
        let source = Moody::new();
        source.set(Mood::Hanging);
        let mut short = config();
        short.limits.last_good = secs(4_000);
        let cache = kept(&source, &path).config(short).build().unwrap();
        let _watch = watch(&cache).await;
        sleep(secs(3_999)).await;
        assert_eq!(count(&cache).await, 1_000);
        sleep(secs(2)).await;
        assert!(cache.snapshot(&scope()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn services_that_nobody_asked_for_stay_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        file(&path).await;
        let source = Moody::new();
        let other: ServiceName = "other".parse().unwrap();
        let (id, endpoint) = ("a".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
        let asked = Registration::new(other.clone(), id, endpoint, LONG);
        source.registry().register(asked).await.unwrap();
        let cache = kept(&source, &path).build().unwrap();
        cache.lookup(&other).await.unwrap();
        cache.shutdown().await.unwrap();
        let third = kept(&source, &path).build().unwrap();
        source.set(Mood::Refusing);
        assert_eq!(count(&third).await, 1_000);
        assert_eq!(
            third
                .lookup(&other)
                .await
                .unwrap()
                .snapshot
                .instances()
                .len(),
            1
        );
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_cannot_be_used_is_told_and_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        file(&path).await;
        let whole = fs::read(&path).unwrap();
        for broken in [&whole[..whole.len() - 1], b"somebody else's\n", &[0xff; 40]] {
            fs::write(&path, broken).unwrap();
            let source = Moody::new();
            register(&source, [1], LONG).await;
            let (heard, listener) = heard();
            let cache = kept(&source, &path).listener(listener).build().unwrap();
            assert_eq!(
                happened(&heard, |it| matches!(it, Event::DiskIgnored { .. })),
                1
            );
            assert_eq!(count(&cache).await, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn file_that_cannot_be_written_is_told_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing").join("cache");
        let source = Moody::new();
        register(&source, [1], LONG).await;
        let (heard, listener) = heard();
        let cache = kept(&source, &path).listener(listener).build().unwrap();
        assert_eq!(count(&cache).await, 1);
        sleep(secs(3)).await;
        assert!(happened(&heard, |it| matches!(it, Event::DiskFailed { .. })) > 0);
        fs::create_dir(path.parent().unwrap()).unwrap();
        sleep(secs(3)).await;
        cache.shutdown().await.unwrap();
        assert!(path.exists());
    }
}

/// The laws of a source hold for what is seen through a cache.
#[cfg(feature = "test-util")]
mod laws {
    use async_trait::async_trait;
    use orchestra_core::InstanceId;
    use orchestra_discovery::conformance::Subject;
    use orchestra_discovery::{Capabilities, Error, Override, Snapshot, Status, registry_suite};

    use super::*;

    const REMEMBERED: u32 = 64;

    /// Writes to a registry, reads from the cache, which is given the time to hear of it.
    struct Through {
        registry: MemoryRegistry,
        cache: Cache,
    }

    #[async_trait]
    impl Source for Through {
        async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
            self.cache.snapshot(scope).await
        }

        async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
            self.cache.watch(scope, after).await
        }

        fn capabilities(&self) -> Capabilities {
            self.cache.capabilities()
        }
    }

    #[async_trait]
    impl Registry for Through {
        async fn register(&self, asked: Registration) -> Result<Lease, Error> {
            let lease = self.registry.register(asked).await;
            settle().await;
            lease
        }

        async fn renew(&self, lease: &Lease) -> Result<(), Error> {
            self.registry.renew(lease).await
        }

        async fn set_status(&self, lease: &Lease, status: Status) -> Result<(), Error> {
            let set = self.registry.set_status(lease, status).await;
            settle().await;
            set
        }

        async fn deregister(&self, lease: &Lease) -> Result<(), Error> {
            let given = self.registry.deregister(lease).await;
            settle().await;
            given
        }

        async fn set_override(
            &self,
            service: &ServiceName,
            id: &InstanceId,
            forced: Option<Override>,
        ) -> Result<(), Error> {
            let set = self.registry.set_override(service, id, forced).await;
            settle().await;
            set
        }
    }

    fn subject() -> Subject {
        let registry = MemoryRegistry::new(memory::Config::default());
        let mut bounded = config();
        bounded.max_changes = NonZeroUsize::new(REMEMBERED as usize).unwrap();
        let source = Arc::new(registry.clone());
        let cache = Cache::builder()
            .source("registry", source, SourceOptions::default())
            .config(bounded)
            .build()
            .unwrap();
        let through = Arc::new(Through { registry, cache });
        Subject::new(through, secs(9), Duration::from_millis(20)).remembers(REMEMBERED)
    }

    registry_suite!(through_a_cache, || async { subject() }, start_paused = true);
}
