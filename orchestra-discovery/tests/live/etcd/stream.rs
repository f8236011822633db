//! Watches: much of it, fast, resumed, compacted.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::CompactionOptions;
use orchestra_discovery::{
    EtcdRegistry, Lease, Override, Registry, Revision, Source, Status, WatchEvent,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::server::Server;
use super::{Mirror, PATIENCE, fresh, listed, register, scope};

const CHANGES: usize = 10_000;
const WRITERS: usize = 20;

/// One writer's own ids, changed at random.
async fn write(registry: EtcdRegistry, writer: usize) {
    let mut rng = fastrand::Rng::with_seed(writer as u64);
    let mut held: BTreeMap<usize, Lease> = BTreeMap::new();
    let mut left = CHANGES / WRITERS;
    while left > 0 {
        let number = rng.usize(..10);
        let id = format!("{writer}-{number}");
        match (held.get(&number), rng.u8(..10)) {
            (Some(lease), 0..=2) => {
                registry.deregister(lease).await.unwrap();
                held.remove(&number);
            }
            (Some(lease), 3..=6) => {
                let status = rng.choice([Status::Starting, Status::Draining, Status::Ready]);
                registry.set_status(lease, status.unwrap()).await.unwrap();
            }
            (Some(lease), 7) => {
                let forced = rng.bool().then_some(Override::OutOfService);
                let (service, id) = (&lease.service, &lease.id);
                registry.set_override(service, id, forced).await.unwrap();
            }
            _ => {
                held.insert(number, register(&registry, &id).await);
            }
        }
        left -= 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_changes_end_in_the_same_set() {
    let registry = fresh();
    let mut mirror = Mirror::of(&registry).await;
    let since = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(registry.clone(), writer));
    }
    let writing = async {
        writers.join_all().await;
        register(&registry, "last").await;
    };
    let last = "last".parse().unwrap();
    let reading = async {
        while !mirror.snapshot.instances().iter().any(|it| it.id == last) {
            match mirror.watch.next().await.unwrap() {
                WatchEvent::Changes { revision, changes } => {
                    mirror.snapshot.advance(revision, &changes);
                }
                other => panic!("{other:?} came"),
            }
        }
    };
    let both = async { tokio::join!(writing, reading) };
    timeout(PATIENCE * 6, both).await.unwrap();
    println!("{CHANGES} changes in {:?}", since.elapsed());
    let own = registry.snapshot(&scope()).await.unwrap();
    assert!(own.instances().len() > 20, "{}", own.instances().len());
    assert_eq!(mirror.snapshot.instances(), own.instances());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_reaches_a_watcher_within_50_milliseconds() {
    const SAMPLES: usize = 500;
    let registry = fresh();
    let mut watch = Mirror::of(&registry).await.watch;
    let mut took = Vec::with_capacity(SAMPLES);
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut watching = JoinSet::new();
    watching.spawn(async move {
        let mut left = SAMPLES;
        while left > 0 {
            if let WatchEvent::Changes { changes, .. } = watch.next().await.unwrap() {
                left -= changes.len().min(left);
                sender.send(Instant::now()).unwrap();
            }
        }
    });
    for sample in 0..SAMPLES {
        let since = Instant::now();
        register(&registry, &format!("i-{sample}")).await;
        let at = timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
        took.push(at.saturating_duration_since(since));
    }
    watching.join_all().await;
    took.sort_unstable();
    let [p50, p99] = [50, 99].map(|share| took.get(SAMPLES * share / 100).copied().unwrap());
    println!("register to watcher: p50 {p50:?}, p99 {p99:?}, of {SAMPLES}");
    assert!(p99 <= Duration::from_millis(50), "p99 {p99:?}");
}

#[tokio::test]
async fn what_was_compacted_needs_a_resync_and_ends_in_the_same_set() {
    let server = Server::start(&[]).await;
    let registry = server.registry();
    let old = Mirror::of(&registry).await.snapshot.revision();
    let mut live = Mirror::of(&registry).await;
    for id in ["a", "b", "c"] {
        let lease = register(&registry, id).await;
        registry.set_status(&lease, Status::Draining).await.unwrap();
    }
    live.until(|members| members.instances().len() == 3).await;
    let latest = registry.snapshot(&scope()).await.unwrap().revision();
    let compacted = i64::try_from(latest.as_u64()).unwrap();
    let mut raw = server.raw().await;
    let options = CompactionOptions::new().with_physical();
    raw.compact(compacted, Some(options)).await.unwrap();

    for after in [Revision::new(0), old] {
        let mut watch = registry.watch(&scope(), after).await.unwrap();
        for _ in 0..2 {
            let said = timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
            assert_eq!(said, WatchEvent::Resync);
        }
    }
    // A watch that is not behind does not notice, and a new one begins with the same set.
    let mut late = Mirror::of(&registry).await;
    register(&registry, "d").await;
    live.until_listed("d").await;
    late.until_listed("d").await;
    assert_eq!(live.resyncs + late.resyncs + live.errors, 0);
    let own = registry.snapshot(&scope()).await.unwrap();
    assert_eq!(live.snapshot.instances(), own.instances());
    assert_eq!(late.snapshot.instances(), own.instances());
    assert_eq!(listed(&registry).await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_quiet_watch_moves_on_with_the_others() {
    let notify = ["--experimental-watch-progress-notify-interval", "200ms"];
    let server = Server::start(&notify).await;
    let registry = server.registry();
    let mut quiet = Mirror::of(&registry).await.watch;
    let mut raw = server.raw().await;
    let mut revision = 0;
    for _ in 0..5 {
        let put = raw.put("elsewhere", "x", None).await.unwrap();
        revision = put.header().unwrap().revision();
    }
    let revision = Revision::new(revision.try_into().unwrap());
    assert!(quiet.revision() < revision);
    let nothing = timeout(Duration::from_secs(2), quiet.next()).await;
    assert!(nothing.is_err(), "{nothing:?} came");
    assert_eq!(quiet.revision(), revision);
}

/// What the server counts.
async fn gauge(server: &Server, name: &str) -> u64 {
    let address = server.endpoint().to_string();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let lines = text.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    values.next().unwrap()
}

#[tokio::test]
async fn a_dropped_watch_leaves_no_watcher() {
    const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";
    let server = Server::start(&[]).await;
    let registry = server.registry();
    let mut watches = Vec::new();
    for _ in 0..20 {
        let mut watch = Mirror::of(&registry).await.watch;
        let nothing = timeout(Duration::from_millis(100), watch.next()).await;
        assert!(nothing.is_err(), "{nothing:?} came");
        watches.push(watch);
    }
    assert_eq!(gauge(&server, WATCHERS).await, 20);
    watches.truncate(3);
    let dropped = async {
        while gauge(&server, WATCHERS).await != 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, dropped).await.unwrap();
}
