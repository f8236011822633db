use std::num::NonZeroUsize;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::Endpoint;
use orchestra_discovery::conformance::Subject;
use orchestra_discovery::registry::redis::Config;
use orchestra_discovery::{
    Change, ErrorKind, Override, RedisRegistry, Registry, RemovalReason, Revision, Scope, Source,
    WatchEvent, registry_suite,
};

use crate::common::{
    self, GRACE, Server, asked, eventually, heartbeat, listed, scope, unique, variable,
    watch_from_now,
};

const TTL: Duration = Duration::from_millis(1_500);
const REMEMBERED: u32 = 64;

fn config() -> Config {
    let mut config = Config::default();
    config.prefix = unique();
    config.timeout = Duration::from_secs(2);
    config
}

fn shared(config: Config) -> RedisRegistry {
    let endpoint: Endpoint = variable("ORCH_TEST_REDIS").parse().unwrap();
    RedisRegistry::new(endpoint, config).unwrap()
}

fn subject() -> Subject {
    let mut config = config();
    config.max_changes = NonZeroUsize::new(REMEMBERED as usize).unwrap();
    Subject::new(Arc::new(shared(config)), TTL, Duration::from_millis(750)).remembers(REMEMBERED)
}

registry_suite!(
    redis_registry,
    || async { subject() },
    flavor = "multi_thread"
);

/// A server of one's own, with these arguments.
async fn server(arguments: &'static [&'static str]) -> Server {
    Server::start(move |server| {
        let mut command = Command::new(variable("ORCH_TEST_REDIS_BIN"));
        command.args(["--bind", "127.0.0.1", "--port", &server.port.to_string()]);
        command.arg("--dir").arg(server.directory.path());
        command.args(["--save", ""]).args(arguments);
        command
    })
    .await
}

fn registry(server: &Server, config: Config) -> RedisRegistry {
    RedisRegistry::new(server.address().into(), config).unwrap()
}

/// Runs a command on a server, besides the registry.
async fn run(server: &Server, words: &[&str]) {
    let client = redis::Client::open(("127.0.0.1", server.port)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command
        .query_async::<redis::Value>(&mut connection)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_end_in_the_same_set() {
    common::changes_end_in_the_same_set(Arc::new(shared(config()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_hear_within_50_milliseconds() {
    common::watchers_hear_in_time("redis", Arc::new(shared(config()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_of_a_server_that_lost_everything_says_resync() {
    let mut server = server(&[]).await;
    let registry = registry(&server, config());
    let lease = registry.register(asked("i", TTL)).await.unwrap();
    let (before, mut watch) = watch_from_now(&registry).await;
    server.kill().await;
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    server.again().await;
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
    let after = registry.snapshot(&scope()).await.unwrap();
    assert!(after.revision() > before.revision());
    assert!(after.instances().is_empty());
    let error = registry.renew(&lease).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    let anew = registry.register(asked("i", TTL)).await.unwrap();
    assert!(anew.incarnation > lease.incarnation);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_watch_is_told_of_a_kill_and_goes_on_after_it() {
    let mut server = server(&[]).await;
    let registry = Arc::new(registry(&server, config()));
    let (_, mut watch) = watch_from_now(&*registry).await;
    // It blocks on its connection by the time that the server dies.
    let waiting = tokio::time::timeout(Duration::from_millis(200), watch.next()).await;
    assert!(waiting.is_err());
    server.kill().await;
    let error = tokio::time::timeout(GRACE, watch.next()).await.unwrap();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
    server.again().await;
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
    let (_, mut watch) = watch_from_now(&*registry).await;
    let lease = registry.register(asked("i", TTL)).await.unwrap();
    let WatchEvent::Changes { revision, .. } = common::next(&mut watch).await else {
        panic!("resync without need");
    };
    assert_eq!(revision.as_u64(), lease.incarnation.as_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeat_registers_anew_after_a_kill() {
    let mut server = server(&[]).await;
    let registry: Arc<dyn Registry> = Arc::new(registry(&server, config()));
    let heart = heartbeat(Arc::clone(&registry), "i", TTL);
    let before = heart.registered().await.unwrap();
    server.kill().await;
    tokio::time::sleep(TTL).await;
    server.again().await;
    let back = async {
        while listed(&*registry).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(GRACE, back).await.unwrap();
    assert!(heart.lease().unwrap().incarnation > before.incarnation);
    heart.shutdown().await.unwrap();
    assert!(listed(&*registry).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_that_were_kept_on_disk_get_a_whole_ttl() {
    let mut server = server(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let registry = registry(&server, config());
    let lease = registry.register(asked("i", TTL)).await.unwrap();
    let (service, id) = (&lease.service, &lease.id);
    let forced = Some(Override::OutOfService);
    registry.set_override(service, id, forced).await.unwrap();
    let (before, mut watch) = watch_from_now(&registry).await;
    server.kill().await;
    tokio::time::sleep(TTL + TTL / 2).await;
    server.again().await;
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
    let after = eventually(async || registry.snapshot(&scope()).await).await;
    assert!(after.revision() > before.revision());
    assert_eq!(after.instances(), before.instances());
    assert_eq!(after.instances()[0].forced, forced);
    tokio::time::sleep(TTL * 3 / 4).await;
    registry.renew(&lease).await.unwrap();
    tokio::time::sleep(TTL * 3 / 4).await;
    assert_eq!(listed(&registry).await, ["i"]);
    tokio::time::sleep(TTL / 2).await;
    assert!(listed(&registry).await.is_empty());
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
                let reason = match change {
                    Change::Removed(removal) => removal.reason,
                    other => panic!("{other:?}"),
                };
                assert_eq!(reason, RemovalReason::Expired);
                expired += 1;
            }
        }
    };
    let limit = TTL + Duration::from_millis(250);
    tokio::time::timeout(limit, all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_server_says_resync() {
    let server = server(&[]).await;
    let mut config = config();
    config.hold = Duration::from_millis(300);
    let registry = registry(&server, config);
    registry.register(asked("i", TTL)).await.unwrap();
    let (before, mut watch) = watch_from_now(&registry).await;
    run(&server, &["FLUSHALL"]).await;
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
    let after = registry.snapshot(&scope()).await.unwrap();
    assert!(after.revision() > before.revision());
    assert!(after.instances().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_was_tampered_with_says_resync() {
    let server = server(&[]).await;
    let mut config = config();
    config.prefix = "mine".to_owned();
    let registry = registry(&server, config);
    let from = registry.snapshot(&scope()).await.unwrap().revision();
    let middle = registry.register(asked("a", TTL)).await.unwrap();
    registry.register(asked("b", TTL)).await.unwrap();
    let entry = format!("{}-0", middle.incarnation);
    run(&server, &["XDEL", "{mine}:log", &entry]).await;
    let mut watch = registry.watch(&scope(), from).await.unwrap();
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
    // An id above all of ours, and no stream at all.
    let (_, mut watch) = watch_from_now(&registry).await;
    let last = format!("{}-0", u64::MAX);
    run(&server, &["XADD", "{mine}:log", &last, "foreign", "field"]).await;
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
    run(&server, &["DEL", "{mine}:log"]).await;
    run(&server, &["SET", "{mine}:log", "none of ours"]).await;
    let (_, mut watch) = watch_from_now(&registry).await;
    registry.register(asked("c", TTL)).await.unwrap();
    let (_, _) = (
        common::next(&mut watch).await,
        watch_from_now(&registry).await,
    );
    assert_eq!(listed(&registry).await, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_values_are_skipped() {
    let server = server(&[]).await;
    let mut config = config();
    config.prefix = "mine".to_owned();
    let registry = registry(&server, config);
    registry.register(asked("i", TTL)).await.unwrap();
    run(
        &server,
        &[
            "HSET",
            "{mine}:of:live",
            "x",
            "none of ours",
            "y",
            "1 2 ready {}",
        ],
    )
    .await;
    run(&server, &["ZADD", "{mine}:due", "0", "no-slash"]).await;
    run(&server, &["ZADD", "{mine}:due", "0", "live/x"]).await;
    run(&server, &["HSET", "{mine}:forced", "live/z", "unheard of"]).await;
    assert_eq!(listed(&registry).await, ["i"]);
    let all = registry.snapshot(&Scope::All).await.unwrap();
    assert_eq!(all.instances().len(), 1);
    // The id is free for who registers it.
    registry.register(asked("y", TTL)).await.unwrap();
    assert_eq!(listed(&registry).await, ["i", "y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_in_one_slot_of_a_cluster() {
    let server = server(&["--cluster-enabled", "yes"]).await;
    run(&server, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    let registry = registry(&server, config());
    let lease = eventually(async || registry.register(asked("i", TTL)).await).await;
    let (_, mut watch) = watch_from_now(&registry).await;
    registry.register(asked("j", TTL * 9)).await.unwrap();
    registry.renew(&lease).await.unwrap();
    let forced = Some(Override::OutOfService);
    let (service, id) = (&lease.service, &lease.id);
    registry.set_override(service, id, forced).await.unwrap();
    let mut gone = Vec::new();
    while gone.is_empty() {
        let WatchEvent::Changes { changes, .. } = common::next(&mut watch).await else {
            panic!("resync without need");
        };
        gone.extend(
            changes
                .into_iter()
                .filter(|it| matches!(it, Change::Removed(_))),
        );
    }
    let all = registry.snapshot(&Scope::All).await.unwrap();
    assert_eq!(all.instances().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_refuse_as_full() {
    let mut config = config();
    config.max_instances = NonZeroUsize::new(2).unwrap();
    let registry = shared(config.clone());
    let lease = registry.register(asked("a", TTL * 9)).await.unwrap();
    registry.register(asked("b", TTL * 9)).await.unwrap();
    let full = registry.register(asked("c", TTL * 9)).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Full);
    registry.register(asked("b", TTL * 9)).await.unwrap();
    registry.deregister(&lease).await.unwrap();
    registry.register(asked("c", TTL * 9)).await.unwrap();
    for id in ["a", "b"] {
        let id = id.parse().unwrap();
        let forced = Some(Override::OutOfService);
        registry
            .set_override(&lease.service, &id, forced)
            .await
            .unwrap();
    }
    let id = "c".parse().unwrap();
    let forced = Some(Override::ForcedHealthy);
    let full = registry.set_override(&lease.service, &id, forced).await;
    assert_eq!(full.unwrap_err().kind(), ErrorKind::Full);
    config.max_bytes = NonZeroUsize::new(450).unwrap();
    config.max_instances = NonZeroUsize::new(100).unwrap();
    let narrow = shared(config);
    let full = narrow.register(asked("d", TTL * 9)).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Full);
    // A replacement needs no room of its own.
    narrow.register(asked("c", TTL * 9)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_server_is_a_timeout_and_a_thawed_one_answers() {
    let server = server(&[]).await;
    let mut config = config();
    config.timeout = Duration::from_millis(300);
    config.hold = Duration::from_millis(300);
    let registry = registry(&server, config);
    let (_, mut watch) = watch_from_now(&registry).await;
    server.process().pause().unwrap();
    let asked_ = registry.snapshot(&scope()).await.unwrap_err();
    assert_eq!(asked_.kind(), ErrorKind::Timeout);
    let watched = tokio::time::timeout(GRACE, watch.next()).await.unwrap();
    assert_eq!(watched.unwrap_err().kind(), ErrorKind::Timeout);
    server.process().resume().unwrap();
    let lease = eventually(async || registry.register(asked("i", TTL * 9)).await).await;
    // The same run: nothing was lost, so there is no need to start anew.
    let WatchEvent::Changes { revision, .. } = common::next(&mut watch).await else {
        panic!("resync without need");
    };
    assert!(revision.as_u64() <= lease.incarnation.as_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_classified() {
    let server = server(&["--requirepass", "correct-horse-battery"]).await;
    let wrong = registry(&server, config().password("wrong"));
    let none = registry(&server, config());
    for registry in [wrong, none] {
        let error = registry.snapshot(&Scope::All).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
        assert!(!error.is_retryable());
    }
    let right = registry(&server, config().password("correct-horse-battery"));
    right.snapshot(&Scope::All).await.unwrap();
    let user = config().user("default", "correct-horse-battery");
    registry(&server, user).snapshot(&Scope::All).await.unwrap();
    let port = server.port;
    drop(server);
    let endpoint = format!("127.0.0.1:{port}").parse().unwrap();
    let gone = RedisRegistry::new(endpoint, config()).unwrap();
    let error = gone.snapshot(&Scope::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let mut braces = config();
    braces.prefix = "a{b}".to_owned();
    let endpoint = "127.0.0.1:1".parse().unwrap();
    let error = RedisRegistry::new(endpoint, braces).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_over_a_unix_socket_is_the_same() {
    let server = Server::start(|server| {
        let mut command = Command::new(variable("ORCH_TEST_REDIS_BIN"));
        command.args(["--bind", "127.0.0.1", "--port", &server.port.to_string()]);
        command.arg("--dir").arg(server.directory.path());
        command
            .arg("--unixsocket")
            .arg(server.directory.path().join("redis.sock"));
        command
    })
    .await;
    let endpoint = Endpoint::unix(server.directory.path().join("redis.sock")).unwrap();
    let mut config = config();
    config.prefix = "same".to_owned();
    let over_socket = RedisRegistry::new(endpoint, config.clone()).unwrap();
    over_socket.register(asked("i", TTL * 9)).await.unwrap();
    let over_tcp = registry(&server, config.clone());
    assert_eq!(listed(&over_tcp).await, ["i"]);
    config.database = 1;
    assert!(listed(&registry(&server, config)).await.is_empty());
    let never = Revision::new(u64::MAX);
    let mut watch = over_socket.watch(&scope(), never).await.unwrap();
    assert_eq!(common::next(&mut watch).await, WatchEvent::Resync);
}
