//! The single calls by which an ejected member comes back, and what a long silence does.

use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Labels, Monotonic, Outcome};
use orchestra_discovery::resolver::Config;
use orchestra_discovery::subset::{Fallback, SubsetConfig, SubsetSelector};
use orchestra_discovery::{
    Completion, Event, Health, Incarnation, Instance, PickContext, Resolver, RoundRobin,
};

use crate::common::{at, calm, draw, instance, service, snapshot};
use crate::doubles::heard;

fn id(n: usize) -> InstanceId {
    format!("p-{n}").parse().unwrap()
}

fn member(n: usize, version: &str, priority: u32) -> Instance {
    let mut instance = instance(id(n).as_str(), 1);
    instance.labels = [("version", version)].try_into().unwrap();
    instance.priority = priority;
    instance
}

fn turns() -> Config {
    calm(Config::default()).balancer(Arc::new(RoundRobin::default()))
}

/// Calls the whole set (or subset) until five calls of one have failed and it is ejected.
fn eject(resolver: &Resolver, n: usize, labels: Option<&Labels>, now: Monotonic) {
    let mut failures = 0;
    for turn in 0..10_000 {
        let mut context = PickContext::new(now, turn << 40);
        if let Some(labels) = labels {
            context = context.subset(labels);
        }
        let choice = resolver.choose(&context).unwrap();
        let outcome = if choice.instance.id == id(n) {
            failures += 1;
            Outcome::Failure
        } else {
            Outcome::Success
        };
        resolver.settle(choice.token, outcome, now);
        if failures == 5 {
            return;
        }
    }
    panic!("p-{n} gets no calls");
}

#[test]
fn a_change_of_another_member_begins_no_second_trial() {
    let resolver = Resolver::new(service(), turns());
    resolver.apply(&snapshot((0..20).map(|n| member(n, "1", 0))));
    eject(&resolver, 0, None, at(1));
    let trial = resolver.choose(&PickContext::new(at(1_500), 0)).unwrap();
    assert!(trial.token.is_trial() && trial.instance.id == id(0));
    for n in 3..8 {
        assert!(resolver.set_health(&id(n), Incarnation::new(1), Health::Degraded));
        let next = resolver.choose(&PickContext::new(at(1_600), 0)).unwrap();
        assert!(!next.token.is_trial(), "a second one after change {n}");
        resolver.settle(next.token, Outcome::Success, at(1_600));
    }
    // One that is not settled is followed by another after its lease.
    let again = resolver.choose(&PickContext::new(at(6_600), 0)).unwrap();
    assert!(again.token.is_trial());
    // The first one ends late, and well: another passed trial, and it is back.
    resolver.settle(trial.token, Outcome::Success, at(6_700));
    resolver.settle(again.token, Outcome::Success, at(6_800));
}

#[test]
fn a_trial_is_a_call_that_may_go_there() {
    let selector = SubsetSelector::new(["version"]);
    let subsets = SubsetConfig::new([selector], Fallback::NoFallback).unwrap();
    let resolver = Resolver::new(service(), turns().subsets(subsets));
    let version = |n: usize| if n < 4 { "1" } else { "2" };
    resolver.apply(&snapshot((0..8).map(|n| member(n, version(n), 0))));
    let asked = |version: &str| Labels::new().with("version", version).unwrap();
    let (one, two, three) = (asked("1"), asked("2"), asked("3"));
    eject(&resolver, 0, Some(&one), at(1));
    let later = at(3_000);
    let none = resolver
        .choose(&PickContext::new(later, 0).subset(&three))
        .unwrap_err();
    assert!(none.no_subset);
    for n in 0..20 {
        let choice = resolver
            .choose(&PickContext::new(later, n << 58).subset(&two))
            .unwrap();
        assert!(!choice.token.is_trial(), "{:?}", choice.instance.id);
        assert!(choice.instance.id > id(3));
        resolver.settle(choice.token, Outcome::Success, later);
    }
    let choice = resolver
        .choose(&PickContext::new(later, 0).subset(&one))
        .unwrap();
    assert!(choice.token.is_trial());
}

#[test]
fn tiers_that_get_no_calls_get_no_trials() {
    let resolver = Resolver::new(service(), turns());
    let priority = |n: usize| if n < 4 { 0 } else { 7 };
    resolver.apply(&snapshot((0..8).map(|n| member(n, "1", priority(n)))));
    for n in 0..4 {
        assert!(resolver.set_health(&id(n), Incarnation::new(1), Health::Unhealthy));
    }
    eject(&resolver, 5, None, at(1));
    for n in 0..4 {
        assert!(resolver.set_health(&id(n), Incarnation::new(1), Health::Healthy));
    }
    for n in 0..20 {
        let choice = resolver
            .choose(&PickContext::new(at(4_000), n << 58))
            .unwrap();
        assert!(choice.instance.priority == 0, "{:?}", choice.instance.id);
        resolver.settle(choice.token, Outcome::Success, at(4_000));
    }
    // They are needed again.
    for n in 0..4 {
        assert!(resolver.set_health(&id(n), Incarnation::new(1), Health::Unhealthy));
    }
    let choice = resolver.choose(&PickContext::new(at(5_000), 0)).unwrap();
    assert!(choice.token.is_trial());
}

#[test]
fn an_ejected_member_of_a_tier_that_lost_all_calls_is_tried() {
    let resolver = Resolver::new(service(), turns());
    let priority = |n: usize| u32::from(n > 0);
    resolver.apply(&snapshot((0..3).map(|n| member(n, "1", priority(n)))));
    eject(&resolver, 0, None, at(1));
    let choice = resolver.choose(&PickContext::new(at(2_000), 0)).unwrap();
    assert!(choice.token.is_trial() && choice.instance.id == id(0));
}

#[test]
fn a_wish_to_be_left_alone_is_over_after_a_week_of_silence() {
    let resolver = Resolver::new(service(), calm(Config::default()));
    resolver.apply(&snapshot((0..3).map(|n| member(n, "1", 0))));
    let mut asked = false;
    for n in 0..30 {
        let choice = resolver.choose(&draw(n << 58)).unwrap();
        let busy = choice.instance.id == id(0);
        asked |= busy;
        let completion = if busy {
            Completion::from(Outcome::Overloaded).retry_after(Duration::from_secs(4))
        } else {
            Completion::from(Outcome::Success)
        };
        resolver.settle(choice.token, completion, at(5));
    }
    assert!(asked);
    let week = Monotonic::ZERO + Duration::from_secs(7 * 86_400);
    let mut rng = fastrand::Rng::with_seed(1);
    let picked = (0..300).filter(|&n| {
        let now = week + Duration::from_millis(10 * n);
        let choice = resolver
            .choose(&PickContext::new(now, rng.u64(..)))
            .unwrap();
        resolver.settle(
            choice.token,
            Outcome::Success,
            now + Duration::from_millis(5),
        );
        choice.instance.id == id(0)
    });
    let picked = picked.count();
    assert!(picked > 50, "{picked} of 300");
}

#[test]
fn explained_picks_are_told_too() {
    let (heard, listener) = heard();
    let resolver = Resolver::new(
        service(),
        Config::default().listener(listener).pick_events(),
    );
    resolver.apply(&snapshot([member(0, "1", 0)]));
    let (choice, _why) = resolver.choose_explained(&draw(0));
    resolver.settle(choice.unwrap().token, Outcome::Success, at(0));
    let picked = |event: &&Event| matches!(event, Event::Picked { .. });
    assert_eq!(heard.lock().iter().filter(picked).count(), 1);
}

#[test]
fn a_call_that_ends_at_the_end_of_time_is_counted() {
    let resolver = Resolver::new(service(), calm(Config::default()));
    resolver.apply(&snapshot([member(0, "1", 0)]));
    let choice = resolver.choose(&draw(0)).unwrap();
    resolver.settle(
        choice.token,
        Outcome::Success,
        Monotonic::from_nanos(u64::MAX),
    );
    assert_eq!(resolver.in_flight(&id(0)), Some(0));
}
