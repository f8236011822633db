//! How a cache goes about sources that cannot be watched, fall behind, ask for patience or hang.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::ServiceName;
use orchestra_discovery::cache::{Freshness, SourceOptions};
use orchestra_discovery::registry::memory;
use orchestra_discovery::{
    Cache, Capabilities, Change, Error, ErrorKind, Event, Incarnation, MemoryRegistry, Registry,
    Removal, RemovalReason, Revision, Scope, Snapshot, Source, Status, Watch, WatchEvent,
    WatchStream, coalesce,
};
use orchestra_testkit::retained;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::cache::{at, config, freshness, over, register, scope, secs, settle, watch};
use crate::common::{instance, service, snapshot};
use crate::doubles::{Mood, Moody, heard};

const LONG: Duration = secs(80_000);

/// What is special about a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Plain,
    /// It has no watches.
    NoWatch,
    /// Its watches say `Resync` and nothing else.
    Behind,
    /// It asks to be left alone for so long: on a snapshot, or on a watch.
    Throttled(Duration),
    ThrottledWatch(Duration),
    /// Opening a watch takes for ever.
    WatchHangs,
}

/// A registry with a manner, which notes when it is asked for a snapshot.
#[derive(Debug, Clone)]
struct Mannered {
    inner: MemoryRegistry,
    manner: tokio::sync::watch::Sender<Manner>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Mannered {
    fn new(manner: Manner) -> Self {
        Self {
            inner: MemoryRegistry::default(),
            manner: tokio::sync::watch::Sender::new(manner),
            asked: Arc::default(),
        }
    }

    fn manner(&self) -> Manner {
        *self.manner.borrow()
    }

    async fn register(&self, id: u32) {
        let asked = at(&format!("i{id}"), &format!("10.0.0.{id}:80"), LONG);
        self.inner.register(asked).await.unwrap();
    }

    fn cached(&self) -> Cache {
        let options = SourceOptions::default().deadline(secs(3));
        Cache::builder()
            .config(config())
            .source("registry", Arc::new(self.clone()), options)
            .build()
            .unwrap()
    }

    fn note(&self) {
        let mut asked = self.asked.lock();
        asked.push(Instant::now());
        assert!(asked.len() < 10_000, "it is asked in a tight loop");
    }

    /// How long after each other it was asked.
    fn pauses(&self) -> Vec<Duration> {
        let asked = self.asked.lock();
        asked.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

fn throttled(after: Duration) -> Error {
    Error::new(ErrorKind::Unavailable, "too many calls").with_retry_after(after)
}

#[async_trait]
impl Source for Mannered {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.note();
        if let Manner::Throttled(after) = self.manner() {
            return Err(throttled(after));
        }
        self.inner.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        match self.manner() {
            Manner::NoWatch => Err(Error::new(ErrorKind::Unsupported, "it has no watches")),
            Manner::ThrottledWatch(after) => Err(throttled(after)),
            Manner::WatchHangs => std::future::pending().await,
            Manner::Plain | Manner::Behind | Manner::Throttled(_) => {
                let inner = self.inner.watch(scope, after).await?;
                let manner = self.manner.subscribe();
                Ok(Watch::new(FallsBehind { inner, manner }))
            }
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

struct FallsBehind {
    inner: Watch,
    manner: tokio::sync::watch::Receiver<Manner>,
}

#[async_trait]
impl WatchStream for FallsBehind {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        tokio::select! {
            biased;
            _ = self.manner.wait_for(|manner| *manner == Manner::Behind) => Ok(WatchEvent::Resync),
            event = self.inner.next() => event,
        }
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }
}

async fn count(cache: &Cache) -> usize {
    cache.snapshot(&scope()).await.unwrap().instances().len()
}

#[tokio::test(start_paused = true)]
async fn source_without_watches_is_polled() {
    let source = Mannered::new(Manner::NoWatch);
    source.register(1).await;
    let cache = source.cached();
    let members = cache.snapshot(&scope()).await.unwrap();
    let mut watch = cache.watch(&scope(), members.revision()).await.unwrap();
    source.register(2).await;
    sleep(secs(59)).await;
    assert_eq!(count(&cache).await, 1);
    sleep(secs(8)).await;
    assert_eq!(count(&cache).await, 2);
    let event = timeout(Duration::ZERO, watch.next())
        .await
        .unwrap()
        .unwrap();
    let WatchEvent::Changes { changes, .. } = event else {
        panic!("{event:?}");
    };
    assert!(matches!(&*changes, [Change::Upserted(new)] if new.id.as_str() == "i2"));

    sleep(secs(600)).await;
    let pauses = source.pauses();
    assert!(pauses.len() >= 9, "{pauses:?}");
    let poll = secs(60)..Duration::from_millis(66_002);
    assert!(
        pauses.iter().all(|pause| poll.contains(pause)),
        "{pauses:?}"
    );
    let answer = cache.lookup(&service()).await.unwrap();
    assert_eq!(answer.freshness, Freshness::Fresh);
    assert!(answer.age <= secs(67), "{:?}", answer.age);
    assert_eq!(
        answer.sources[0].failures, 0,
        "to have no watches is no failure"
    );
}

#[tokio::test(start_paused = true)]
async fn source_that_falls_behind_is_asked_anew_and_watchers_are_not_disturbed() {
    let source = Mannered::new(Manner::Plain);
    source.register(1).await;
    let cache = source.cached();
    let members = cache.snapshot(&scope()).await.unwrap();
    let mut watch = cache.watch(&scope(), members.revision()).await.unwrap();
    settle().await;
    source.manner.send_replace(Manner::Behind);
    source.register(2).await;
    let start = Instant::now();
    let event = timeout(secs(30), watch.next()).await.unwrap().unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(2),
        "{:?}",
        start.elapsed()
    );
    let WatchEvent::Changes { changes, .. } = event else {
        panic!("{event:?}");
    };
    assert!(matches!(&*changes, [Change::Upserted(new)] if new.id.as_str() == "i2"));
    // It says nothing else: it is asked ever more seldom, a draw of up to five seconds apart.
    source.asked.lock().clear();
    sleep(secs(600)).await;
    let asked = source.asked.lock().len();
    assert!((150..350).contains(&asked), "asked {asked} times");
    assert_eq!(count(&cache).await, 2);
    let answer = cache.lookup(&service()).await.unwrap();
    assert_eq!(answer.sources[0].failures, 0);
    // When it has caught up it is followed again.
    source.manner.send_replace(Manner::Plain);
    sleep(secs(6)).await;
    source.asked.lock().clear();
    source.register(3).await;
    settle().await;
    assert_eq!((count(&cache).await, source.asked.lock().len()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn change_that_waits_does_not_undo_a_newer_snapshot() {
    let source = Mannered::new(Manner::Plain);
    let mut gathering = config();
    gathering.coalesce = coalesce::Config::default();
    let cache = Cache::builder()
        .config(gathering)
        .source(
            "registry",
            Arc::new(source.clone()),
            SourceOptions::default(),
        )
        .build()
        .unwrap();
    count(&cache).await;
    settle().await;
    let asked = at("i1", "10.0.0.1:80", LONG);
    let lease = source.inner.register(asked).await.unwrap();
    settle().await;
    // The window is open: this waits for its end.
    let draining = source.inner.set_status(&lease, Status::Draining).await;
    draining.unwrap();
    settle().await;
    let status = async || cache.snapshot(&scope()).await.unwrap().instances()[0].status;
    assert_eq!(status().await, Status::Ready);
    source.manner.send_replace(Manner::Behind);
    source
        .inner
        .set_status(&lease, Status::Ready)
        .await
        .unwrap();
    settle().await;
    source.manner.send_replace(Manner::Plain);
    sleep(secs(1)).await;
    assert_eq!(status().await, Status::Ready);
}

/// Lists what it is given, and its watch tells what it is told.
struct Teller(Snapshot, Mutex<Option<mpsc::UnboundedReceiver<WatchEvent>>>);

#[async_trait]
impl Source for Teller {
    async fn snapshot(&self, _: &Scope) -> Result<Snapshot, Error> {
        Ok(self.0.clone())
    }

    async fn watch(&self, _: &Scope, _: Revision) -> Result<Watch, Error> {
        let told = self.1.lock().take();
        match told {
            Some(told) => Ok(Watch::new(Telling(told))),
            None => std::future::pending().await,
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

struct Telling(mpsc::UnboundedReceiver<WatchEvent>);

#[async_trait]
impl WatchStream for Telling {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        match self.0.recv().await {
            Some(event) => Ok(event),
            None => std::future::pending().await,
        }
    }

    fn revision(&self) -> Revision {
        Revision::new(1)
    }
}

#[tokio::test(start_paused = true)]
async fn changes_of_older_incarnations_and_of_other_services_are_passed_over() {
    let (tell, told) = mpsc::unbounded_channel();
    let source = Teller(snapshot([instance("i1", 5)]), Mutex::new(Some(told)));
    let cache = Cache::builder()
        .config(config())
        .source("teller", Arc::new(source), SourceOptions::default())
        .build()
        .unwrap();
    count(&cache).await;
    let mut stranger = instance("i1", 9);
    stranger.service = "another".parse().unwrap();
    let gone = |service: ServiceName, incarnation| {
        Change::Removed(Removal {
            service,
            id: "i1".parse().unwrap(),
            incarnation: Incarnation::new(incarnation),
            reason: RemovalReason::Deregistered,
        })
    };
    // One by one: within a batch they are merged before the cache sees them.
    for change in [
        Change::Upserted(Arc::new(instance("i1", 4))),
        gone(service(), 4),
        Change::Upserted(Arc::new(stranger)),
        gone("another".parse().unwrap(), 9),
    ] {
        let (revision, changes) = (Revision::new(2), vec![change]);
        tell.send(WatchEvent::Changes { revision, changes })
            .unwrap();
        settle().await;
        let members = cache.snapshot(&scope()).await.unwrap();
        let [member] = members.instances() else {
            panic!("{members:?}");
        };
        assert_eq!(*member.as_ref(), instance("i1", 5));
    }
    let (revision, changes) = (Revision::new(3), vec![gone(service(), 5)]);
    tell.send(WatchEvent::Changes { revision, changes })
        .unwrap();
    settle().await;
    assert_eq!(count(&cache).await, 0);
}

#[tokio::test(start_paused = true)]
async fn answer_that_is_doubted_is_not_fresh() {
    let source = Moody::new();
    register(&source, [1, 2], LONG).await;
    let cache = over(&source).build().unwrap();
    let _watch = watch(&cache).await;
    settle().await;
    // Its watches are up and silent, and the next refresh finds nobody.
    source.set(Mood::Blank);
    sleep(secs(59)).await;
    assert_eq!(freshness(&cache).await, Freshness::Fresh);
    sleep(secs(8)).await;
    assert_eq!(
        (count(&cache).await, freshness(&cache).await),
        (2, Freshness::StaleWhileRevalidate)
    );
    sleep(secs(5)).await;
    assert_eq!(count(&cache).await, 0);
}

#[tokio::test(start_paused = true)]
async fn watch_that_fell_behind_catches_up_by_pages_without_a_gap() {
    let source = Moody::new();
    let cache = over(&source).build().unwrap();
    let mut watch = watch(&cache).await;
    settle().await;
    for round in 0..600 {
        register(&source, [round % 200], LONG).await;
        sleep(Duration::from_millis(1)).await;
    }
    let mut mirror = Snapshot::new(scope(), watch.revision(), Vec::new());
    let mut pages = Vec::new();
    while let Ok(event) = timeout(Duration::ZERO, watch.next()).await {
        let WatchEvent::Changes { revision, changes } = event.unwrap() else {
            panic!("resync");
        };
        pages.push(changes.len());
        mirror.advance(revision, &changes);
    }
    // A registration anew is a removal and an upsert.
    assert_eq!(pages.iter().sum::<usize>(), 200 + 400 * 2);
    assert!(pages.iter().all(|&page| page <= 257), "{pages:?}");
    assert_eq!(mirror, cache.snapshot(&scope()).await.unwrap());
}

/// An instance that crashes and comes back under another id, again and again.
#[test]
fn leases_that_lapsed_take_no_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let mut short = memory::Config::default();
    short.max_changes = NonZeroUsize::new(16).unwrap();
    let mut bounded = config();
    bounded.max_changes = short.max_changes;
    let registry = runtime.block_on(async { MemoryRegistry::new(short) });
    let cache = runtime.block_on(async {
        let options = SourceOptions::default();
        let builder = Cache::builder().config(bounded);
        let builder = builder.source("registry", Arc::new(registry.clone()), options);
        builder.build().unwrap()
    });
    // Somebody watches, and one stays, so that the service is kept.
    let _watch = runtime.block_on(async {
        let anchor = at("anchor", "10.0.0.2:80", LONG);
        registry.register(anchor).await.unwrap();
        cache.watch(&scope(), Revision::new(0)).await.unwrap()
    });
    let crash = |from: u32| {
        runtime.block_on(async {
            for number in from..from + 500 {
                let asked = at(&format!("i{number:05}"), "10.0.0.1:80", secs(9));
                registry.register(asked).await.unwrap();
                settle().await;
                assert_eq!(count(&cache).await, 2);
                sleep(secs(40)).await;
                assert_eq!(count(&cache).await, 1);
            }
        });
    };
    crash(0);
    let ((), bytes) = retained(|| crash(500));
    assert!(bytes < 4_096, "{bytes} bytes more for 500 more lapses");
}

#[tokio::test(start_paused = true)]
async fn source_that_asks_for_patience_is_left_alone_so_long() {
    let patience = secs(30);
    for manner in [
        Manner::Throttled(patience),
        Manner::ThrottledWatch(patience),
    ] {
        let source = Mannered::new(manner);
        source.register(1).await;
        let cache = source.cached();
        let known = cache.snapshot(&scope()).await.is_ok();
        assert_eq!(known, matches!(manner, Manner::ThrottledWatch(_)));
        let _watch = cache.watch(&scope(), Revision::new(0)).await.unwrap();
        sleep(secs(200)).await;
        let pauses = source.pauses();
        assert!(pauses.len() >= 5, "{manner:?}: {pauses:?}");
        let expected = patience..patience + secs(6);
        assert!(
            pauses.iter().all(|pause| expected.contains(pause)),
            "{manner:?}: {pauses:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn watch_that_does_not_open_in_time_is_a_failure_and_takes_nothing_away() {
    let source = Mannered::new(Manner::WatchHangs);
    source.register(1).await;
    let (heard, listener) = heard();
    let options = SourceOptions::default().deadline(secs(3));
    let cache = Cache::builder()
        .config(config())
        .source("registry", Arc::new(source.clone()), options)
        .listener(listener)
        .build()
        .unwrap();
    assert_eq!(count(&cache).await, 1);
    sleep(secs(4)).await;
    let failed = heard.lock().iter().find_map(|event| match event {
        Event::UpstreamFailed { kind, message, .. } => Some((*kind, message.clone())),
        _ => None,
    });
    let message = "no watch of service payments within 3s".to_owned();
    assert_eq!(failed, Some((ErrorKind::Timeout, message)));
    // Each new snapshot is as good as a poll: members that came are seen, and none is lost.
    source.register(2).await;
    sleep(secs(10)).await;
    assert_eq!(count(&cache).await, 2);
}

/// Answers when it is let, and counts its snapshots.
struct Shut {
    inner: MemoryRegistry,
    open: tokio::sync::watch::Receiver<bool>,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Source for Shut {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let _open = self.open.clone().wait_for(|open| *open).await.is_ok();
        self.inner.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        self.inner.watch(scope, after).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

/// On two threads, and none is answered before all have asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_misses_that_wait_at_once_are_one_call() {
    const CALLS: usize = 10_000;
    let inner = MemoryRegistry::default();
    inner.register(at("i1", "10.0.0.1:80", LONG)).await.unwrap();
    let (open, seen) = tokio::sync::watch::channel(false);
    let asked = Arc::<AtomicUsize>::default();
    let source = Shut {
        inner,
        open: seen,
        asked: Arc::clone(&asked),
    };
    let cache = Cache::builder()
        .config(config())
        .source(
            "registry",
            Arc::new(source),
            SourceOptions::default().deadline(LONG),
        )
        .build()
        .unwrap();
    let waiting = Arc::<AtomicUsize>::default();
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let (cache, waiting) = (cache.clone(), Arc::clone(&waiting));
        calls.spawn(async move {
            let service = service();
            let mut answer = std::pin::pin!(cache.lookup(&service));
            let mut first = true;
            std::future::poll_fn(|context| {
                let polled = answer.as_mut().poll(context);
                if std::mem::take(&mut first) && polled.is_pending() {
                    waiting.fetch_add(1, Ordering::Relaxed);
                }
                polled
            })
            .await
            .unwrap()
        });
    }
    while waiting.load(Ordering::Relaxed) < CALLS {
        tokio::task::yield_now().await;
    }
    open.send_replace(true);
    let answers = calls.join_all().await;
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(answers.len(), CALLS);
    let first = &answers[0].snapshot;
    assert_eq!(first.instances().len(), 1);
    assert!(answers.iter().all(|it| Arc::ptr_eq(&it.snapshot, first)));
}

/// While nothing is answered, names cannot be dropped as unknown: calls wait for them.
#[tokio::test(start_paused = true)]
async fn made_up_names_that_wait_are_bounded_and_disturb_no_known_service() {
    let source = Moody::new();
    let known = at("i1", "10.0.0.1:80", LONG);
    source.registry().register(known).await.unwrap();
    let mut bounded = config();
    bounded.max_negative = NonZeroUsize::new(8).unwrap();
    let cache = over(&source).config(bounded).build().unwrap();
    assert_eq!(count(&cache).await, 1);
    source.set(Mood::Hanging);
    let mut calls = JoinSet::new();
    for number in 0..1_000 {
        let cache = cache.clone();
        let name: ServiceName = format!("made-up-{number}").parse().unwrap();
        calls.spawn(async move { cache.lookup(&name).await.unwrap_err() });
    }
    settle().await;
    assert_eq!(cache.services(), 9);
    assert_eq!(count(&cache).await, 1);
    let errors = calls.join_all().await;
    let full = errors
        .iter()
        .filter(|error| error.kind() == ErrorKind::Full);
    assert_eq!(full.count(), 1_000 - 8);
    let timed_out = errors
        .iter()
        .filter(|error| error.kind() == ErrorKind::Timeout);
    assert_eq!(timed_out.count(), 8);
    // When they have been told, their places are free for others, and in the end they are empty.
    let another: ServiceName = "another".parse().unwrap();
    assert_eq!(
        cache.lookup(&another).await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    sleep(secs(60)).await;
    assert_eq!(cache.services(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_fallback_said_when_it_was_needed_last_is_not_served_again() {
    let (first, second) = (Moody::new(), Moody::new());
    let needed = register(&second, [2], LONG).await;
    let options = SourceOptions::default();
    let cache = over(&first)
        .fallback("second", Arc::new(second.clone()), options)
        .build()
        .unwrap();
    assert_eq!(count(&cache).await, 1);
    let mut watch = watch(&cache).await;
    let lease = register(&first, [1], LONG).await;
    settle().await;
    second.registry().deregister(&needed[0]).await.unwrap();
    first.registry().deregister(&lease[0]).await.unwrap();
    settle().await;
    assert_eq!(count(&cache).await, 0);
    let mut brought = Vec::new();
    while let Ok(event) = timeout(Duration::ZERO, watch.next()).await {
        if let WatchEvent::Changes { changes, .. } = event.unwrap() {
            brought.extend(changes.into_iter().filter_map(|change| match change {
                Change::Upserted(instance) => Some(instance.id.to_string()),
                _ => None,
            }));
        }
    }
    assert_eq!(brought, ["i001"]);
}

#[tokio::test(start_paused = true)]
async fn lapses_of_a_service_that_was_dropped_hold_nothing() {
    let source = Moody::new();
    let name = |text: &str| -> ServiceName { text.parse().unwrap() };
    let lists = async |service: &str, id: u32, ttl| {
        let mut asked = at(&format!("i{id}"), &format!("10.0.0.{id}:80"), ttl);
        asked.service = name(service);
        source.registry().register(asked).await.unwrap();
    };
    for id in 0..2 {
        lists("a", id, secs(10)).await;
    }
    for id in 0..10 {
        lists("b", id, if id == 0 { secs(14) } else { LONG }).await;
    }
    let (heard, listener) = heard();
    let mut bounded = config();
    bounded.max_services = NonZeroUsize::new(2).unwrap();
    let cache = over(&source)
        .config(bounded)
        .listener(listener)
        .build()
        .unwrap();
    cache.lookup(&name("a")).await.unwrap();
    cache.lookup(&name("b")).await.unwrap();
    sleep(secs(12)).await;
    cache.lookup(&name("c")).await.unwrap();
    // One of ten: with the two of the service that is gone it would be a mass.
    sleep(secs(5)).await;
    let members = cache.lookup(&name("b")).await.unwrap().snapshot;
    assert_eq!(members.instances().len(), 9);
    let entered = |event: &Event| matches!(event, Event::PreservationEntered { .. });
    assert!(!heard.lock().iter().any(entered));
}

/// A watch keeps its service only as long as it lives.
#[tokio::test(start_paused = true)]
async fn made_up_names_that_were_watched_count_as_unknown_afterwards() {
    let mut bounded = config();
    bounded.max_negative = NonZeroUsize::new(8).unwrap();
    let cache = over(&Moody::new()).config(bounded).build().unwrap();
    for number in 0..100 {
        let name: ServiceName = format!("made-up-{number}").parse().unwrap();
        let watch = cache.watch(&Scope::Service(name), Revision::new(0)).await;
        drop(watch.unwrap());
        settle().await;
    }
    assert_eq!(cache.services(), 8);
}

/// The laws of a source hold for a cache over one. Those of failures have nothing to break here: what a cache
/// says while its sources fail is its own matter.
#[cfg(feature = "test-util")]
mod laws {
    use orchestra_discovery::conformance::SourceSubject;
    use orchestra_discovery::source_suite;

    use super::*;

    fn subject() -> SourceSubject {
        let registry = Arc::new(MemoryRegistry::default());
        let mut bounded = config();
        bounded.max_changes = NonZeroUsize::new(16).unwrap();
        SourceSubject::of_registry(registry, secs(3_600), Duration::from_millis(5))
            .through(|inner| {
                let options = SourceOptions::default();
                let builder = Cache::builder().source("registry", inner, options);
                Arc::new(builder.config(bounded).build().unwrap())
            })
            .remembers(16)
    }

    source_suite!(of_a_cache, || async { subject() }, start_paused = true);
}
