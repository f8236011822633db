//! Values of Envoy's `outlier_detection_impl_test.cc`, tables by hand, and a second reading of the rule.

use std::time::Duration;

use orchestra_core::{Monotonic, Score};
use proptest::prelude::*;

use super::{Config, Enforcing, SuccessRate};
use crate::outlier::tests::{at, detector, ejected, external, restored};
use crate::outlier::{
    self, Change, Counts, Detector, Host, Interval, Origin, Percent, Reason, Report, Step, Trigger,
    Verdict, Withheld,
};

const ERRORS: Trigger = Trigger::ConsecutiveErrors;

fn envoy(config: Config, hosts: u32) -> Detector {
    detector(outlier::Config::Envoy(config), hosts)
}

/// Any share of hosts may go, as most of Envoy's tests with a single host have it.
fn uncapped() -> Config {
    Config {
        max_ejection: Percent::ALL,
        ..Config::default()
    }
}

fn idle(detector: &mut Detector, now: Monotonic) -> Vec<Verdict> {
    detector.sweep(now, 0, |_| Interval::default())
}

fn reached(detector: &mut Detector, host: u32, now: Monotonic) -> Vec<u32> {
    let verdict = detector.reached(Host::new(host), ERRORS, now, 0);
    ejected(verdict.as_slice())
}

#[test]
fn defaults_are_envoys() {
    let config = Config::default();
    assert_eq!(config.interval, Duration::from_secs(10));
    assert_eq!(config.base_ejection_time, Duration::from_secs(30));
    assert_eq!(config.longest(), Duration::from_secs(300));
    assert_eq!(config.max_ejection.get(), 10);
    assert_eq!(config.enforcing.consecutive_gateway_failure, Percent::ZERO);
    assert_eq!(config.enforcing.failure_percentage, Percent::ZERO);
    assert_eq!(config.success_rate.stdev_factor, 1900);
    let long = Config {
        base_ejection_time: Duration::from_secs(400),
        ..Config::default()
    };
    assert_eq!(long.longest(), Duration::from_secs(400));
}

#[test]
fn base_time_is_over_at_the_first_sweep_at_or_after_it() {
    let mut detector = envoy(uncapped(), 2);
    assert_eq!(reached(&mut detector, 0, at(0)), [0]);
    assert_eq!(idle(&mut detector, at(10)), []);
    let just_before = Monotonic::from_nanos(30_000_000_000 - 1);
    assert_eq!(idle(&mut detector, just_before), []);
    assert_eq!(restored(&idle(&mut detector, at(30))), [0]);
}

#[test]
fn share_is_of_the_hosts_after_the_ejection() {
    // 100 * (ejected + 1) / hosts <= 10: none of nine, one of ten, one of nineteen, two of twenty.
    for (hosts, room) in [(1, 0), (9, 0), (10, 1), (19, 1), (20, 2), (30, 3)] {
        let mut detector = envoy(Config::default(), hosts);
        let out = (0..hosts).filter(|&host| !reached(&mut detector, host, at(0)).is_empty());
        assert_eq!(out.count(), room, "of {hosts}");
        let last = detector.reached(Host::new(hosts - 1), ERRORS, at(0), 0);
        let change = last.unwrap().change;
        assert!(matches!(
            change,
            Change::Withheld {
                by: Withheld::Cap,
                ..
            }
        ));
    }
}

#[test]
fn one_host_always_goes_if_so_configured() {
    let mut detector = envoy(
        Config {
            always_eject_one_host: true,
            ..Config::default()
        },
        3,
    );
    assert_eq!(reached(&mut detector, 2, at(0)), [2]);
    assert_eq!(reached(&mut detector, 1, at(0)), [0_u32; 0]);
}

/// `EjectTimeBackoff`: 10, 20, 30 s; two healthy intervals; 20 s; a long peace; 10 s.
#[test]
fn backoff_grows_by_ejection_and_shrinks_by_healthy_interval() {
    let config = Config {
        base_ejection_time: Duration::from_secs(10),
        ..uncapped()
    };
    let mut detector = envoy(config, 1);
    let stays = |detector: &mut Detector, from: u64, intervals: u64| {
        assert_eq!(reached(detector, 0, at(from)), [0]);
        for interval in 1..intervals {
            assert_eq!(idle(detector, at(from + 10 * interval)), [], "{from}");
        }
        assert_eq!(restored(&idle(detector, at(from + 10 * intervals))), [0]);
    };
    stays(&mut detector, 0, 1);
    stays(&mut detector, 10, 2);
    stays(&mut detector, 30, 3);
    idle(&mut detector, at(70));
    idle(&mut detector, at(80));
    stays(&mut detector, 80, 2);
    for interval in 1..=50 {
        idle(&mut detector, at(100 + 10 * interval));
    }
    stays(&mut detector, 610, 1);
}

/// `MaxEjectTime` and `MaxEjectTimeNotAlligned`: 300 s are reached in 30 ejections, 305 s in 31.
#[test]
fn ejection_never_lasts_longer_than_the_maximum() {
    for (longest, ejections) in [(300, 30), (305, 31)] {
        let config = Config {
            base_ejection_time: Duration::from_secs(10),
            max_ejection_time: Some(Duration::from_secs(longest)),
            ..uncapped()
        };
        let mut detector = envoy(config, 1);
        let mut now = 0;
        for ejection in 1..ejections + 10 {
            assert_eq!(reached(&mut detector, 0, at(now)), [0]);
            for _ in 1..ejection.min(ejections) {
                now += 10;
                assert_eq!(idle(&mut detector, at(now)), [], "{ejection}");
            }
            now += 10;
            assert_eq!(restored(&idle(&mut detector, at(now))), [0], "{ejection}");
        }
    }
}

/// The backoff stops at 11, where 11 · 30 s = 300 s + 30 s: three healthy intervals make the next one the ninth.
#[test]
fn backoff_stops_one_step_beyond_the_maximum() {
    let mut detector = envoy(uncapped(), 1);
    let mut now = 0;
    for _ in 0..20 {
        assert_eq!(reached(&mut detector, 0, at(now)), [0]);
        now += 300;
        assert_eq!(restored(&idle(&mut detector, at(now))), [0]);
    }
    for _ in 0..3 {
        now += 10;
        idle(&mut detector, at(now));
    }
    assert_eq!(reached(&mut detector, 0, at(now)), [0]);
    assert_eq!(idle(&mut detector, at(now + 269)), []);
    assert_eq!(restored(&idle(&mut detector, at(now + 270))), [0]);
}

/// `EjectionTimeJitterIsInRange`: 123456789 modulo 10001 is 4445.
#[test]
fn jitter_is_the_draw_modulo_the_milliseconds() {
    let config = Config {
        max_ejection_time_jitter: Duration::from_secs(10),
        ..uncapped()
    };
    let mut detector = envoy(config, 1);
    let verdict = detector.reached(Host::new(0), ERRORS, at(0), 123_456_789);
    let Change::Ejected { back_at, .. } = verdict.unwrap().change else {
        panic!("not ejected: {verdict:?}");
    };
    let expected = Duration::from_millis(30_000 + 4445);
    assert_eq!(back_at.since(at(0)), expected);
    let before = Monotonic::from_nanos(back_at.as_nanos() - 1);
    assert_eq!(idle(&mut detector, before), []);
    assert_eq!(restored(&idle(&mut detector, back_at)), [0]);
}

/// `BasicFlowSuccessRate…`: four hosts at 100 % and one at 50 %: mean 90, threshold 52.
#[test]
fn success_rate_numbers_are_envoys() {
    let config = Config {
        max_ejection: Percent::new(20),
        ..Config::default()
    };
    let mut detector = envoy(config, 5);
    let half = |host: Host| external(if host.number() == 4 { 200 } else { 400 }, 400);
    let verdicts = detector.sweep(at(10), 0, half);
    let share = Score::clamped;
    let reason = Reason::SuccessRate {
        origin: Origin::External,
        rate: share(0.5),
        typical: share(0.9),
        threshold: share(0.52),
    };
    let expected = Verdict::ejected(Host::new(4), reason, at(40));
    assert_eq!(verdicts, [expected]);
    // Ejected, it is left out of the mean; with four hosts left nobody is compared.
    let verdicts = detector.sweep(at(20), 0, |host: Host| {
        external(if host.number() == 0 { 0 } else { 400 }, 400)
    });
    assert_eq!(verdicts, []);
}

#[test]
fn success_rate_asks_for_volume_and_hosts() {
    let config = || Config {
        max_ejection: Percent::ALL,
        ..Config::default()
    };
    let bad = |host: Host, total: u32| external(if host.number() == 0 { 0 } else { total }, total);
    for (hosts, total, out) in [(6, 100, 1), (6, 99, 0), (5, 100, 1), (4, 100, 0)] {
        let mut detector = envoy(config(), hosts);
        let verdicts = detector.sweep(at(10), 0, |host| bad(host, total));
        assert_eq!(
            ejected(&verdicts).len(),
            out,
            "{hosts} hosts, {total} calls"
        );
    }
}

/// The blind spot of mean and deviation: four of twenty dead hosts are found, five hide each other.
#[test]
fn more_than_a_fifth_of_dead_hosts_hide_each_other() {
    for (dead, found) in [(1, 1), (4, 4), (5, 0), (8, 0)] {
        let mut detector = envoy(uncapped(), 20);
        let verdicts = detector.sweep(at(10), 0, |host| {
            external(if host.number() < dead { 0 } else { 100 }, 100)
        });
        assert_eq!(ejected(&verdicts).len(), found, "{dead} dead");
    }
}

/// `BasicFlowFailurePercentage…`: 250 of 300 is below 85 %, 300 of 350 above; 85 of 100 is enough.
#[test]
fn failure_percentage_is_reached_and_need_not_be_exceeded() {
    let config = Config {
        enforcing: Enforcing {
            success_rate: Percent::ZERO,
            failure_percentage: Percent::ALL,
            ..Enforcing::default()
        },
        ..uncapped()
    };
    let mut detector = envoy(config, 6);
    let verdicts = detector.sweep(at(10), 0, |host| match host.number() {
        3 => external(50, 300),
        4 => external(50, 350),
        5 => external(15, 100),
        _ => external(50, 50),
    });
    assert_eq!(ejected(&verdicts), [4, 5]);
}

/// A host that the success rate is not let to eject is tried by failure percentage; one that is ejected is not.
#[test]
fn failure_percentage_comes_after_success_rate() {
    for (enforced, by_rate) in [(Percent::ALL, true), (Percent::ZERO, false)] {
        let config = Config {
            enforcing: Enforcing {
                success_rate: enforced,
                failure_percentage: Percent::ALL,
                ..Enforcing::default()
            },
            ..uncapped()
        };
        let mut detector = envoy(config, 10);
        let dead = |host: Host| external(if host.number() == 0 { 0 } else { 100 }, 100);
        let verdicts = detector.sweep(at(10), 0, dead);
        assert_eq!(ejected(&verdicts), [0]);
        assert_eq!(detector.ejected(), 1);
        assert_eq!(verdicts.len(), if by_rate { 1 } else { 2 });
        let Change::Ejected { reason, .. } = verdicts.last().unwrap().change else {
            panic!("{verdicts:?}");
        };
        assert_eq!(matches!(reason, Reason::SuccessRate { .. }), by_rate);
    }
}

/// `BasicFlowSuccessRateLocalOrigin`: the same numbers from the counts of local origin.
#[test]
fn local_origin_is_compared_apart_when_it_is_split() {
    let local = |host: Host| Interval {
        local_origin: Counts::new(if host.number() == 4 { 200 } else { 400 }, 400),
        ..Interval::default()
    };
    let mut joint = envoy(uncapped(), 5);
    assert_eq!(joint.sweep(at(10), 0, local), []);
    let config = Config {
        split_local_origin: true,
        ..uncapped()
    };
    let mut split = envoy(config, 5);
    let verdicts = split.sweep(at(10), 0, local);
    assert_eq!(ejected(&verdicts), [4]);
    let Change::Ejected { reason, .. } = verdicts[0].change else {
        panic!("{verdicts:?}");
    };
    let is_local = matches!(
        reason,
        Reason::SuccessRate {
            origin: Origin::Local,
            ..
        }
    );
    assert!(is_local, "{reason:?}");
}

#[test]
fn gateway_streak_is_detected_and_by_default_not_enforced() {
    let mut detector = envoy(uncapped(), 1);
    let verdict = detector.reached(Host::new(0), Trigger::ConsecutiveGateway, at(0), 0);
    let by = match verdict.unwrap().change {
        Change::Withheld { by, .. } => Some(by),
        _ => None,
    };
    assert_eq!(by, Some(Withheld::Enforcement));
}

#[test]
fn enforcing_is_the_draw_modulo_a_hundred_below_the_share() {
    let config = Config {
        enforcing: Enforcing {
            consecutive_5xx: Percent::new(30),
            ..Enforcing::default()
        },
        ..uncapped()
    };
    for (draw, goes) in [(0, true), (29, true), (30, false), (99, false), (129, true)] {
        let mut detector = envoy(config.clone(), 1);
        let verdict = detector.reached(Host::new(0), ERRORS, at(0), draw).unwrap();
        assert_eq!(!ejected(&[verdict]).is_empty(), goes, "{draw}");
    }
}

#[test]
fn passed_active_check_restores_and_lessens_nothing() {
    let mut detector = envoy(uncapped(), 1);
    reached(&mut detector, 0, at(0));
    let verdict = detector.active_check_passed(Host::new(0), at(1));
    assert_eq!(restored(verdict.as_slice()), [0]);
    assert_eq!(detector.active_check_passed(Host::new(0), at(1)), None);
    // The second ejection lasts twice the base.
    reached(&mut detector, 0, at(2));
    assert_eq!(idle(&mut detector, at(61)), []);
    assert_eq!(restored(&idle(&mut detector, at(62))), [0]);

    let config = Config {
        active_check_restores: false,
        ..uncapped()
    };
    let mut detector = envoy(config, 1);
    reached(&mut detector, 0, at(0));
    assert_eq!(detector.active_check_passed(Host::new(0), at(1)), None);
}

#[test]
fn ejected_host_is_not_ejected_again() {
    let mut detector = envoy(uncapped(), 1);
    assert_eq!(reached(&mut detector, 0, at(0)), [0]);
    assert_eq!(detector.reached(Host::new(0), ERRORS, at(5), 0), None);
    assert_eq!(restored(&idle(&mut detector, at(30))), [0]);
}

#[test]
fn local_errors_count_as_gateway_errors_unless_split() {
    let joint = envoy(uncapped(), 1);
    for report in [Report::TimedOut, Report::ConnectFailed, Report::Gateway] {
        let effect = joint.effect(report);
        assert_eq!((effect.external, effect.local_origin), (Some(false), None));
        assert_eq!(
            (effect.errors, effect.gateway),
            (Step::Extend, Step::Extend)
        );
    }
    let effect = joint.effect(Report::Error);
    assert_eq!((effect.errors, effect.gateway), (Step::Extend, Step::Reset));
    assert_eq!(joint.effect(Report::Connected).external, None);
    assert_eq!(joint.thresholds().local_origin, None);

    let config = Config {
        split_local_origin: true,
        ..uncapped()
    };
    let split = envoy(config, 1);
    let effect = split.effect(Report::TimedOut);
    assert_eq!((effect.external, effect.local_origin), (None, Some(false)));
    assert_eq!(
        (effect.errors, effect.local_streak),
        (Step::Keep, Step::Extend)
    );
    // A failed answer says nothing of the connection, a success does.
    assert_eq!(split.effect(Report::Error).local_streak, Step::Keep);
    assert_eq!(split.effect(Report::Success).local_streak, Step::Reset);
    let effect = split.effect(Report::Connected);
    assert_eq!((effect.external, effect.local_origin), (None, Some(true)));
    assert_eq!(effect.errors, Step::Keep);
}

/// The rule once more, written down from its description as one would on paper.
struct Paper {
    config: Config,
    hosts: Vec<PaperHost>,
}

#[derive(Clone, Default)]
struct PaperHost {
    out_at: Option<u64>,
    back_at: Option<u64>,
    backoff: u64,
}

impl Paper {
    fn try_eject(&mut self, host: usize, enforced: Percent, now: u64) {
        let out = self.hosts.iter().filter(|it| it.out_at.is_some()).count() as u64;
        let room =
            100 * (out + 1) <= u64::from(self.config.max_ejection.get()) * self.hosts.len() as u64;
        let room = room || (out == 0 && self.config.always_eject_one_host);
        let host = &mut self.hosts[host];
        if host.out_at.is_none() && room && enforced == Percent::ALL {
            host.out_at = Some(now);
            if host.backoff * 30 < 300 + 30 {
                host.backoff += 1;
            }
        }
    }

    fn sweep(&mut self, now: u64, counts: &[(u32, u32)]) {
        for host in &mut self.hosts {
            if host
                .out_at
                .is_some_and(|at| (host.backoff * 30).min(300) <= now - at)
            {
                host.out_at = None;
                host.back_at = Some(now);
            }
        }
        let rates: Vec<(usize, f64, u32)> = (0..self.hosts.len())
            .filter(|&host| self.hosts[host].out_at.is_none() && counts[host].1 > 0)
            .map(|host| {
                (
                    host,
                    f64::from(counts[host].0) * 100.0 / f64::from(counts[host].1),
                    counts[host].1,
                )
            })
            .collect();
        let rule = self.config.success_rate;
        let judged: Vec<_> = rates
            .iter()
            .filter(|it| it.2 >= rule.request_volume)
            .collect();
        if !judged.is_empty() && judged.len() >= rule.minimum_hosts as usize {
            let n = judged.len() as f64;
            let mean = judged.iter().map(|it| it.1).sum::<f64>() / n;
            let variance = judged.iter().map(|it| (it.1 - mean).powi(2)).sum::<f64>() / n;
            let limit = mean - f64::from(rule.stdev_factor) / 1000.0 * variance.sqrt();
            for it in judged.iter().filter(|it| it.1 < limit) {
                self.try_eject(it.0, self.config.enforcing.success_rate, now);
            }
        }
        let rule = self.config.failure_percentage;
        let judged: Vec<_> = rates
            .iter()
            .filter(|it| it.2 >= rule.request_volume)
            .collect();
        if !judged.is_empty() && judged.len() >= rule.minimum_hosts as usize {
            let limit = f64::from(rule.threshold.get());
            for it in judged.iter().filter(|it| 100.0 - it.1 >= limit) {
                self.try_eject(it.0, self.config.enforcing.failure_percentage, now);
            }
        }
        for host in self.hosts.iter_mut().filter(|it| it.out_at.is_none()) {
            if host.back_at.is_some_and(|at| now - at >= 10) {
                host.backoff = host.backoff.saturating_sub(1);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Wait(u64),
    Streak(u32),
    Check(u32),
    Sweep(Vec<(u32, u32)>),
}

fn op(hosts: u32) -> impl Strategy<Value = Op> {
    let total = prop_oneof![Just(0_u32), 45..55_u32, 95..105_u32, 200..400_u32];
    let counts = (
        total,
        prop_oneof![Just(0_u32), Just(150), 0..1000_u32, Just(1000)],
    )
        .prop_map(|(total, permille)| (total * permille / 1000, total));
    prop_oneof![
        (1..40_u64).prop_map(Op::Wait),
        (0..hosts).prop_map(Op::Streak),
        (0..hosts).prop_map(Op::Check),
        prop::collection::vec(counts, hosts as usize).prop_map(Op::Sweep),
    ]
}

fn configs() -> impl Strategy<Value = Config> {
    let percents = prop_oneof![
        Just(0_u8),
        Just(10),
        Just(20),
        Just(34),
        Just(50),
        Just(100)
    ];
    let switch = || prop_oneof![Just(Percent::ZERO), Just(Percent::ALL)];
    (
        percents,
        any::<bool>(),
        switch(),
        switch(),
        0..7_u32,
        0..2500_u32,
    )
        .prop_map(
            |(max, always, success_rate, failure_percentage, minimum_hosts, stdev_factor)| Config {
                max_ejection: Percent::new(max),
                always_eject_one_host: always,
                success_rate: SuccessRate {
                    minimum_hosts,
                    stdev_factor,
                    ..SuccessRate::default()
                },
                enforcing: Enforcing {
                    success_rate,
                    failure_percentage,
                    ..Enforcing::default()
                },
                ..Config::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn agrees_with_the_rule_on_paper(
        config in configs(),
        (hosts, ops) in (1..13_u32)
            .prop_flat_map(|hosts| (Just(hosts), prop::collection::vec(op(hosts), 1..60))),
    ) {
        let mut paper = Paper { config: config.clone(), hosts: vec![PaperHost::default(); hosts as usize] };
        let mut detector = envoy(config, hosts);
        let mut now = 0;
        for op in ops {
            match op {
                Op::Wait(seconds) => now += seconds,
                Op::Streak(host) => {
                    paper.try_eject(host as usize, Percent::ALL, now);
                    detector.reached(Host::new(host), ERRORS, at(now), 0);
                }
                Op::Check(host) => {
                    if paper.hosts[host as usize].out_at.take().is_some() {
                        paper.hosts[host as usize].back_at = Some(now);
                    }
                    detector.active_check_passed(Host::new(host), at(now));
                }
                Op::Sweep(counts) => {
                    paper.sweep(now, &counts);
                    detector.sweep(at(now), 0, |host| {
                        let (success, total) = counts[host.number() as usize];
                        external(success, total)
                    });
                }
            }
            for (index, host) in (0..).zip(&paper.hosts) {
                prop_assert_eq!(detector.is_ejected(Host::new(index)), host.out_at.is_some());
            }
        }
    }
}
