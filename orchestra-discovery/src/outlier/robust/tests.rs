//! Simulated fleets: who must be found, who must not, and how they come back. Seeds are part of the names that
//! a failure prints.

use std::time::Duration;

use orchestra_core::Monotonic;
use proptest::prelude::*;

use super::{Config, Recovery};
use crate::outlier::tests::{at, detector, ejected, external, restored};
use crate::outlier::{
    self, Change, Counts, Detector, Host, Interval, Percent, Reason, Trigger, Verdict, Withheld,
    envoy,
};

const ERRORS: Trigger = Trigger::ConsecutiveErrors;

fn robust(config: Config, hosts: u32) -> Detector {
    detector(outlier::Config::Robust(config), hosts)
}

/// The share that may be out does not matter in these.
fn uncapped() -> Config {
    Config {
        max_ejection: Percent::ALL,
        ..Config::default()
    }
}

/// Random numbers of a fleet.
struct Fleet(fastrand::Rng);

impl Fleet {
    fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.f64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.0.f64()).cos()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number that is not negative"
    )]
    /// By inversion where the mean is small, by the normal law where that is as good.
    fn poisson(&mut self, mean: f64) -> u32 {
        if mean > 200.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u32;
        }
        let (mut draw, mut term, mut count) = (self.0.f64(), (-mean).exp(), 0);
        while draw > term && count < 1000 {
            draw -= term;
            count += 1;
            term *= mean / f64::from(count);
        }
        count
    }

    /// Poisson calls, each failing with this probability: two independent Poisson numbers.
    fn counts(&mut self, calls: f64, error_rate: f64) -> Counts {
        let errors = self.poisson(calls * error_rate);
        let success = self.poisson(calls * (1.0 - error_rate));
        Counts::new(success, success + errors)
    }

    fn interval(&mut self, calls: f64, error_rate: f64) -> Interval {
        Interval {
            external: self.counts(calls, error_rate),
            ..Interval::default()
        }
    }

    /// The mean of so many exponential service times.
    fn mean_latency(&mut self, calls: u32, mean: Duration) -> Option<Duration> {
        let sum: f64 = (0..calls).map(|_| -(1.0 - self.0.f64()).ln()).sum();
        (calls > 0).then(|| mean.mul_f64(sum / f64::from(calls)))
    }
}

/// Who is out after so many sweeps of a fleet whose first hosts fail at `bad` and the others at `good`.
fn out_after(
    sweeps: u64,
    config: Config,
    hosts: u32,
    dead: u32,
    rates: (f64, f64),
    calls: f64,
    seed: u64,
) -> Vec<u32> {
    let mut fleet = Fleet::new(seed);
    let mut detector = robust(config, hosts);
    for sweep in 1..=sweeps {
        detector.sweep(at(5 * sweep), seed, |host| {
            let is_dead = host.number() < dead;
            fleet.interval(calls, if is_dead { rates.0 } else { rates.1 })
        });
    }
    (0..hosts)
        .filter(|&host| detector.is_ejected(Host::new(host)))
        .collect()
}

fn first(hosts: u32) -> Vec<u32> {
    (0..hosts).collect()
}

#[test]
fn dead_hosts_do_not_hide_each_other() {
    for (hosts, dead) in [
        (2, 1),
        (3, 1),
        (5, 1),
        (5, 2),
        (10, 2),
        (10, 4),
        (100, 1),
        (100, 21),
        (100, 40),
        (100, 45),
    ] {
        for calls in [30.0, 100.0, 1000.0] {
            for seed in 0..20 {
                // Failing entirely is also over the absolute limit: without it the comparison must do.
                let config = Config {
                    failure_percentage: None,
                    ..Config::default()
                };
                let out = out_after(1, config, hosts, dead, (1.0, 0.01), calls, seed);
                assert_eq!(
                    out,
                    first(dead),
                    "{dead} of {hosts}, {calls} calls, seed {seed}"
                );
            }
        }
    }
}

#[test]
fn half_dead_hosts_are_found_within_two_sweeps() {
    for (hosts, dead) in [
        (5, 1),
        (10, 2),
        (10, 4),
        (100, 1),
        (100, 21),
        (100, 40),
        (100, 45),
    ] {
        for (calls, error_rate) in [(50.0, 0.01), (100.0, 0.01), (100.0, 0.05), (1000.0, 0.05)] {
            for seed in 0..20 {
                let out = out_after(
                    2,
                    Config::default(),
                    hosts,
                    dead,
                    (0.5, error_rate),
                    calls,
                    seed,
                );
                assert_eq!(
                    out,
                    first(dead),
                    "{dead} of {hosts}, {calls} calls, seed {seed}"
                );
            }
        }
    }
}

/// Of all the hosts half dead with few calls, nineteen of twenty are found in two sweeps, and no other.
#[test]
fn few_calls_are_enough_for_most() {
    let (mut found, mut all) = (0, 0);
    for seed in 0..40 {
        let out = out_after(2, Config::default(), 100, 40, (0.5, 0.05), 20.0, seed);
        assert!(out.iter().all(|&host| host < 40), "seed {seed}: {out:?}");
        found += out.len();
        all += 40;
    }
    assert!(found * 20 >= all * 19, "{found} of {all}");
}

#[test]
fn envoy_finds_none_of_forty_dead_where_robust_finds_all() {
    let config = envoy::Config {
        max_ejection: Percent::ALL,
        ..envoy::Config::default()
    };
    let mut detector = detector(outlier::Config::Envoy(config), 100);
    let verdicts = detector.sweep(at(10), 0, |host| {
        external(if host.number() < 40 { 0 } else { 100 }, 100)
    });
    assert_eq!(ejected(&verdicts), [0_u32; 0]);
    assert_eq!(
        out_after(1, Config::default(), 100, 40, (1.0, 0.0), 100.0, 1),
        first(40)
    );
}

#[test]
fn homogeneous_noise_ejects_nobody_in_a_thousand() {
    const SEEDS: u64 = 20;
    for hosts in [5, 20, 100] {
        for calls in [20.0, 50.0, 100.0, 300.0, 1000.0] {
            for error_rate in [0.001, 0.01, 0.05] {
                let (mut wrong, mut judged) = (0, 0);
                // More sweeps of fewer hosts, so that each case judges some 40,000.
                let sweeps = 2000 / u64::from(hosts);
                for seed in 0..SEEDS {
                    let mut fleet = Fleet::new(seed);
                    let mut detector = robust(uncapped(), hosts);
                    for sweep in 1..=sweeps {
                        let verdicts = detector
                            .sweep(at(5 * sweep), seed, |_| fleet.interval(calls, error_rate));
                        wrong += ejected(&verdicts).len();
                        judged += hosts as usize;
                    }
                }
                assert!(
                    wrong * 1000 <= judged,
                    "{wrong} of {judged}: {hosts} hosts, {calls} calls at {error_rate}"
                );
            }
        }
    }
}

/// As the hosts are, with streaks taken call by call at the thresholds that the detector names.
#[test]
fn streaks_of_homogeneous_noise_eject_nobody_in_a_thousand() {
    for (calls, error_rate) in [(300, 0.05), (1000, 0.05), (300, 0.3), (100, 0.6)] {
        let (mut wrong, mut judged) = (0, 0);
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut detector = robust(uncapped(), 20);
            let mut streaks = [0_u32; 20];
            // The first interval teaches the rate.
            for sweep in 1..=6 {
                let threshold = detector.thresholds().errors.unwrap().get();
                let mut counts = [Counts::default(); 20];
                for host in 0..20_usize {
                    for _ in 0..calls {
                        let fails = rng.f64() < error_rate;
                        counts[host].total += 1;
                        counts[host].success += u32::from(!fails);
                        streaks[host] = if fails { streaks[host] + 1 } else { 0 };
                        if sweep > 1 && streaks[host] >= threshold {
                            wrong += 1;
                            streaks[host] = 0;
                        }
                    }
                    judged += 1;
                }
                detector.sweep(at(5 * sweep), seed, |host| Interval {
                    external: counts[host.number() as usize],
                    ..Interval::default()
                });
            }
        }
        assert!(
            wrong * 1000 <= judged,
            "{wrong} of {judged}: {calls} calls at {error_rate}"
        );
    }
}

#[test]
fn failing_service_is_no_outlier() {
    for seed in 0..20 {
        // All fail alike, or the larger part fails more.
        for (hosts, dead, rates) in [
            (20, 20, (0.6, 0.6)),
            (100, 100, (0.6, 0.6)),
            (100, 60, (0.6, 0.01)),
            (10, 9, (0.6, 0.0)),
        ] {
            let out = out_after(6, uncapped(), hosts, dead, rates, 100.0, seed);
            assert_eq!(out, [0_u32; 0], "{dead} of {hosts}, seed {seed}");
        }
    }
}

#[test]
fn absolute_limit_holds_whatever_the_others_do() {
    let mut detector = robust(uncapped(), 4);
    let verdicts = detector.sweep(at(5), 0, |host| {
        external(if host.number() == 0 { 11 } else { 5 }, 100)
    });
    assert_eq!(ejected(&verdicts), [1, 2, 3]);
    let Change::Ejected { reason, .. } = verdicts[0].change else {
        panic!("{verdicts:?}");
    };
    assert!(
        matches!(reason, Reason::FailurePercentage { .. }),
        "{reason:?}"
    );
}

#[test]
fn small_differences_are_let_be_however_certain() {
    let mut detector = robust(uncapped(), 20);
    let verdicts = detector.sweep(at(5), 0, |host| {
        external(
            if host.number() == 0 {
                960_000
            } else {
                1_000_000
            },
            1_000_000,
        )
    });
    assert_eq!(verdicts, []);
    let verdicts = detector.sweep(at(10), 0, |host| {
        external(
            if host.number() == 0 {
                940_000
            } else {
                1_000_000
            },
            1_000_000,
        )
    });
    assert_eq!(ejected(&verdicts), [0]);
}

/// Hosts that differ by nature, from none to three tenths of errors: certain differences, and no outlier but
/// one that leaves them all behind.
#[test]
fn natural_spread_is_in_line() {
    let natural = |host: Host| external(100_000 - 600 * host.number(), 100_000);
    let mut detector = robust(uncapped(), 50);
    assert_eq!(detector.sweep(at(5), 0, natural), []);
    let verdicts = detector.sweep(at(10), 0, |host| match host.number() {
        7 => external(30_000, 100_000),
        _ => natural(host),
    });
    assert_eq!(ejected(&verdicts), [7]);
}

#[test]
fn too_few_calls_and_no_calls_judge_nobody() {
    let mut detector = robust(uncapped(), 10);
    assert_eq!(detector.sweep(at(5), 0, |_| Interval::default()), []);
    let few = |host: Host| external(if host.number() == 0 { 0 } else { 4 }, 4);
    assert_eq!(detector.sweep(at(10), 0, few), []);
    // With those of the interval before they are still fewer than ten.
    assert_eq!(detector.sweep(at(15), 0, few), []);
}

#[test]
fn worst_go_first_and_half_at_most() {
    let mut detector = robust(Config::default(), 10);
    let verdicts = detector.sweep(at(5), 0, |host| external(host.number(), 100));
    assert_eq!(ejected(&verdicts), [0, 1, 2, 3, 4]);
    let held: Vec<_> = verdicts[5..]
        .iter()
        .map(|it| (it.host.number(), it.change))
        .collect();
    assert_eq!(held.len(), 5);
    for (host, change) in held {
        assert!(host > 4);
        assert!(matches!(
            change,
            Change::Withheld {
                by: Withheld::Cap,
                ..
            }
        ));
    }
    assert_eq!(detector.ejected(), 5);
}

#[test]
fn one_of_several_may_always_go_and_the_only_one_never() {
    for (hosts, percent, goes) in [(3, 10, true), (2, 1, true), (1, 100, false), (3, 0, false)] {
        let config = Config {
            max_ejection: Percent::new(percent),
            ..Config::default()
        };
        let mut detector = robust(config, hosts);
        let verdict = detector.reached(Host::new(0), ERRORS, at(1), 0).unwrap();
        assert_eq!(
            !ejected(&[verdict]).is_empty(),
            goes,
            "{percent} % of {hosts}"
        );
    }
}

fn latencies(slow: u32, times: u32) -> impl FnMut(Host) -> Interval {
    let mut fleet = Fleet::new(u64::from(slow));
    move |host| {
        let counts = fleet.counts(50.0, 0.0);
        let mean = Duration::from_millis(10) * if host.number() < slow { times } else { 1 };
        Interval {
            external: counts,
            latency: fleet.mean_latency(counts.success, mean),
            ..Interval::default()
        }
    }
}

#[test]
fn slow_tenth_is_out_after_two_intervals() {
    for (hosts, slow) in [(10, 1), (20, 2), (100, 10), (100, 30)] {
        let mut detector = robust(Config::default(), hosts);
        let mut intervals = latencies(slow, 5);
        assert_eq!(detector.sweep(at(5), 1, &mut intervals), []);
        let mut out = ejected(&detector.sweep(at(10), 1, &mut intervals));
        out.sort_unstable();
        assert_eq!(out, first(slow));
    }
}

#[test]
fn latency_that_is_merely_higher_is_in_line() {
    let mut detector = robust(Config::default(), 20);
    let mut intervals = latencies(2, 2);
    for sweep in 1..10 {
        assert_eq!(detector.sweep(at(5 * sweep), 1, &mut intervals), []);
    }
}

#[test]
fn homogeneous_latencies_eject_nobody_in_a_thousand() {
    for hosts in [5, 20, 100] {
        // Few calls, many, and hosts of different shares of them.
        for spread in [(10, 10), (20, 20), (100, 100), (10, 400)] {
            let (mut wrong, mut judged) = (0, 0);
            for seed in 0..20 {
                let mut fleet = Fleet::new(seed);
                let mut detector = robust(uncapped(), hosts);
                for sweep in 1..=400 / u64::from(hosts) {
                    let verdicts = detector.sweep(at(5 * sweep), seed, |_| {
                        let calls = fleet.0.u32(spread.0..=spread.1);
                        Interval {
                            external: Counts::new(calls, calls),
                            latency: fleet.mean_latency(calls, Duration::from_millis(10)),
                            ..Interval::default()
                        }
                    });
                    wrong += ejected(&verdicts).len();
                    judged += hosts as usize;
                }
            }
            assert!(
                wrong * 1000 <= judged,
                "{wrong} of {judged}: {hosts} hosts, {spread:?} calls"
            );
        }
    }
}

fn eject(detector: &mut Detector, host: u32, now: Monotonic) -> Monotonic {
    let verdict = detector
        .reached(Host::new(host), ERRORS, now, u64::from(host))
        .unwrap();
    match verdict.change {
        Change::Ejected { back_at, .. } => {
            assert_eq!(detector.trial_at(verdict.host), Some(back_at));
            back_at
        }
        other => panic!("not ejected: {other:?}"),
    }
}

fn pass(detector: &mut Detector, host: u32, now: Monotonic, draw: u64) -> Vec<Verdict> {
    let verdict = detector.trial_passed(Host::new(host), None, now, draw);
    verdict.into_iter().collect()
}

#[test]
fn two_passed_trials_restore() {
    let mut detector = robust(Config::default(), 4);
    let first = eject(&mut detector, 0, at(100));
    let wait = first.since(at(100));
    assert!(
        wait >= Duration::from_millis(750) && wait <= Duration::from_secs(1),
        "{wait:?}"
    );
    assert_eq!(pass(&mut detector, 0, first, 0), []);
    let second = detector.trial_at(Host::new(0)).unwrap();
    assert_eq!(second.since(first), Duration::from_secs(1));
    assert_eq!(restored(&pass(&mut detector, 0, second, 0)), [0]);
    assert_eq!(detector.trial_at(Host::new(0)), None);
    // The answer to one trial too many.
    assert_eq!(pass(&mut detector, 0, second, 0), []);
}

#[test]
fn failed_trials_are_further_apart_up_to_five_seconds_and_start_over() {
    let mut detector = robust(Config::default(), 4);
    let host = Host::new(0);
    let mut now = eject(&mut detector, 0, at(0));
    for expected in [2, 4, 5, 5, 5] {
        detector.trial_failed(host, now, 0);
        let next = detector.trial_at(host).unwrap();
        assert_eq!(next.since(now), Duration::from_secs(expected));
        now = next;
    }
    assert_eq!(pass(&mut detector, 0, now, 0), []);
    detector.trial_failed(host, now, 0);
    assert_eq!(pass(&mut detector, 0, now, 0), []);
    assert_eq!(restored(&pass(&mut detector, 0, now, 0)), [0]);
}

#[test]
fn flapping_is_remembered_and_forgotten() {
    let mut detector = robust(Config::default(), 4);
    let mut trials_until_back = |now: u64| {
        let mut trial = eject(&mut detector, 0, at(now));
        let mut trials = 0;
        let wait = trial.since(at(now));
        loop {
            trials += 1;
            let back = pass(&mut detector, 0, trial, 0);
            if !back.is_empty() {
                return (wait.as_millis() > 1000, trials);
            }
            trial = detector.trial_at(Host::new(0)).unwrap();
        }
    };
    assert_eq!(trials_until_back(0), (false, 2));
    assert_eq!(trials_until_back(10), (true, 3));
    assert_eq!(trials_until_back(20), (true, 4));
    assert_eq!(trials_until_back(30), (true, 4));
    // Ten half-lives later it is as if nothing had been.
    assert_eq!(trials_until_back(700), (false, 2));
}

#[test]
fn slow_host_must_answer_as_fast_as_the_others() {
    let mut detector = robust(Config::default(), 10);
    let mut intervals = latencies(1, 5);
    detector.sweep(at(5), 1, &mut intervals);
    detector.sweep(at(10), 1, &mut intervals);
    let host = Host::new(0);
    assert!(detector.is_ejected(host));
    let slow = Some(Duration::from_millis(50));
    for _ in 0..5 {
        assert_eq!(detector.trial_passed(host, slow, at(12), 0), None);
    }
    let fast = Some(Duration::from_millis(11));
    assert_eq!(detector.trial_passed(host, fast, at(13), 0), None);
    let verdict = detector.trial_passed(host, fast, at(14), 0);
    assert_eq!(restored(verdict.as_slice()), [0]);
}

#[test]
fn failures_from_before_the_return_do_not_count() {
    let mut detector = robust(Config::default(), 5);
    let dead = |host: Host| external(if host.number() == 0 { 0 } else { 100 }, 100);
    assert_eq!(ejected(&detector.sweep(at(5), 0, dead)), [0]);
    pass(&mut detector, 0, at(6), 0);
    assert_eq!(restored(&pass(&mut detector, 0, at(7), 0)), [0]);
    assert_eq!(detector.sweep(at(10), 0, dead), []);
    assert_eq!(ejected(&detector.sweep(at(15), 0, dead)), [0]);
}

#[test]
fn active_check_restores_only_if_so_configured() {
    for restores in [false, true] {
        let config = Config {
            recovery: Recovery {
                active_check_restores: restores,
                ..Recovery::default()
            },
            ..Config::default()
        };
        let mut detector = robust(config, 5);
        eject(&mut detector, 0, at(1));
        let verdict = detector.active_check_passed(Host::new(0), at(2));
        assert_eq!(verdict.is_some(), restores);
        assert_eq!(detector.is_ejected(Host::new(0)), !restores);
    }
}

#[test]
fn nonsense_in_the_configuration_is_harmless() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0] {
        let config = Config {
            significance: value,
            latency_ratio: Some(value),
            request_volume: 0,
            recovery: Recovery {
                half_life: Duration::ZERO,
                ..Recovery::default()
            },
            ..Config::default()
        };
        let mut detector = robust(config, 20);
        let mut intervals = latencies(0, 1);
        for sweep in 1..4 {
            assert_eq!(
                ejected(&detector.sweep(at(5 * sweep), 1, &mut intervals)),
                [0_u32; 0]
            );
        }
        assert_eq!(detector.sweep(at(20), 1, |_| Interval::default()), []);
    }
}

proptest! {
    /// However often it flapped and however many trials it failed: repaired, a host that gets its trials when
    /// they are due is back in eight seconds.
    #[test]
    fn repaired_host_is_back_in_eight_seconds(
        ejections in 1..20_u64,
        failures in 0..40_u64,
        gap in 0..100_u64,
        seed in any::<u64>(),
    ) {
        let mut detector = robust(Config::default(), 4);
        let host = Host::new(0);
        let mut now = at(0);
        for ejection in 0..ejections {
            now = now + Duration::from_secs(gap);
            let _ = detector.reached(host, ERRORS, now, seed ^ ejection);
            if ejection + 1 < ejections {
                while detector.is_ejected(host) {
                    now = detector.trial_at(host).unwrap();
                    let _ = detector.trial_passed(host, None, now, seed);
                }
            }
        }
        for failure in 0..failures {
            now = detector.trial_at(host).unwrap();
            detector.trial_failed(host, now, seed ^ failure);
        }
        let repaired = now;
        while detector.is_ejected(host) {
            now = detector.trial_at(host).unwrap();
            let _ = detector.trial_passed(host, None, now, seed);
        }
        prop_assert!(now.since(repaired) <= Duration::from_secs(8));
    }
}
