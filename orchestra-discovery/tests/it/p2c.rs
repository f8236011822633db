//! Power of two choices, as calls through the resolver show it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic, Outcome};
use orchestra_discovery::resolver::{Config, Resolver};
use orchestra_discovery::{Completion, Health, Incarnation, PickContext, RingHash, outlier};

use crate::common::{at, draw, instance, with_members};

fn id(n: usize) -> InstanceId {
    format!("p-{n:03}").parse().unwrap()
}

/// Nobody is ejected: what happens is the balancer's doing alone.
fn of(count: usize) -> Resolver {
    let members = (0..count).map(|n| instance(id(n).as_str(), 1));
    with_members(Config::default().outliers(outlier::Config::Off), members)
}

/// One call to this member, which takes so long.
fn call(resolver: &Resolver, n: usize, outcome: Outcome, begin: Monotonic, took: Duration) {
    let id = id(n);
    let context = PickContext::new(begin, n as u64).sticky(&id);
    let call = resolver.pick(&context).unwrap();
    assert_eq!(call.instance().id, id);
    call.settle(outcome, begin + took);
}

/// How often each is picked by so many random draws; the calls are dropped at once.
fn shares(resolver: &Resolver, picks: u64, now: Monotonic) -> BTreeMap<InstanceId, u64> {
    let mut rng = fastrand::Rng::with_seed(23);
    let mut shares = BTreeMap::new();
    for _ in 0..picks {
        let call = resolver.pick(&PickContext::new(now, rng.u64(..))).unwrap();
        *shares.entry(call.instance().id.clone()).or_default() += 1;
    }
    shares
}

const FAST: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(500);

#[test]
fn unknown_one_is_asked_once_until_it_has_answered() {
    let resolver = of(10);
    for n in 0..9 {
        call(&resolver, n, Outcome::Success, at(0), FAST);
    }
    let mut rng = fastrand::Rng::with_seed(3);
    let mut held = Vec::new();
    let mut probes = 0;
    for _ in 0..500 {
        let call = resolver
            .pick(&PickContext::new(at(100), rng.u64(..)))
            .unwrap();
        if call.instance().id == id(9) {
            probes += 1;
            held.push(call);
        }
    }
    assert_eq!(probes, 1);
    for call in held {
        call.settle(Outcome::Success, at(100) + FAST);
    }
    (0..10).for_each(|n| call(&resolver, n, Outcome::Success, at(110), FAST));
    let share = shares(&resolver, 10_000, at(130))[&id(9)];
    assert!((700..1_300).contains(&share), "{share}");
}

/// Of 100 members 10 are slow. Both of a pair are in 1 of 110 cases, four of four in 1 of 18,000.
#[test]
fn two_more_are_drawn_where_both_are_dear() {
    let resolver = of(100);
    let mut rng = fastrand::Rng::with_seed(8);
    for round in 0..200 {
        for n in 0..100 {
            let took = if n < 10 { SLOW } else { FAST };
            call(&resolver, n, Outcome::Success, at(round * 5), took);
        }
        // What is typical is found out from the draws of picks.
        for _ in 0..20 {
            drop(resolver.pick(&PickContext::new(at(round * 5), rng.u64(..))));
        }
    }
    let picks = 200_000;
    let shares = shares(&resolver, picks, at(1_600));
    let slow: u64 = (0..10).filter_map(|n| shares.get(&id(n))).sum();
    assert!(
        slow < picks / 2_000,
        "{slow} of {picks} picks are slow ones"
    );
    // Nobody of the others gets more than its part.
    let fair = picks / 90;
    for (id, &share) in shares.iter().filter(|(_, share)| **share > 1_000) {
        assert!(
            share < fair * 5 / 4 && share > fair * 3 / 4,
            "{id}: {share}"
        );
    }
}

#[test]
fn one_that_failed_fast_is_avoided_and_tried_again_without_being_ejected() {
    let resolver = of(10);
    for round in 0..50 {
        for n in 0..10 {
            let (outcome, took) = match n {
                0 => (Outcome::Failure, Duration::from_micros(100)),
                _ => (Outcome::Success, FAST),
            };
            call(&resolver, n, outcome, at(round * 20), took);
        }
    }
    let share = |now| {
        shares(&resolver, 10_000, now)
            .get(&id(0))
            .copied()
            .unwrap_or(0)
    };
    assert!(share(at(1_000)) < 20, "{}", share(at(1_000)));
    // Failures are forgiven with time, if nobody asks: after some time constants it is asked again.
    for seconds in 1..60 {
        for n in 1..10 {
            call(
                &resolver,
                n,
                Outcome::Success,
                at(1_000 + seconds * 1_000),
                FAST,
            );
        }
    }
    let asked = share(at(61_000));
    assert!(asked > 500, "{asked}");
    // It does well again, and is as good as any.
    (0..10).for_each(|n| call(&resolver, n, Outcome::Success, at(61_000), FAST));
    let share = share(at(61_010));
    assert!((600..1_500).contains(&share), "{share}");
}

#[test]
fn overload_is_avoided_like_a_failure_and_its_wish_to_be_spared_is_granted() {
    let resolver = of(4);
    for n in 0..4 {
        call(&resolver, n, Outcome::Success, at(0), FAST);
    }
    let one = id(2);
    let context = PickContext::new(at(100), 1).sticky(&one);
    let throttled = Completion::from(Outcome::Overloaded).retry_after(Duration::from_secs(3));
    resolver.pick(&context).unwrap().settle(throttled, at(110));
    assert!(!shares(&resolver, 5_000, at(3_000)).contains_key(&one));
    assert!(shares(&resolver, 5_000, at(3_200))[&one] > 1_000);
}

/// The hash of a call decides its pool too: with the draw, a session would change its priority at each call.
#[test]
fn call_with_a_hash_keeps_its_pool_whatever_is_drawn() {
    let member = |n: usize| {
        let mut member = instance(id(n).as_str(), 1);
        member.priority = u32::from(n >= 4);
        member
    };
    let config = Config::default().balancer(Arc::new(RingHash::default()));
    let resolver = with_members(config, (0..8).map(member));
    // Half of the near ones are well: with the overprovisioning of 140 percent 70 of 100 calls stay near.
    for n in [0, 1] {
        resolver.set_health(&id(n), Incarnation::new(1), Health::Unhealthy);
    }
    let mut rng = fastrand::Rng::with_seed(5);
    let mut pools = BTreeMap::new();
    for hash in 0..200_u64 {
        let hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut picked = || {
            let context = draw(rng.u64(..)).hash(hash);
            resolver.pick(&context).unwrap().instance().id.clone()
        };
        let first = picked();
        for _ in 0..20 {
            assert_eq!(picked(), first);
        }
        *pools.entry(first >= id(4)).or_insert(0) += 1;
    }
    assert!(pools[&false] > 50 && pools[&true] > 20, "{pools:?}");
}
