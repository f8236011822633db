//! Active health checks of the instances of clients.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra::core::Outcome;
use orchestra::discovery::health::{self, Networks, Reach};
use orchestra::discovery::{Event, Instance, PickContext, Probe, Resolver, Verdict, outlier};
use orchestra::{Builder, Orchestra};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::support::{counter, heard, known, register};

/// Finds those ill who are said to be, and remembers whom it was asked about.
#[derive(Clone, Default)]
struct Oracle {
    ill: Arc<Mutex<BTreeSet<String>>>,
    asked: Arc<Mutex<BTreeSet<String>>>,
}

#[async_trait]
impl Probe for Oracle {
    async fn probe(&self, instance: &Instance) -> Verdict {
        let id = instance.id.to_string();
        let is_ill = self.ill.lock().contains(&id);
        self.asked.lock().insert(id);
        if is_ill {
            Verdict::Critical("it is said to be".to_owned())
        } else {
            Verdict::Pass
        }
    }
}

fn every_second() -> health::Config {
    health::Config::default().interval(Duration::from_secs(1))
}

/// Two instances of `cart`, a while after they were registered.
async fn pair(builder: Builder) -> Orchestra {
    let orchestra = builder.seed(1).build().await.unwrap();
    for (id, endpoint) in [("cart-1", "10.0.0.1:80"), ("cart-2", "10.0.0.2:80")] {
        let _lease = register(&orchestra, "cart", id, endpoint.parse().unwrap()).await;
    }
    known(&orchestra, "cart", 2).await;
    sleep(Duration::from_secs(3)).await;
    orchestra
}

/// Who gets calls.
fn called(orchestra: &Orchestra, resolver: &Resolver) -> BTreeSet<String> {
    let pick = |draw: u64| {
        let context = PickContext::new(
            orchestra.clock().now(),
            draw.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let call = resolver.pick(&context).unwrap();
        let id = call.instance().id.to_string();
        call.settle(Outcome::Success, orchestra.clock().now());
        id
    };
    (0..40).map(pick).collect()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_checks_fail_gets_no_calls_until_they_pass() {
    let oracle = Oracle::default();
    oracle.ill.lock().insert("cart-1".to_owned());
    let (listener, events) = heard();
    let builder = Orchestra::builder()
        .health_check(oracle.clone(), every_second())
        .on_discovery(listener);
    let orchestra = pair(builder).await;
    let resolver = orchestra.resolver("cart").unwrap();
    assert_eq!(called(&orchestra, &resolver), set(&["cart-2"]));
    let unhealthy = [("service", "cart"), ("health", "unhealthy")];
    let name = "orchestra_discovery_health_changes_total";
    assert_eq!(counter(&orchestra, name, &unhealthy), 1);

    oracle.ill.lock().clear();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(called(&orchestra, &resolver), set(&["cart-1", "cart-2"]));
    let changes = |event: &&Event| matches!(event, Event::HealthChanged { .. });
    assert_eq!(events.lock().iter().filter(changes).count(), 3);
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_service_may_have_a_check_of_its_own_or_none() {
    let (all, cart) = (Oracle::default(), Oracle::default());
    let builder = Orchestra::builder()
        .health_check(all.clone(), every_second())
        .health_check_for("cart".parse().unwrap(), cart.clone(), every_second());
    let orchestra = pair(builder).await;
    let _lease = register(
        &orchestra,
        "depot",
        "depot-1",
        "10.0.0.3:80".parse().unwrap(),
    )
    .await;
    known(&orchestra, "depot", 1).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(*cart.asked.lock(), set(&["cart-1", "cart-2"]));
    assert_eq!(*all.asked.lock(), set(&["depot-1"]));
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    cart.asked.lock().clear();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(*cart.asked.lock(), set(&[]), "it was shut down");
}

#[tokio::test(start_paused = true)]
async fn a_passed_check_ends_an_ejection() {
    for is_checked in [false, true] {
        let builder = Orchestra::builder().resolver(|_, config| {
            let mut envoy = outlier::envoy::Config::default();
            envoy.always_eject_one_host = true;
            envoy.consecutive_5xx = NonZeroU32::new(1);
            config.outliers(outlier::Config::Envoy(envoy))
        });
        let builder = if is_checked {
            builder.health_check(Oracle::default(), every_second())
        } else {
            builder
        };
        let orchestra = pair(builder).await;
        let resolver = orchestra.resolver("cart").unwrap();
        let failed = resolver.pick(&PickContext::new(orchestra.clock().now(), 7));
        let failed = failed.unwrap();
        let id = failed.instance().id.to_string();
        failed.settle(Outcome::Failure, orchestra.clock().now());
        assert!(
            !called(&orchestra, &resolver).contains(&id),
            "it is ejected"
        );
        // A long time for a check, and a short one for an ejection.
        sleep(Duration::from_secs(2)).await;
        let restored = [("service", "cart"), ("change", "restored")];
        let restored = counter(&orchestra, "orchestra_discovery_outliers_total", &restored);
        assert_eq!(restored, u64::from(is_checked));
        orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn no_probe_goes_where_none_may_whoever_makes_it() {
    let near: Networks = Networks::new(["10.0.0.0/31".parse().unwrap()]);
    let cases = [
        (Reach::default(), set(&["cart-1", "cart-2"])),
        (Reach::default().networks(near), set(&["cart-1"])),
    ];
    for (reach, expected) in cases {
        let oracle = Oracle::default();
        let builder = Orchestra::builder()
            .health_check(oracle.clone(), every_second())
            .probe_reach(reach);
        let orchestra = pair(builder).await;
        let metadata = "169.254.169.254:80".parse().unwrap();
        let _lease = register(&orchestra, "cart", "cart-3", metadata).await;
        known(&orchestra, "cart", 3).await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(*oracle.asked.lock(), expected);
        let resolver = orchestra.resolver("cart").unwrap();
        assert!(!called(&orchestra, &resolver).contains("cart-3") || expected.len() == 1);
        let forbidden = counter(
            &orchestra,
            "orchestra_discovery_probes_forbidden_total",
            &[("service", "cart")],
        );
        assert_eq!(forbidden, 3 - expected.len() as u64);
        orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    }
}
