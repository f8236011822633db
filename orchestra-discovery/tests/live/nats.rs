use std::num::NonZeroUsize;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use orchestra_core::Endpoint;
use orchestra_discovery::conformance::Subject;
use orchestra_discovery::registry::nats::Config;
use orchestra_discovery::{
    Change, ErrorKind, NatsRegistry, Override, Registry, RemovalReason, Scope, Source, WatchEvent,
    registry_suite,
};

use crate::common::{
    self, GRACE, Server, asked, eventually, heartbeat, listed, scope, unique, variable,
    watch_from_now,
};

/// The server counts in whole seconds.
const TTL: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_millis(2_500);
const REMEMBERED: u8 = 16;

fn config() -> Config {
    let mut config = Config::default();
    config.bucket = unique();
    config.timeout = Duration::from_secs(3);
    config
}

fn shared(config: Config) -> NatsRegistry {
    let endpoint: Endpoint = variable("ORCH_TEST_NATS").parse().unwrap();
    NatsRegistry::new([endpoint], config).unwrap()
}

async fn shared_as(name: &str) -> NatsRegistry {
    let mut config = config();
    config.bucket = format!("{}-{name}", std::process::id());
    let registry = shared(config);
    ready(&registry).await;
    registry
}

fn subject() -> Subject {
    let mut config = config();
    config.max_changes_per_key = REMEMBERED;
    // A watch that is to stay quiet for the slack must not hear of an expiry.
    Subject::new(Arc::new(shared(config)), TTL * 2, SLACK).remembers(REMEMBERED.into())
}

registry_suite!(
    nats_registry,
    || async { subject() },
    flavor = "multi_thread"
);

/// A server of one's own, with these arguments.
async fn server(arguments: &'static [&'static str]) -> Server {
    Server::start(move |server| {
        let mut command = Command::new(variable("ORCH_TEST_NATS_BIN"));
        command.args(["-a", "127.0.0.1", "-p", &server.port.to_string()]);
        command.arg("-js").arg("-sd").arg(server.directory.path());
        command.args(arguments);
        command
    })
    .await
}

fn registry(server: &Server, config: Config) -> NatsRegistry {
    NatsRegistry::new([server.address().into()], config).unwrap()
}

/// The first answer: `JetStream` is ready a moment after the port is open.
async fn ready(registry: &NatsRegistry) {
    eventually(async || registry.snapshot(&scope()).await).await;
}

async fn raw(server: &Server) -> jetstream::Context {
    let client = async_nats::connect(server.address().to_string()).await;
    jetstream::new(client.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_end_in_the_same_set() {
    common::changes_end_in_the_same_set(Arc::new(shared(config()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_hear_within_50_milliseconds() {
    common::watchers_hear_in_time("nats", Arc::new(shared(config()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_goes_on_where_it_was_after_a_kill() {
    let mut server = server(&[]).await;
    let registry = registry(&server, config());
    ready(&registry).await;
    let ttl = Duration::from_secs(60);
    let kept = registry.register(asked("kept", ttl)).await.unwrap();
    let (before, mut watch) = watch_from_now(&registry).await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), watch.next()).await;
    assert!(waiting.is_err());
    server.kill().await;
    let error = tokio::time::timeout(GRACE, watch.next()).await.unwrap();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
    let error = registry.renew(&kept).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    server.again().await;
    let lease = eventually(async || registry.register(asked("new", ttl)).await).await;
    let WatchEvent::Changes { revision, changes } = common::next(&mut watch).await else {
        panic!("resync without need");
    };
    assert!(revision > before.revision());
    let [Change::Upserted(instance)] = &*changes else {
        panic!("{changes:?}");
    };
    assert_eq!(instance.incarnation, lease.incarnation);
    registry.renew(&kept).await.unwrap();
    assert_eq!(listed(&registry).await, ["kept", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_lost_everything_says_resync() {
    let mut server = server(&[]).await;
    let registry = registry(&server, config());
    ready(&registry).await;
    let lease = registry.register(asked("i", TTL * 9)).await.unwrap();
    let (before, mut watch) = watch_from_now(&registry).await;
    server.kill().await;
    std::fs::remove_dir_all(server.directory.path().join("jetstream")).unwrap();
    server.again().await;
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
    let after = eventually(async || registry.snapshot(&scope()).await).await;
    assert!(after.revision() > before.revision());
    assert!(after.instances().is_empty());
    let error = registry.renew(&lease).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    let anew = registry.register(asked("i", TTL * 9)).await.unwrap();
    assert!(anew.incarnation > lease.incarnation);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeat_survives_a_short_outage_with_its_lease() {
    let mut server = server(&[]).await;
    let registry = registry(&server, config());
    ready(&registry).await;
    let registry: Arc<dyn Registry> = Arc::new(registry);
    let ttl = Duration::from_secs(6);
    let heart = heartbeat(Arc::clone(&registry), "i", ttl);
    let before = heart.registered().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.again().await;
    tokio::time::sleep(ttl + SLACK).await;
    assert_eq!(listed(&*registry).await, ["i"]);
    assert_eq!(heart.lease().unwrap().incarnation, before.incarnation);
    heart.shutdown().await.unwrap();
    assert!(listed(&*registry).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeat_registers_anew_after_an_outage_longer_than_its_lease() {
    let mut server = server(&[]).await;
    let registry = registry(&server, config());
    ready(&registry).await;
    let registry: Arc<dyn Registry> = Arc::new(registry);
    let heart = heartbeat(Arc::clone(&registry), "i", TTL);
    let before = heart.registered().await.unwrap();
    registry.register(asked("ghost", TTL)).await.unwrap();
    let (_, mut watch) = watch_from_now(&*registry).await;
    server.kill().await;
    tokio::time::sleep(TTL + SLACK).await;
    server.again().await;
    let back = async {
        while heart
            .lease()
            .is_none_or(|lease| lease.incarnation == before.incarnation)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(GRACE, back).await.unwrap();
    // The time that it was down counts: both leases lapsed.
    let mut expired = Vec::new();
    while expired.len() < 2 {
        let WatchEvent::Changes { changes, .. } = common::next(&mut watch).await else {
            panic!("resync without need");
        };
        for change in changes {
            if let Change::Removed(removal) = change {
                assert_eq!(removal.reason, RemovalReason::Expired);
                expired.push(removal.id.to_string());
            }
        }
    }
    expired.sort();
    assert_eq!(expired, ["ghost", "i"]);
    assert_eq!(listed(&*registry).await, ["i"]);
    heart.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_watches_tell_expiry_while_nobody_asks() {
    let registry = shared(config());
    for id in ["a", "b", "c"] {
        registry.register(asked(id, TTL)).await.unwrap();
    }
    let (_, mut watch) = watch_from_now(&registry).await;
    let mut expired = 0;
    let all = async {
        while expired < 3 {
            let WatchEvent::Changes { changes, .. } = watch.next().await.unwrap() else {
                panic!("resync without need");
            };
            for change in changes {
                let Change::Removed(removal) = change else {
                    panic!("{change:?}");
                };
                assert_eq!(removal.reason, RemovalReason::Expired);
                expired += 1;
            }
        }
    };
    tokio::time::timeout(TTL + SLACK, all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_in_step_write_an_expiry_once() {
    let registry = shared(config());
    let lease = registry.register(asked("i", TTL)).await.unwrap();
    let mut watches = Vec::new();
    for _ in 0..4 {
        watches.push(watch_from_now(&registry).await.1);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for mut watch in watches {
        tasks.spawn(async move {
            let first = common::next(&mut watch).await;
            let then = tokio::time::timeout(Duration::from_secs(1), watch.next()).await;
            assert!(then.is_err(), "{then:?} after {first:?}");
            first
        });
    }
    for event in tasks.join_all().await {
        let WatchEvent::Changes { changes, .. } = event else {
            panic!("resync without need");
        };
        let [Change::Removed(removal)] = &*changes else {
            panic!("{changes:?}");
        };
        assert_eq!(removal.incarnation, lease.incarnation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_that_is_remembered_no_longer_says_resync() {
    let mut config = config();
    config.remember = Duration::from_secs(1);
    let registry = shared(config);
    let from = registry.snapshot(&scope()).await.unwrap().revision();
    let lease = registry.register(asked("i", TTL * 9)).await.unwrap();
    registry.deregister(&lease).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut watch = registry.watch(&scope(), from).await.unwrap();
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
    // Who is up to date has lost nothing.
    let (_, mut watch) = watch_from_now(&registry).await;
    registry.register(asked("j", TTL * 9)).await.unwrap();
    assert!(matches!(
        common::next(&mut watch).await,
        WatchEvent::Changes { .. }
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_that_does_not_keep_up_says_resync() {
    let registry = shared_as("behind").await;
    let (_, mut watch) = watch_from_now(&registry).await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), watch.next()).await;
    assert!(waiting.is_err());
    // More than the client reads ahead, and more of one key than is remembered.
    let client = async_nats::connect(variable("ORCH_TEST_NATS"))
        .await
        .unwrap();
    let context = jetstream::new(client);
    let subject = format!("$KV.{}-behind.o.live.i", std::process::id());
    for _ in 0..3_000 {
        let stored = context.publish(subject.clone(), "null".into()).await;
        stored.unwrap().await.unwrap();
    }
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_at_the_same_time_leave_one_holder() {
    for _ in 0..5 {
        let registry = Arc::new(shared(config()));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let registry = Arc::clone(&registry);
            tasks.spawn(async move { registry.register(asked("i", TTL * 9)).await.unwrap() });
        }
        let leases = tasks.join_all().await;
        let snapshot = registry.snapshot(&scope()).await.unwrap();
        let [instance] = snapshot.instances() else {
            panic!("{snapshot:?}");
        };
        let mut held = Vec::new();
        for lease in leases {
            match registry.renew(&lease).await {
                Ok(()) => held.push(lease.incarnation),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Replaced, "{error:?}"),
            }
        }
        assert_eq!(held, [instance.incarnation]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn override_and_registration_at_the_same_time_agree() {
    let registry = Arc::new(shared(config()));
    for number in 0..40 {
        let asked = asked(&format!("i-{number}"), TTL * 9);
        let (service, id) = (asked.service.clone(), asked.id.clone());
        let forced = Some(Override::OutOfService);
        let (registered, overridden) = tokio::join!(
            registry.register(asked),
            registry.set_override(&service, &id, forced)
        );
        registered.unwrap();
        overridden.unwrap();
    }
    let snapshot = registry.snapshot(&scope()).await.unwrap();
    assert_eq!(snapshot.instances().len(), 40);
    let all = snapshot.instances().iter();
    assert!(
        all.clone()
            .all(|it| it.forced == Some(Override::OutOfService)),
        "{snapshot:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_messages_are_skipped() {
    let server = server(&[]).await;
    let mut config = config();
    config.bucket = "mine".to_owned();
    let registry = registry(&server, config);
    ready(&registry).await;
    registry.register(asked("i", TTL * 9)).await.unwrap();
    let (before, mut watch) = watch_from_now(&registry).await;
    let context = raw(&server).await;
    let foreign = ["i.live.x", "i.no-id", "i.LIVE.y", "o.live.i", "elsewhere"];
    for key in foreign {
        let subject = format!("$KV.mine.{key}");
        let stored = context.publish(subject, "none of ours".into()).await;
        stored.unwrap().await.unwrap();
    }
    assert_eq!(listed(&registry).await, ["i"]);
    registry.register(asked("x", TTL * 9)).await.unwrap();
    let upto = registry.snapshot(&scope()).await.unwrap().revision();
    let followed = common::advance(before, &mut watch, upto).await;
    let ids: Vec<_> = followed
        .instances()
        .iter()
        .map(|it| it.id.as_str())
        .collect();
    assert_eq!(ids, ["i", "x"]);
    assert_eq!(listed(&registry).await, ["i", "x"]);
    let all = registry.snapshot(&Scope::All).await.unwrap();
    assert_eq!(all.instances().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn record_that_somebody_deletes_is_gone_for_watches_too() {
    let registry = shared_as("deleted").await;
    let lease = registry.register(asked("i", TTL * 9)).await.unwrap();
    let (before, mut watch) = watch_from_now(&registry).await;
    let client = async_nats::connect(variable("ORCH_TEST_NATS"))
        .await
        .unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    let subject = format!("$KV.{}-deleted.i.live.i", std::process::id());
    let context = jetstream::new(client);
    let stored = context.publish_with_headers(subject, headers, "".into());
    stored.await.unwrap().await.unwrap();
    let upto = registry.snapshot(&scope()).await.unwrap().revision();
    let followed = common::advance(before, &mut watch, upto).await;
    assert!(followed.instances().is_empty());
    assert!(listed(&registry).await.is_empty());
    let error = registry.renew(&lease).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_stream_says_resync() {
    let server = server(&[]).await;
    let mut config = config();
    config.bucket = "mine".to_owned();
    config.hold = Duration::from_millis(500);
    let registry = registry(&server, config);
    ready(&registry).await;
    let from = registry.snapshot(&scope()).await.unwrap().revision();
    registry.register(asked("i", TTL * 9)).await.unwrap();
    let stream = raw(&server).await.get_stream("KV_mine").await.unwrap();
    stream.purge().await.unwrap();
    let mut watch = registry.watch(&scope(), from).await.unwrap();
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
    assert!(listed(&registry).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_refuse_as_full() {
    let mut config = config();
    config.max_keys = NonZeroUsize::new(2).unwrap();
    let registry = shared(config);
    let lease = registry.register(asked("a", TTL * 9)).await.unwrap();
    registry.register(asked("b", TTL * 9)).await.unwrap();
    let full = registry.register(asked("c", TTL * 9)).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Full);
    let forced = Some(Override::OutOfService);
    let full = registry
        .set_override(&lease.service, &lease.id, forced)
        .await;
    assert_eq!(full.unwrap_err().kind(), ErrorKind::Full);
    registry.register(asked("b", TTL * 9)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_server_is_a_timeout_and_a_thawed_one_answers() {
    let server = server(&[]).await;
    let mut config = config();
    config.timeout = Duration::from_millis(500);
    config.hold = Duration::from_millis(300);
    let registry = registry(&server, config);
    ready(&registry).await;
    let (_, mut watch) = watch_from_now(&registry).await;
    server.process().pause().unwrap();
    let error = registry.snapshot(&scope()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    let watched = tokio::time::timeout(GRACE, watch.next()).await.unwrap();
    let error = watched.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    server.process().resume().unwrap();
    let lease = eventually(async || registry.register(asked("i", TTL * 9)).await).await;
    let WatchEvent::Changes { revision, .. } = common::next(&mut watch).await else {
        panic!("resync without need");
    };
    assert!(revision.as_u64() <= lease.incarnation.as_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_classified() {
    let guarded = server(&["--user", "registry", "--pass", "correct-horse-battery"]).await;
    let wrong = registry(&guarded, config().user("registry", "wrong"));
    let none = registry(&guarded, config());
    for registry in [wrong, none] {
        let error = registry.snapshot(&Scope::All).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
        assert!(!error.is_retryable());
    }
    let right = registry(&guarded, config().user("registry", "correct-horse-battery"));
    ready(&right).await;
    let port = guarded.port;
    drop(guarded);
    let endpoint = format!("127.0.0.1:{port}").parse().unwrap();
    let gone = NatsRegistry::new([endpoint], config()).unwrap();
    let error = gone.snapshot(&Scope::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let mut dotted = config();
    dotted.bucket = "a.b".to_owned();
    let endpoint: Endpoint = "127.0.0.1:1".parse().unwrap();
    let socket: Endpoint = "unix:/run/nats.sock".parse().unwrap();
    let cases = [
        NatsRegistry::new([endpoint], dotted),
        NatsRegistry::new([socket], config()),
        NatsRegistry::new([], config()),
    ];
    for case in cases {
        assert_eq!(case.unwrap_err().kind(), ErrorKind::Invalid);
    }
}
