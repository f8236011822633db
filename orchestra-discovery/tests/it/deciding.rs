//! What is decided around a balancer: panic, priorities, zones, subsets, stickiness, slow start, ejection,
//! and how it is explained and replayed.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Labels, Locality, Monotonic, Outcome};
use orchestra_discovery::locality::ZoneConfig;
use orchestra_discovery::outlier::{self, Change as Decided, Report};
use orchestra_discovery::priority::OnPanic;
use orchestra_discovery::reported::{self, LoadReport};
use orchestra_discovery::resolver::{Config, DecisionLog, Way, Zoning};
use orchestra_discovery::subset::{Fallback, SubsetConfig, SubsetSelector};
use orchestra_discovery::subsetting::Subsetting;
use orchestra_discovery::{
    Change, Completion, Event, Health, Incarnation, Instance, Override, P2c, PickContext, Removal,
    RemovalReason, Resolver, Revision, RoundRobin, Scope, Snapshot, Status, Weighted, priority,
    slow_start,
};
use proptest::prelude::*;

use crate::common::{at, calm, draw, instance, service, snapshot, with_members};
use crate::doubles::heard;
use crate::gates::Shut;

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

fn name(n: usize) -> String {
    format!("p-{n:03}")
}

fn members(count: usize) -> impl Iterator<Item = Instance> + Clone {
    (0..count).map(|n| instance(&name(n), 1))
}

/// A resolver with these members, in panic when it should be.
fn nervous(config: Config, instances: impl IntoIterator<Item = Instance>) -> Resolver {
    let resolver = Resolver::new(service(), config);
    resolver.apply(&snapshot(instances));
    resolver
}

fn sick(resolver: &Resolver, numbers: impl IntoIterator<Item = usize>) {
    for n in numbers {
        assert!(resolver.set_health(&id(&name(n)), Incarnation::new(1), Health::Unhealthy));
    }
}

/// How often each is picked, calls settled at once as successes.
fn shares(resolver: &Resolver, picks: u64, now: Monotonic) -> BTreeMap<String, u64> {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut shares = BTreeMap::new();
    for _ in 0..picks {
        let context = PickContext::new(now, rng.u64(..));
        let Ok(call) = resolver.pick(&context) else {
            continue;
        };
        *shares.entry(call.instance().id.to_string()).or_default() += 1;
        call.settle(Outcome::Success, now);
    }
    shares
}

#[test]
fn below_the_panic_threshold_calls_spread_over_all() {
    let (heard, listener) = heard();
    let resolver = nervous(Config::default().listener(listener), members(10));
    sick(&resolver, 0..5);
    assert!(!resolver.is_in_panic());
    assert_eq!(shares(&resolver, 1_000, at(0)).len(), 5);
    sick(&resolver, 5..6);
    assert!(resolver.is_in_panic());
    let shares = shares(&resolver, 10_000, at(0));
    assert_eq!(shares.len(), 10);
    assert!(shares.values().all(|&count| count > 500), "{shares:?}");
    assert!(resolver.set_health(&id("p-000"), Incarnation::new(1), Health::Healthy));
    let panics: Vec<_> = heard
        .lock()
        .iter()
        .filter_map(|event| match event {
            Event::Panic { entered, .. } => Some(*entered),
            _ => None,
        })
        .collect();
    assert_eq!(panics, [true, false]);
}

#[test]
fn in_panic_calls_can_be_made_to_fail() {
    let mut priorities = priority::Config::default();
    priorities.on_panic = OnPanic::Fail;
    let resolver = nervous(Config::default().priorities(priorities), members(4));
    sick(&resolver, 0..3);
    for n in 0..20 {
        let none = resolver.pick(&draw(n)).unwrap_err();
        assert_eq!((none.registered, none.unhealthy), (4, 3));
    }
}

#[test]
fn tried_members_count_once_in_panic_too() {
    let resolver = nervous(Config::default(), members(4));
    sick(&resolver, 0..3);
    assert!(resolver.is_in_panic());
    let tried = [0, 1, 2, 3, 3].map(|n| id(&name(n)));
    let none = resolver.pick(&draw(1).tried(&tried)).unwrap_err();
    assert_eq!(none.tried, 4);
}

#[test]
fn drained_and_out_of_service_members_get_nothing_even_in_panic() {
    let mut draining = instance("p-000", 1);
    draining.status = Status::Draining;
    let mut out = instance("p-001", 1);
    out.forced = Some(Override::OutOfService);
    let resolver = nervous(Config::default(), [draining, out, instance("p-002", 1)]);
    sick(&resolver, [2]);
    assert!(resolver.is_in_panic());
    assert_eq!(
        shares(&resolver, 100, at(0)),
        BTreeMap::from([(name(2), 100)])
    );
}

#[test]
fn forced_healthy_members_get_calls_whatever_checks_say() {
    let mut forced = instance("p-000", 1);
    forced.forced = Some(Override::ForcedHealthy);
    let resolver = with_members(Config::default(), [forced]);
    sick(&resolver, [0]);
    assert!(resolver.pick(&draw(3)).is_ok());
}

#[test]
fn degraded_members_take_what_the_healthy_ones_cannot() {
    let resolver = with_members(Config::default(), members(4));
    for n in 1..4 {
        resolver.set_health(&id(&name(n)), Incarnation::new(1), Health::Degraded);
    }
    // One healthy of four is available to 35 %, three degraded take the rest.
    let shares = shares(&resolver, 20_000, at(0));
    let healthy = shares[&name(0)] as f64 / 20_000.0;
    assert!((healthy - 0.35).abs() < 0.02, "{healthy}");
    assert_eq!(shares.len(), 4);
}

#[test]
fn a_tier_takes_over_what_the_one_before_cannot() {
    let tiered = |n: usize| {
        let mut instance = instance(&name(n), 1);
        instance.priority = if n < 4 { 0 } else { 7 };
        instance
    };
    let resolver = with_members(Config::default(), (0..8).map(tiered));
    let first = |shares: &BTreeMap<String, u64>| {
        let first = (0..4).filter_map(|n| shares.get(&name(n)));
        first.sum::<u64>() / 100
    };
    assert_eq!(first(&shares(&resolver, 10_000, at(0))), 100);
    // A quarter sick is covered by overprovisioning.
    sick(&resolver, [0]);
    assert_eq!(first(&shares(&resolver, 10_000, at(0))), 100);
    sick(&resolver, [1]);
    let most = first(&shares(&resolver, 10_000, at(0)));
    assert!((68..=72).contains(&most), "{most}");
    sick(&resolver, [2, 3]);
    assert_eq!(first(&shares(&resolver, 10_000, at(0))), 0);
}

#[test]
fn near_calls_stay_near_as_far_as_that_overloads_nobody() {
    let zone = |letter: &str| Locality::new("eu").zone(letter);
    let placed = |n: usize, letter: &str| {
        let mut instance = instance(&name(n), 1);
        instance.locality = zone(letter).subzone(&n.to_string());
        instance
    };
    let zoning = Zoning::Aware {
        own: zone("a"),
        config: ZoneConfig::default(),
    };
    let letters = |n: usize| if n < 2 { "a" } else { "b" };
    let resolver = with_members(
        Config::default().zoning(zoning),
        (0..8).map(|n| placed(n, letters(n))),
    );
    let near = |resolver: &Resolver| {
        let shares = shares(resolver, 20_000, at(0));
        let near = (0..2).filter_map(|n| shares.get(&name(n)));
        near.sum::<u64>() as f64 / 20_000.0
    };
    // Nobody said where the callers are.
    assert!((near(&resolver) - 0.25).abs() < 0.02);
    // Half of the callers and a quarter of the instances are here: half of the calls stay.
    let callers = |near: usize| {
        let place = |n: usize| placed(n, if n < near { "a" } else { "b" });
        snapshot((0..4).map(place))
    };
    resolver.set_callers(&callers(2));
    let half = near(&resolver);
    assert!((half - 0.5).abs() < 0.02, "{half}");
    resolver.set_callers(&callers(1));
    assert!(near(&resolver) > 0.999_99);
}

#[test]
fn zones_are_weighted_as_told() {
    let place = |letter: &str| Locality::new("eu").zone(letter);
    let placed = |n: usize| {
        let mut instance = instance(&name(n), 1);
        instance.locality = place(if n < 6 { "a" } else { "b" });
        instance
    };
    // A zone that does not exist is no zone.
    let weights = vec![(place("a"), 1), (place("b"), 3), (place("nowhere"), 9)];
    let resolver = with_members(
        Config::default().zoning(Zoning::Weighted(weights)),
        (0..8).map(placed),
    );
    let shares = shares(&resolver, 20_000, at(0));
    let heavy = (shares[&name(6)] + shares[&name(7)]) as f64 / 20_000.0;
    assert!((heavy - 0.75).abs() < 0.02, "{heavy}");
}

#[test]
fn calls_for_a_subset_stay_in_it() {
    let labelled = |n: usize| {
        let mut instance = instance(&name(n), 1);
        let version = if n < 2 { "1" } else { "2" };
        instance.labels = [("version", version)].try_into().unwrap();
        instance
    };
    let selector = SubsetSelector::new(["version"]);
    let subsets = SubsetConfig::new([selector], Fallback::NoFallback).unwrap();
    let resolver = with_members(Config::default().subsets(subsets), (0..5).map(labelled));
    let asked = |version: &str| Labels::new().with("version", version).unwrap();
    for (version, allowed) in [("1", 0..2), ("2", 2..5)] {
        let labels = asked(version);
        for n in 0..200_u64 {
            let context = draw(n << 55).subset(&labels);
            let picked = resolver.pick(&context).unwrap().instance().id.to_string();
            assert!(allowed.clone().map(name).any(|name| name == picked));
        }
    }
    let labels = asked("3");
    let none = resolver.pick(&draw(1).subset(&labels)).unwrap_err();
    assert!(none.no_subset);
    assert_eq!(
        none.to_string(),
        "no instance of service payments takes the call: 5 registered, none in the subset that was asked for"
    );
    // A subset is as healthy as its members.
    sick(&resolver, [0]);
    let labels = asked("1");
    assert_eq!(picked_of(&resolver, &labels), [name(1)]);
}

fn picked_of(resolver: &Resolver, labels: &Labels) -> Vec<String> {
    let picked = (0..50_u64).map(|n| {
        let context = draw(n << 57).subset(labels);
        resolver.pick(&context).unwrap().instance().id.to_string()
    });
    let picked: std::collections::BTreeSet<_> = picked.collect();
    picked.into_iter().collect()
}

#[test]
fn a_client_keeps_to_its_own_part_of_a_large_service() {
    let size = NonZeroUsize::new(5).unwrap();
    let config = Config::default().subsetting(Subsetting::new(9, size));
    let resolver = with_members(config, members(100));
    let before = shares(&resolver, 5_000, at(0));
    assert_eq!(before.len(), 5);
    let none = sum_of_outside(&resolver);
    assert_eq!(none, 95);
    let gone = before.keys().next().unwrap().clone();
    let rest = members(100).filter(|instance| instance.id.as_str() != gone);
    resolver.apply(&snapshot(rest));
    let after = shares(&resolver, 5_000, at(0));
    let kept = before.keys().filter(|id| after.contains_key(*id)).count();
    assert_eq!((kept, after.len()), (4, 5));
}

fn sum_of_outside(resolver: &Resolver) -> u32 {
    let all: Vec<_> = resolver.members().iter().map(|it| it.id.clone()).collect();
    resolver.pick(&draw(1).tried(&all)).unwrap_err().outside
}

#[test]
fn a_call_goes_where_it_asks_to_go_while_that_takes_calls() {
    let resolver = with_members(Config::default(), members(5));
    let wanted = id("p-003");
    let picked = |context: PickContext<'_>| {
        let call = resolver.pick(&context).unwrap();
        call.instance().id.clone()
    };
    for n in 0..50 {
        assert_eq!(picked(draw(n << 58).sticky(&wanted)), wanted);
    }
    let tried = [wanted.clone()];
    assert_ne!(picked(draw(7).sticky(&wanted).tried(&tried)), wanted);
    resolver.set_health(&wanted, Incarnation::new(1), Health::Degraded);
    assert_eq!(picked(draw(7).sticky(&wanted)), wanted);
    resolver.set_health(&wanted, Incarnation::new(1), Health::Unhealthy);
    assert_ne!(picked(draw(7).sticky(&wanted)), wanted);
    let stranger = id("p-999");
    assert!(resolver.pick(&draw(7).sticky(&stranger)).is_ok());
}

#[test]
fn a_new_member_warms_up() {
    let slow = slow_start::Config::new(Duration::from_secs(10));
    let config = Config::default()
        .balancer(Arc::new(Weighted::default()))
        .slow_start(slow);
    let resolver = with_members(config, members(4));
    let share = |now: Monotonic| {
        let shares = shares(&resolver, 4_000, now);
        shares.get(&name(4)).copied().unwrap_or(0)
    };
    // The others have been there for long.
    share(at(1_000));
    share(at(60_000));
    resolver.advance(
        Revision::new(2),
        &[Change::Upserted(Arc::new(instance("p-004", 1)))],
    );
    let shares = [60_100, 65_000, 71_000].map(|now| share(at(now)));
    // A tenth of a share at first, half of one half way, a fifth of all in the end.
    let expected = [0.1 / 4.1, 0.5 / 4.5, 0.2].map(|part| 4_000.0 * part);
    for (share, expected) in shares.into_iter().zip(expected) {
        assert!(
            (share as f64 - expected).abs() < 12.0,
            "{shares:?} {expected}"
        );
    }
}

#[test]
fn calls_follow_the_load_that_members_report() {
    let config = Config::default()
        .balancer(Arc::new(Weighted::default()))
        .reported(reported::Config::default());
    let resolver = with_members(config, members(2));
    let report = |text: &str| LoadReport::parse(text).unwrap();
    let reports = [
        report("TEXT rps_fractional=100, application_utilization=0.1"),
        report("TEXT rps_fractional=100, application_utilization=0.3"),
    ];
    for n in 0..400 {
        let now = at(n * 50);
        let call = resolver.pick(&PickContext::new(now, n)).unwrap();
        let which = usize::from(call.instance().id.as_str() == "p-001");
        call.settle(
            Completion::from(Outcome::Success).load(&reports[which]),
            now,
        );
    }
    let shares = shares(&resolver, 4_000, at(20_000));
    let light = shares[&name(0)] as f64 / 4_000.0;
    assert!((light - 0.75).abs() < 0.01, "{light}");
}

/// Calls in virtual time, at equal distances, whose outcomes `serve` decides.
fn run(
    resolver: &Resolver,
    seconds: std::ops::Range<u64>,
    per_second: u64,
    mut serve: impl FnMut(&str, Monotonic) -> Outcome,
) -> BTreeMap<String, u64> {
    let mut rng = fastrand::Rng::with_seed(seconds.start);
    let mut shares = BTreeMap::new();
    for call in seconds.start * per_second..seconds.end * per_second {
        let now = at(call * 1_000 / per_second);
        let choice = resolver
            .choose(&PickContext::new(now, rng.u64(..)))
            .unwrap();
        let id = choice.instance.id.as_str();
        *shares.entry(id.to_owned()).or_default() += 1;
        let outcome = serve(id, now);
        resolver.settle(choice.token, outcome, now + Duration::from_millis(5));
    }
    shares
}

#[test]
fn one_that_fails_fast_is_out_at_once_and_back_soon_after_its_repair() {
    let (heard, listener) = heard();
    let resolver = nervous(Config::default().listener(listener), members(20));
    let failing = |id: &str, _| match id {
        "p-007" => Outcome::Failure,
        _ => Outcome::Success,
    };
    run(&resolver, 0..10, 1_000, failing);
    let broken = run(&resolver, 10..60, 1_000, failing);
    let share = broken.get("p-007").copied().unwrap_or(0) as f64 / 50_000.0;
    assert!(share > 0.0 && share <= 0.001, "{share}");
    run(&resolver, 60..70, 1_000, |_, _| Outcome::Success);
    let repaired = run(&resolver, 70..80, 1_000, |_, _| Outcome::Success);
    let fair = 10_000 / 20;
    assert!(repaired["p-007"] >= fair * 9 / 10, "{repaired:?}");
    let decided: Vec<_> = heard
        .lock()
        .iter()
        .filter_map(|event| match event {
            Event::Outlier { id, change, .. } => Some((id.to_string(), *change)),
            _ => None,
        })
        .collect();
    assert!(decided.iter().all(|(id, _)| id == "p-007"), "{decided:?}");
    assert!(matches!(decided[0].1, Decided::Ejected { .. }));
    assert!(matches!(decided.last().unwrap().1, Decided::Restored));
}

#[test]
fn forty_dead_of_a_hundred_are_out() {
    let resolver = nervous(
        Config::default().balancer(Arc::new(RoundRobin::default())),
        members(100),
    );
    let dead = |id: &str| id < "p-040";
    let serve = |id: &str, _| {
        if dead(id) {
            Outcome::Failure
        } else {
            Outcome::Success
        }
    };
    run(&resolver, 0..25, 2_000, serve);
    let after = run(&resolver, 25..45, 2_000, serve);
    let failed: u64 = after
        .iter()
        .filter(|(id, _)| dead(id))
        .map(|(_, n)| n)
        .sum();
    // Nothing but their trials.
    assert!(failed as f64 / 40_000.0 < 0.01, "{failed}");
}

#[test]
fn an_ejected_member_comes_back_by_time_in_envoys_way() {
    let mut envoy = outlier::envoy::Config::default();
    envoy.max_ejection = outlier::Percent::new(50);
    let resolver = nervous(
        Config::default()
            .outliers(outlier::Config::Envoy(envoy))
            .balancer(Arc::new(RoundRobin::default())),
        members(4),
    );
    let gateway = Completion::from(Outcome::Failure).report(Report::Gateway);
    let mut failed = 0;
    while failed < 5 {
        let choice = resolver.choose(&draw(1)).unwrap();
        if choice.instance.id.as_str() == "p-002" {
            resolver.settle(choice.token, gateway, at(1));
            failed += 1;
        } else {
            resolver.settle(choice.token, Outcome::Success, at(1));
        }
    }
    let holds = |now| shares(&resolver, 400, at(now)).contains_key("p-002");
    assert!(!holds(1));
    assert!(!holds(29_000));
    // The sweep after the base time of 30 seconds.
    assert!(holds(41_000));
}

/// Envoy hears of the connection and of the answer; here one report tells of both.
#[test]
fn an_answer_ends_a_streak_of_failures_to_connect_whatever_it_says() {
    let mut envoy = outlier::envoy::Config::default();
    envoy.split_local_origin = true;
    envoy.max_ejection = outlier::Percent::new(50);
    let config = Config::default().outliers(outlier::Config::Envoy(envoy));
    for (answer, is_out) in [
        (None, true),
        (Some(Report::Error), false),
        (Some(Report::Gateway), false),
    ] {
        let resolver = nervous(config.clone(), members(4));
        let one = id("p-002");
        let settle = |report| {
            let choice = resolver.choose(&draw(1).sticky(&one)).unwrap();
            let failure = Completion::from(Outcome::Failure).report(report);
            resolver.settle(choice.token, failure, at(1));
        };
        (0..4).for_each(|_| settle(Report::ConnectFailed));
        answer.into_iter().for_each(settle);
        settle(Report::ConnectFailed);
        let shares = shares(&resolver, 400, at(2));
        let choice = resolver.choose(&draw(1).sticky(&one)).unwrap();
        assert_eq!(choice.instance.id != one, is_out, "{answer:?}: {shares:?}");
    }
}

#[test]
fn a_passed_check_ends_an_ejection_in_envoys_way() {
    let mut envoy = outlier::envoy::Config::default();
    envoy.max_ejection = outlier::Percent::new(50);
    let resolver = nervous(
        Config::default()
            .outliers(outlier::Config::Envoy(envoy))
            .balancer(Arc::new(RoundRobin::default())),
        members(4),
    );
    for _ in 0..40 {
        let choice = resolver.choose(&draw(1)).unwrap();
        let outcome = match choice.instance.id.as_str() {
            "p-002" => Outcome::Failure,
            _ => Outcome::Success,
        };
        resolver.settle(choice.token, outcome, at(1));
    }
    assert!(!shares(&resolver, 400, at(2)).contains_key("p-002"));
    resolver.check_passed(&id("p-002"), Incarnation::new(1));
    assert!(shares(&resolver, 400, at(2)).contains_key("p-002"));
}

#[test]
fn one_that_asks_to_be_left_alone_is_until_its_time_is_up() {
    let resolver = with_members(Config::default(), members(3));
    let throttled = Completion::from(Outcome::Overloaded).retry_after(Duration::from_secs(4));
    let mut rng = fastrand::Rng::with_seed(2);
    loop {
        let choice = resolver.choose(&draw(rng.u64(..))).unwrap();
        if choice.instance.id.as_str() == "p-001" {
            resolver.settle(choice.token, throttled, at(0));
            break;
        }
        resolver.settle(choice.token, Outcome::Success, at(0));
    }
    assert!(!shares(&resolver, 300, at(3_900)).contains_key("p-001"));
    assert!(shares(&resolver, 300, at(4_100))["p-001"] > 50);
}

#[test]
fn gates_that_all_refuse_are_passed_only_if_told_so() {
    let shut = || Arc::new(Shut::from(["p-000", "p-001", "p-002"]));
    let strict = with_members(Config::default().gates(shut()), members(3));
    assert_eq!(strict.pick(&draw(1)).unwrap_err().refused, 3);
    let (heard, listener) = heard();
    let config = Config::default().gates(shut()).bypass_gates();
    let lenient = with_members(config.listener(listener), members(3));
    let shares = shares(&lenient, 300, at(0));
    // Spread, not herded to one.
    assert!(shares.values().all(|&count| count > 50), "{shares:?}");
    let bypassed = heard.lock();
    let bypassed = bypassed
        .iter()
        .filter(|event| matches!(event, Event::GateBypassed { .. }));
    assert_eq!(bypassed.count(), 300);
    assert_eq!(lenient.in_flight(&id("p-000")), Some(0));
}

#[test]
fn a_pick_is_explained() {
    let mut draining = instance("p-000", 1);
    draining.status = Status::Draining;
    let instances = [draining].into_iter().chain(members(5).skip(1));
    let gates = Arc::new(Shut::from(["p-001"]));
    let config = Config::default()
        .gates(gates)
        .balancer(Arc::new(RoundRobin::default()));
    let resolver = with_members(config, instances);
    sick(&resolver, [2]);
    let tried = [id("p-003")];
    let (choice, why) = resolver.choose_explained(&draw(0).tried(&tried));
    let choice = choice.unwrap();
    assert_eq!(choice.instance.id, id("p-004"));
    assert_eq!(why.picked, Some(id("p-004")));
    assert_eq!((why.way, why.revision), (Way::Balanced, Revision::new(1)));
    let verdicts: Vec<_> = why
        .members
        .iter()
        .map(|it| it.verdict.to_string())
        .collect();
    assert_eq!(
        verdicts,
        ["draining", "refused", "unhealthy", "tried", "picked"]
    );
    assert!(
        why.to_string()
            .starts_with("payments: p-004 (Balanced) at revision 1\n")
    );
    resolver.settle(choice.token, Outcome::Success, at(0));
    assert_eq!(resolver.in_flight(&id("p-004")), Some(0));
}

#[test]
fn picks_are_told_if_asked_for() {
    let (heard, listener) = heard();
    let config = Config::default().listener(listener).pick_events();
    let resolver = with_members(config, members(1));
    drop(resolver.pick(&draw(0)).unwrap());
    let tried = [id("p-000")];
    assert!(resolver.pick(&draw(0).tried(&tried)).is_err());
    let heard = heard.lock();
    assert!(heard.iter().any(
        |event| matches!(event, Event::Picked { id, trial: false, .. } if id.as_str() == "p-000")
    ));
    assert!(
        heard
            .iter()
            .any(|event| matches!(event, Event::NotPicked(none) if none.tried == 1))
    );
}

/// Everything that can be told to a resolver, by small numbers.
#[derive(Debug, Clone)]
enum Told {
    Upsert(usize, u64, u32, u32),
    Remove(usize, u64),
    Health(usize, u8),
    Pick(u64, u8),
    Settle(usize, u8),
    Wait(u64),
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        2 => (0..8_usize, 1..4_u64, 0..4_u32, 0..2_u32)
            .prop_map(|(n, life, weight, tier)| Told::Upsert(n, life, weight, tier)),
        1 => (0..8_usize, 1..4_u64).prop_map(|(n, life)| Told::Remove(n, life)),
        1 => (0..8_usize, 0..3_u8).prop_map(|(n, health)| Told::Health(n, health)),
        6 => (any::<u64>(), 0..4_u8).prop_map(|(draw, kind)| Told::Pick(draw, kind)),
        5 => (0..8_usize, 0..5_u8).prop_map(|(n, outcome)| Told::Settle(n, outcome)),
        2 => (1..20_000_u64).prop_map(Told::Wait),
    ]
}

fn upserted(n: usize, life: u64, weight: u32, priority: u32) -> Change {
    let mut instance = instance(&name(n), life);
    instance.weight = weight;
    instance.priority = priority;
    Change::Upserted(Arc::new(instance))
}

fn removed(n: usize, life: u64) -> Change {
    Change::Removed(Removal {
        service: service(),
        id: id(&name(n)),
        incarnation: Incarnation::new(life),
        reason: RemovalReason::Expired,
    })
}

/// The calls in flight of each life of a member. A life that ends takes its calls along; one of the same
/// incarnation that comes back does not bring them.
#[derive(Debug, Default)]
struct Lives {
    begun: usize,
    /// By id: the number of the life, its incarnation and its calls.
    members: BTreeMap<InstanceId, (usize, Incarnation, u32)>,
}

impl Lives {
    fn follow(&mut self, members: &Snapshot) {
        let incarnation = |id: &InstanceId| {
            let mut found = members.instances().iter().filter(|it| it.id == *id);
            found.next().map(|it| it.incarnation)
        };
        self.members
            .retain(|id, (_, life, _)| incarnation(id) == Some(*life));
        for member in members.instances() {
            self.begun += 1;
            let new = (self.begun, member.incarnation, 0);
            self.members.entry(member.id.clone()).or_insert(new);
        }
    }

    fn begin(&mut self, id: &InstanceId) -> usize {
        let (life, _, calls) = self.members.get_mut(id).unwrap();
        *calls += 1;
        *life
    }

    fn end(&mut self, ended: usize) {
        let mut lives = self.members.values_mut();
        if let Some((_, _, calls)) = lives.find(|(life, _, _)| *life == ended) {
            *calls -= 1;
        }
    }

    fn in_flight(&self, id: &InstanceId) -> u32 {
        self.members.get(id).map_or(0, |(_, _, calls)| *calls)
    }
}

/// Tells all of it, and checks after each what must hold whatever happens.
fn tell(resolver: &Resolver, all: &[Told]) -> Result<(), TestCaseError> {
    let mut model = Snapshot::new(Scope::Service(service()), Revision::new(0), Vec::new());
    let mut now = 0;
    let mut held = Vec::new();
    let mut lives = Lives::default();
    for (number, told) in all.iter().enumerate() {
        let revision = Revision::new(number as u64 + 1);
        let change = match *told {
            Told::Upsert(n, life, weight, tier) => Some(upserted(n, life, weight, tier)),
            Told::Remove(n, life) => Some(removed(n, life)),
            _ => None,
        };
        if let Some(change) = change {
            model.advance(revision, std::slice::from_ref(&change));
            resolver.advance(revision, &[change]);
            lives.follow(&model);
        }
        match *told {
            Told::Health(n, health) => {
                let health =
                    [Health::Healthy, Health::Degraded, Health::Unhealthy][usize::from(health)];
                for life in 1..4 {
                    resolver.set_health(&id(&name(n)), Incarnation::new(life), health);
                }
            }
            Told::Pick(draw, kind) => {
                let sticky = id(&name(usize::from(kind)));
                let context = PickContext::new(at(now), draw);
                let context = if kind == 0 {
                    context
                } else {
                    context.sticky(&sticky)
                };
                if let Ok(choice) = resolver.choose(&context) {
                    let listed = model.instances().iter();
                    let mut listed = listed.filter(|it| it.id == choice.instance.id);
                    let listed = listed.next().unwrap();
                    prop_assert_eq!(listed, &choice.instance);
                    prop_assert!(listed.weight > 0);
                    held.push((lives.begin(&listed.id), choice));
                }
            }
            Told::Settle(n, outcome) if !held.is_empty() => {
                let (life, choice) = held.swap_remove(n % held.len());
                let outcomes = [
                    Outcome::Success,
                    Outcome::Failure,
                    Outcome::Failure,
                    Outcome::Neutral,
                    Outcome::Overloaded,
                ];
                resolver.settle(choice.token, outcomes[usize::from(outcome)], at(now + 3));
                lives.end(life);
            }
            Told::Wait(millis) => now += millis,
            _ => {}
        }
        let found = resolver.members();
        prop_assert_eq!(&found[..], model.instances());
        for member in found {
            prop_assert_eq!(
                resolver.in_flight(&member.id),
                Some(lives.in_flight(&member.id)),
                "{}",
                member.id
            );
        }
    }
    for (_, choice) in held {
        resolver.settle(choice.token, Outcome::Neutral, at(now));
    }
    for member in resolver.members() {
        prop_assert_eq!(resolver.in_flight(&member.id), Some(0));
    }
    Ok(())
}

fn configs() -> [Config; 4] {
    let slow = slow_start::Config::new(Duration::from_secs(10));
    let envoy = outlier::Config::Envoy(outlier::envoy::Config::default());
    [
        Config::default(),
        Config::default()
            .balancer(Arc::new(RoundRobin::default()))
            .outliers(envoy),
        Config::default()
            .balancer(Arc::new(Weighted::default()))
            .slow_start(slow),
        calm(Config::default().balancer(Arc::new(P2c)).require_check()),
    ]
}

proptest! {
    #[test]
    fn whatever_is_told_members_counts_and_picks_agree_with_the_model(
        all in proptest::collection::vec(told(), 1..120),
        config in 0..4_usize,
    ) {
        tell(&Resolver::new(service(), configs()[config].clone()), &all)?;
    }

    #[test]
    fn a_recorded_run_is_replayed_to_the_same_picks(
        all in proptest::collection::vec(told(), 1..120),
        config in 0..4_usize,
    ) {
        let log = Arc::new(DecisionLog::new(NonZeroUsize::new(10_000).unwrap()));
        let config = configs()[config].clone();
        tell(&Resolver::new(service(), config.clone().record(Arc::clone(&log))), &all)?;
        let picks = all.iter().filter(|told| matches!(told, Told::Pick(..))).count();
        prop_assert_eq!(log.replay(&service(), config).unwrap().picks, picks);
    }

    #[test]
    fn changes_one_by_one_are_as_a_snapshot_of_them(
        changes in proptest::collection::vec((0..6_usize, 1..4_u64, 0..3_u32, any::<bool>()), 1..40),
        draws in proptest::collection::vec(any::<u64>(), 1..20),
    ) {
        let stepwise = with_members(Config::default(), []);
        let at_once = with_members(Config::default(), []);
        let mut model = Snapshot::new(Scope::Service(service()), Revision::new(0), Vec::new());
        for (number, (n, life, weight, remove)) in changes.into_iter().enumerate() {
            let revision = Revision::new(number as u64 + 1);
            let change = if remove { removed(n, life) } else { upserted(n, life, weight, 0) };
            model.advance(revision, std::slice::from_ref(&change));
            stepwise.advance(revision, &[change]);
        }
        at_once.apply(&model);
        prop_assert_eq!(stepwise.members(), at_once.members());
        prop_assert_eq!(stepwise.revision(), at_once.revision());
        for bits in draws {
            let picked = |resolver: &Resolver| resolver.pick(&draw(bits)).ok().map(|call| call.instance().id.clone());
            prop_assert_eq!(picked(&stepwise), picked(&at_once));
        }
    }
}

#[test]
fn another_configuration_diverges_and_says_where() {
    let log = Arc::new(DecisionLog::new(NonZeroUsize::new(100).unwrap()));
    let resolver = nervous(Config::default().record(Arc::clone(&log)), members(9));
    for n in 0..40_u64 {
        drop(resolver.pick(&draw(n << 58)));
    }
    let other = Config::default().balancer(Arc::new(RoundRobin::default()));
    let divergence = log.replay(&service(), other).unwrap_err();
    assert!(divergence.record < 10, "{divergence}");
    assert_ne!(divergence.recorded, divergence.replayed);
}

#[test]
fn a_full_log_stops_and_calls_go_on() {
    let log = Arc::new(DecisionLog::new(NonZeroUsize::new(3).unwrap()));
    let resolver = nervous(Config::default().record(Arc::clone(&log)), members(2));
    for n in 0..20 {
        drop(resolver.pick(&draw(n)).unwrap());
    }
    assert!(log.is_full());
    assert_eq!(log.len(), 3);
}
