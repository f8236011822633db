//! Values of grpc-go's tests, tables by hand, and a second reading of gRFC A50.

use std::time::Duration;

use orchestra_core::Monotonic;
use proptest::prelude::*;

use super::{Config, FailurePercentage, SuccessRate};
use crate::outlier::tests::{at, detector, ejected, external, restored};
use crate::outlier::{self, Change, Detector, Host, Interval, Percent, Report, Verdict, Withheld};

fn grpc(config: Config, hosts: u32) -> Detector {
    detector(outlier::Config::Grpc(config), hosts)
}

fn by_rate(rule: SuccessRate) -> Config {
    Config {
        success_rate: Some(rule),
        ..Config::default()
    }
}

fn by_failures(rule: FailurePercentage) -> Config {
    Config {
        failure_percentage: Some(rule),
        ..Config::default()
    }
}

/// Of the cases `three_upstreams_…` in grpc-go's `balancer_test.go`: five calls each.
fn three() -> FailurePercentage {
    FailurePercentage {
        threshold: Percent::new(50),
        minimum_hosts: 3,
        request_volume: 3,
        ..FailurePercentage::default()
    }
}

fn dead(dead: u32, total: u32) -> impl FnMut(Host) -> Interval {
    move |host| external(if host.number() < dead { 0 } else { total }, total)
}

fn idle(detector: &mut Detector, now: Monotonic) -> Vec<Verdict> {
    detector.sweep(now, 0, |_| Interval::default())
}

/// `three_upstreams_one_failure`: five calls each, all of one fail.
#[test]
fn one_upstream_of_three_goes() {
    let rule = SuccessRate {
        stdev_factor: 500,
        minimum_hosts: 3,
        request_volume: 3,
        ..SuccessRate::default()
    };
    for config in [by_rate(rule), by_failures(three())] {
        let mut detector = grpc(config, 3);
        assert_eq!(detector.sweep(at(10), 0, dead(0, 5)), []);
        assert_eq!(ejected(&detector.sweep(at(20), 0, dead(1, 5))), [0]);
        let next = detector.sweep(at(1020), 0, |_| Interval::default());
        assert_eq!(restored(&next), [0]);
    }
}

#[test]
fn enforcement_of_zero_and_a_cap_of_zero_let_nobody_go() {
    let unenforced = FailurePercentage {
        enforcement: Percent::ZERO,
        ..three()
    };
    let capped = Config {
        max_ejection: Percent::ZERO,
        ..by_failures(three())
    };
    for (config, expected) in [
        (by_failures(unenforced), Withheld::Enforcement),
        (capped, Withheld::Cap),
    ] {
        let verdicts = grpc(config, 3).sweep(at(10), 0, dead(1, 5));
        assert_eq!(verdicts.len(), 1);
        let Change::Withheld { by, .. } = verdicts[0].change else {
            panic!("{verdicts:?}");
        };
        assert_eq!(by, expected);
    }
}

/// The cap is looked at before the ejection: ten percent of three is one, and of twenty-one three.
#[test]
fn cap_stops_once_it_is_reached() {
    for (hosts, percent, room) in [
        (3, 10, 1),
        (10, 10, 1),
        (20, 10, 2),
        (21, 10, 3),
        (4, 50, 2),
        (3, 50, 2),
    ] {
        let config = Config {
            max_ejection: Percent::new(percent),
            ..by_failures(three())
        };
        let verdicts = grpc(config, hosts).sweep(at(10), 0, dead(hosts, 5));
        assert_eq!(ejected(&verdicts).len(), room, "{percent} % of {hosts}");
    }
}

#[test]
fn failure_percentage_must_be_exceeded() {
    let mut detector = grpc(by_failures(FailurePercentage::default()), 5);
    let verdicts = detector.sweep(at(10), 0, |host| match host.number() {
        0 => external(15, 100),
        1 => external(14, 100),
        _ => external(100, 100),
    });
    assert_eq!(ejected(&verdicts), [1]);
}

#[test]
fn host_comes_back_strictly_after_its_time() {
    let mut detector = grpc(by_failures(three()), 3);
    detector.sweep(at(10), 0, dead(1, 5));
    assert_eq!(idle(&mut detector, at(40)), []);
    let after = at(40) + Duration::from_nanos(1);
    assert_eq!(restored(&idle(&mut detector, after)), [0]);
}

#[test]
fn multiplier_grows_by_ejection_and_shrinks_by_sweep_in_service() {
    let mut detector = grpc(by_failures(three()), 3);
    detector.sweep(at(0), 0, dead(1, 5));
    assert_eq!(restored(&idle(&mut detector, at(31))), [0]);
    // Back since a sweep that did not yet lessen it: twice the base.
    detector.sweep(at(41), 0, dead(1, 5));
    assert_eq!(idle(&mut detector, at(101)), []);
    assert_eq!(restored(&idle(&mut detector, at(102))), [0]);
    idle(&mut detector, at(110));
    idle(&mut detector, at(120));
    // Two sweeps in service: once the base again.
    detector.sweep(at(130), 0, dead(1, 5));
    assert_eq!(restored(&idle(&mut detector, at(161))), [0]);
}

#[test]
fn longest_ejection_is_the_larger_of_base_and_maximum() {
    let config = Config {
        max_ejection_time: Duration::from_secs(5),
        ..by_failures(three())
    };
    let mut detector = grpc(config, 3);
    detector.sweep(at(0), 0, dead(1, 5));
    assert_eq!(idle(&mut detector, at(30)), []);
    assert_eq!(restored(&idle(&mut detector, at(31))), [0]);
}

#[test]
fn host_that_is_out_is_ejected_anew_if_it_has_calls_enough() {
    let config = Config {
        max_ejection: Percent::ALL,
        ..by_failures(three())
    };
    let mut detector = grpc(config, 3);
    detector.sweep(at(0), 0, dead(1, 5));
    assert_eq!(ejected(&detector.sweep(at(10), 0, dead(1, 5))), [0]);
    assert_eq!(detector.ejected(), 1);
    // The multiplier is two, and the time counts from the second.
    assert_eq!(idle(&mut detector, at(70)), []);
    assert_eq!(restored(&idle(&mut detector, at(71))), [0]);
}

/// `TestEjectFailureRate`: a configuration without an algorithm restores, and forgets the multipliers.
#[test]
fn no_algorithm_restores_everyone() {
    let mut detector = grpc(by_failures(three()), 3);
    detector.sweep(at(10), 0, dead(1, 5));
    let off = outlier::Config::Grpc(Config::default());
    assert_eq!(restored(&detector.reconfigure(off, at(11))), [0]);
    assert!(!detector.is_counting());
    assert_eq!(detector.next_sweep(), None);
    assert_eq!(detector.effect(Report::Error).external, None);
    assert_eq!(detector.sweep(at(12), 0, dead(3, 5)), []);
    let on = outlier::Config::Grpc(by_failures(three()));
    assert_eq!(detector.reconfigure(on, at(20)), []);
    assert_eq!(detector.next_sweep(), Some(at(30)));
    detector.sweep(at(30), 0, dead(1, 5));
    assert_eq!(restored(&idle(&mut detector, at(61))), [0]);
}

#[test]
fn timer_goes_on_from_the_last_start_with_the_new_interval() {
    let mut detector = grpc(by_failures(three()), 3);
    detector.sweep(at(10), 0, dead(0, 5));
    for (interval, next) in [(30, 40), (4, 14), (1, 11)] {
        let config = Config {
            interval: Duration::from_secs(interval),
            ..by_failures(three())
        };
        detector.reconfigure(outlier::Config::Grpc(config), at(12));
        assert_eq!(detector.next_sweep(), Some(at(next)));
    }
}

#[test]
fn streaks_and_active_checks_mean_nothing() {
    let mut detector = grpc(by_failures(three()), 3);
    assert_eq!(detector.thresholds(), outlier::Thresholds::default());
    detector.sweep(at(10), 0, dead(1, 5));
    assert_eq!(detector.active_check_passed(Host::new(0), at(11)), None);
    assert!(detector.is_ejected(Host::new(0)));
}

/// The rule once more, from the text of the proposal: hosts as (ejected at, multiplier).
struct Paper {
    config: Config,
    hosts: Vec<(Option<u64>, u64)>,
}

impl Paper {
    fn eject(&mut self, host: usize, now: u64) {
        let out = self.hosts.iter().filter(|it| it.0.is_some()).count() as f64;
        let percent = out / self.hosts.len() as f64 * 100.0;
        if percent < f64::from(self.config.max_ejection.get()) {
            self.hosts[host] = (Some(now), self.hosts[host].1 + 1);
        }
    }

    fn sweep(&mut self, now: u64, counts: &[(u32, u32)]) {
        let with_volume = |volume: u32| -> Vec<(usize, f64)> {
            let all = counts.iter().enumerate();
            let judged = all.filter(|(_, it)| it.1 > 0 && it.1 >= volume);
            judged
                .map(|(host, it)| (host, f64::from(it.0) / f64::from(it.1)))
                .collect()
        };
        if let Some(rule) = self.config.success_rate {
            let judged = with_volume(rule.request_volume);
            if judged.len() >= rule.minimum_hosts as usize {
                let n = judged.len() as f64;
                let mean = judged.iter().map(|it| it.1).sum::<f64>() / n;
                let variance = judged
                    .iter()
                    .map(|it| (it.1 - mean) * (it.1 - mean))
                    .sum::<f64>()
                    / n;
                let limit = mean - variance.sqrt() * (f64::from(rule.stdev_factor) / 1000.0);
                for (host, _) in judged.into_iter().filter(|it| it.1 < limit) {
                    self.eject(host, now);
                }
            }
        }
        if let Some(rule) = self.config.failure_percentage {
            let judged = with_volume(rule.request_volume);
            if judged.len() >= rule.minimum_hosts as usize {
                for (host, _) in judged {
                    let failures =
                        f64::from(counts[host].1 - counts[host].0) / f64::from(counts[host].1);
                    if failures * 100.0 > f64::from(rule.threshold.get()) {
                        self.eject(host, now);
                    }
                }
            }
        }
        for host in &mut self.hosts {
            match host.0 {
                None => host.1 = host.1.saturating_sub(1),
                Some(since) if now > since + (30 * host.1).min(300) => host.0 = None,
                Some(_) => {}
            }
        }
    }
}

fn counts(hosts: u32) -> impl Strategy<Value = Vec<(u32, u32)>> {
    let total = prop_oneof![Just(0_u32), 45..55_u32, 95..105_u32, 200..400_u32];
    let permille = prop_oneof![Just(0_u32), Just(150), 0..1000_u32, Just(1000)];
    let one = (total, permille).prop_map(|(total, permille)| (total * permille / 1000, total));
    prop::collection::vec(one, hosts as usize)
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
    (
        percents,
        any::<bool>(),
        any::<bool>(),
        0..7_u32,
        0..2500_u32,
    )
        .prop_map(
            |(max, rate, failures, minimum_hosts, stdev_factor)| Config {
                max_ejection: Percent::new(max),
                success_rate: rate.then(|| SuccessRate {
                    stdev_factor,
                    minimum_hosts,
                    ..SuccessRate::default()
                }),
                failure_percentage: (failures || !rate).then(|| FailurePercentage {
                    minimum_hosts,
                    ..FailurePercentage::default()
                }),
                ..Config::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn agrees_with_the_rule_on_paper(
        config in configs(),
        (hosts, sweeps) in (1..13_u32).prop_flat_map(|hosts| {
            (Just(hosts), prop::collection::vec((0..40_u64, counts(hosts)), 1..40))
        }),
    ) {
        let mut paper = Paper { config: config.clone(), hosts: vec![(None, 0); hosts as usize] };
        let mut detector = grpc(config, hosts);
        let mut now = 0;
        for (wait, counts) in sweeps {
            now += wait;
            paper.sweep(now, &counts);
            detector.sweep(at(now), 0, |host| {
                let (success, total) = counts[host.number() as usize];
                external(success, total)
            });
            for (index, host) in (0..).zip(&paper.hosts) {
                prop_assert_eq!(detector.is_ejected(Host::new(index)), host.0.is_some());
            }
        }
    }
}
