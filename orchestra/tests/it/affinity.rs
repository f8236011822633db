//! Calls that say which instance it should be, and from where they come.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use orchestra::Orchestra;
use orchestra::core::{Labels, Locality};
use orchestra::discovery::{Balancer, Candidates, PickContext, RingHash, resolver};
use orchestra::mesh::pick::{HashKey, Sticky};

use crate::support::{Counted, get, no_retries, status};

async fn three(
    adjust: impl Fn(resolver::Config) -> resolver::Config + Send + Sync + 'static,
) -> (Orchestra, Vec<Counted>) {
    let orchestra = Orchestra::builder()
        .policy(no_retries())
        .locality(Locality::new("eu").zone("a"))
        .resolver(move |_, config| adjust(config))
        .build()
        .await
        .unwrap();
    let mut instances = Vec::new();
    for id in ["one", "three", "two"] {
        let well = |_| status(StatusCode::OK);
        instances.push(Counted::start(&orchestra, id, Labels::new(), well).await);
    }
    orchestra.resolved("cart").await.unwrap();
    (orchestra, instances)
}

fn calls(instances: &[Counted]) -> Vec<u32> {
    instances.iter().map(Counted::calls).collect()
}

#[tokio::test]
async fn calls_about_the_same_go_to_the_same_instance() {
    let (orchestra, instances) =
        three(|config| config.balancer(Arc::new(RingHash::default()))).await;
    let client = orchestra.client("cart").unwrap();
    for key in 0..16_u64 {
        let before = calls(&instances);
        for _ in 0..5 {
            let mut request = get("/");
            let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            request.extensions_mut().insert(HashKey(spread));
            client.send(request).await.unwrap();
        }
        let after = calls(&instances);
        let mut more: Vec<_> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        more.sort_unstable();
        assert_eq!(more, [0, 0, 5], "key {key}");
    }
    assert!(calls(&instances).iter().all(|&count| count > 0));
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_call_goes_where_it_should_and_elsewhere_if_nobody_is_there() {
    let (orchestra, instances) = three(|config| config).await;
    let client = orchestra.client("cart").unwrap();
    for (id, expected) in [("two", Some([0, 0, 10])), ("gone", None)] {
        for _ in 0..10 {
            let mut request = get("/");
            request.extensions_mut().insert(Sticky(id.parse().unwrap()));
            client.send(request).await.unwrap();
        }
        if let Some(expected) = expected {
            assert_eq!(calls(&instances), expected);
        }
    }
    assert_eq!(calls(&instances).iter().sum::<u32>(), 20);
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// The last one for callers of the zone `a`, and nobody for others.
#[derive(Debug)]
struct LastForA;

impl Balancer for LastForA {
    fn choose(&self, candidates: &Candidates<'_>, _: &PickContext<'_>) -> Option<usize> {
        let is_near = candidates.caller() == Some(&Locality::new("eu").zone("a"));
        candidates.len().checked_sub(1).filter(|_| is_near)
    }
}

#[tokio::test]
async fn a_balancer_knows_where_the_caller_is() {
    let (orchestra, instances) = three(|config| config.balancer(Arc::new(LastForA))).await;
    let client = orchestra.client("cart").unwrap();
    for _ in 0..20 {
        client.send(get("/")).await.unwrap();
    }
    assert_eq!(calls(&instances), [0, 0, 20]);
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
}
