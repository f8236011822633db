//! Rise and fall against a brute-force model, and the driver in virtual time.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_discovery::health::{self, Tally, Thresholds};
use orchestra_discovery::{Event, Health, HealthCheck, Instance, Probe, Verdict, resolver};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::common::{draw, instance, snapshot, with_members};
use crate::doubles::heard;

fn verdict(passes: bool) -> Verdict {
    if passes {
        Verdict::Pass
    } else {
        Verdict::Fail("503".to_owned())
    }
}

/// Recomputed from the whole history: the verdict that last came often enough in a row decides.
fn model(history: &[bool], rise: usize, fall: usize) -> Health {
    let mut healthy = match history.first() {
        None => return Health::Unchecked,
        Some(&first) => first,
    };
    for end in 1..=history.len() {
        let needed = if healthy { fall } else { rise };
        let run = history[..end]
            .iter()
            .rev()
            .take_while(|&&passes| passes != healthy);
        if run.count() >= needed {
            healthy = !healthy;
        }
    }
    if healthy {
        Health::Healthy
    } else {
        Health::Unhealthy
    }
}

proptest! {
    #[test]
    fn tally_agrees_with_the_model(
        history in proptest::collection::vec(any::<bool>(), 0..40),
        rise in 1..5_u32,
        fall in 1..5_u32,
    ) {
        let thresholds = Thresholds::new(
            NonZeroU32::new(rise).unwrap(),
            NonZeroU32::new(fall).unwrap(),
        );
        let mut tally = Tally::default();
        for (index, &passes) in history.iter().enumerate() {
            let before = tally.health();
            let changed = tally.observe(thresholds, &verdict(passes));
            let expected = model(&history[..=index], rise as usize, fall as usize);
            prop_assert_eq!(tally.health(), expected);
            prop_assert_eq!(changed, (before != expected).then_some(expected));
        }
    }
}

/// Fails the instances that are listed.
#[derive(Debug, Default)]
struct Sick(Mutex<Vec<String>>);

#[async_trait]
impl Probe for Sick {
    async fn probe(&self, instance: &Instance) -> Verdict {
        let sick = self.0.lock().iter().any(|id| id == instance.id.as_str());
        if sick {
            // Never answers: only the timeout of the driver ends it.
            std::future::pending::<()>().await;
        }
        Verdict::Pass
    }
}

#[tokio::test(start_paused = true)]
async fn unhealthy_member_gets_no_calls_until_it_recovers() {
    let members = [instance("p-1", 1), instance("p-2", 2)];
    let payments = with_members(resolver::Config::default(), members);
    let probe = Arc::new(Sick::default());
    let (events, listener) = heard();
    let config = health::Config::default().listener(listener);
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    tokio::time::sleep(Duration::from_secs(10)).await;

    probe.0.lock().push("p-1".to_owned());
    tokio::time::sleep(Duration::from_secs(40)).await;
    let picked = |n| {
        payments
            .pick(&draw(u64::MAX / 64 * n))
            .unwrap()
            .instance()
            .id
            .to_string()
    };
    assert!((0..64).all(|n| picked(n) == "p-2"));
    probe.0.lock().push("p-2".to_owned());
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(payments.pick(&draw(5)).unwrap_err().unhealthy, 2);

    probe.0.lock().clear();
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!((0..64).any(|n| picked(n) == "p-1"));
    let verdicts = events
        .lock()
        .iter()
        .filter_map(verdict_on_first)
        .collect::<Vec<_>>();
    assert_eq!(
        verdicts,
        [Health::Healthy, Health::Unhealthy, Health::Healthy]
    );
    check.shutdown().await.unwrap();
}

fn verdict_on_first(event: &Event) -> Option<Health> {
    match event {
        Event::HealthChanged { id, health, .. } if id.as_str() == "p-1" => Some(*health),
        _ => None,
    }
}

/// Panics at its first probe; counts how many run at once.
#[derive(Debug, Default)]
struct Clumsy {
    probes: Mutex<u32>,
    running: Mutex<usize>,
    most: Mutex<usize>,
}

#[async_trait]
impl Probe for Clumsy {
    async fn probe(&self, _: &Instance) -> Verdict {
        *self.probes.lock() += 1;
        assert!(*self.probes.lock() > 1, "the first probe panics");
        let running = {
            let mut running = self.running.lock();
            *running += 1;
            *running
        };
        let most = *self.most.lock();
        *self.most.lock() = most.max(running);
        tokio::time::sleep(Duration::from_millis(500)).await;
        *self.running.lock() -= 1;
        Verdict::Fail("clumsy".to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn panicking_probe_is_made_again_and_probes_at_once_are_bounded() {
    let members = (0..20).map(|n| instance(&format!("p-{n:02}"), 1));
    let payments = with_members(resolver::Config::default(), members);
    let probe = Arc::new(Clumsy::default());
    let mut config = health::Config::default();
    config.max_probes = NonZeroUsize::new(4).unwrap();
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(payments.pick(&draw(0)).unwrap_err().unhealthy, 20);
    assert_eq!(*probe.most.lock(), 4);
    check.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn new_member_is_probed_soon_and_a_new_incarnation_anew() {
    let payments = with_members(resolver::Config::default(), []);
    let probe = Arc::new(Sick(Mutex::new(vec!["p-1".to_owned()])));
    let check = HealthCheck::start(
        Arc::clone(&probe) as _,
        payments.clone(),
        health::Config::default(),
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    payments.apply(&snapshot([instance("p-1", 1)]));
    // A tenth of the interval, and the timeout of the probe.
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    assert_eq!(payments.pick(&draw(0)).unwrap_err().unhealthy, 1);
    probe.0.lock().clear();
    payments.apply(&snapshot([instance("p-1", 2)]));
    assert!(payments.pick(&draw(0)).is_ok());
    check.shutdown().await.unwrap();
}

/// Takes its time, and counts how often it saw each.
#[derive(Debug, Default)]
struct Slow(Mutex<BTreeMap<String, u32>>);

#[async_trait]
impl Probe for Slow {
    async fn probe(&self, instance: &Instance) -> Verdict {
        *self.0.lock().entry(instance.id.to_string()).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
        Verdict::Pass
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_left_out_when_there_are_too_few_probes() {
    let members = (0..20).map(|n| instance(&format!("p-{n:02}"), 1));
    let payments = with_members(resolver::Config::default(), members);
    let probe = Arc::new(Slow::default());
    let mut config = health::Config::default();
    config.max_probes = NonZeroUsize::MIN;
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments, config);
    tokio::time::sleep(Duration::from_secs(101)).await;
    // One at a time and half a second each: a round of all twenty takes ten seconds.
    let seen = probe.0.lock().clone();
    assert_eq!(seen.len(), 20, "{seen:?}");
    assert!(
        seen.values().all(|times| (9..=11).contains(times)),
        "{seen:?}"
    );
    check.shutdown().await.unwrap();
}
