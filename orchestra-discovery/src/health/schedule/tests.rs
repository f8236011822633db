use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::health::Thresholds;
use crate::instance::Incarnation;

fn at(millis: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_millis(millis)
}

fn instance(n: usize, incarnation: u64) -> Arc<Instance> {
    Arc::new(Instance::new(
        "payments".parse().unwrap(),
        format!("p-{n:04}").parse().unwrap(),
        Incarnation::new(incarnation),
        "127.0.0.1:80".parse().unwrap(),
    ))
}

/// No jitter, so that every moment can be foretold.
fn plain() -> Config {
    Config {
        jitter_percent: 0,
        initial_jitter: Duration::ZERO,
        ..Config::default()
    }
}

fn fail() -> Verdict {
    Verdict::Fail("503".to_owned())
}

/// Watches one instance and gives it these verdicts, each at the moment its probe is due.
fn told(config: Config, verdicts: &[Verdict]) -> Vec<(Monotonic, Health, bool)> {
    let mut schedule = Schedule::new(config);
    schedule.sync(vec![instance(0, 1)], at(0), || 0);
    let mut found = Vec::new();
    for verdict in verdicts {
        let now = schedule.next_due(true).unwrap();
        let (instance, _) = schedule.take_due(now, true).unwrap();
        let ended = Ended {
            instance: &instance,
            verdict,
            took: Duration::ZERO,
        };
        let finding = schedule.observe(&ended, now, 0).unwrap();
        found.push((now, finding.health, finding.is_new));
    }
    found
}

#[test]
fn first_probe_is_at_once_and_doubt_asks_sooner() {
    let verdicts = [
        Verdict::Pass,
        Verdict::Pass,
        fail(),
        fail(),
        fail(),
        fail(),
        Verdict::Pass,
    ];
    let config = Config {
        unhealthy: Some(Duration::from_secs(3)),
        ..plain()
    };
    let mut found = told(config, &verdicts);
    let expected = [
        (0, Health::Healthy, true),
        (5_000, Health::Healthy, false),
        (10_000, Health::Healthy, false),
        (11_000, Health::Healthy, false),
        (12_000, Health::Unhealthy, true),
        (15_000, Health::Unhealthy, false),
        (18_000, Health::Unhealthy, false),
    ];
    let expected = expected.map(|(millis, health, is_new)| (at(millis), health, is_new));
    assert_eq!(found, expected);
    // What an instance says of itself needs no threshold.
    found = told(
        plain(),
        &[Verdict::Pass, Verdict::Critical("503".to_owned())],
    );
    assert_eq!(found[1].1, Health::Unhealthy);
}

#[test]
fn jitter_of_both_kinds_adds_up() {
    let config = Config {
        jitter: Duration::from_secs(2),
        jitter_percent: 20,
        ..plain()
    };
    let mut tally = Tally::default();
    tally.observe(Thresholds::default(), &Verdict::Pass);
    assert_eq!(pause(&config, &tally, 0), Duration::from_secs(5));
    let longest = pause(&config, &tally, u64::MAX);
    assert!(longest > Duration::from_millis(7_999) && longest <= Duration::from_secs(8));
    let share_alone = pause(&config, &tally, u64::from(u32::MAX));
    assert!(
        share_alone > Duration::from_millis(5_999) && share_alone < Duration::from_millis(6_001)
    );
}

#[test]
fn one_that_flaps_is_held_back_until_it_was_quiet_for_long_enough() {
    let once = Thresholds::new(NonZeroU32::MIN, NonZeroU32::MIN);
    let config = Config {
        thresholds: once,
        ..plain()
    };
    let mut schedule = Schedule::new(config);
    schedule.sync(vec![instance(0, 1)], at(0), || 0);
    let mut suppressed = Vec::new();
    let mut probe = |schedule: &mut Schedule, verdict: &Verdict| {
        let now = schedule.next_due(true).unwrap();
        let (instance, _) = schedule.take_due(now, true).unwrap();
        let took = Duration::ZERO;
        let ended = Ended {
            instance: &instance,
            verdict,
            took,
        };
        let finding = schedule.observe(&ended, now, 0).unwrap();
        suppressed.extend(finding.suppressed.map(|until| (now, until)));
        (now, finding.health)
    };
    for _ in 0..3 {
        probe(&mut schedule, &Verdict::Pass);
        probe(&mut schedule, &fail());
    }
    let (now, health) = probe(&mut schedule, &Verdict::Pass);
    assert_eq!((now, health), (at(30_000), Health::Unhealthy));
    let release = schedule.next_release().unwrap();
    assert_eq!(schedule.release(at(100_000)), None);
    let Release { id, news } = schedule.release(release).unwrap();
    assert_eq!((id.as_str(), news.unwrap().1), ("p-0000", Health::Healthy));
    assert_eq!(suppressed.len(), 1);
    assert_eq!(suppressed[0], (at(25_000), release));
}

#[test]
fn record_of_flaps_outlives_the_registration_and_a_replacement_is_a_flap() {
    let mut schedule = Schedule::new(plain());
    schedule.sync(vec![instance(0, 1)], at(0), || 0);
    // A departure and a return are none.
    schedule.sync(vec![], at(1), || 0);
    schedule.sync(vec![instance(0, 2)], at(2), || 0);
    schedule.sync(vec![instance(0, 3)], at(3), || 0);
    schedule.sync(vec![instance(0, 4)], at(4), || 0);
    schedule.sync(vec![], at(5), || 0);
    schedule.sync(vec![instance(0, 5)], at(6), || 0);
    let third = schedule.sync(vec![instance(0, 6)], at(7), || 0);
    assert_eq!(third.suppressed.len(), 1);
    assert_eq!(third.left, [instance(0, 5)]);
    schedule.sync(vec![], at(8), || 0);
    let back = schedule.sync(vec![instance(0, 7)], at(9), || 0);
    assert_eq!(back.arrived, [(instance(0, 7), Health::Unhealthy)]);
    let Release { id, news } = schedule.release(at(200_000)).unwrap();
    assert_eq!((id.as_str(), news), ("p-0000", None));
}

#[test]
fn failing_from_the_start_and_being_replaced_while_failing_are_no_flaps() {
    let mut schedule = Schedule::new(plain());
    for incarnation in 1..9 {
        let now = at(incarnation * 10);
        let turnover = schedule.sync(vec![instance(0, incarnation)], now, || 0);
        assert_eq!(turnover.suppressed, []);
        let (instance, _) = schedule.take_due(now, true).unwrap();
        let ended = Ended {
            instance: &instance,
            verdict: &fail(),
            took: Duration::ZERO,
        };
        let finding = schedule.observe(&ended, now, 0).unwrap();
        assert_eq!(
            (finding.health, finding.suppressed),
            (Health::Unhealthy, None)
        );
    }
    assert_eq!(schedule.next_release(), None);
}

#[test]
fn verdict_from_before_a_departure_is_passed_over_after_the_return() {
    let mut schedule = Schedule::new(plain());
    schedule.sync(vec![instance(0, 1)], at(0), || 0);
    let (early, _) = schedule.take_due(at(0), true).unwrap();
    schedule.sync(vec![], at(1), || 0);
    schedule.sync(vec![instance(0, 1)], at(2), || 0);
    let ended = Ended {
        instance: &early,
        verdict: &fail(),
        took: Duration::ZERO,
    };
    assert_eq!(schedule.observe(&ended, at(3), 0), None);
    assert_eq!(schedule.next_due(true), Some(at(2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Probes that take long, in any number, against a bound on probes at a time.
    #[test]
    fn everybody_gets_a_turn_and_the_slow_do_not_keep_the_others_waiting(
        took in proptest::collection::vec(prop_oneof![Just(1_u64), Just(1_000)], 1..60),
        cap in 1..8_usize,
    ) {
        let mut schedule = Schedule::new(plain());
        let members = (0..took.len()).map(|n| instance(n, 1)).collect();
        schedule.sync(members, at(0), || 0);
        let slow_cap = cap.div_ceil(2);
        let mut running: Vec<(u64, Arc<Instance>, Lane)> = Vec::new();
        let mut began = vec![Vec::new(); took.len()];
        let number = |instance: &Instance| instance.id.as_str()[2..].parse::<usize>().unwrap();
        for millis in 0..120_000 {
            let (done, rest) = running.into_iter().partition(|(end, ..)| *end <= millis);
            running = rest;
            let done: Vec<_> = done;
            for (_, instance, _) in done {
                let took = Duration::from_millis(took[number(&instance)]);
                let ended = Ended { instance: &instance, verdict: &Verdict::Pass, took };
                prop_assert!(schedule.observe(&ended, at(millis), 0).is_some());
            }
            loop {
                let slow = running.iter().filter(|(.., lane)| *lane == Lane::Slow).count();
                prop_assert!(slow <= slow_cap);
                if running.len() >= cap {
                    break;
                }
                let Some((instance, lane)) = schedule.take_due(at(millis), slow < slow_cap) else { break };
                let n = number(&instance);
                began[n].push(millis);
                running.push((millis + took[n], instance, lane));
            }
        }
        let slow = took.iter().filter(|took| **took > 1).count() as u64;
        // One round of the slow, at the worst one at a time in their share.
        let round = 6_000 + 1_000 * slow.div_ceil(slow_cap as u64);
        for (n, began) in began.iter().enumerate() {
            let steady: Vec<_> = began.iter().filter(|at| **at > 61_000).collect();
            prop_assert!(!began.is_empty());
            for pair in steady.windows(2) {
                let gap = pair[1] - pair[0];
                // With two probes at a time and more, one is always free for those that answer.
                if took[n] == 1 && cap > 1 {
                    prop_assert!(gap <= 5_001 + took.len() as u64, "{gap}");
                } else {
                    prop_assert!(gap <= round + 1_000 + took.len() as u64, "{gap} > {round}");
                }
            }
        }
    }
}
