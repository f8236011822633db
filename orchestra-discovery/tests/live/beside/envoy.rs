//! Envoy: ring hash, Maglev, and round robin by weights.

use std::process::Command;

use orchestra_core::Monotonic;
use orchestra_discovery::{MaglevHash, PickContext, RingHash, Weighted, hash};
use serde_json::{Value, json};

use super::proxy::Proxy;
use super::upstream::Upstreams;
use super::{by_hash, counted, keys, picked, resolver};
use crate::variable;

/// An Envoy in front of these, with more of a cluster's configuration.
pub(super) async fn envoy(upstreams: &Upstreams, weights: &[u32], cluster: Value) -> Proxy {
    let endpoint = |(&port, &weight): (&u16, &u32)| {
        json!({
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
            "load_balancing_weight": weight,
        })
    };
    let endpoints: Vec<_> = upstreams
        .ports()
        .iter()
        .zip(weights)
        .map(endpoint)
        .collect();
    let mut whole = json!({
        "name": "payments",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "payments", "endpoints": [{"lb_endpoints": endpoints}]},
    });
    let fields = whole.as_object_mut().unwrap();
    fields.extend(cluster.as_object().unwrap().clone());
    let mut proxy = Proxy::start(|directory| {
        let pipe = |name: &str| json!({"pipe": {"path": directory.join(name)}});
        let routes = json!([{
            "match": {"prefix": "/"},
            "route": {
                "cluster": "payments",
                "hash_policy": [{"header": {"header_name": "x-key"}}],
            },
        }]);
        let extension = |name: &str| format!("type.googleapis.com/envoy.extensions.filters.{name}");
        let manager = json!({
            "@type": extension("network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "in",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": extension("http.router.v3.Router")},
            }],
        });
        let config = json!({
            "admin": {"address": pipe("admin")},
            "static_resources": {
                "listeners": [{
                    "address": pipe("socket"),
                    "filter_chains": [{"filters": [{
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }]}],
                }],
                "clusters": [whole],
            },
        });
        let path = directory.join("envoy.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new(variable("ORCH_TEST_ENVOY_BIN"));
        let quiet = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"];
        command.arg("-c").arg(path).args(quiet);
        command
    })
    .await;
    proxy.wait_for("admin").await;
    proxy
}

/// Where Envoy and we send so many keys.
async fn compare(
    policy: Value,
    ours: impl Fn(&Upstreams, &[u32]) -> orchestra_discovery::Resolver,
    weights: &[u32],
) {
    let upstreams = Upstreams::start(weights.len()).await;
    let proxy = envoy(&upstreams, weights, policy).await;
    let mut client = proxy.client("socket").await;
    let ours = ours(&upstreams, weights);
    let mut theirs = Vec::new();
    for key in keys(1_500) {
        let port = client.port("/", &key).await;
        assert_eq!(by_hash(&ours, hash::of(key.as_bytes())), port, "{key}");
        theirs.push(port);
    }
    // They are spread, so that it means something to agree.
    let used = counted(theirs).len();
    assert!(
        used * 10 >= weights.len() * 9,
        "{used} of {}",
        weights.len()
    );
}

const UNEQUAL: [u32; 12] = [1, 2, 3, 4, 5, 1, 1, 9, 2, 2, 3, 1];

#[tokio::test]
async fn ring_hash_picks_are_envoys() {
    let policy = json!({"lb_policy": "RING_HASH"});
    let ring =
        |upstreams: &Upstreams, weights: &[u32]| resolver(RingHash::default(), upstreams, weights);
    compare(policy.clone(), ring, &[1; 7]).await;
    compare(policy.clone(), ring, &[1; 50]).await;
    compare(policy, ring, &UNEQUAL).await;
}

#[tokio::test]
async fn ring_hash_picks_are_envoys_with_its_sizes() {
    let policy = json!({
        "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 100, "maximum_ring_size": 2_000},
    });
    let sizes = hash::ring::Config::default().min_size(100).max_size(2_000);
    let ring = |upstreams: &Upstreams, weights: &[u32]| {
        resolver(RingHash::new(sizes).unwrap(), upstreams, weights)
    };
    compare(policy, ring, &UNEQUAL).await;
}

#[tokio::test]
async fn maglev_picks_are_envoys() {
    let policy = json!({"lb_policy": "MAGLEV"});
    let maglev = |upstreams: &Upstreams, weights: &[u32]| {
        resolver(MaglevHash::default(), upstreams, weights)
    };
    compare(policy.clone(), maglev, &[1; 7]).await;
    compare(policy.clone(), maglev, &[1; 50]).await;
    compare(policy, maglev, &UNEQUAL).await;
}

/// Both follow the weights within a few calls: the order of Envoy's schedule is another than ours.
#[tokio::test]
async fn shares_by_weight_are_envoys() {
    let upstreams = Upstreams::start(UNEQUAL.len()).await;
    let proxy = envoy(&upstreams, &UNEQUAL, json!({"lb_policy": "ROUND_ROBIN"})).await;
    let mut client = proxy.client("socket").await;
    let ours = resolver(Weighted::default(), &upstreams, &UNEQUAL);
    let total: u32 = UNEQUAL.iter().sum();
    let rounds = 60;
    let (mut theirs, mut our_own) = (Vec::new(), Vec::new());
    for n in 0..rounds * total {
        theirs.push(client.port("/", "").await);
        our_own.push(picked(&ours, &PickContext::new(Monotonic::ZERO, n.into())));
    }
    let (theirs, our_own) = (counted(theirs), counted(our_own));
    for (port, weight) in upstreams.ports().iter().zip(UNEQUAL) {
        let expected = rounds * weight;
        assert!(
            theirs[port].abs_diff(expected) <= 2,
            "{port}: {} of Envoy",
            theirs[port]
        );
        assert!(
            our_own[port].abs_diff(expected) <= 4,
            "{port}: {} of ours",
            our_own[port]
        );
    }
}
