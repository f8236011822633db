//! Rise and fall against a brute-force model, and the driver in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{Clock, Monotonic, TokioClock};
use orchestra_discovery::health::{self, Tally, Thresholds};
use orchestra_discovery::{
    Event, Health, HealthCheck, Instance, Probe, Resolver, Verdict, resolver,
};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::common::{draw, instance, service, snapshot, with_members};
use crate::doubles::heard;

fn verdict(kind: u8) -> Verdict {
    match kind {
        0 => Verdict::Fail("503".to_owned()),
        1 => Verdict::Degraded("busy".to_owned()),
        2 => Verdict::Pass,
        _ => Verdict::Critical("going down".to_owned()),
    }
}

/// Recomputed from the whole history: what all of the last `fall` verdicts are at most, or all of the last
/// `rise` at least, is the case.
fn model(history: &[u8], rise: usize, fall: usize) -> Health {
    // Unhealthy, degraded, healthy.
    let says = |kind: u8| if kind == 3 { 0 } else { kind };
    let mut state = match history.first() {
        None => return Health::Unchecked,
        Some(&first) => says(first),
    };
    for end in 1..=history.len() {
        let last = |n: usize| {
            let from = end.checked_sub(n)?;
            Some(history[from..end].iter().map(|&kind| says(kind)))
        };
        if history[end - 1] == 3 {
            state = 0;
        }
        if let Some(best) = last(fall).and_then(Iterator::max) {
            state = state.min(best);
        }
        if let Some(worst) = last(rise).and_then(Iterator::min) {
            state = state.max(worst);
        }
    }
    [Health::Unhealthy, Health::Degraded, Health::Healthy][usize::from(state)]
}

proptest! {
    #[test]
    fn tally_agrees_with_the_model(
        history in proptest::collection::vec(0..4_u8, 0..40),
        rise in 1..5_u32,
        fall in 1..5_u32,
    ) {
        let thresholds = Thresholds::new(
            NonZeroU32::new(rise).unwrap(),
            NonZeroU32::new(fall).unwrap(),
        );
        let mut tally = Tally::default();
        for (index, &kind) in history.iter().enumerate() {
            let before = tally.health();
            let changed = tally.observe(thresholds, &verdict(kind));
            let expected = model(&history[..=index], rise as usize, fall as usize);
            prop_assert_eq!(tally.health(), expected);
            prop_assert_eq!(changed, (before != expected).then_some(expected));
        }
    }
}

#[test]
fn direction_that_changes_starts_anew() {
    let thresholds = Thresholds::default();
    let mut tally = Tally::default();
    let mut after = |kinds: &[u8]| {
        for &kind in kinds {
            tally.observe(thresholds, &verdict(kind));
        }
        (tally.health(), tally.is_doubtful())
    };
    assert_eq!(after(&[2, 0, 0, 2, 0, 0]), (Health::Healthy, true));
    assert_eq!(after(&[1]), (Health::Degraded, false));
    assert_eq!(after(&[0, 0]), (Health::Degraded, true));
    assert_eq!(after(&[0]), (Health::Unhealthy, false));
    assert_eq!(after(&[1, 2]), (Health::Degraded, true));
    assert_eq!(after(&[2]), (Health::Healthy, false));
    assert_eq!(after(&[3]), (Health::Unhealthy, false));
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

/// Answers as told, and takes its time as told; keeps when each was asked.
#[derive(Debug, Default)]
struct Scripted {
    verdicts: Mutex<BTreeMap<String, Verdict>>,
    hangs: Mutex<BTreeSet<String>>,
    asked: Mutex<BTreeMap<String, Vec<Monotonic>>>,
    forgotten: Mutex<Vec<(String, u64)>>,
    clock: TokioClock,
}

impl Scripted {
    fn say(&self, id: &str, verdict: Verdict) {
        self.verdicts.lock().insert(id.to_owned(), verdict);
    }

    fn asked(&self, id: &str) -> Vec<Monotonic> {
        self.asked.lock().get(id).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Probe for Scripted {
    async fn probe(&self, instance: &Instance) -> Verdict {
        let id = instance.id.to_string();
        let now = self.clock.now();
        self.asked.lock().entry(id.clone()).or_default().push(now);
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.hangs.lock().contains(&id) {
            std::future::pending::<()>().await;
        }
        let said = self.verdicts.lock().get(&id).cloned();
        said.unwrap_or(Verdict::Pass)
    }

    fn forget(&self, instance: &Instance) {
        let gone = (instance.id.to_string(), instance.incarnation.as_u64());
        self.forgotten.lock().push(gone);
    }
}

#[tokio::test(start_paused = true)]
async fn unchecked_member_gets_no_calls_until_its_first_probe_passed() {
    let payments = with_members(resolver::Config::default(), [instance("p-1", 1)]);
    let probe = Arc::new(Slow::default());
    let config = health::Config::default();
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(payments.pick(&draw(0)).unwrap_err().unhealthy, 1);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(payments.pick(&draw(0)).is_ok());

    payments.apply(&snapshot([instance("p-1", 1), instance("p-2", 1)]));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let picked = payments.pick(&draw(u64::MAX)).unwrap();
    assert_eq!(picked.instance().id.as_str(), "p-1");
    // Nobody checks it any more: it is as it was before.
    check.shutdown().await.unwrap();
    let ids = (0..64).map(|n| payments.pick(&draw(u64::MAX / 64 * n)).unwrap());
    assert!(ids.into_iter().any(|it| it.instance().id.as_str() == "p-2"));
}

#[tokio::test(start_paused = true)]
async fn unchecked_member_gets_calls_if_so_configured() {
    let payments = with_members(resolver::Config::default(), [instance("p-1", 1)]);
    let mut config = health::Config::default();
    config.admit_unchecked = true;
    let probe = Arc::new(Scripted::default());
    probe.hangs.lock().insert("p-1".to_owned());
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(payments.pick(&draw(0)).is_ok());
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(payments.pick(&draw(0)).unwrap_err().unhealthy, 1);
    check.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_thousand_instances_with_two_hundred_that_hang_are_probed_in_time() {
    let name = |n: usize| format!("p-{n:04}");
    let members = (0..1_000).map(|n| instance(&name(n), 1));
    let payments = with_members(resolver::Config::default(), members);
    let probe = Arc::new(Scripted::default());
    probe.hangs.lock().extend((0..1_000).step_by(5).map(name));
    let check = HealthCheck::start(
        Arc::clone(&probe) as _,
        payments.clone(),
        health::Config::default(),
    );
    tokio::time::sleep(Duration::from_secs(120)).await;
    let settled = Monotonic::ZERO + Duration::from_secs(60);
    for n in 0..1_000 {
        let asked = probe.asked(&name(n));
        let steady: Vec<_> = asked.iter().filter(|at| **at > settled).collect();
        let longest = steady.windows(2).map(|pair| pair[1].since(*pair[0])).max();
        let longest = longest.unwrap();
        // Interval and jitter; those that hang share sixteen of the probes, a second each.
        let bound = if n % 5 == 0 { 14_000 } else { 5_600 };
        assert!(longest <= Duration::from_millis(bound), "{n}: {longest:?}");
    }
    check.shutdown().await.unwrap();
    let healthy = (0..4_096).map(|n| payments.pick(&draw(u64::MAX / 4_096 * n)).unwrap());
    assert!(
        healthy
            .into_iter()
            .all(|it| !probe.hangs.lock().contains(it.instance().id.as_str()))
    );
}

#[tokio::test(start_paused = true)]
async fn answer_of_its_own_needs_no_threshold_and_doubt_asks_sooner() {
    let payments = with_members(resolver::Config::default(), [instance("p-1", 1)]);
    let probe = Arc::new(Scripted::default());
    let (events, listener) = heard();
    let mut config = health::Config::default().listener(listener);
    config.jitter_percent = 0;
    config.initial_jitter = Duration::ZERO;
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    tokio::time::sleep(Duration::from_secs(1)).await;
    probe.say("p-1", Verdict::Critical("status 500".to_owned()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(payments.pick(&draw(0)).unwrap_err().unhealthy, 1);
    probe.say("p-1", Verdict::Pass);
    tokio::time::sleep(Duration::from_secs(9)).await;
    let asked = probe.asked("p-1");
    let pauses: Vec<_> = asked
        .windows(2)
        .map(|pair| pair[1].since(pair[0]).as_millis())
        .collect();
    // After the first pass it is asked again soon, and two passes in a row are enough.
    assert_eq!(
        pauses.iter().map(|it| (it + 50) / 100).collect::<Vec<_>>(),
        [50, 50, 10],
        "{pauses:?}"
    );
    let told: Vec<_> = events
        .lock()
        .iter()
        .filter_map(|event| match event {
            Event::HealthChanged { health, reason, .. } => Some((*health, reason.clone())),
            _ => None,
        })
        .collect();
    let expected = [
        (Health::Healthy, ""),
        (Health::Unhealthy, "status 500"),
        (Health::Healthy, ""),
    ];
    assert_eq!(
        told,
        expected.map(|(health, reason)| (health, reason.to_owned()))
    );
    check.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn flapping_member_is_held_back_and_released_and_both_are_told() {
    let payments = with_members(resolver::Config::default(), [instance("p-1", 1)]);
    let probe = Arc::new(Scripted::default());
    let (events, listener) = heard();
    let mut config = health::Config::default()
        .interval(Duration::from_secs(1))
        .listener(listener);
    config.thresholds = Thresholds::new(NonZeroU32::MIN, NonZeroU32::MIN);
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    for _ in 0..3 {
        probe.say("p-1", Verdict::Pass);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        probe.say("p-1", verdict(0));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    probe.say("p-1", Verdict::Pass);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(payments.pick(&draw(0)).unwrap_err().unhealthy, 1);
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert!(payments.pick(&draw(0)).is_ok());
    let flaps: Vec<_> = events
        .lock()
        .iter()
        .filter_map(|event| match event {
            Event::FlapSuppressed { remaining, .. } => Some(remaining.as_secs()),
            Event::FlapReleased { .. } => Some(0),
            _ => None,
        })
        .collect();
    assert_eq!(flaps.len(), 2, "{flaps:?}");
    // Two half-lives, less what the first two flaps had decayed.
    assert!(
        (115..=120).contains(&flaps[0]) && flaps[1] == 0,
        "{flaps:?}"
    );
    check.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn held_back_member_is_free_again_when_the_checker_stops() {
    let payments = with_members(resolver::Config::default(), [instance("p-1", 1)]);
    let probe = Arc::new(Scripted::default());
    let mut config = health::Config::default().interval(Duration::from_secs(1));
    config.thresholds = Thresholds::new(NonZeroU32::MIN, NonZeroU32::MIN);
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    for kind in [2, 0, 2, 0, 2, 0, 2] {
        probe.say("p-1", verdict(kind));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    assert!(payments.pick(&draw(0)).is_err());
    check.shutdown().await.unwrap();
    assert!(payments.pick(&draw(0)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn probe_is_told_to_forget_who_left_and_who_was_replaced() {
    let payments = with_members(
        resolver::Config::default(),
        [instance("p-1", 1), instance("p-2", 1)],
    );
    let probe = Arc::new(Scripted::default());
    let check = HealthCheck::start(
        Arc::clone(&probe) as _,
        payments.clone(),
        health::Config::default(),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    payments.apply(&snapshot([instance("p-1", 2)]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let forgotten = probe.forgotten.lock().clone();
    assert_eq!(forgotten, [("p-1".to_owned(), 1), ("p-2".to_owned(), 1)]);
    check.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rate_of_probes_is_bounded() {
    let members = (0..100).map(|n| instance(&format!("p-{n:02}"), 1));
    let payments = with_members(resolver::Config::default(), members);
    let probe = Arc::new(Scripted::default());
    let mut config = health::Config::default();
    config.max_per_second = NonZeroU32::new(10);
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments, config);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let asked: usize = probe.asked.lock().values().map(Vec::len).sum();
    assert!((295..=303).contains(&asked), "{asked}");
    assert_eq!(probe.asked.lock().len(), 100);
    check.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn member_that_was_lost_and_found_is_told_its_health_again() {
    let payments = with_members(resolver::Config::default(), [instance("p-1", 1)]);
    let probe = Arc::new(Scripted::default());
    probe.say("p-1", verdict(0));
    let check = HealthCheck::start(
        Arc::clone(&probe) as _,
        payments.clone(),
        health::Config::default(),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Faster than the checker looks: for it nothing has happened, and the resolver began anew.
    payments.apply(&snapshot([]));
    payments.apply(&snapshot([instance("p-1", 1)]));
    assert!(payments.pick(&draw(0)).is_ok());
    // Its next probe is seconds away.
    tokio::time::sleep(Duration::from_millis(12)).await;
    assert_eq!(payments.pick(&draw(0)).unwrap_err().unhealthy, 1);
    check.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn probe_is_told_to_forget_once_more_when_it_outlived_the_member() {
    let payments = with_members(resolver::Config::default(), [instance("p-1", 1)]);
    let probe = Arc::new(Scripted::default());
    probe.hangs.lock().insert("p-1".to_owned());
    let config = health::Config::default();
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    tokio::time::sleep(Duration::from_millis(300)).await;
    payments.apply(&snapshot([]));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(probe.forgotten.lock().len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What it kept at its end would otherwise stay.
    assert_eq!(
        *probe.forgotten.lock(),
        [("p-1".to_owned(), 1), ("p-1".to_owned(), 1)]
    );
    check.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn forbidden_probe_is_one_event_however_often_it_is_tried() {
    let payments = with_members(resolver::Config::default(), [instance("p-1", 1)]);
    let probe = Arc::new(Scripted::default());
    probe.say("p-1", Verdict::Forbidden("metadata".to_owned()));
    let (events, listener) = heard();
    let config = health::Config::default().listener(listener);
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(probe.asked("p-1").len() > 5);
    let forbidden = |event: &&Event| matches!(event, Event::ProbeForbidden { .. });
    assert_eq!(events.lock().iter().filter(forbidden).count(), 1);
    check.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn members_whose_first_probe_has_not_ended_cause_no_panic_where_a_check_is_required() {
    let members = ["p-1", "p-2", "p-3"].map(|id| instance(id, 1));
    let config = resolver::Config::default().require_check();
    let payments = Resolver::new(service(), config);
    payments.apply(&snapshot(members));
    let probe = Arc::new(Scripted::default());
    let slow = ["p-2", "p-3"].map(str::to_owned);
    probe.hangs.lock().extend(slow);
    let mut config = health::Config::default();
    config.timeout = Duration::from_secs(60);
    let check = HealthCheck::start(Arc::clone(&probe) as _, payments.clone(), config);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!payments.is_in_panic());
    for n in 0..64 {
        let picked = payments.pick(&draw(u64::MAX / 64 * n)).unwrap();
        assert_eq!(picked.instance().id.as_str(), "p-1");
    }
    check.shutdown().await.unwrap();
}
