use std::time::Duration;

use orchestra_core::Monotonic;
use proptest::prelude::*;

use super::{
    Change, Config, Counts, Detector, Host, Interval, Percent, Report, Step, Trigger, Verdict,
    envoy, grpc, robust,
};

pub(super) fn at(seconds: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_secs(seconds)
}

pub(super) fn detector(config: Config, hosts: u32) -> Detector {
    let mut detector = Detector::new(config);
    for host in (0..hosts).map(Host::new) {
        detector.insert(host, Monotonic::ZERO);
    }
    detector
}

pub(super) fn external(success: u32, total: u32) -> Interval {
    Interval {
        external: Counts::new(success, total),
        ..Interval::default()
    }
}

pub(super) fn ejected(verdicts: &[Verdict]) -> Vec<u32> {
    let out = verdicts
        .iter()
        .filter(|it| matches!(it.change, Change::Ejected { .. }));
    out.map(|it| it.host.number()).collect()
}

pub(super) fn restored(verdicts: &[Verdict]) -> Vec<u32> {
    let back = verdicts.iter().filter(|it| it.change == Change::Restored);
    back.map(|it| it.host.number()).collect()
}

fn grpc_on() -> grpc::Config {
    grpc::Config {
        success_rate: Some(grpc::SuccessRate::default()),
        failure_percentage: Some(grpc::FailurePercentage::default()),
        ..grpc::Config::default()
    }
}

fn every_rule() -> [Config; 4] {
    [
        Config::Off,
        Config::Envoy(envoy::Config {
            max_ejection: Percent::new(60),
            ..envoy::Config::default()
        }),
        Config::Grpc(grpc_on()),
        Config::default(),
    ]
}

#[test]
fn unknown_hosts_are_ignored() {
    for config in every_rule() {
        let mut detector = detector(config, 10);
        let gone = Host::new(3);
        detector.remove(gone);
        detector.remove(Host::new(u32::MAX));
        for host in [gone, Host::new(u32::MAX)] {
            assert_eq!(
                detector.reached(host, Trigger::ConsecutiveErrors, at(1), 1),
                None
            );
            assert_eq!(detector.active_check_passed(host, at(1)), None);
            assert_eq!(detector.trial_passed(host, None, at(1), 1), None);
            detector.trial_failed(host, at(1), 1);
            assert_eq!(detector.trial_at(host), None);
            assert!(!detector.is_ejected(host));
        }
        assert_eq!(detector.ejected(), 0);
    }
}

#[test]
fn removal_of_an_ejected_host_makes_room() {
    let mut detector = detector(Config::default(), 2);
    let (first, second) = (Host::new(0), Host::new(1));
    let trigger = Trigger::ConsecutiveErrors;
    assert!(detector.reached(first, trigger, at(1), 1).is_some());
    assert_eq!(detector.ejected(), 1);
    detector.remove(first);
    assert_eq!(detector.ejected(), 0);
    detector.insert(first, at(2));
    assert!(!detector.is_ejected(first));
    let verdict = detector.reached(second, trigger, at(2), 1).unwrap();
    assert_eq!(ejected(&[verdict]), [1]);
}

#[test]
fn sweeps_follow_each_other_by_the_interval() {
    let mut detector = Detector::new(Config::Envoy(envoy::Config::default()));
    assert_eq!(detector.next_sweep(), None);
    detector.insert(Host::new(0), at(5));
    detector.insert(Host::new(1), at(9));
    assert_eq!(detector.next_sweep(), Some(at(15)));
    detector.sweep(at(17), 0, |_| Interval::default());
    assert_eq!(detector.next_sweep(), Some(at(27)));
}

#[test]
fn interval_of_zero_does_not_let_the_driver_spin() {
    let detector = detector(
        Config::Envoy(envoy::Config {
            interval: Duration::ZERO,
            ..envoy::Config::default()
        }),
        1,
    );
    let next = detector.next_sweep().unwrap();
    assert_eq!(next.since(Monotonic::ZERO), Duration::from_millis(1));
}

#[test]
fn off_counts_nothing_and_remembers_the_hosts() {
    let mut detector = detector(Config::Off, 5);
    assert!(!detector.is_counting());
    assert_eq!(detector.next_sweep(), None);
    assert_eq!(detector.effect(Report::Error).external, None);
    assert_eq!(detector.sweep(at(1), 0, |_| external(0, 100)), []);
    assert_eq!(detector.reconfigure(Config::default(), at(100)), []);
    assert_eq!(detector.next_sweep(), Some(at(105)));
    let one_dead = |host| external(if host == Host::new(4) { 0 } else { 100 }, 100);
    assert_eq!(ejected(&detector.sweep(at(105), 0, one_dead)), [4]);
}

#[test]
fn another_rule_restores_everyone_and_the_same_one_nobody() {
    let mut detector = detector(Config::default(), 10);
    detector.reached(Host::new(7), Trigger::ConsecutiveErrors, at(1), 1);
    assert_eq!(detector.reconfigure(Config::default(), at(2)), []);
    let slower = robust::Config {
        interval: Duration::from_secs(60),
        ..robust::Config::default()
    };
    assert_eq!(detector.reconfigure(Config::Robust(slower), at(2)), []);
    assert!(detector.is_ejected(Host::new(7)));
    // The interval under way began at zero.
    assert_eq!(detector.next_sweep(), Some(at(60)));
    let verdicts = detector.reconfigure(Config::Off, at(3));
    assert_eq!(restored(&verdicts), [7]);
    assert_eq!(detector.ejected(), 0);
}

#[test]
fn envoy_starts_from_nothing_with_another_configuration() {
    let config = envoy::Config {
        always_eject_one_host: true,
        ..envoy::Config::default()
    };
    let mut detector = detector(Config::Envoy(config.clone()), 3);
    detector.reached(Host::new(1), Trigger::ConsecutiveErrors, at(1), 1);
    assert!(detector.is_ejected(Host::new(1)));
    let other = envoy::Config {
        interval: Duration::from_secs(20),
        ..config
    };
    let verdicts = detector.reconfigure(Config::Envoy(other), at(4));
    assert_eq!(restored(&verdicts), [1]);
    assert_eq!(detector.next_sweep(), Some(at(24)));
}

#[test]
fn more_successes_than_calls_count_as_all() {
    for config in every_rule() {
        let mut detector = detector(config, 10);
        let verdicts = detector.sweep(at(10), 0, |_| external(u32::MAX, 100));
        assert_eq!(verdicts, []);
    }
}

#[test]
fn percent_ends_at_a_hundred() {
    assert_eq!(Percent::new(255), Percent::ALL);
    assert_eq!(Percent::new(99).get(), 99);
}

#[test]
fn robust_counts_a_local_failure_as_a_failed_call() {
    let detector = Detector::default();
    let effect = detector.effect(Report::ConnectFailed);
    assert_eq!(effect.external, Some(false));
    assert_eq!(
        (effect.errors, effect.local_streak),
        (Step::Extend, Step::Extend)
    );
    let effect = detector.effect(Report::Error);
    assert_eq!(
        (effect.errors, effect.local_streak),
        (Step::Extend, Step::Reset)
    );
}

#[derive(Debug, Clone)]
enum Op {
    Leap(u64),
    Insert(u32),
    Remove(u32),
    Reached(u32, u8),
    Sweep(Vec<(u32, u32, u64)>),
    Checked(u32),
    Passed(u32, u64),
    Failed(u32),
    Reconfigure(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let host = 0..12_u32;
    let leap = prop_oneof![Just(0), 0..20_000_000_000_u64, any::<u64>()];
    let counts = (any::<u32>(), 0..300_u32, any::<u64>());
    prop_oneof![
        leap.prop_map(Op::Leap),
        host.clone().prop_map(Op::Insert),
        host.clone().prop_map(Op::Remove),
        (host.clone(), 0..3_u8).prop_map(|(host, trigger)| Op::Reached(host, trigger)),
        prop::collection::vec(counts, 12).prop_map(Op::Sweep),
        host.clone().prop_map(Op::Checked),
        (host.clone(), any::<u64>()).prop_map(|(host, latency)| Op::Passed(host, latency)),
        host.prop_map(Op::Failed),
        (0..4_usize).prop_map(Op::Reconfigure),
    ]
}

fn apply(detector: &mut Detector, op: &Op, now: Monotonic, draw: u64) -> Vec<Verdict> {
    match op {
        Op::Leap(_) => Vec::new(),
        Op::Insert(host) => {
            detector.insert(Host::new(*host), now);
            Vec::new()
        }
        Op::Remove(host) => {
            detector.remove(Host::new(*host));
            Vec::new()
        }
        Op::Reached(host, trigger) => {
            let trigger = match trigger {
                0 => Trigger::ConsecutiveErrors,
                1 => Trigger::ConsecutiveGateway,
                _ => Trigger::ConsecutiveLocalOrigin,
            };
            let verdict = detector.reached(Host::new(*host), trigger, now, draw);
            verdict.into_iter().collect()
        }
        Op::Sweep(counts) => detector.sweep(now, draw, |host| {
            let (success, total, latency) = counts[host.number() as usize];
            Interval {
                external: Counts::new(success, total),
                local_origin: Counts::new(total, success),
                latency: Some(Duration::from_nanos(latency)),
            }
        }),
        Op::Checked(host) => {
            let verdict = detector.active_check_passed(Host::new(*host), now);
            verdict.into_iter().collect()
        }
        Op::Passed(host, latency) => {
            let latency = Some(Duration::from_nanos(*latency));
            let verdict = detector.trial_passed(Host::new(*host), latency, now, draw);
            verdict.into_iter().collect()
        }
        Op::Failed(host) => {
            detector.trial_failed(Host::new(*host), now, draw);
            Vec::new()
        }
        Op::Reconfigure(index) => {
            let config = every_rule().into_iter().nth(*index).unwrap();
            detector.reconfigure(config, now)
        }
    }
}

proptest! {
    /// Whatever comes in whatever order, at whatever time: the verdicts tell who is out, the count is right,
    /// and only a host that is out waits for a trial.
    #[test]
    fn verdicts_tell_the_whole_story(
        ops in prop::collection::vec(op(), 1..80),
        first in 0..4_usize,
        seed in any::<u64>(),
    ) {
        let mut detector = detector(every_rule().into_iter().nth(first).unwrap(), 8);
        let mut out = std::collections::BTreeSet::new();
        let mut now = Monotonic::ZERO;
        for (index, op) in ops.iter().enumerate() {
            match op {
                Op::Leap(nanos) => now = now + Duration::from_nanos(*nanos),
                Op::Remove(host) => {
                    out.remove(host);
                }
                _ => {}
            }
            let draw = seed.wrapping_mul(index as u64 + 1);
            for verdict in apply(&mut detector, op, now, draw) {
                match verdict.change {
                    Change::Ejected { back_at, .. } => {
                        prop_assert!(back_at >= now);
                        out.insert(verdict.host.number());
                    }
                    Change::Restored => prop_assert!(out.remove(&verdict.host.number())),
                    Change::Withheld { .. } => {}
                }
            }
            prop_assert_eq!(detector.ejected(), out.len());
            for host in 0..12 {
                let is_out = detector.is_ejected(Host::new(host));
                prop_assert_eq!(is_out, out.contains(&host));
                prop_assert!(is_out || detector.trial_at(Host::new(host)).is_none());
            }
        }
    }
}

#[test]
fn detector_goes_where_threads_go() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    is_shared(&Detector::default());
}
