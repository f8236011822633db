//! Members that count for nothing, zones that take nothing, and what an explanation says when all refuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::{InstanceId, Labels, Locality, Outcome};
use orchestra_discovery::locality::ZoneConfig;
use orchestra_discovery::priority::{self, OnPanic};
use orchestra_discovery::resolver::{Config, Way, Zoning};
use orchestra_discovery::subset::{Fallback, SubsetConfig, SubsetSelector};
use orchestra_discovery::{
    Balancer, Health, Incarnation, Instance, PickContext, Resolver, RoundRobin, Status, Weighted,
    slow_start,
};

use crate::common::{at, draw, instance, service, snapshot, with_members};
use crate::gates::{Counting, Shut};

fn id(n: usize) -> InstanceId {
    format!("p-{n:02}").parse().unwrap()
}

fn member(n: usize) -> Instance {
    instance(id(n).as_str(), 1)
}

fn placed(n: usize, zone: &str) -> Instance {
    let mut instance = member(n);
    instance.locality = Locality::new("eu").zone(zone);
    instance
}

fn resolver(config: Config, members: impl IntoIterator<Item = Instance>) -> Resolver {
    let resolver = Resolver::new(service(), config);
    resolver.apply(&snapshot(members));
    resolver
}

fn set(resolver: &Resolver, numbers: impl IntoIterator<Item = usize>, health: Health) {
    for n in numbers {
        assert!(resolver.set_health(&id(n), Incarnation::new(1), health));
    }
}

/// Whom a thousand calls go to.
fn picked(resolver: &Resolver) -> Vec<usize> {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut found = std::collections::BTreeSet::new();
    for _ in 0..1_000 {
        if let Ok(call) = resolver.pick(&PickContext::new(at(1), rng.u64(..))) {
            found.insert(call.instance().id.as_str()[2..].parse().unwrap());
            call.settle(Outcome::Success, at(2));
        }
    }
    found.into_iter().collect()
}

fn turns() -> Config {
    Config::default().balancer(Arc::new(RoundRobin::default()))
}

#[test]
fn members_that_nobody_checked_yet_cause_no_panic_and_get_no_calls() {
    let resolver = resolver(turns().require_check(), (0..10).map(member));
    set(&resolver, 0..4, Health::Healthy);
    assert!(!resolver.is_in_panic());
    assert_eq!(picked(&resolver), [0, 1, 2, 3]);
    // In panic calls go to what was found sick, and still not to what nobody has checked.
    set(&resolver, 0..3, Health::Unhealthy);
    assert!(resolver.is_in_panic());
    assert_eq!(picked(&resolver), [0, 1, 2, 3]);
}

#[test]
fn a_zone_of_weight_zero_takes_no_calls_of_another_priority_either() {
    let eu = |zone: &str| Locality::new("eu").zone(zone);
    let zoning = Zoning::Weighted(vec![(eu("a"), 1), (eu("b"), 0)]);
    let tiered = |n: usize| {
        let mut instance = placed(n, if n.is_multiple_of(2) { "a" } else { "b" });
        instance.priority = u32::from(n >= 4);
        instance
    };
    let resolver = with_members(turns().zoning(zoning), (0..8).map(tiered));
    assert_eq!(picked(&resolver), [0, 2]);
    set(&resolver, 0..4, Health::Unhealthy);
    assert_eq!(picked(&resolver), [4, 6]);
    set(&resolver, 4..8, Health::Degraded);
    assert_eq!(picked(&resolver), [4, 6]);
    let tried = [id(4), id(6)];
    let again = resolver.pick(&draw(7).tried(&tried));
    assert!(again.is_err(), "the zone takes no second attempts");
}

#[test]
fn callers_that_leave_count_no_more() {
    let own = Locality::new("eu").zone("a");
    let mut config = ZoneConfig::default();
    config.min_cluster_size = 1;
    let zoning = Zoning::Aware { own, config };
    let zone = |n: usize| if n < 4 { "a" } else { "b" };
    let resolver = resolver(turns().zoning(zoning), (0..8).map(|n| placed(n, zone(n))));
    // Three times as many callers as instances near them: a third of the calls stays.
    let callers = |draining: usize| {
        snapshot((0..8).map(|n| {
            let mut caller = placed(n, if n < 6 { "a" } else { "b" });
            if n < draining {
                caller.status = Status::Draining;
            }
            caller
        }))
    };
    resolver.set_callers(&callers(0));
    assert!(
        picked(&resolver).iter().any(|&n| n >= 4),
        "too many callers near"
    );
    resolver.set_callers(&callers(4));
    assert!(
        picked(&resolver).iter().all(|&n| n < 4),
        "those that are left fit"
    );
}

#[test]
fn an_explanation_tells_every_refusal() {
    let shut: Vec<_> = (0..20).map(|n| id(n).to_string()).collect();
    let resolver = with_members(turns().gates(Arc::new(Shut(shut))), (0..20).map(member));
    let (choice, why) = resolver.choose_explained(&draw(3));
    assert!(choice.is_err());
    let verdicts = why.members.iter().map(|member| member.verdict.to_string());
    assert!(
        verdicts.into_iter().all(|verdict| verdict == "refused"),
        "{why}"
    );
}

#[test]
fn no_gate_is_asked_twice_in_panic() {
    let asked = Arc::new(AtomicU64::new(0));
    let gates = Arc::new(Counting(Arc::clone(&asked)));
    let resolver = resolver(turns().gates(gates), (0..40).map(member));
    set(&resolver, 0..25, Health::Unhealthy);
    assert!(resolver.is_in_panic());
    let none = resolver.pick(&draw(3)).unwrap_err();
    assert_eq!((asked.load(Ordering::Relaxed), none.refused), (40, 40));
}

#[test]
fn whoever_is_drawn_past_its_gate_is_said_to_be() {
    let gates = Arc::new(Shut::from(["p-00"]));
    let resolver = with_members(turns().gates(gates).bypass_gates(), [member(0)]);
    let (choice, why) = resolver.choose_explained(&draw(3));
    resolver.settle(choice.unwrap().token, Outcome::Success, at(1));
    assert_eq!(why.way, Way::PastItsGate);
}

#[test]
fn a_tier_that_fails_in_panic_gives_its_sick_members_no_calls() {
    let mut priorities = priority::Config::default();
    priorities.on_panic = OnPanic::Fail;
    let tiered = |n: usize| {
        let mut instance = member(n);
        instance.priority = u32::from(n >= 10);
        instance
    };
    let shut: Vec<_> = (10..20).map(|n| id(n).to_string()).collect();
    let config = turns().gates(Arc::new(Shut(shut))).priorities(priorities);
    let resolver = resolver(config, (0..20).map(tiered));
    set(&resolver, 1..10, Health::Unhealthy);
    set(&resolver, 15..20, Health::Unhealthy);
    assert!(
        picked(&resolver).iter().all(|&n| n == 0),
        "{:?}",
        picked(&resolver)
    );
    let sick = id(5);
    let stuck = resolver.choose(&draw(1).sticky(&sick));
    assert!(stuck.is_err() || stuck.unwrap().instance.id != sick);
}

#[test]
fn a_member_that_comes_after_a_long_silence_starts_slowly() {
    let slow = slow_start::Config::new(Duration::from_secs(10));
    let config = Config::default()
        .balancer(Arc::new(Weighted::default()))
        .slow_start(slow);
    let resolver = with_members(config, (0..4).map(member));
    let mut rng = fastrand::Rng::with_seed(9);
    let mut share_of_new = |now| {
        let calls = (0..2_000).filter(|_| {
            let choice = resolver
                .choose(&PickContext::new(at(now), rng.u64(..)))
                .unwrap();
            resolver.settle(choice.token, Outcome::Success, at(now + 1));
            choice.instance.id == id(4)
        });
        calls.count()
    };
    assert_eq!(share_of_new(20_000), 0);
    resolver.apply(&snapshot((0..5).map(member)));
    // A minute nobody called, and now it is new all the same.
    assert!(share_of_new(80_000) < 150);
    assert!(share_of_new(95_000) > 300);
}

/// Keeps a number for each pool that it prepares.
#[derive(Debug, Default)]
struct Numbered(AtomicU64);

impl Balancer for Numbered {
    fn prepare(
        &self,
        pool: &orchestra_discovery::balance::PoolMembers<'_>,
        before: Option<orchestra_discovery::balance::Prepared>,
    ) -> Option<orchestra_discovery::balance::Prepared> {
        let version = pool.instance(0)?.labels.clone();
        if let Some(before) = before.and_then(|it| it.downcast::<Labels>().ok()) {
            assert_eq!(*before, version, "the pool of another subset");
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Some(Arc::new(version))
    }

    fn choose(
        &self,
        candidates: &orchestra_discovery::Candidates<'_>,
        context: &PickContext<'_>,
    ) -> Option<usize> {
        (0..candidates.len()).find(|&n| candidates.is_open(n) && context.draw > 0)
    }
}

#[test]
fn what_a_balancer_prepared_for_a_subset_stays_with_it() {
    let versioned = |n: usize, version: &str| {
        let mut instance = member(n);
        instance.labels = [("version", version)].try_into().unwrap();
        instance
    };
    let selector = SubsetSelector::new(["version"]);
    let subsets = SubsetConfig::new([selector], Fallback::NoFallback).unwrap();
    let balancer = Arc::new(Numbered::default());
    let config = Config::default()
        .subsets(subsets)
        .balancer(Arc::clone(&balancer) as Arc<dyn Balancer>);
    let resolver = with_members(config, [versioned(1, "1"), versioned(2, "2")]);
    let (one, two) = (versioned(1, "1"), versioned(2, "2"));
    // A version that comes first in the order of values.
    resolver.apply(&snapshot([one, two, versioned(3, "0")]));
    assert!(balancer.0.load(Ordering::Relaxed) >= 2);
}
