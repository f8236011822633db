//! What is in etcd, seen by a client that is not ours.

use std::time::Duration;

use etcd_client::{Client, GetOptions, PutOptions, Txn, TxnOp};
use orchestra_discovery::{ErrorKind, Override, Registry, Scope, Source, Status};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::server::Server;
use super::{LEAST_TTL, Mirror, asked, fresh, ids, listed, register, scope};

/// An instance as it is stored, written by hand: what is stored today is read by later versions.
fn stored(id: &str) -> String {
    json!({"listed": {
        "service": "payments", "id": id, "incarnation": 0, "endpoint": "127.0.0.1:80",
        "weight": 1, "status": "ready", "locality": {}, "labels": {},
    }})
    .to_string()
}

async fn keys(raw: &mut Client) -> Vec<String> {
    let options = GetOptions::new().with_all_keys().with_keys_only();
    let answer = raw.get("", Some(options)).await.unwrap();
    let keys = answer.kvs().iter();
    keys.map(|kv| kv.key_str().unwrap().to_owned()).collect()
}

async fn leases(raw: &mut Client) -> usize {
    raw.leases().await.unwrap().leases().len()
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let server = Server::start(&[]).await;
    let (registry, mut raw) = (server.registry(), server.raw().await);
    let ghost = register(&registry, "a").await;
    let heir = register(&registry, "a").await;
    // The ghost's lease is gone, and the key has not gone with it.
    assert_eq!(leases(&mut raw).await, 1);
    assert_eq!(keys(&mut raw).await, ["orchestra/payments/a"]);
    for _ in 0..2 {
        let refused = registry.renew(&ghost).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Replaced);
        registry.deregister(&ghost).await.unwrap();
    }
    registry.renew(&heir).await.unwrap();
    let (service, id) = (&heir.service, &heir.id);
    let forced = Some(Override::OutOfService);
    registry.set_override(service, id, forced).await.unwrap();
    registry.set_status(&heir, Status::Draining).await.unwrap();
    registry.deregister(&heir).await.unwrap();
    assert_eq!(leases(&mut raw).await, 0);
    assert_eq!(keys(&mut raw).await, ["orchestra/payments/a/override"]);
    registry.set_override(service, id, None).await.unwrap();
    assert_eq!(keys(&mut raw).await, [""; 0]);
}

/// Each change rewrites the whole value: one that was decided on an older value must not undo another.
#[tokio::test]
async fn changes_of_one_id_at_once_undo_none() {
    let registry = fresh();
    let mut lease = register(&registry, "a").await;
    let (service, id) = (lease.service.clone(), lease.id.clone());
    for round in 0..100 {
        let forced = [
            None,
            Some(Override::OutOfService),
            Some(Override::ForcedHealthy),
        ];
        let forced = forced[round % 3];
        let status = [Status::Ready, Status::Draining][round % 2];
        let (set, put) = tokio::join!(
            registry.set_override(&service, &id, forced),
            registry.set_status(&lease, status),
        );
        set.unwrap();
        put.unwrap();
        let now = registry.snapshot(&scope()).await.unwrap();
        let now = now.instances().first().unwrap();
        assert_eq!((now.forced, now.status), (forced, status), "round {round}");

        let forced = [Some(Override::OutOfService), None][round % 2];
        let (set, heir) = tokio::join!(
            registry.set_override(&service, &id, forced),
            registry.register(asked("a", Duration::from_secs(60))),
        );
        set.unwrap();
        lease = heir.unwrap();
        let now = registry.snapshot(&scope()).await.unwrap();
        let now = now.instances().first().unwrap();
        let expected = (forced, lease.incarnation);
        assert_eq!((now.forced, now.incarnation), expected, "round {round}");
    }
}

#[tokio::test]
async fn an_incarnation_is_the_revision_of_the_registration() {
    let server = Server::start(&[]).await;
    let (registry, mut raw) = (server.registry(), server.raw().await);
    let lease = register(&registry, "a").await;
    registry.set_status(&lease, Status::Draining).await.unwrap();
    let answer = raw.get("orchestra/payments/a", None).await.unwrap();
    let kv = answer.kvs().first().unwrap();
    let created = u64::try_from(kv.create_revision()).unwrap();
    assert_eq!(lease.incarnation.as_u64(), created);
    let value: Value = serde_json::from_slice(kv.value()).unwrap();
    assert_eq!(value["listed"]["incarnation"], created);
    assert_eq!(value["listed"]["status"], "draining");
    assert_ne!(kv.lease(), 0);
}

#[tokio::test]
async fn a_ttl_that_is_not_whole_seconds_is_never_cut_short() {
    let registry = fresh();
    let ttl = Duration::from_millis(2_400);
    let since = Instant::now();
    let lease = registry.register(asked("a", ttl)).await.unwrap();
    assert_eq!(lease.ttl, Duration::from_secs(3));
    while since.elapsed() < ttl {
        assert_eq!(listed(&registry).await, ["a"], "{:?}", since.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    while !listed(&registry).await.is_empty() {
        assert!(since.elapsed() < ttl + Duration::from_millis(2_500));
        sleep(Duration::from_millis(20)).await;
    }
    println!("a ttl of {ttl:?} lapsed after {:?}", since.elapsed());
    // What is shorter than etcd's least is granted that.
    let short = asked("b", Duration::from_millis(10));
    let lease = registry.register(short).await.unwrap();
    assert_eq!(lease.ttl, LEAST_TTL);
}

#[tokio::test]
async fn strange_values_are_passed_over() {
    let server = Server::start(&[]).await;
    let (registry, mut raw) = (server.registry(), server.raw().await);
    let overwritten = register(&registry, "b").await;
    let mut mirror = Mirror::of(&registry).await;
    let large = "x".repeat(1_000_000);
    let strange: [(&str, &[u8]); 8] = [
        ("orchestra/payments/a", b"not json"),
        ("orchestra/payments/b", b"\xff\xfe"),
        ("orchestra/payments/c", b"{\"listed\":{\"weight\":-1}}"),
        ("orchestra/payments/d", large.as_bytes()),
        ("orchestra/payments/e/override", b"\"perhaps\""),
        ("orchestra/payments/", b""),
        ("orchestra/payments/f/g/h", b""),
        ("orchestra/no such/service", b"{}"),
    ];
    for (key, value) in strange {
        raw.put(key, value, None).await.unwrap();
    }
    let wrong_place = stored("x");
    raw.put("orchestra/payments/y", wrong_place, None)
        .await
        .unwrap();
    register(&registry, "e").await;
    mirror.until_listed("e").await;
    assert_eq!(ids(&mirror.snapshot), ["e"]);
    assert_eq!(listed(&registry).await, ["e"]);
    let all = registry.snapshot(&Scope::All).await.unwrap();
    assert_eq!(ids(&all), ["e"]);
    let refused = registry.renew(&overwritten).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LeaseLost);
    // A strange value does not keep the id.
    for id in ["a", "b", "c", "d"] {
        register(&registry, id).await;
        mirror.until_listed(id).await;
    }
    assert_eq!(listed(&registry).await, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn a_lease_of_a_stranger_is_not_revoked() {
    let server = Server::start(&[]).await;
    let (registry, mut raw) = (server.registry(), server.raw().await);
    let lease = raw.lease_grant(60, None).await.unwrap().id();
    for key in ["orchestra/payments/a", "elsewhere"] {
        let options = PutOptions::new().with_lease(lease);
        raw.put(key, "strange", Some(options)).await.unwrap();
    }
    register(&registry, "a").await;
    assert_eq!(keys(&mut raw).await, ["elsewhere", "orchestra/payments/a"]);
    assert_eq!(leases(&mut raw).await, 2);
}

#[tokio::test]
async fn too_much_text_is_refused_before_it_travels() {
    let registry = fresh();
    let mut large = asked("a", Duration::from_secs(60));
    large.probe.path = Some("x".repeat(10_000_000).into());
    let refused = registry.register(large).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    let forever = asked("a", Duration::MAX);
    let refused = registry.register(forever).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(listed(&registry).await, [""; 0]);
}

/// Two ids at both ends of the range change places in one transaction: a snapshot that is not of one revision
/// sees both, or none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_instances_are_read_at_one_revision() {
    const INSTANCES: usize = 100_000;
    let server = Server::start(&[]).await;
    let (registry, mut raw) = (server.registry(), server.raw().await);
    let numbers: Vec<_> = (0..INSTANCES).collect();
    for some in numbers.chunks(100) {
        let put = |number: &usize| {
            let id = format!("i-{number:06}");
            TxnOp::put(format!("orchestra/payments/{id}"), stored(&id), None)
        };
        let puts: Vec<_> = some.iter().map(put).collect();
        raw.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    let mut other = server.raw().await;
    let mut swapping = JoinSet::new();
    swapping.spawn(async move {
        let key = |id: &str| format!("orchestra/payments/{id}");
        let mut ends = ["first", "zzz"];
        loop {
            let [here, there] = ends;
            let swap = [
                TxnOp::put(key(here), stored(here), None),
                TxnOp::delete(key(there), None),
            ];
            other.txn(Txn::new().and_then(swap)).await.unwrap();
            ends = [there, here];
            sleep(Duration::from_millis(2)).await;
        }
    });
    sleep(Duration::from_millis(100)).await;
    for _ in 0..5 {
        let since = Instant::now();
        let snapshot = registry.snapshot(&scope()).await.unwrap();
        println!("{INSTANCES} instances in {:?}", since.elapsed());
        assert_eq!(snapshot.instances().len(), INSTANCES + 1);
    }
    // What it reads is compacted under its hands: it begins anew.
    let compacting = async {
        sleep(Duration::from_millis(100)).await;
        let latest = raw.get("x", None).await.unwrap();
        let latest = latest.header().unwrap().revision();
        raw.compact(latest, None).await.unwrap();
        latest
    };
    let (whole, scope) = (Instant::now(), scope());
    let (snapshot, latest) = tokio::join!(registry.snapshot(&scope), compacting);
    println!(
        "{INSTANCES} instances, compacted on the way, in {:?}",
        whole.elapsed()
    );
    let snapshot = snapshot.unwrap();
    assert_eq!(snapshot.instances().len(), INSTANCES + 1);
    assert!(snapshot.revision().as_u64() >= u64::try_from(latest).unwrap());
}

#[tokio::test]
async fn large_values_of_strangers_make_pages_shorter() {
    let server = Server::start(&[]).await;
    let (registry, mut raw) = (server.registry(), server.raw().await);
    register(&registry, "a").await;
    let mut mirror = Mirror::of(&registry).await;
    let large = vec![b'x'; 1_000_000];
    // Together more than one answer may have.
    for number in 0..80 {
        let key = format!("orchestra/payments/large-{number}");
        raw.put(key, &*large, None).await.unwrap();
    }
    register(&registry, "z").await;
    assert_eq!(listed(&registry).await, ["a", "z"]);
    mirror.until(|members| members.instances().len() == 2).await;
    assert!(mirror.resyncs == 1 || ids(&mirror.snapshot) == ["a", "z"]);
}
