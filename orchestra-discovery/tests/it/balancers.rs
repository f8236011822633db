//! Every balancer through the resolver: its shares, its order, whom it never picks, and that it costs no memory.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestra_core::{InstanceId, Outcome};
use orchestra_discovery::resolver::Config;
use orchestra_discovery::{
    Balancer, ErrorKind, FourFactors, Health, InFlight, Incarnation, Instance, KetamaHash,
    LeastRequest, MaglevHash, P2c, PickContext, Random, RendezvousHash, Resolver, RingHash,
    RoundRobin, Scored, SmoothRoundRobin, Status, Weighted, hash,
};
use proptest::prelude::*;

use crate::common::{at, draw, instance, snapshot, with_members};
use crate::gates::Shut;

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

fn weighted(id: &str, weight: u32) -> Instance {
    let mut instance = instance(id, 1);
    instance.weight = weight;
    instance
}

/// `p-0`, `p-1`, … at the ports 90, 91, … of one host, with these weights.
fn members(weights: &[u32]) -> Vec<Instance> {
    let member = |(n, &weight): (usize, &u32)| {
        let mut member = weighted(&format!("p-{n}"), weight);
        member.endpoint = format!("127.0.0.1:{}", 90 + n).parse().unwrap();
        member
    };
    weights.iter().enumerate().map(member).collect()
}

fn resolver(balancer: impl Balancer + 'static, members: Vec<Instance>) -> Resolver {
    with_members(Config::default().balancer(Arc::new(balancer)), members)
}

fn picked(resolver: &Resolver, context: &PickContext<'_>) -> String {
    resolver.pick(context).unwrap().instance().id.to_string()
}

/// Whom so many picks go to, settled at once.
fn turns(resolver: &Resolver, picks: u64) -> String {
    let turns = (0..picks).map(|n| picked(resolver, &draw(n)));
    let turns = turns.map(|id| id.trim_start_matches("p-").to_owned());
    turns.collect::<Vec<_>>().join(" ")
}

/// How often each is picked in `picks` picks with random draws and hashes.
fn shares(resolver: &Resolver, picks: u64) -> BTreeMap<String, u64> {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut shares = BTreeMap::new();
    for _ in 0..picks {
        let context = draw(rng.u64(..)).hash(rng.u64(..));
        *shares.entry(picked(resolver, &context)).or_default() += 1;
    }
    shares
}

/// Holds so many calls to one member.
fn held(resolver: &Resolver, name: &str, calls: usize) -> Vec<InFlight> {
    let id = id(name);
    let pick = |_| resolver.pick_owned(&draw(7).sticky(&id)).unwrap();
    let held: Vec<_> = (0..calls).map(pick).collect();
    assert!(held.iter().all(|call| call.instance().id == id));
    held
}

fn hashing() -> [Arc<dyn Balancer>; 6] {
    let small = hash::rendezvous::Config::new(4_099).unwrap();
    let ring = RingHash::new(hash::ring::Config::grpc()).unwrap();
    [
        Arc::new(ring),
        Arc::new(ring.bounded(100).unwrap()),
        Arc::new(MaglevHash::default()),
        Arc::new(MaglevHash::default().bounded(150).unwrap()),
        Arc::new(KetamaHash::default()),
        Arc::new(RendezvousHash::new(small).unwrap()),
    ]
}

fn every() -> Vec<Arc<dyn Balancer>> {
    let biased = LeastRequest::default().active_request_bias(1.0).unwrap();
    let mut every: Vec<Arc<dyn Balancer>> = vec![
        Arc::new(P2c),
        Arc::new(Random),
        Arc::new(RoundRobin::default()),
        Arc::new(SmoothRoundRobin),
        Arc::new(Weighted::default()),
        Arc::new(Scored::<FourFactors>::default()),
        Arc::new(LeastRequest::default()),
        Arc::new(LeastRequest::default().full_scan()),
        Arc::new(biased.starting_at(2)),
    ];
    every.extend(hashing());
    every
}

/// Those whose memory does not grow with the weights; the points of ketama do, up to millions.
fn sparing() -> impl Iterator<Item = Arc<dyn Balancer>> {
    let grows = |balancer: &Arc<dyn Balancer>| format!("{balancer:?}").starts_with("Ketama");
    every().into_iter().filter(move |balancer| !grows(balancer))
}

#[test]
fn nobody_is_nobody() {
    for balancer in every() {
        let resolver = resolver(balancer, vec![]);
        assert_eq!(resolver.pick(&draw(1)).unwrap_err().registered, 0);
    }
}

#[test]
fn one_gets_all() {
    for balancer in sparing() {
        let resolver = resolver(balancer, members(&[u32::MAX]));
        assert_eq!(
            shares(&resolver, 50),
            BTreeMap::from([("p-0".to_owned(), 50)])
        );
    }
}

#[test]
fn greatest_weights_of_all_are_still_weights() {
    for balancer in sparing() {
        let name = format!("{balancer:?}");
        let resolver = resolver(balancer, members(&[u32::MAX, 1, u32::MAX]));
        let shares = shares(&resolver, 1_000);
        let share = |id: &str| shares.get(id).copied().unwrap_or_default();
        // A table of few points or slots gives the light one more than it should have.
        assert!(share("p-1") < 300, "{name}: {shares:?}");
        assert!(
            share("p-0") > 250 && share("p-2") > 250,
            "{name}: {shares:?}"
        );
    }
}

#[test]
fn shares_follow_the_weights() {
    let weights = [1, 2, 3, 4, 0, 10];
    for balancer in every() {
        let name = format!("{balancer:?}");
        // As tables are made of points or slots, their shares are not exact.
        let slack = match name.as_str() {
            name if name.starts_with("Ketama") => 0.35,
            name if name.starts_with("Ring") => 0.20,
            _ => 0.08,
        };
        let resolver = resolver(balancer, members(&weights));
        let shares = shares(&resolver, 20_000);
        for (n, weight) in weights.into_iter().enumerate() {
            let share = shares.get(&format!("p-{n}")).copied().unwrap_or_default() as f64;
            let fair = f64::from(weight) * 1_000.0;
            assert!(
                (share - fair).abs() <= fair * slack,
                "{name}: {share} of {fair}"
            );
        }
    }
}

#[test]
fn smooth_round_robin_takes_turns_as_nginx_does() {
    // The order that the commit of the algorithm to nginx gives for 5, 1, 1: a a b a c a a.
    let resolver = resolver(SmoothRoundRobin, members(&[5, 1, 1]));
    assert_eq!(turns(&resolver, 14), "0 0 1 0 2 0 0 0 0 1 0 2 0 0");
}

#[test]
fn smooth_round_robin_leaves_out_the_closed_as_nginx_does() {
    let resolver = resolver(SmoothRoundRobin, members(&[5, 1, 1]));
    let tried = [id("p-0")];
    let retry = draw(0).tried(&tried);
    let retries: Vec<_> = (0..4).map(|_| picked(&resolver, &retry)).collect();
    assert_eq!(retries, ["p-1", "p-2", "p-1", "p-2"]);
    assert_eq!(turns(&resolver, 7), "0 0 1 0 2 0 0");
}

#[test]
fn smooth_round_robin_keeps_its_place_when_members_change() {
    let resolver = resolver(SmoothRoundRobin, members(&[1, 1, 1, 1]));
    assert_eq!(turns(&resolver, 2), "0 1");
    // Those that had no turn yet have theirs first, and the new one has not waited.
    let mut changed = members(&[1, 1, 1, 1, 1]);
    resolver.apply(&snapshot(changed.clone()));
    let next = turns(&resolver, 2);
    assert_eq!(next, "2 3");
    changed.remove(0);
    resolver.apply(&snapshot(changed));
    let mut round: Vec<_> = turns(&resolver, 4).split(' ').map(str::to_owned).collect();
    round.sort();
    assert_eq!(round, ["1", "2", "3", "4"]);
}

#[test]
fn smooth_round_robin_does_not_pay_back_what_a_former_weight_owed() {
    let resolver = resolver(SmoothRoundRobin, members(&[u32::MAX, 1, u32::MAX]));
    turns(&resolver, 3);
    resolver.apply(&snapshot(members(&[1, 1, 1])));
    let shares = shares(&resolver, 30);
    assert!(
        shares.values().all(|&share| share.abs_diff(10) <= 1),
        "{shares:?}"
    );
}

#[test]
fn least_request_takes_the_less_busy_of_two() {
    // Envoy's documentation of `choice_count`: of two hosts the busier gets a quarter.
    let resolver = resolver(LeastRequest::default(), members(&[1, 1]));
    for (busy, idle) in [("p-0", "p-1"), ("p-1", "p-0")] {
        let _one = held(&resolver, idle, 1);
        let _two = held(&resolver, busy, 2);
        let shares = shares(&resolver, 8_000);
        assert!(shares[busy].abs_diff(2_000) < 150, "{shares:?}");
    }
}

#[test]
fn least_request_of_five_choices_finds_the_idlest_more_often() {
    let five = LeastRequest::default().choices(NonZeroU32::new(5).unwrap());
    let resolver = resolver(five, members(&[1; 4]));
    let _busy: Vec<_> = (0..4)
        .map(|n| held(&resolver, &format!("p-{n}"), 4 - n))
        .collect();
    let shares = shares(&resolver, 10_000);
    // Drawn at least once of five times; none but the others; …
    let expected = |worse: f64| {
        let power = |part: f64| (part / 4.0).powi(5);
        10_000.0 * (power(worse + 1.0) - power(worse))
    };
    for (worse, id) in ["p-0", "p-1", "p-2", "p-3"].into_iter().enumerate() {
        let share = shares.get(id).copied().unwrap_or_default() as f64;
        assert!((share - expected(worse as f64)).abs() < 150.0, "{shares:?}");
    }
}

#[test]
fn full_scan_takes_the_idlest() {
    // The counts of Envoy's test of a full scan.
    let resolver = resolver(LeastRequest::default().full_scan(), members(&[1; 5]));
    let busy = [4, 3, 2, 1, 5];
    let held = busy
        .iter()
        .enumerate()
        .map(|(n, &calls)| held(&resolver, &format!("p-{n}"), calls));
    let _held: Vec<_> = held.collect();
    assert_eq!(
        shares(&resolver, 100),
        BTreeMap::from([("p-3".to_owned(), 100)])
    );
}

#[test]
fn full_scan_draws_among_the_idlest() {
    let resolver = resolver(LeastRequest::default().full_scan(), members(&[1; 5]));
    let busy = [3, 3, 1, 1, 1];
    let held = busy
        .iter()
        .enumerate()
        .map(|(n, &calls)| held(&resolver, &format!("p-{n}"), calls));
    let _held: Vec<_> = held.collect();
    let shares = shares(&resolver, 30_000);
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["p-2", "p-3", "p-4"]);
    assert!(
        shares.values().all(|share| share.abs_diff(10_000) < 300),
        "{shares:?}"
    );
}

#[test]
fn least_request_schedules_unequal_weights_as_envoy_does() {
    // `WeightImbalance` of Envoy's tests, step by step.
    let resolver = resolver(LeastRequest::default(), members(&[1, 2]));
    assert_eq!(turns(&resolver, 6), "1 0 1 1 0 1");
    let on_1 = held(&resolver, "p-1", 1);
    assert_eq!(turns(&resolver, 5), "1 0 1 0 1");
    let _on_0 = held(&resolver, "p-0", 1);
    drop(on_1);
    assert_eq!(turns(&resolver, 10), "0 1 1 1 0 1 1 1 1 0");
}

#[test]
fn least_request_without_a_bias_does_not_look_at_calls() {
    // `WeightImbalanceWithCustomActiveRequestBias` of Envoy's tests.
    let balancer = LeastRequest::default().active_request_bias(0.0).unwrap();
    let resolver = resolver(balancer, members(&[1, 2]));
    let _on_1 = held(&resolver, "p-1", 1);
    assert_eq!(turns(&resolver, 6), "1 0 1 1 0 1");
}

#[test]
fn bias_that_is_set_counts_with_equal_weights_too() {
    // `EqualWeightsWithActiveRequestBias` of Envoy's tests.
    let balancer = LeastRequest::default().active_request_bias(1.0).unwrap();
    let resolver = resolver(balancer, members(&[1, 1]));
    let _on_0 = held(&resolver, "p-0", 1);
    let shares = shares(&resolver, 300);
    assert!(shares["p-1"].abs_diff(200) <= 2, "{shares:?}");
}

#[test]
fn bias_is_a_number() {
    for bias in [-1.0, f64::NAN, f64::INFINITY] {
        let error = LeastRequest::default()
            .active_request_bias(bias)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_heavy_load_does_not_stop_the_schedule() {
    let balancer = LeastRequest::default().active_request_bias(300.0).unwrap();
    let resolver = resolver(balancer, members(&[1, u32::MAX, 7]));
    let busy = held(&resolver, "p-1", 40);
    let _all = (held(&resolver, "p-0", 40), held(&resolver, "p-2", 40));
    turns(&resolver, 50);
    drop(busy);
    let shares = shares(&resolver, 1_000);
    assert!(shares["p-1"] > 990, "{shares:?}");
}

#[test]
fn schedule_keeps_its_turns_when_members_change() {
    let resolver = resolver(LeastRequest::default(), members(&[1, 4]));
    assert_eq!(turns(&resolver, 3), "1 1 1");
    // The light one is due next whatever happens to others; starting over, it would wait for three more.
    resolver.apply(&snapshot(members(&[1, 4, 1])));
    assert_eq!(turns(&resolver, 1), "0");
    // Twice the weight is half the time.
    resolver.apply(&snapshot(members(&[2, 8, 2])));
    let shares = shares(&resolver, 1_200);
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [200, 800, 200]);
}

#[test]
fn ring_hash_goes_where_envoys_tests_say() {
    let ring = hash::ring::Config::default().min_size(12);
    let resolver = resolver(RingHash::new(ring).unwrap(), members(&[1; 6]));
    let of = |hash| picked(&resolver, &draw(99).hash(hash));
    assert_eq!(of(0), "p-4");
    assert_eq!(of(u64::MAX), "p-4");
    assert_eq!(of(3_551_244_743_356_806_947), "p-5");
    assert_eq!(of(3_551_244_743_356_806_948), "p-3");
    assert_eq!(of(16_117_243_373_044_804_880), "p-0");
    // Retries go around it.
    let order = ["p-4", "p-2", "p-0", "p-5", "p-3", "p-1"];
    for length in 0..6 {
        let tried: Vec<_> = order.iter().take(length).map(|name| id(name)).collect();
        assert_eq!(
            picked(&resolver, &draw(99).hash(0).tried(&tried)),
            order[length]
        );
    }
}

#[test]
fn maglev_goes_where_envoys_test_says() {
    let seven = hash::maglev::Config::new(7).unwrap();
    let resolver = resolver(MaglevHash::new(seven).unwrap(), members(&[1; 6]));
    let table = [2, 4, 0, 1, 5, 0, 3];
    for (hash, node) in (0..21).zip(table.into_iter().cycle()) {
        assert_eq!(picked(&resolver, &draw(99).hash(hash)), format!("p-{node}"));
    }
    // The first retry has the hash `h ^ (2^64 - 1)`: 2^64 - 1 is slot 1 of 7, so 0 goes there.
    let tried = [id("p-2")];
    assert_eq!(u64::MAX % 7, 1);
    assert_eq!(picked(&resolver, &draw(99).hash(0).tried(&tried)), "p-4");
}

#[test]
fn ketama_goes_where_nginx_goes() {
    let resolver = resolver(KetamaHash::default(), members(&[1, 2, 1]));
    let keys = ["127.0.0.1:90", "127.0.0.1:91", "127.0.0.1:92"];
    let nodes = [
        hash::Node::new(keys[0], 1),
        hash::Node::new(keys[1], 2),
        hash::Node::new(keys[2], 1),
    ];
    let table = hash::Ketama::build(&nodes).unwrap();
    for n in 0..200_u32 {
        let place = hash::ketama::of(&n.to_le_bytes());
        let walk: Vec<_> = table.walk(place).map(|node| format!("p-{node}")).collect();
        assert_eq!(picked(&resolver, &draw(5).hash(place.into())), walk[0]);
        let tried = [id(&walk[0])];
        assert_eq!(
            picked(&resolver, &draw(5).hash(place.into()).tried(&tried)),
            walk[1]
        );
    }
}

#[test]
fn label_stands_in_for_the_endpoint() {
    // Envoy's ring of six hosts whose `hash_key` is "90", "91", …
    let mut named = members(&[1; 6]);
    for (n, member) in named.iter_mut().enumerate() {
        member.labels = member
            .labels
            .clone()
            .with("hash_key", &(90 + n).to_string())
            .unwrap();
    }
    let ring = hash::ring::Config::default().min_size(12);
    let resolver = resolver(RingHash::new(ring).unwrap(), named);
    let of = |hash| picked(&resolver, &draw(99).hash(hash));
    assert_eq!(of(0), "p-5");
    assert_eq!(of(2_376_063_919_839_173_711), "p-5");
    assert_eq!(of(2_376_063_919_839_173_712), "p-3");
    assert_eq!(of(13_723_418_369_486_627_818), "p-1");
    assert_eq!(of(15_364_271_037_087_512_981), "p-5");
}

#[test]
fn without_a_hash_the_draw_decides() {
    for balancer in hashing() {
        let resolver = resolver(balancer, members(&[1; 5]));
        for n in 0..100 {
            let hash = hash::of(&[n]);
            assert_eq!(
                picked(&resolver, &draw(hash)),
                picked(&resolver, &draw(1).hash(hash))
            );
        }
    }
}

#[test]
fn settings_of_tables_are_checked() {
    let upside_down = hash::ring::Config::default().max_size(10);
    assert_eq!(
        RingHash::new(upside_down).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        MaglevHash::default().bounded(99).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn same_key_goes_to_the_same_while_others_come_and_go() {
    for balancer in hashing() {
        let name = format!("{balancer:?}");
        let all = members(&[1; 20]);
        let resolver = resolver(balancer, all.clone());
        let places = || -> Vec<_> {
            let of = |n: u32| picked(&resolver, &draw(3).hash(hash::of(&n.to_le_bytes())));
            (0..2_000).map(of).collect()
        };
        let before = places();
        resolver.apply(&snapshot(
            all.iter()
                .filter(|member| member.id.as_str() != "p-7")
                .cloned(),
        ));
        let after = places();
        let pairs = || before.iter().zip(&after);
        let had = before.iter().filter(|id| *id == "p-7").count();
        let moved = pairs().filter(|(a, b)| a != b).count();
        // Maglev moves more than it has to. A ring of 20 has 52 points for each, one of 19 has 54, and two new
        // points of 1,026 for each of 19 move 74 of 2,000 keys.
        let extra = match name.as_str() {
            name if name.starts_with("Maglev") => 60,
            name if name.starts_with("Ring") => 90,
            _ => had / 4,
        };
        assert!(
            had > 20 && moved <= had + extra,
            "{name}: {moved} moved, {had} had to"
        );
        resolver.apply(&snapshot(all));
        assert_eq!(places(), before, "{name}");
    }
}

#[test]
fn bound_moves_calls_off_the_busy() {
    for balancer in [
        Arc::new(RingHash::default().bounded(125).unwrap()) as Arc<dyn Balancer>,
        Arc::new(MaglevHash::default().bounded(125).unwrap()),
    ] {
        let resolver = resolver(balancer, members(&[1; 10]));
        let hot = draw(1).hash(77);
        let held: Vec<_> = (0..400).map(|_| resolver.pick(&hot).unwrap()).collect();
        let calls = |n| resolver.in_flight(&id(&format!("p-{n}"))).unwrap();
        // One key alone, and yet nobody has more than 125 % of the mean, and the call that came last.
        let most = (0..10).map(calls).max().unwrap();
        assert!((40..=51).contains(&most), "{most}");
        drop(held);
        // With room it goes where it belongs.
        let first = picked(&resolver, &hot);
        assert!((0..10).all(|_| picked(&resolver, &hot) == first));
    }
}

#[test]
fn bound_holds_for_more_members_than_are_counted_at_once() {
    let resolver = resolver(
        RingHash::default().bounded(125).unwrap(),
        members(&[1; 300]),
    );
    let mut rng = fastrand::Rng::with_seed(5);
    let pick = |_| resolver.pick(&draw(1).hash(rng.u64(0..20))).unwrap();
    let held: Vec<_> = (0..6_000).map(pick).collect();
    let calls = |n| resolver.in_flight(&id(&format!("p-{n}"))).unwrap();
    let most = (0..300).map(calls).max().unwrap();
    assert!((20..=26).contains(&most), "{most}");
    drop(held);
}

#[test]
fn choosing_does_not_allocate() {
    for balancer in every() {
        let name = format!("{balancer:?}");
        let weights: Vec<u32> = (0..200).map(|n| n % 7).collect();
        for weights in [weights.as_slice(), &[3; 200]] {
            let resolver = resolver(Arc::clone(&balancer), members(weights));
            let tried = [id("p-1"), id("p-2"), id("p-100")];
            let mut rng = fastrand::Rng::with_seed(1);
            let mut pick = || {
                let context = PickContext::new(at(3), rng.u64(..))
                    .hash(rng.u64(..))
                    .tried(&tried);
                let call = resolver.pick(&context).unwrap();
                call.settle(Outcome::Success, at(9));
                drop(resolver.pick(&context));
            };
            // The first load of a thread makes its node in the list of readers.
            pick();
            let allocations =
                orchestra_testkit::alloc::allocations(|| (0..500).for_each(|_| pick()));
            assert_eq!(allocations, 0, "{name}");
        }
    }
}

#[test]
fn balancers_take_turns_between_threads_and_changes() {
    for balancer in every() {
        let name = format!("{balancer:?}");
        let resolver = resolver(balancer, members(&[1, 2, 3, 4, 5]));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let picks = |seed| {
                let (resolver, done) = (&resolver, &done);
                move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    let mut picks = 0;
                    while !done.load(Ordering::Relaxed) || picks < 100 {
                        let context = draw(rng.u64(..)).hash(rng.u64(..));
                        assert_ne!(picked(resolver, &context), "p-4");
                        picks += 1;
                    }
                }
            };
            resolver.apply(&snapshot(members(&[1, 2, 3, 4])));
            let threads = [scope.spawn(picks(1)), scope.spawn(picks(2))];
            for round in 0..10 {
                resolver.apply(&snapshot(members(&[1 + round % 2, 0, 3, 4])));
                resolver.apply(&snapshot(members(&[0, 2, 3 + round])));
            }
            done.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().unwrap();
            }
        });
        for n in 0..3 {
            assert_eq!(
                resolver.in_flight(&id(&format!("p-{n}"))),
                Some(0),
                "{name}"
            );
        }
    }
}

#[test]
fn refused_by_all_but_one_finds_it() {
    let weights = [1, 9, 1, 1, 1, 1, 70_000, 1];
    let shut = ["p-0", "p-1", "p-2", "p-4", "p-5", "p-6", "p-7"];
    for balancer in every() {
        let config = Config::default()
            .balancer(balancer)
            .gates(Arc::new(Shut::from(shut)));
        let resolver = with_members(config, members(&weights));
        assert_eq!(
            shares(&resolver, 50),
            BTreeMap::from([("p-3".to_owned(), 50)])
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whoever_may_not_be_picked_is_not(
        list in proptest::collection::vec((0..4_u32, 0..4_u8, any::<bool>()), 0..10),
        tried in proptest::collection::vec(0..12_usize, 0..8),
        draws in proptest::collection::vec((any::<u64>(), any::<u64>()), 1..12),
    ) {
        let name = |n: usize| format!("p-{n}");
        let weights: Vec<u32> = list.iter().map(|member| member.0).collect();
        let mut instances = members(&weights);
        for (instance, &(_, status, _)) in instances.iter_mut().zip(&list) {
            if status == 0 {
                instance.status = Status::Draining;
            }
        }
        let may = |&n: &usize| {
            let (weight, status, sick) = list[n];
            weight > 0 && status > 0 && !sick && !tried.contains(&n)
        };
        let allowed: Vec<_> = (0..list.len()).filter(may).map(name).collect();
        let tried: Vec<_> = tried.iter().map(|&n| id(&name(n))).collect();
        for balancer in every() {
            let resolver = resolver(balancer, instances.clone());
            for (n, _) in list.iter().enumerate().filter(|(_, member)| member.2) {
                resolver.set_health(&id(&name(n)), Incarnation::new(1), Health::Unhealthy);
            }
            for &(bits, hash) in &draws {
                match resolver.pick(&draw(bits).hash(hash).tried(&tried)) {
                    Ok(call) => prop_assert!(allowed.contains(&call.instance().id.to_string())),
                    Err(_) => prop_assert!(allowed.is_empty()),
                }
            }
        }
    }

    #[test]
    fn smooth_round_robin_is_exact_over_a_cycle(weights in proptest::collection::vec(1..40_u32, 1..9)) {
        let resolver = resolver(SmoothRoundRobin, members(&weights));
        let total: u32 = weights.iter().sum();
        let shares = shares(&resolver, u64::from(total) * 2);
        for (n, &weight) in weights.iter().enumerate() {
            prop_assert_eq!(shares[&format!("p-{n}")], u64::from(weight) * 2);
        }
    }

    #[test]
    fn smooth_round_robin_is_the_loop_of_nginx(
        weights in proptest::collection::vec(1..9_i64, 1..7),
        closed in proptest::collection::vec(proptest::collection::vec(0..7_usize, 0..4), 30),
    ) {
        let given: Vec<u32> = weights.iter().map(|&weight| u32::try_from(weight).unwrap()).collect();
        let resolver = resolver(SmoothRoundRobin, members(&given));
        let mut current = vec![0; weights.len()];
        for closed in closed {
            let (mut best, mut total): (Option<usize>, _) = (None, 0);
            for n in (0..weights.len()).filter(|n| !closed.contains(n)) {
                current[n] += weights[n];
                total += weights[n];
                if best.is_none_or(|best| current[n] > current[best]) {
                    best = Some(n);
                }
            }
            let tried: Vec<_> = closed.iter().map(|n| id(&format!("p-{n}"))).collect();
            let found = resolver.pick(&draw(4).tried(&tried)).ok();
            prop_assert_eq!(found.map(|call| call.instance().id.to_string()), best.map(|n| format!("p-{n}")));
            if let Some(best) = best {
                current[best] -= total;
            }
        }
    }

    #[test]
    fn schedule_gives_idle_ones_exact_shares(weights in proptest::collection::vec(1..40_u32, 2..9)) {
        let resolver = resolver(LeastRequest::default().active_request_bias(1.0).unwrap(), members(&weights));
        let total: u32 = weights.iter().sum();
        let shares = shares(&resolver, u64::from(total) * 3);
        for (n, &weight) in weights.iter().enumerate() {
            let share = shares.get(&format!("p-{n}")).copied().unwrap_or_default();
            prop_assert!(share.abs_diff(u64::from(weight) * 3) <= 1, "{:?}", shares);
        }
    }
}

#[test]
fn looking_for_room_among_many_that_are_full_does_not_allocate() {
    let resolver = resolver(
        MaglevHash::default().bounded(100).unwrap(),
        members(&[3; 200]),
    );
    // All calls are for one key, so nearly all of them look for room, and nearly everywhere.
    let hot = draw(1).hash(4_711);
    let mut held: Vec<_> = (0..4_000).map(|_| resolver.pick(&hot).unwrap()).collect();
    held.reserve(500);
    let mut pick = || held.push(resolver.pick(&hot).unwrap());
    let allocations = orchestra_testkit::alloc::allocations(|| (0..500).for_each(|_| pick()));
    assert_eq!(allocations, 0);
    let calls = |n| resolver.in_flight(&id(&format!("p-{n}"))).unwrap();
    let most = (0..200).map(calls).max().unwrap();
    assert!(most <= 24, "{most}");
    drop(held);
}
