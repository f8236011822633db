//! Picks: who may be picked, in which shares, at what cost, and what becomes of the counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic, Outcome};
use orchestra_discovery::resolver::Config;
use orchestra_discovery::{
    Health, Incarnation, Instance, P2c, PickContext, Resolver, RoundRobin, Status, Token,
};
use proptest::prelude::*;

use crate::common::{at, draw, instance, snapshot, with_members};
use crate::gates::{Counting, Recording, Shut};

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

fn weighted(id: &str, weight: u32) -> Instance {
    let mut instance = instance(id, 1);
    instance.weight = weight;
    instance
}

fn round_robin() -> Config {
    Config::default().balancer(Arc::new(RoundRobin::default()))
}

fn picked(resolver: &Resolver, context: &PickContext<'_>) -> String {
    resolver.pick(context).unwrap().instance().id.to_string()
}

/// How often each is picked in `picks` picks that are settled at once.
fn shares(resolver: &Resolver, picks: u64) -> BTreeMap<String, u64> {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut shares = BTreeMap::new();
    for _ in 0..picks {
        *shares
            .entry(picked(resolver, &draw(rng.u64(..))))
            .or_default() += 1;
    }
    shares
}

#[test]
fn nobody_registered_is_said_as_such() {
    let none = with_members(Config::default(), [])
        .pick(&draw(0))
        .unwrap_err();
    assert_eq!((none.registered, none.tried, none.refused), (0, 0, 0));
    assert_eq!(
        none.to_string(),
        "no instance of service payments takes the call: 0 registered"
    );
}

#[test]
fn each_reason_is_counted_once() {
    let mut draining = instance("p-1", 1);
    draining.status = Status::Draining;
    let mut starting = instance("p-2", 1);
    starting.status = Status::Starting;
    let members = [
        draining,
        starting,
        weighted("p-3", 0),
        instance("p-4", 1),
        instance("p-5", 1),
        instance("p-6", 1),
    ];
    let gates = Arc::new(Shut::from(["p-6"]));
    let resolver = with_members(Config::default().gates(gates), members);
    assert!(resolver.set_health(&id("p-4"), Incarnation::new(1), Health::Unhealthy));
    let tried = [id("p-5")];
    let none = resolver.pick(&draw(9).tried(&tried)).unwrap_err();
    let counts = [
        none.registered,
        none.draining,
        none.starting,
        none.zero_weight,
        none.unhealthy,
        none.tried,
        none.refused,
    ];
    assert_eq!(counts, [6, 1, 1, 1, 1, 1, 1]);
    assert_eq!(none.reason, Some("shut"));
    assert_eq!(none.retry_after, Some(Duration::from_secs(3)));
}

#[test]
fn verdict_on_another_incarnation_is_not_meant() {
    let resolver = with_members(Config::default(), [instance("p-1", 2)]);
    assert!(!resolver.set_health(&id("p-1"), Incarnation::new(1), Health::Unhealthy));
    assert_eq!(picked(&resolver, &draw(0)), "p-1");
}

#[test]
fn round_robin_gives_exact_shares() {
    let members = [weighted("p-1", 1), weighted("p-2", 2), weighted("p-3", 5)];
    let resolver = with_members(round_robin(), members);
    let shares = shares(&resolver, 8 * 100);
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [100, 200, 500]);
}

#[test]
fn round_robin_spreads_the_turns_of_the_light_ones() {
    let members = [weighted("p-1", 1), weighted("p-2", 1), weighted("p-3", 2)];
    let resolver = with_members(round_robin(), members);
    let turns: Vec<_> = (0..8).map(|n| picked(&resolver, &draw(n))).collect();
    assert_eq!(turns.join(" "), ["p-2 p-3 p-1 p-3"; 2].join(" "));
}

#[test]
fn round_robin_spreads_what_a_heavy_one_refuses() {
    let members = [
        weighted("a", 100),
        weighted("b", 100),
        weighted("c", 200),
        weighted("z", 100_000),
    ];
    let gates = Arc::new(Shut::from(["z"]));
    let resolver = with_members(round_robin().gates(gates), members);
    let shares = shares(&resolver, 4_000);
    for (id, fair) in [("a", 1_000), ("b", 1_000), ("c", 2_000)] {
        let share = shares.get(id).copied().unwrap_or_default();
        assert!(share.abs_diff(fair) < 150, "{id}: {share} of {fair}");
    }
}

#[test]
fn p2c_follows_the_weights_while_idle() {
    let members = [weighted("p-1", 1), weighted("p-2", 3)];
    let shares = shares(&with_members(Config::default(), members), 40_000);
    let share = shares["p-2"] as f64 / 40_000.0;
    assert!((share - 0.75).abs() < 0.02, "{share}");
}

#[test]
fn p2c_evens_out_calls_in_flight_per_weight() {
    let members = [weighted("p-1", 1), weighted("p-2", 1), weighted("p-3", 2)];
    let resolver = with_members(Config::default(), members);
    let mut rng = fastrand::Rng::with_seed(5);
    let mut held = Vec::new();
    for _ in 0..400 {
        held.push(resolver.pick(&draw(rng.u64(..))).unwrap());
    }
    let load = |name| resolver.in_flight(&id(name)).unwrap();
    assert!(load("p-1").abs_diff(100) <= 4, "{}", load("p-1"));
    assert!(load("p-2").abs_diff(100) <= 4, "{}", load("p-2"));
    assert!(load("p-3").abs_diff(200) <= 6, "{}", load("p-3"));
}

#[test]
fn p2c_prefers_half_the_latency_and_tries_the_slow_one_again_later() {
    let resolver = with_members(Config::default(), [instance("p-1", 1), instance("p-2", 1)]);
    let mut rng = fastrand::Rng::with_seed(3);
    let mut call = |now: Monotonic| {
        let choice = resolver
            .choose(&PickContext::new(now, rng.u64(..)))
            .unwrap();
        let slow = choice.instance.id.as_str() == "p-1";
        let took = Duration::from_millis(if slow { 100 } else { 10 });
        resolver.settle(choice.token, Outcome::Success, now + took);
        slow
    };
    let slow_at_first = (0..50).filter(|n| call(at(n * 200))).count();
    assert!(slow_at_first < 10, "{slow_at_first}");
    // The slow one's average decays while nobody asks it.
    let slow_later = (0..50).filter(|n| call(at(100_000 + n * 1_000))).count();
    assert!((1..25).contains(&slow_later), "{slow_later}");
}

#[test]
fn failing_fast_does_not_look_fast() {
    let resolver = with_members(Config::default(), [instance("p-1", 1), instance("p-2", 1)]);
    let mut rng = fastrand::Rng::with_seed(3);
    let mut failing = 0;
    for n in 0..1_000 {
        let now = at(n * 100);
        let choice = resolver
            .choose(&PickContext::new(now, rng.u64(..)))
            .unwrap();
        if choice.instance.id.as_str() == "p-1" {
            failing += 1;
            resolver.settle(choice.token, Outcome::Failure, now);
        } else {
            resolver.settle(
                choice.token,
                Outcome::Success,
                now + Duration::from_millis(20),
            );
        }
    }
    // It is ejected by its first failures, and tried once in a while.
    assert!((1..60).contains(&failing), "{failing}");
}

#[test]
fn guard_counts_until_it_is_settled_or_dropped() {
    let gates = Arc::new(Recording::default());
    let resolver = with_members(
        Config::default().gates(Arc::clone(&gates) as _),
        [instance("p-1", 1)],
    );
    let settled = resolver.pick(&draw(1)).unwrap();
    let dropped = resolver.pick(&draw(2)).unwrap();
    assert_eq!(resolver.in_flight(&id("p-1")), Some(2));
    settled.settle(Outcome::Failure, at(5));
    drop(dropped);
    assert_eq!(resolver.in_flight(&id("p-1")), Some(0));
    let expected = [(0, Outcome::Failure, at(5)), (1, Outcome::Neutral, at(0))];
    assert_eq!(*gates.0.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn cancelled_call_comes_back_to_the_count() {
    let resolver = with_members(Config::default(), [instance("p-1", 1)]);
    let call = async {
        let _call = resolver.pick(&draw(1)).unwrap();
        std::future::pending::<()>().await;
    };
    let cancelled = tokio::time::timeout(Duration::from_secs(1), call).await;
    assert!(cancelled.is_err());
    assert_eq!(resolver.in_flight(&id("p-1")), Some(0));
}

#[test]
fn counts_and_gate_survive_a_change_of_the_same_incarnation() {
    let gates = Arc::new(Recording::default());
    let resolver = with_members(
        Config::default().gates(Arc::clone(&gates) as _),
        [instance("p-1", 1)],
    );
    let choice = resolver.choose(&draw(1)).unwrap();
    let mut draining = weighted("p-1", 9);
    draining.status = Status::Draining;
    resolver.apply(&snapshot([instance("p-0", 1), draining]));
    assert_eq!(resolver.in_flight(&id("p-1")), Some(1));
    resolver.settle(choice.token, Outcome::Success, at(1));
    assert_eq!(resolver.in_flight(&id("p-1")), Some(0));
    assert_eq!(gates.0.lock().len(), 1);
}

#[test]
fn token_of_a_replaced_instance_settles_nothing() {
    let gates = Arc::new(Recording::default());
    let resolver = with_members(
        Config::default().gates(Arc::clone(&gates) as _),
        [instance("p-1", 1)],
    );
    let old = resolver.choose(&draw(1)).unwrap();
    resolver.apply(&snapshot([instance("p-1", 2)]));
    let new = resolver.choose(&draw(1)).unwrap();
    resolver.settle(old.token, Outcome::Failure, at(1));
    assert_eq!(resolver.in_flight(&id("p-1")), Some(1));
    assert_eq!(*gates.0.lock(), []);
    resolver.settle(
        Token::from_words(new.token.to_words()),
        Outcome::Success,
        at(2),
    );
    assert_eq!(resolver.in_flight(&id("p-1")), Some(0));
}

#[test]
fn token_of_a_removed_instance_settles_nothing() {
    let resolver = with_members(Config::default(), [instance("p-1", 1)]);
    let gone = resolver.choose(&draw(1)).unwrap();
    resolver.apply(&snapshot([]));
    resolver.settle(gone.token, Outcome::Success, at(1));
    // The slot is used again, by another.
    resolver.apply(&snapshot([instance("p-2", 1)]));
    let held = resolver.choose(&draw(1)).unwrap();
    resolver.settle(gone.token, Outcome::Success, at(1));
    assert_eq!(resolver.in_flight(&id("p-2")), Some(1));
    resolver.settle(held.token, Outcome::Success, at(1));
}

#[test]
fn settling_twice_does_not_wrap_the_count() {
    let resolver = with_members(Config::default(), [instance("p-1", 1)]);
    let choice = resolver.choose(&draw(1)).unwrap();
    resolver.settle(choice.token, Outcome::Success, at(1));
    resolver.settle(choice.token, Outcome::Success, at(1));
    assert_eq!(resolver.in_flight(&id("p-1")), Some(0));
}

#[test]
fn refused_by_one_gate_goes_to_another() {
    let members = (0..30).map(|n| instance(&format!("p-{n:02}"), 1));
    let shut: Vec<_> = (0..29).map(|n| format!("p-{n:02}")).collect();
    let gates = Arc::new(Shut(shut));
    for balancer in [Config::default(), round_robin()] {
        let resolver = with_members(balancer.gates(Arc::clone(&gates) as _), members.clone());
        let shares = shares(&resolver, 100);
        assert_eq!(shares, BTreeMap::from([("p-29".to_owned(), 100)]));
    }
}

#[test]
fn no_gate_is_asked_twice_by_one_pick() {
    let asked = Arc::new(AtomicU64::new(0));
    let members = (0..30).map(|n| instance(&format!("p-{n:02}"), 1));
    let gates = Arc::new(Counting(Arc::clone(&asked)));
    let resolver = with_members(Config::default().gates(gates), members);
    for n in 1..100 {
        let none = resolver.pick(&draw(n << 57)).unwrap_err();
        assert_eq!((none.refused, asked.swap(0, Ordering::Relaxed)), (30, 30));
    }
}

/// Answers with an index that is out of range, or not open.
#[derive(Debug)]
struct Foolish(usize);

impl orchestra_discovery::Balancer for Foolish {
    fn choose(
        &self,
        _: &orchestra_discovery::Candidates<'_>,
        _: &PickContext<'_>,
    ) -> Option<usize> {
        Some(self.0)
    }
}

#[test]
fn foolish_balancer_does_not_break_a_pick() {
    for answer in [0, 7, usize::MAX] {
        let config = Config::default().balancer(Arc::new(Foolish(answer)));
        let resolver = with_members(config, [instance("p-1", 1), instance("p-2", 1)]);
        let tried = [id("p-1")];
        assert_eq!(picked(&resolver, &draw(3).tried(&tried)), "p-2");
    }
}

#[test]
fn pick_and_settle_do_not_allocate() {
    let members = || (0..100).map(|n| weighted(&format!("p-{n:02}"), n % 7));
    let configs = [
        Config::default(),
        Config::default().balancer(Arc::new(P2c)),
        round_robin(),
    ];
    for config in configs {
        let resolver = with_members(config, members());
        let tried = [id("p-01"), id("p-02")];
        let mut rng = fastrand::Rng::with_seed(1);
        let mut pick = || {
            let context = PickContext::new(at(3), rng.u64(..)).tried(&tried);
            let call = resolver.pick(&context).unwrap();
            call.settle(Outcome::Success, at(9));
            drop(resolver.pick(&context));
        };
        // The first load of a thread makes its node in the list of readers.
        pick();
        let allocations = orchestra_testkit::alloc::allocations(|| (0..1_000).for_each(|_| pick()));
        assert_eq!(allocations, 0);
    }
}

#[test]
fn picks_and_changes_at_once_lose_no_count() {
    let members =
        |round: u64| (0..8).map(move |n| instance(&format!("p-{n}"), 1 + round * (n % 2)));
    let resolver = with_members(Config::default(), members(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pickers = (0..4_u64).map(|seed| {
            let (resolver, done) = (&resolver, &done);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut held = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    held.push(resolver.pick(&draw(rng.u64(..))).unwrap());
                    if held.len() > 16 {
                        held.swap_remove(rng.usize(..16))
                            .settle(Outcome::Success, at(1));
                    }
                }
            })
        });
        let pickers: Vec<_> = pickers.collect();
        for round in 0..500 {
            resolver.apply(&snapshot(members(round)));
        }
        done.store(true, Ordering::Relaxed);
        for picker in pickers {
            picker.join().unwrap();
        }
    });
    for n in 0..8 {
        let left = resolver.in_flight(&id(&format!("p-{n}")));
        assert_eq!(left, Some(0), "p-{n}");
    }
}

proptest! {
    #[test]
    fn nobody_is_picked_who_may_not_be(
        members in proptest::collection::vec((0..4_u32, 0..3_u8, any::<bool>()), 0..12),
        tried in proptest::collection::btree_set(0..12_usize, 0..6),
        draws in proptest::collection::vec(any::<u64>(), 1..20),
        robin in any::<bool>(),
    ) {
        let name = |n: usize| format!("p-{n:02}");
        let instances = members.iter().enumerate().map(|(n, &(weight, status, _))| {
            let mut instance = weighted(&name(n), weight);
            instance.status = [Status::Ready, Status::Draining, Status::Starting][usize::from(status)];
            instance
        });
        let config = if robin { round_robin() } else { Config::default() };
        let resolver = with_members(config, instances);
        for (n, &(_, _, sick)) in members.iter().enumerate().filter(|(_, member)| member.2) {
            prop_assert!(sick && resolver.set_health(&id(&name(n)), Incarnation::new(1), Health::Unhealthy));
        }
        let may = |n: usize, &(weight, status, sick): &(u32, u8, bool)| {
            weight > 0 && status == 0 && !sick && !tried.contains(&n)
        };
        let allowed: Vec<_> = members.iter().enumerate().filter(|(n, member)| may(*n, member)).map(|(n, _)| name(n)).collect();
        let tried: Vec<_> = tried.iter().map(|&n| id(&name(n))).collect();
        for bits in draws {
            match resolver.pick(&draw(bits).tried(&tried)) {
                Ok(call) => prop_assert!(allowed.contains(&call.instance().id.to_string())),
                Err(none) => {
                    prop_assert!(allowed.is_empty());
                    let sum = none.starting + none.draining + none.zero_weight + none.unhealthy + none.tried;
                    prop_assert_eq!(sum, none.registered);
                }
            }
        }
    }

    #[test]
    fn round_robin_is_exact_over_a_cycle(weights in proptest::collection::vec(1..40_u32, 1..9)) {
        let name = |n: usize| format!("p-{n}");
        let instances = weights.iter().enumerate().map(|(n, &weight)| weighted(&name(n), weight));
        let resolver = with_members(round_robin(), instances);
        let total: u32 = weights.iter().sum();
        let shares = shares(&resolver, u64::from(total) * 3);
        for (n, &weight) in weights.iter().enumerate() {
            prop_assert_eq!(shares[&name(n)], u64::from(weight) * 3);
        }
    }
}

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Resolver>();
    check::<orchestra_discovery::InFlight>();
    check::<orchestra_discovery::Choice>();
    check::<orchestra_discovery::Error>();
    check::<orchestra_discovery::MemoryRegistry>();
    check::<orchestra_discovery::Heartbeat>();
    check::<orchestra_discovery::Follow>();
    check::<orchestra_discovery::HealthCheck>();
}
