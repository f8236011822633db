//! The server is killed, frozen, emptied, full, or asks for a password.

use std::sync::Arc;
use std::time::Duration;

use orchestra_discovery::heartbeat::{self, Heartbeat};
use orchestra_discovery::registry::etcd::Config;
use orchestra_discovery::{ErrorKind, EtcdRegistry, Registry, Revision, Source, WatchEvent};
use tokio::time::{Instant, sleep, timeout};

use super::server::Server;
use super::{Mirror, PATIENCE, asked, ids, listed, register};

#[tokio::test]
async fn a_watch_goes_on_after_the_server_was_killed() {
    let mut server = Server::start(&[]).await;
    let registry = server.registry();
    register(&registry, "before").await;
    let mut mirror = Mirror::of(&registry).await;
    register(&registry, "seen").await;
    mirror.until_listed("seen").await;
    // These two are stored, and not read from the watch before the server dies.
    let gone = register(&registry, "gone").await;
    register(&registry, "unread").await;
    registry.deregister(&gone).await.unwrap();
    server.kill().await;
    let refused = registry.snapshot(&super::scope()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    server.restart().await;
    register(&registry, "after").await;
    mirror.until_listed("after").await;
    assert_eq!(mirror.resyncs, 0);
    assert!((1..20).contains(&mirror.errors), "{} errors", mirror.errors);
    let own = registry.snapshot(&super::scope()).await.unwrap();
    assert_eq!(ids(&mirror.snapshot), ["after", "before", "seen", "unread"]);
    assert_eq!(mirror.snapshot.instances(), own.instances());
}

#[tokio::test]
async fn a_watch_that_waits_while_the_server_is_away_finds_it_again() {
    let mut server = Server::start(&[]).await;
    let registry = server.registry();
    let mut mirror = Mirror::of(&registry).await;
    let outage = async {
        sleep(Duration::from_millis(300)).await;
        server.kill().await;
        sleep(Duration::from_secs(3)).await;
        server.restart().await;
        register(&registry, "late").await;
    };
    tokio::join!(mirror.until_listed("late"), outage);
    assert_eq!(mirror.resyncs, 0);
    // The distance between attempts grows: some 7 in 3 seconds, not thousands.
    assert!((2..20).contains(&mirror.errors), "{} errors", mirror.errors);
}

#[tokio::test]
async fn a_heartbeat_keeps_its_lease_over_a_restart_of_the_server() {
    let mut server = Server::start(&[]).await;
    let registry = server.registry();
    let asked = asked("beating", Duration::from_secs(3));
    let config = heartbeat::Config::default();
    let heartbeat = Heartbeat::start(Arc::new(registry.clone()), asked, config);
    let lease = heartbeat.registered().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    server.kill().await;
    sleep(Duration::from_secs(2)).await;
    server.restart().await;
    // Two ttls: without renewals it would be gone, though etcd grants a full ttl anew.
    sleep(Duration::from_secs(7)).await;
    let snapshot = registry.snapshot(&super::scope()).await.unwrap();
    let held: Vec<_> = snapshot
        .instances()
        .iter()
        .map(|it| it.incarnation)
        .collect();
    assert_eq!(held, [lease.incarnation]);
    heartbeat.shutdown().await.unwrap();
    assert_eq!(listed(&registry).await, [""; 0]);
}

#[tokio::test]
async fn a_restart_of_the_server_grants_each_lease_its_full_ttl_anew() {
    let ttl = Duration::from_secs(4);
    let mut server = Server::start(&[]).await;
    let registry = server.registry();
    let lease = registry.register(asked("silent", ttl)).await.unwrap();
    assert_eq!(lease.ttl, ttl);
    sleep(ttl * 3 / 4).await;
    server.kill().await;
    server.restart().await;
    let restarted = Instant::now();
    sleep(ttl * 7 / 8).await;
    assert_eq!(listed(&registry).await, ["silent"]);
    while !listed(&registry).await.is_empty() {
        assert!(restarted.elapsed() < ttl + Duration::from_secs(4));
        sleep(Duration::from_millis(20)).await;
    }
    println!(
        "gone {:?} after the restart, ttl {ttl:?}",
        restarted.elapsed()
    );
    assert!(restarted.elapsed() >= ttl, "{:?}", restarted.elapsed());
    let refused = registry.renew(&lease).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LeaseLost);
}

#[tokio::test]
async fn a_server_that_lost_its_data_says_resync() {
    let mut server = Server::start(&[]).await;
    let registry = server.registry();
    for _ in 0..5 {
        register(&registry, "a").await;
    }
    let mut mirror = Mirror::of(&registry).await;
    server.kill().await;
    server.restart_empty().await;
    mirror.until(|_| false).await;
    assert_eq!(mirror.resyncs, 1);
    assert_eq!(mirror.watch.next().await.unwrap(), WatchEvent::Resync);
    assert_eq!(listed(&registry).await, [""; 0]);
}

#[tokio::test]
async fn a_frozen_server_is_a_timeout_and_no_loss() {
    let server = Server::start(&[]).await;
    let limit = Duration::from_millis(500);
    let registry = EtcdRegistry::new(server.config().timeout(limit)).unwrap();
    let lease = register(&registry, "a").await;
    let mut mirror = Mirror::of(&registry).await;
    register(&registry, "b").await;
    mirror.until_listed("b").await;
    server.process().pause().unwrap();
    let since = Instant::now();
    let renewed = registry.renew(&lease).await.unwrap_err();
    assert_eq!(renewed.kind(), ErrorKind::Timeout, "{renewed:?}");
    assert!(since.elapsed() < limit * 3, "{:?}", since.elapsed());
    // A silent connection is found out by a ping.
    let broken = timeout(PATIENCE, mirror.watch.next()).await.unwrap();
    let broken = broken.unwrap_err();
    assert!(broken.is_retryable(), "{broken:?}");
    server.process().resume().unwrap();
    register(&registry, "c").await;
    mirror.until_listed("c").await;
    assert_eq!(mirror.resyncs, 0);
    registry.renew(&lease).await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_passed_over() {
    let mut first = Server::start(&[]).await;
    let second = Server::start(&[]).await;
    let both = Config::new([first.endpoint(), second.endpoint()]);
    let registry = EtcdRegistry::new(both).unwrap();
    register(&registry, "of-the-first").await;
    assert_eq!(listed(&registry).await, ["of-the-first"]);
    first.kill().await;
    // Two clusters of one, so that it shows who answered.
    assert_eq!(listed(&registry).await, [""; 0]);
}

#[tokio::test]
async fn a_cluster_goes_on_without_any_one_of_its_members() {
    let mut servers = Server::cluster().await;
    let config = Config::new(servers.iter().map(Server::endpoint));
    let registry = EtcdRegistry::new(config.timeout(Duration::from_secs(2))).unwrap();
    let asked = asked("beating", Duration::from_secs(6));
    let config = heartbeat::Config::default();
    let heartbeat = Heartbeat::start(Arc::new(registry.clone()), asked, config);
    let lease = heartbeat.registered().await.unwrap();
    let mut mirror = Mirror::of(&registry).await;
    for (server, id) in servers.iter_mut().zip(["x", "y", "z"]) {
        server.kill().await;
        let asked = super::asked(id, Duration::from_secs(60));
        // While a leader is elected there is nobody to register at.
        let registered = async {
            while let Err(error) = registry.register(asked.clone()).await {
                assert!(error.is_retryable(), "{error:?}");
            }
        };
        timeout(PATIENCE, registered).await.unwrap();
        mirror.until_listed(id).await;
        server.restart().await;
    }
    assert_eq!(mirror.resyncs, 0);
    let own = registry.snapshot(&super::scope()).await.unwrap();
    assert_eq!(ids(&own), ["beating", "x", "y", "z"]);
    assert_eq!(mirror.snapshot.instances(), own.instances());
    let beating = own.instances().first().unwrap();
    assert_eq!(beating.incarnation, lease.incarnation);
    heartbeat.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_watch_does_not_go_on_in_another_cluster() {
    let mut first = Server::start(&[]).await;
    let second = Server::start(&[]).await;
    // The other cluster is ahead, so its revisions alone do not give it away.
    for _ in 0..5 {
        register(&second.registry(), "elsewhere").await;
    }
    let both = Config::new([first.endpoint(), second.endpoint()]);
    let registry = EtcdRegistry::new(both).unwrap();
    let mut mirror = Mirror::of(&registry).await;
    register(&registry, "here").await;
    mirror.until_listed("here").await;
    first.kill().await;
    mirror.until(|_| false).await;
    assert_eq!(mirror.resyncs, 1);
    assert_eq!(ids(&mirror.snapshot), ["here"]);
}

#[tokio::test]
async fn a_full_server_is_told_apart() {
    let server = Server::start(&["--quota-backend-bytes", "16777216"]).await;
    let registry = server.registry();
    let lease = register(&registry, "a").await;
    let mut raw = server.raw().await;
    let chunk = vec![b'x'; 1_000_000];
    let mut written = 0;
    while raw
        .put(format!("ballast/{written}"), &*chunk, None)
        .await
        .is_ok()
    {
        written += 1;
        assert!(written < 64, "the quota does not hold");
    }
    let asked = asked("b", Duration::from_secs(60));
    let refused = registry.register(asked).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full, "{refused:?}");
    registry.renew(&lease).await.unwrap();
    assert_eq!(listed(&registry).await, ["a"]);
}

#[tokio::test]
async fn a_password_is_needed_where_it_is_asked_for() {
    let mut server = Server::start(&["--auth-token-ttl", "2"]).await;
    let mut raw = server.raw().await;
    raw.user_add("root", "right", None).await.unwrap();
    raw.user_grant_role("root", "root").await.unwrap();
    raw.auth_enable().await.unwrap();
    let anonymous = server.registry();
    let wrong = EtcdRegistry::new(server.config().user("root", "wrong")).unwrap();
    for refusing in [anonymous, wrong] {
        let refused = refusing.snapshot(&super::scope()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthorized, "{refused:?}");
        let mut watch = refusing
            .watch(&super::scope(), Revision::new(0))
            .await
            .unwrap();
        let refused = timeout(PATIENCE, watch.next()).await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthorized, "{refused:?}");
    }
    let registry = EtcdRegistry::new(server.config().user("root", "right")).unwrap();
    let lease = register(&registry, "a").await;
    let mut mirror = Mirror::of(&registry).await;
    server.kill().await;
    server.restart().await;
    // The token that was given out before is no longer known.
    sleep(Duration::from_secs(5)).await;
    registry.renew(&lease).await.unwrap();
    register(&registry, "b").await;
    mirror.until_listed("b").await;
}
