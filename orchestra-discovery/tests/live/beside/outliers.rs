//! Envoy's detection of outliers: whom it ejects, how many at most, and for how long.
//!
//! Each answer that Envoy passes on is told to a resolver of ours in Envoy's mode, so both judge the same calls.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use orchestra_core::{Clock, InstanceId, Monotonic, Outcome, SystemClock};
use orchestra_discovery::outlier::{self, Percent, envoy};
use orchestra_discovery::resolver::{Config, Verdict};
use orchestra_discovery::{PickContext, Resolver, priority};
use serde_json::{Value, json};

use super::envoy::envoy;
use super::proxy::{Client, Proxy};
use super::resolver_of;
use super::upstream::Upstreams;
use crate::common::GRACE;

const HOSTS: usize = 10;

struct Both {
    upstreams: Upstreams,
    _proxy: Proxy,
    calls: Client,
    admin: Client,
    ours: Resolver,
    clock: SystemClock,
}

impl Both {
    async fn start(theirs: Value, ours: envoy::Config) -> Self {
        let upstreams = Upstreams::start(HOSTS).await;
        let cluster = json!({
            "lb_policy": "ROUND_ROBIN",
            "outlier_detection": theirs,
            // Nobody is called in panic, and an ejection takes effect at once.
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        });
        let mut priorities = priority::Config::default();
        priorities.panic_threshold = 0;
        let config = Config::default()
            .priorities(priorities)
            .outliers(outlier::Config::Envoy(ours));
        let ours = resolver_of(config, upstreams.ports(), &[1; HOSTS]);
        let proxy = envoy(&upstreams, &[1; HOSTS], cluster).await;
        Self {
            calls: proxy.client("socket").await,
            admin: proxy.client("admin").await,
            _proxy: proxy,
            upstreams,
            ours,
            clock: SystemClock::new(),
        }
    }

    /// A call through Envoy, of which our resolver hears what became.
    async fn call(&mut self) {
        let (status, body) = self.calls.get("/", "").await;
        let port: u16 = body.parse().unwrap();
        let number = self.upstreams.ports().iter().position(|&it| it == port);
        let id: InstanceId = format!("p-{:03}", number.unwrap()).parse().unwrap();
        let now = self.clock.now();
        let call = self.ours.pick(&PickContext::new(now, 0).sticky(&id));
        let outcome = if status < 500 {
            Outcome::Success
        } else {
            Outcome::Failure
        };
        if let Ok(call) = call
            && call.instance().id == id
        {
            call.settle(outcome, now);
        }
    }

    /// Whom Envoy has ejected.
    async fn theirs(&mut self) -> BTreeSet<usize> {
        let (_, body) = self.admin.get("/clusters?format=json", "").await;
        let clusters: Value = serde_json::from_str(&body).unwrap();
        let hosts = clusters["cluster_statuses"][0]["host_statuses"].as_array();
        let is_out = |host: &&Value| host["health_status"]["failed_outlier_check"] == json!(true);
        let number = |host: &Value| {
            let port = host["address"]["socket_address"]["port_value"].as_u64();
            let ports = self.upstreams.ports();
            ports
                .iter()
                .position(|&it| Some(u64::from(it)) == port)
                .unwrap()
        };
        hosts.unwrap().iter().filter(is_out).map(number).collect()
    }

    /// Whom we have.
    fn ours(&self) -> BTreeSet<usize> {
        let now = self.clock.now();
        self.ours.tick(now);
        let (_, explanation) = self.ours.choose_explained(&PickContext::new(now, 0));
        let members = explanation.members.iter().enumerate();
        let out = members.filter(|(_, it)| it.verdict == Verdict::TakesNone("ejected"));
        out.map(|(number, _)| number).collect()
    }

    /// What both have ejected, as soon as that is the same and so many are.
    async fn agreed(&mut self, out: usize) -> BTreeSet<usize> {
        let begun = self.clock.now();
        loop {
            let (theirs, ours) = (self.theirs().await, self.ours());
            if theirs == ours && ours.len() == out {
                return ours;
            }
            let waited = self.clock.now().since(begun);
            assert!(waited < GRACE, "Envoy ejected {theirs:?}, we {ours:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How long it takes either until nobody is out, from this moment.
    async fn restored(&mut self, since: Monotonic) -> [Duration; 2] {
        let mut took = [None; 2];
        while took.contains(&None) {
            let (theirs, ours) = (self.theirs().await.is_empty(), self.ours().is_empty());
            let waited = self.clock.now().since(since);
            for (took, is_back) in took.iter_mut().zip([theirs, ours]) {
                if is_back {
                    took.get_or_insert(waited);
                }
            }
            assert!(waited < GRACE, "nobody is back: {took:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        took.map(Option::unwrap)
    }
}

#[tokio::test]
async fn streaks_eject_whom_envoy_ejects_and_no_more_than_its_share() {
    let theirs = json!({
        "consecutive_5xx": 3,
        "interval": "60s",
        "base_ejection_time": "60s",
        "max_ejection_percent": 30,
    });
    let mut ours = envoy::Config::default();
    ours.consecutive_5xx = NonZeroU32::new(3);
    ours.interval = Duration::from_secs(60);
    ours.base_ejection_time = Duration::from_secs(60);
    ours.max_ejection = Percent::new(30);
    let mut both = Both::start(theirs, ours).await;
    // Failures between successes are no streak.
    both.upstreams.set_status(9, 503);
    for _ in 0..2 * HOSTS {
        both.call().await;
    }
    both.upstreams.set_status(9, 200);
    for _ in 0..HOSTS {
        both.call().await;
    }
    assert!(both.agreed(0).await.is_empty());
    for number in [1, 4, 5, 7, 8] {
        both.upstreams
            .set_status(number, if number == 5 { 502 } else { 500 });
    }
    let mut seen = BTreeSet::new();
    for _ in 0..12 * HOSTS {
        both.call().await;
        let (theirs, ours) = (both.theirs().await.len(), both.ours().len());
        seen.insert(ours);
        // Envoy's main thread hears of it a moment later.
        assert!(theirs <= ours, "{theirs} of Envoy, {ours} of ours");
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 3]));
    let out = both.agreed(3).await;
    assert!(out.is_subset(&BTreeSet::from([1, 4, 5, 7, 8])), "{out:?}");
    // Who is out is not called any more.
    let before: Vec<_> = out
        .iter()
        .map(|&number| both.upstreams.asked(number))
        .collect();
    for _ in 0..3 * HOSTS {
        both.call().await;
    }
    let after: Vec<_> = out
        .iter()
        .map(|&number| both.upstreams.asked(number))
        .collect();
    assert_eq!(after, before);
}

#[tokio::test]
async fn each_ejection_in_a_row_lasts_longer_as_with_envoy() {
    let theirs = json!({
        "consecutive_5xx": 2,
        "interval": "1s",
        "base_ejection_time": "1.5s",
        "max_ejection_percent": 10,
    });
    let mut ours = envoy::Config::default();
    ours.consecutive_5xx = NonZeroU32::new(2);
    ours.interval = Duration::from_secs(1);
    ours.base_ejection_time = Duration::from_millis(1_500);
    let mut both = Both::start(theirs, ours).await;
    for (times, base) in [(1, 1_500), (2, 3_000)] {
        both.upstreams.set_status(6, 500);
        for _ in 0..2 * HOSTS {
            both.call().await;
        }
        let begun = both.clock.now();
        assert_eq!(both.agreed(1).await, BTreeSet::from([6]));
        both.upstreams.set_status(6, 200);
        // It is over at the sweep after its time.
        let least = Duration::from_millis(base - 50);
        let most = Duration::from_millis(base + 1_250);
        let took = both.restored(begun).await;
        let is_within = took.iter().all(|took| (least..most).contains(took));
        assert!(is_within, "ejection {times}: {took:?}");
    }
}

#[tokio::test]
async fn success_rates_out_of_line_are_those_of_envoy() {
    let theirs = json!({
        "interval": "1s",
        "base_ejection_time": "60s",
        "max_ejection_percent": 50,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "success_rate_minimum_hosts": 5,
        "success_rate_request_volume": 20,
        "success_rate_stdev_factor": 1900,
        "enforcing_success_rate": 100,
    });
    let mut ours = envoy::Config::default();
    ours.interval = Duration::from_secs(1);
    ours.base_ejection_time = Duration::from_secs(60);
    ours.max_ejection = Percent::new(50);
    ours.consecutive_5xx = None;
    ours.consecutive_gateway_failure = None;
    ours.success_rate.minimum_hosts = 5;
    ours.success_rate.request_volume = 20;
    let mut both = Both::start(theirs, ours).await;
    let mut turn = 0;
    while both.ours().len() < 2 && turn < 5_000 {
        // One fails half of its calls, another one in forty.
        both.upstreams
            .set_status(3, if turn % 2 == 0 { 500 } else { 200 });
        both.upstreams
            .set_status(8, if turn % 40 == 0 { 500 } else { 200 });
        turn += 1;
        for _ in 0..HOSTS {
            both.call().await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // The worse one hides the other at first; among those that are left it is out of line as well.
    assert_eq!(both.agreed(2).await, BTreeSet::from([3, 8]));
}
