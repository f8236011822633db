//! Scores and the balancer that goes by them, through the resolver.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Locality, Monotonic, Outcome, Proximity, Score};
use orchestra_discovery::reported::{self, LoadReport};
use orchestra_discovery::resolver::{Config, DecisionLog};
use orchestra_discovery::score::Weights;
use orchestra_discovery::{
    Balancer, Candidates, Completion, ErrorKind, FourFactors, Health, InFlight, Incarnation,
    Instance, PickContext, PoolMembers, Prepared, Resolver, Scored, Scorer, Status, outlier,
};
use orchestra_testkit::alloc::allocations;
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::common::{at, calm, instance, service, snapshot, with_members};
use crate::gates::Shut;

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

fn name(n: usize) -> String {
    format!("p-{n:03}")
}

fn members(count: usize) -> Vec<Instance> {
    (0..count).map(|n| instance(&name(n), 1)).collect()
}

fn zoned(zones: &[&str]) -> Vec<Instance> {
    let mut members = members(zones.len());
    for (member, zone) in members.iter_mut().zip(zones) {
        member.locality = place(zone);
    }
    members
}

/// `region/zone/subzone`, as far as it goes.
fn place(text: &str) -> Locality {
    let mut parts = text.split('/');
    let mut part = || parts.next().unwrap_or_default();
    Locality::new(part()).zone(part()).subzone(part())
}

/// Keeps what a scorer says of all candidates, and chooses as `Scored` does.
#[derive(Debug, Default)]
struct Overheard<S> {
    scored: Scored<S>,
    scores: Mutex<BTreeMap<String, Option<f64>>>,
    prepares: bool,
}

impl<S: Scorer> Overheard<S> {
    fn new(scorer: S, prepares: bool) -> Arc<Self> {
        Arc::new(Self {
            scored: Scored::new(scorer),
            scores: Mutex::default(),
            prepares,
        })
    }
}

impl<S: Scorer> Balancer for Overheard<S> {
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        let scorer = self.scored.scorer();
        let mut scores = vec![Some(Score::ONE); candidates.len() + 3];
        scorer.score_all(candidates, context, &mut scores);
        let mut heard = self.scores.lock();
        heard.clear();
        for (index, &score) in scores.iter().enumerate() {
            assert_eq!(scorer.score(candidates, index, context), score);
            let Some(instance) = candidates.instance(index) else {
                assert_eq!(score, None);
                continue;
            };
            heard.insert(instance.id.to_string(), score.map(Score::value));
        }
        self.scored.choose(candidates, context)
    }

    fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        self.prepares
            .then(|| self.scored.prepare(members, before))?
    }
}

struct Rig<S = FourFactors> {
    overheard: Arc<Overheard<S>>,
    resolver: Resolver,
}

impl<S: Scorer + 'static> Rig<S> {
    fn new(scorer: S, members: Vec<Instance>) -> Self {
        Self::of(Overheard::new(scorer, true), Config::default(), members)
    }

    fn of(overheard: Arc<Overheard<S>>, config: Config, members: Vec<Instance>) -> Self {
        let balancer: Arc<dyn Balancer> = Arc::<Overheard<S>>::clone(&overheard);
        Self {
            // Whoever fails stays a candidate.
            resolver: with_members(
                config.balancer(balancer).outliers(outlier::Config::Off),
                members,
            ),
            overheard,
        }
    }

    /// The scores of all candidates of a pick.
    fn scores(&self, context: &PickContext<'_>) -> BTreeMap<String, Option<f64>> {
        self.overheard.scores.lock().clear();
        drop(self.resolver.pick(context));
        self.overheard.scores.lock().clone()
    }

    /// The score of a member at a moment, of which something is known.
    fn score(&self, n: usize, now: Monotonic) -> f64 {
        self.scores(&PickContext::new(now, 1))[&name(n)].unwrap()
    }

    /// A call to a member that ends at `now`.
    fn call(
        &self,
        n: usize,
        took: u64,
        completion: impl Into<Completion<'static>>,
        now: Monotonic,
    ) {
        let begun = Monotonic::from_nanos(now.as_nanos() - took * 1_000_000);
        hold(&self.resolver, n, begun).settle(completion, now);
    }
}

fn hold(resolver: &Resolver, n: usize, now: Monotonic) -> InFlight {
    let id = id(&name(n));
    let call = resolver
        .pick_owned(&PickContext::new(now, 1).sticky(&id))
        .unwrap();
    assert_eq!(call.instance().id, id);
    call
}

/// How often each is picked, calls settled at once after a millisecond.
fn shares(resolver: &Resolver, picks: u64, mut context: PickContext<'_>) -> BTreeMap<String, u64> {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut shares = BTreeMap::new();
    for _ in 0..picks {
        context.draw = rng.u64(..);
        let call = resolver.pick(&context).unwrap();
        *shares.entry(call.instance().id.to_string()).or_default() += 1;
        call.settle(Outcome::Success, context.now + Duration::from_millis(1));
    }
    shares
}

#[test]
fn weights_that_weigh_nothing_are_an_error() {
    let none = Weights::default()
        .health(0.0)
        .performance(0.0)
        .proximity(0.0)
        .load(0.0);
    let error = FourFactors::new(none).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.to_string(), "score: all factors have weight 0");
    for wrong in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let all = [
            Weights::default().health(wrong),
            Weights::default().performance(wrong),
            Weights::default().proximity(wrong),
            Weights::default().load(wrong),
        ];
        for (weights, name) in all
            .into_iter()
            .zip(["health", "performance", "proximity", "load"])
        {
            let error = FourFactors::new(weights).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    assert!(FourFactors::new(none.load(f64::MIN_POSITIVE)).is_ok());
    let design = Weights::default()
        .health(40.0)
        .performance(30.0)
        .proximity(20.0)
        .load(10.0);
    assert_eq!(FourFactors::default().weights(), design);
}

#[test]
fn no_sample_is_no_score() {
    let rig = Rig::new(FourFactors::default(), members(2));
    rig.call(0, 10, Outcome::Success, at(1_000));
    let scores = rig.scores(&PickContext::new(at(1_000), 1));
    // Its latency is the median, and all else is perfect.
    let expected = 0.5_f64.powf(0.3 / 0.8);
    assert!(
        (scores["p-000"].unwrap() - expected).abs() < 1e-5,
        "{scores:?}"
    );
    assert_eq!(scores["p-001"], None);
}

#[test]
fn where_calls_do_not_count_no_sample_is_needed() {
    let weights = Weights::default().health(0.0).performance(0.0);
    let rig = Rig::new(FourFactors::new(weights).unwrap(), zoned(&["e/a", "w/a"]));
    let here = place("e/a");
    let scores = rig.scores(&PickContext::new(at(0), 1).locality(&here));
    let near = 0.75_f64.powf(2.0 / 3.0);
    let far = 0.25_f64.powf(2.0 / 3.0);
    assert!((scores["p-000"].unwrap() - near).abs() < 1e-5, "{scores:?}");
    assert!((scores["p-001"].unwrap() - far).abs() < 1e-5, "{scores:?}");
}

#[test]
fn each_factor_alone_puts_the_better_one_first() {
    let far = ["e/a", "e/a"];
    let rig = Rig::new(FourFactors::default(), zoned(&far));
    for n in 0..2 {
        rig.call(n, 10, Outcome::Success, at(1_000));
    }
    let now = at(1_000);
    assert!((rig.score(0, now) - rig.score(1, now)).abs() < 1e-9);

    let busy = hold(&rig.resolver, 0, now);
    assert!(rig.score(0, now) < rig.score(1, now), "idle beats busy");
    drop(busy);

    rig.call(0, 0, Outcome::Failure, now);
    assert!(rig.score(0, now) < rig.score(1, now), "well beats failing");

    let rig = Rig::new(FourFactors::default(), zoned(&far));
    rig.call(0, 20, Outcome::Success, now);
    rig.call(1, 10, Outcome::Success, now);
    assert!(rig.score(0, now) < rig.score(1, now), "fast beats slow");

    let rig = Rig::new(
        FourFactors::default(),
        zoned(&["w/a/1", "e/b/1", "e/a/2", "e/a/1", ""]),
    );
    for n in 0..5 {
        rig.call(n, 10, Outcome::Success, now);
    }
    let here = place("e/a/1");
    let scores = rig.scores(&PickContext::new(now, 1).locality(&here));
    let scores: Vec<_> = scores.values().map(|score| score.unwrap()).collect();
    assert!(
        scores[..4].is_sorted_by(|a, b| a < b),
        "near beats far: {scores:?}"
    );
    // Of the last one it is not known where it is: it is judged by the rest, which is alike.
    let rest = 0.5_f64.powf(0.3 / 0.8);
    assert!((scores[4] - rest).abs() < 1e-5, "{scores:?}");
}

#[test]
fn callers_of_two_zones_get_two_orders_from_one_resolver() {
    let rig = Rig::new(FourFactors::default(), zoned(&["e/a", "w/a"]));
    for n in 0..2 {
        rig.call(n, 10, Outcome::Success, at(1_000));
    }
    let (east, west) = (place("e/a"), place("w/a"));
    for _ in 0..3 {
        let in_east = rig.scores(&PickContext::new(at(1_000), 1).locality(&east));
        let in_west = rig.scores(&PickContext::new(at(1_000), 1).locality(&west));
        let nowhere = rig.scores(&PickContext::new(at(1_000), 1));
        assert!(in_east["p-000"] > in_east["p-001"]);
        assert_eq!(in_east["p-000"], in_west["p-001"]);
        assert_eq!(in_east["p-001"], in_west["p-000"]);
        assert_eq!(nowhere["p-000"], nowhere["p-001"]);
    }
    let picks = |locality| {
        shares(
            &rig.resolver,
            200,
            PickContext::new(at(1_000), 0).locality(locality),
        )
    };
    assert_eq!(picks(&east), BTreeMap::from([(name(0), 200)]));
    assert_eq!(picks(&west), BTreeMap::from([(name(1), 200)]));
}

#[test]
fn latency_is_judged_beside_the_peers() {
    let all = |took| {
        let rig = Rig::new(FourFactors::default(), members(100));
        for n in 0..100 {
            rig.call(n, took, Outcome::Success, at(100_000));
        }
        rig.scores(&PickContext::new(at(100_000), 1))
    };
    let (fast, slow) = (all(1), all(60_000));
    for (fast, slow) in fast.values().zip(slow.values()) {
        assert!((fast.unwrap() - slow.unwrap()).abs() < 1e-6);
        assert!((fast.unwrap() - 0.5_f64.powf(0.3 / 0.8)).abs() < 1e-5);
    }
}

#[test]
fn a_second_and_a_minute_are_told_apart() {
    let rig = Rig::new(FourFactors::default(), members(5));
    for (n, took) in [1, 100, 1_000, 10_000, 60_000].into_iter().enumerate() {
        rig.call(n, took, Outcome::Success, at(100_000));
    }
    let scores = rig.scores(&PickContext::new(at(100_000), 1));
    let scores: Vec<_> = scores.values().map(|score| score.unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a > b), "{scores:?}");
    assert!(scores[4] < scores[3] * 0.6, "{scores:?}");
}

#[test]
fn median_follows_its_peers_in_twenty_milliseconds() {
    let rig = Rig::new(FourFactors::default(), members(3));
    for n in 0..3 {
        rig.call(n, 10, Outcome::Success, at(100_000));
    }
    let expected = |ratio: f64| (1.0 / (1.0 + ratio)).powf(0.3 / 0.8);
    assert!((rig.score(0, at(100_000)) - expected(1.0)).abs() < 1e-5);
    for n in 0..3 {
        rig.call(n, 40, Outcome::Success, at(100_001));
    }
    assert!((rig.score(0, at(100_001)) - expected(4.0)).abs() < 1e-3);
    assert!((rig.score(0, at(100_022)) - expected(1.0)).abs() < 1e-3);
}

#[test]
fn whoever_fails_everything_never_outscores_a_good_one() {
    let rig = Rig::new(
        FourFactors::default(),
        zoned(&["e/a/1", "w/a/1", "w/a/1", "w/a/1"]),
    );
    let now = at(100_000);
    // Fast, near and idle.
    rig.call(0, 1, Outcome::Success, now);
    // Far, slower than its peers, and busy.
    rig.call(1, 1_000, Outcome::Success, now);
    for n in 2..4 {
        rig.call(n, 50, Outcome::Success, now);
    }
    let held: Vec<_> = (0..20).map(|_| hold(&rig.resolver, 1, now)).collect();
    let here = place("e/a/1");
    let context = PickContext::new(now, 1).locality(&here);
    let before = rig.scores(&context);
    assert!(before["p-000"] > before["p-001"]);
    for _ in 0..64 {
        rig.call(0, 1, Outcome::Failure, now);
    }
    let after = rig.scores(&context);
    assert!(after["p-000"] < after["p-001"], "{after:?}");
    for _ in 0..100 {
        rig.call(0, 1, Outcome::Failure, now);
    }
    assert_eq!(rig.scores(&context)["p-000"], Some(0.0));
    drop(held);
    let shares = shares(&rig.resolver, 1_000, context);
    assert_eq!(shares.get("p-000"), None);
}

#[test]
fn the_less_of_a_weight_the_more_a_call_loads() {
    let mut list = members(2);
    (list[0].weight, list[1].weight) = (3, 1);
    let rig = Rig::new(
        FourFactors::default().half_load(NonZeroU32::new(2).unwrap()),
        list,
    );
    for n in 0..2 {
        rig.call(n, 10, Outcome::Success, at(1_000));
    }
    let _held = [
        hold(&rig.resolver, 0, at(1_000)),
        hold(&rig.resolver, 1, at(1_000)),
    ];
    // A mean weight of 2: one call is 2/3 of a call for the one, two calls for the other.
    for (n, headroom) in [(0, 2.0 / (2.0 + 2.0 / 3.0)), (1, 2.0 / (2.0 + 2.0))] {
        let expected = (0.5_f64.powf(0.3) * f64::powf(headroom, 0.1)).powf(1.0 / 0.8);
        let found = rig.score(n, at(1_000));
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn reported_utilization_leaves_less_headroom() {
    let overheard = Overheard::new(FourFactors::default(), true);
    let rig = Rig::of(
        overheard,
        Config::default().reported(reported::Config::default()),
        members(4),
    );
    let now = at(1_000);
    let reports = [
        None,
        Some("TEXT cpu_utilization=0.5"),
        Some("TEXT cpu_utilization=0.9"),
        Some("TEXT cpu_utilization=7"),
    ];
    for (n, report) in reports.into_iter().enumerate() {
        let report = report.map(|text| LoadReport::parse(text).unwrap());
        let mut completion = Completion::from(Outcome::Success);
        if let Some(report) = &report {
            completion = completion.load(report);
        }
        let call = hold(&rig.resolver, n, at(990));
        call.settle(completion, now);
    }
    let base = 0.5_f64.powf(0.3 / 0.8);
    for (n, headroom) in [1.0, 0.5, 0.1, 1.0 / 1024.0].into_iter().enumerate() {
        let expected = base * f64::powf(headroom, 0.1 / 0.8);
        let found = rig.score(n, now);
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
    // After its expiration a report says nothing.
    let late = now + Duration::from_secs(180);
    assert!((rig.score(0, late) - rig.score(2, late)).abs() < 1e-6);
}

#[test]
fn one_of_whom_nothing_is_known_is_tried_once() {
    let resolver = with_members(
        Config::default().balancer(Arc::new(Scored::<FourFactors>::default())),
        members(2),
    );
    hold(&resolver, 0, at(0)).settle(Outcome::Success, at(10));
    let mut rng = fastrand::Rng::with_seed(1);
    let mut pick = || {
        resolver
            .pick(&PickContext::new(at(10), rng.u64(..)))
            .unwrap()
    };
    let probe = pick();
    assert_eq!(probe.instance().id.as_str(), "p-001");
    let others: Vec<_> = (0..50).map(|_| pick()).collect();
    assert!(
        others
            .iter()
            .all(|call| call.instance().id.as_str() == "p-000")
    );
    probe.settle(Outcome::Success, at(20));
    // Now they are compared, and the first one is busy.
    assert_eq!(pick().instance().id.as_str(), "p-001");
}

#[test]
fn one_that_asked_to_be_left_alone_loses() {
    let resolver = with_members(
        Config::default().balancer(Arc::new(Scored::<FourFactors>::default())),
        members(2),
    );
    for n in 0..2 {
        hold(&resolver, n, at(0)).settle(Outcome::Success, at(10));
    }
    let throttled = Completion::from(Outcome::Neutral).retry_after(Duration::from_secs(2));
    hold(&resolver, 1, at(10)).settle(throttled, at(10));
    let busy: Vec<_> = (0..20).map(|_| hold(&resolver, 0, at(10))).collect();
    assert_eq!(
        shares(&resolver, 100, PickContext::new(at(1_000), 0)),
        BTreeMap::from([(name(0), 100)])
    );
    assert_eq!(
        shares(&resolver, 100, PickContext::new(at(3_000), 0)),
        BTreeMap::from([(name(1), 100)])
    );
    drop(busy);
}

#[test]
fn equals_share_and_nobody_is_herded_to() {
    let resolver = with_members(
        Config::default().balancer(Arc::new(Scored::<FourFactors>::default())),
        members(20),
    );
    for n in 0..20 {
        hold(&resolver, n, at(0)).settle(Outcome::Success, at(1));
    }
    let spread = shares(&resolver, 20_000, PickContext::new(at(1), 0));
    assert!(
        spread.values().all(|&share| (850..1_150).contains(&share)),
        "{spread:?}"
    );

    // Calls that stay in flight fill all evenly.
    let mut rng = fastrand::Rng::with_seed(3);
    let _held: Vec<_> = (0..2_000)
        .map(|_| {
            resolver
                .pick(&PickContext::new(at(1), rng.u64(..)))
                .unwrap()
        })
        .collect();
    for n in 0..20 {
        let calls = resolver.in_flight(&id(&name(n))).unwrap();
        assert!((95..=105).contains(&calls), "{calls}");
    }
}

#[test]
fn the_best_gets_twice_its_share_at_most() {
    let resolver = with_members(
        Config::default().balancer(Arc::new(Scored::<FourFactors>::default())),
        members(10),
    );
    for n in 0..10 {
        let took = if n == 0 { 1 } else { 2 };
        hold(&resolver, n, at(0)).settle(Outcome::Success, at(took));
    }
    let mut rng = fastrand::Rng::with_seed(3);
    let mut best = 0;
    for _ in 0..10_000 {
        let call = resolver
            .pick(&PickContext::new(at(2), rng.u64(..)))
            .unwrap();
        best += u32::from(call.instance().id.as_str() == "p-000");
        call.settle(Outcome::Neutral, at(2));
    }
    assert!((1_700..=2_100).contains(&best), "{best}");
}

#[test]
fn scorers_are_shown_nobody_who_takes_no_calls() {
    let mut list = members(6);
    list[0].status = Status::Draining;
    list[1].status = Status::Starting;
    list[2].weight = 0;
    let rig = Rig::new(FourFactors::default(), list);
    rig.resolver
        .set_health(&id("p-003"), Incarnation::new(1), Health::Unhealthy);
    let scores = rig.scores(&PickContext::new(at(0), 1));
    assert_eq!(scores.into_keys().collect::<Vec<_>>(), ["p-004", "p-005"]);
}

#[test]
fn the_best_of_all_is_not_picked_when_its_gate_refuses() {
    let scored: Arc<dyn Balancer> = Arc::new(Scored::<FourFactors>::default());
    let config = Config::default()
        .balancer(scored)
        .gates(Arc::new(Shut::from(["p-000"])));
    let resolver = with_members(config, members(2));
    hold(&resolver, 1, at(0)).settle(Outcome::Success, at(10));
    assert_eq!(
        shares(&resolver, 50, PickContext::new(at(10), 0)),
        BTreeMap::from([(name(1), 50)])
    );
}

/// Whoever has the greatest number in its name is the best.
#[derive(Debug)]
struct ByName;

impl Scorer for ByName {
    fn score(
        &self,
        candidates: &Candidates<'_>,
        index: usize,
        _: &PickContext<'_>,
    ) -> Option<Score> {
        let id = &candidates.instance(index)?.id;
        let number: f64 = id.as_str().trim_start_matches("p-").parse().ok()?;
        Some(Score::clamped(number / 1_000.0))
    }
}

#[test]
fn a_scorer_of_ones_own_is_followed_through_any_pointer() {
    let rig = Rig::new(ByName, members(3));
    let scores = rig.scores(&PickContext::new(at(0), 1));
    assert_eq!(
        scores.into_values().collect::<Vec<_>>(),
        [Some(0.0), Some(0.001), Some(0.002)]
    );
    let boxed: Box<dyn Scorer> = Box::new(ByName);
    let shared: Arc<dyn Scorer> = Arc::new(boxed);
    let resolver = with_members(
        Config::default().balancer(Arc::new(Scored::new(shared))),
        members(2),
    );
    assert_eq!(
        shares(&resolver, 50, PickContext::new(at(0), 0)),
        BTreeMap::from([(name(1), 50)])
    );
}

#[test]
fn unprepared_it_scores_the_same() {
    let zones = ["e/a/1", "e/b/1", "", "w/a/1", "e/a/1"];
    let rigs = [true, false].map(|prepares| {
        Rig::of(
            Overheard::new(FourFactors::default(), prepares),
            Config::default(),
            zoned(&zones),
        )
    });
    let here = place("e/a/1");
    let [prepared, bare] = rigs.map(|rig| {
        for n in 0..4 {
            rig.call(n, 10 + n as u64, Outcome::Success, at(1_000));
        }
        rig.scores(&PickContext::new(at(1_000), 1).locality(&here))
    });
    assert_eq!(prepared, bare);
}

#[test]
fn explained_it_tells_the_factors() {
    let resolver = with_members(
        Config::default().balancer(Arc::new(Scored::<FourFactors>::default())),
        zoned(&["e/a", "w/a", "e/a"]),
    );
    for n in 0..2 {
        hold(&resolver, n, at(0)).settle(Outcome::Success, at(10));
    }
    let _busy = hold(&resolver, 1, at(10));
    let here = place("e/a");
    let (_, why) = resolver.choose_explained(&PickContext::new(at(10), 1).locality(&here));
    let told = |n: usize| {
        let member = &why.members[n];
        let factors = member.factors.iter();
        let scores = factors.map(|factor| {
            (
                factor.name,
                factor
                    .score
                    .map(|score| (score.value() * 1e4).round() / 1e4),
            )
        });
        (scores.collect::<Vec<_>>(), member.cost.unwrap())
    };
    let (factors, cost) = told(0);
    assert_eq!(
        factors,
        [
            ("health", Some(1.0)),
            ("performance", Some(0.5)),
            ("proximity", Some(0.75)),
            ("load", Some(1.0))
        ]
    );
    assert!(
        (cost - (1.0 - 0.5_f64.powf(0.3) * 0.75_f64.powf(0.2))).abs() < 1e-5,
        "{cost}"
    );
    let (factors, cost) = told(1);
    assert_eq!(
        factors,
        [
            ("health", Some(1.0)),
            ("performance", Some(0.5)),
            ("proximity", Some(0.25)),
            ("load", Some(0.5))
        ]
    );
    assert!(
        (cost - (1.0 - 0.5_f64.powf(0.4) * 0.25_f64.powf(0.2))).abs() < 1e-5,
        "{cost}"
    );
    // Not known, and so to be tried: it costs less than any other.
    let (factors, cost) = told(2);
    assert_eq!(
        factors,
        [
            ("health", None),
            ("performance", None),
            ("proximity", Some(0.75)),
            ("load", Some(1.0))
        ]
    );
    assert!(cost < 0.0, "{cost}");
    let text = why.to_string();
    assert!(text.contains("cost 0.233"), "{text}");
    assert!(
        text.contains("performance 0.500 (weight 30), proximity 0.750 (weight 20)"),
        "{text}"
    );
    assert!(text.contains("health unknown (weight 40)"), "{text}");
}

#[test]
fn a_log_of_decisions_by_scores_replays() {
    let log = Arc::new(DecisionLog::new(NonZeroUsize::new(4_000).unwrap()));
    let config = || Config::default().balancer(Arc::new(Scored::<FourFactors>::default()));
    let resolver = with_members(config().record(Arc::clone(&log)), members(100));
    let mut rng = fastrand::Rng::with_seed(8);
    for n in 0..1_000_u64 {
        let now = at(n * 3);
        let call = resolver.pick(&PickContext::new(now, rng.u64(..))).unwrap();
        call.settle(
            Outcome::Success,
            now + Duration::from_micros(rng.u64(100..90_000)),
        );
    }
    let replay = log.replay(&service(), calm(config())).unwrap();
    assert_eq!(replay.picks, 1_000);
}

#[test]
fn scoring_allocates_nothing() {
    #[derive(Debug)]
    struct Counted(Scored, Mutex<Vec<Option<Score>>>);

    impl Balancer for Counted {
        fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
            let scores = &mut *self.1.lock();
            let mut choice = None;
            let allocated = allocations(|| {
                self.0.scorer().score_all(candidates, context, scores);
                choice = self.0.choose(candidates, context);
            });
            assert_eq!(allocated, 0);
            choice
        }

        fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
            self.0.prepare(members, before)
        }
    }

    let balancer = Counted(Scored::default(), Mutex::new(vec![None; 100]));
    let zones: Vec<_> = (0..100).map(|n| ["e/a/1", "w/b", ""][n % 3]).collect();
    let resolver = with_members(
        Config::default().balancer(Arc::new(balancer)),
        zoned(&zones),
    );
    let here = place("e/a/1");
    for n in 0..300 {
        let context = PickContext::new(at(n * 7), n << 56).locality(&here);
        let call = resolver.pick(&context).unwrap();
        call.settle(Outcome::Success, at(n * 7 + 5));
    }
}

fn nearness(caller: &Locality, place: &Locality) -> Option<f64> {
    let known = caller.parts()[0].is_some() && place.parts()[0].is_some();
    known.then(|| match caller.proximity(place) {
        Proximity::Subzone => 1.0,
        Proximity::Zone => 0.75,
        Proximity::Region => 0.5,
        _ => 0.25,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn places_are_right_after_any_change_of_the_members(
        lists in proptest::collection::vec(
            proptest::collection::btree_map(0..120_usize, "(|e|w|n)/[ab]?/[12]?", 0..100),
            2..6,
        ),
        caller in "(|e|w)/[ab]?/[12]?",
    ) {
        let near_alone = Weights::default().health(0.0).performance(0.0).load(0.0);
        let rig = Rig::new(FourFactors::new(near_alone).unwrap(), members(0));
        let caller = place(&caller);
        for list in lists {
            let member = |(n, zone): (&usize, &String)| {
                let mut member = instance(&name(*n), 1);
                member.locality = place(zone);
                member
            };
            rig.resolver.apply(&snapshot(list.iter().map(member)));
            // Some fail their checks and are back later, while all others stay as they are.
            for sick in [0, 1, 2, 5, usize::MAX] {
                let is_sick = |n: usize| n % 7 == sick || n % 11 == sick;
                for &n in list.keys() {
                    let health = if is_sick(n) { Health::Unhealthy } else { Health::Healthy };
                    rig.resolver.set_health(&id(&name(n)), Incarnation::new(1), health);
                }
                let scores = rig.scores(&PickContext::new(at(0), 7).locality(&caller));
                let expected = list.iter().filter(|(n, _)| !is_sick(**n));
                let expected = expected.map(|(n, zone)| (name(*n), nearness(&caller, &place(zone))));
                let rounded = |score: f64| (score * 1e4).round() / 1e4;
                let scores = scores.into_iter().map(|(id, score)| (id, score.map(rounded)));
                prop_assert_eq!(scores.collect::<BTreeMap<_, _>>(), expected.collect::<BTreeMap<_, _>>());
            }
        }
    }

    #[test]
    fn whatever_happened_scores_are_sound(
        list in proptest::collection::vec(
            (prop_oneof![Just(1), Just(u32::MAX), 1..100_u32], "(|e|w)/[ab]?/[12]?", 0..3_usize),
            1..80,
        ),
        calls in proptest::collection::vec(
            (0..80_usize, prop_oneof![Just(0), Just(u64::MAX), 0..10_000_000_000_u64], 0..4_u8, any::<bool>()),
            0..60,
        ),
        now in prop_oneof![Just(0), Just(u64::MAX), 0..100_000_000_000_u64],
        caller in "(|e|w)/[ab]?/[12]?",
    ) {
        let mut instances = members(list.len());
        for (instance, (weight, zone, _)) in instances.iter_mut().zip(&list) {
            instance.weight = *weight;
            instance.locality = place(zone);
        }
        let rig = Rig::new(FourFactors::default(), instances);
        let now = Monotonic::from_nanos(now);
        // What is known is forgotten in a silence of a week: the clock has come to this moment before.
        let mut held = vec![hold(&rig.resolver, 0, now)];
        for (n, (_, _, calls)) in list.iter().enumerate() {
            held.extend((0..*calls).map(|_| hold(&rig.resolver, n, now)));
        }
        let (mut known, mut failed) = (vec![false; list.len()], vec![false; list.len()]);
        for (n, took, outcome, spared) in calls {
            let n = n % list.len();
            let end = Monotonic::from_nanos(took);
            let outcome = [Outcome::Success, Outcome::Failure, Outcome::Overloaded, Outcome::Neutral][outcome as usize];
            let mut completion = Completion::from(outcome);
            if spared {
                completion = completion.retry_after(Duration::MAX);
            }
            known[n] |= outcome == Outcome::Success || outcome == Outcome::Failure;
            known[n] |= outcome == Outcome::Overloaded && !spared;
            failed[n] |= outcome != Outcome::Success;
            hold(&rig.resolver, n, Monotonic::ZERO).settle(completion, end);
        }
        let caller = place(&caller);
        let scores = rig.scores(&PickContext::new(now, 7).locality(&caller));
        for (n, score) in scores.values().enumerate() {
            prop_assert_eq!(score.is_some(), known[n]);
            // What is no number would have become zero.
            if let Some(score) = score && !failed[n] {
                prop_assert!(*score > 0.0);
            }
        }
    }
}
