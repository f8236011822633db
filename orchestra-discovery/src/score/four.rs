//! The score by four factors: health, performance, proximity and load.
//!
//! ```text
//! health      = share of successes among the last calls
//! performance = m / (m + latency)           m: the median latency of the peers
//! proximity   = 1 in the same subzone, 3/4 in the same zone, 1/2 in the same region, 1/4 elsewhere
//! load        = (1 - utilization) * h / (h + in_flight * mean weight / weight)
//!
//! score = (health^40 * performance^30 * proximity^20 * load^10) ^ (1 / 100)
//! ```
//!
//! It is the weighted geometric mean of those that are known, and no arithmetic one: there an instance that fails
//! all its calls scores 0.6 when it is fast, near and idle, and so outvotes a sound one that is far and busy. In a
//! geometric mean a factor near zero pulls the score there whatever the others are, and twice as bad costs the same
//! wherever on the scale it happens. At a success share below 1/1024 the score is zero, and that of a candidate
//! that does better is not, however slow, far and busy it is.
//!
//! * *Health* and *latency* are moving averages which are forgiven with time, as elsewhere in this crate: whoever is
//!   avoided is tried again.
//! * *Performance* is relative to the peers: as a function of `log(latency / m)` it is the logistic one. A service
//!   that takes a second where another takes a millisecond has the same scores. The median is that of up to 63
//!   candidates, taken anew every 20 ms.
//! * *Proximity* is that of this call's caller.
//! * *Load* is the headroom that is left. The `h` of [`FourFactors::half_load`] is 1 unless told otherwise, so among the busy
//!   the ratio of their calls counts. Who reports its utilization is judged by it too: it knows the calls of
//!   everybody, and the calls in flight tell what happened since the report.
//!
//! Arithmetic is in single precision, 64 candidates at a time, and without a branch or a call for each.

use std::num::NonZeroU32;

use orchestra_core::{Locality, Monotonic, Proximity, Score};

use super::around::{Around, proximity, steps};
use super::fast::{exp2, log2};
use super::peers::{self, Peers};
use super::{Factor, Scorer};
use crate::balance::{Candidates, PoolMembers, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::resolver::PickContext;
use crate::slab::Reading;

/// How much each factor counts, beside the others; their sum may be anything.
///
/// Unless told otherwise 40, 30, 20 and 10. A factor of weight zero is left out. One of less than a millionth of
/// the greatest counts as a millionth.
///
/// ```
/// use orchestra_discovery::score::{FourFactors, Weights};
///
/// let near_above_all = Weights::default().proximity(200.0).load(0.0);
/// assert!(FourFactors::new(near_above_all).is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Weights {
    /// Of the share of calls that succeed.
    pub health: f64,
    /// Of the latency in comparison with the peers.
    pub performance: f64,
    /// Of how near it is to the caller.
    pub proximity: f64,
    /// Of how much it could still do.
    pub load: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            health: 40.0,
            performance: 30.0,
            proximity: 20.0,
            load: 10.0,
        }
    }
}

impl Weights {
    /// With this weight of the health.
    #[must_use]
    pub const fn health(mut self, weight: f64) -> Self {
        self.health = weight;
        self
    }

    /// With this weight of the performance.
    #[must_use]
    pub const fn performance(mut self, weight: f64) -> Self {
        self.performance = weight;
        self
    }

    /// With this weight of the proximity.
    #[must_use]
    pub const fn proximity(mut self, weight: f64) -> Self {
        self.proximity = weight;
        self
    }

    /// With this weight of the load.
    #[must_use]
    pub const fn load(mut self, weight: f64) -> Self {
        self.load = weight;
        self
    }
}

/// Health, performance, proximity and load in one number.
///
/// A factor of which nothing is known is left out, and the others count for it: performance before any
/// peer had a success, proximity where the call does not say where it comes from or the region of either side is
/// unknown. A candidate without a single call has no score, unless neither health nor performance
/// have a weight.
///
/// ```
/// use std::num::NonZeroU32;
/// use orchestra_discovery::score::{FourFactors, Weights};
/// use orchestra_discovery::{ErrorKind, Scored};
///
/// let scorer = FourFactors::new(Weights::default().load(30.0))?
///     .half_load(NonZeroU32::MIN.saturating_add(7));
/// let balancer = Scored::new(scorer);
///
/// let nothing = Weights::default().health(0.0).performance(0.0).proximity(0.0).load(0.0);
/// let error = FourFactors::new(nothing).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FourFactors {
    weights: Weights,
    /// The weights as parts of the greatest.
    parts: Parts,
    /// What a call in flight adds to the load.
    per_call: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Parts {
    health: f32,
    performance: f32,
    proximity: f32,
    load: f32,
}

/// The least part of the greatest weight that one has which is not zero.
const LEAST_PART: f64 = 1e-6;

impl Default for FourFactors {
    /// Weights of 40, 30, 20 and 10, half loaded by one call in flight.
    fn default() -> Self {
        Self::of(Weights::default())
    }
}

impl FourFactors {
    /// With these weights. An error if one is negative or no finite number, or if all are zero.
    pub fn new(weights: Weights) -> Result<Self> {
        let named = [
            ("health", weights.health),
            ("performance", weights.performance),
            ("proximity", weights.proximity),
            ("load", weights.load),
        ];
        for (name, weight) in named {
            if !weight.is_finite() || weight < 0.0 {
                let message =
                    format!("score: the weight {weight} of {name} is not a number from 0 on");
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        }
        if named.iter().all(|&(_, weight)| weight <= 0.0) {
            let message = "score: all factors have weight 0";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(Self::of(weights))
    }

    fn of(weights: Weights) -> Self {
        let Weights {
            health,
            performance,
            proximity,
            load,
        } = weights;
        let greatest = health.max(performance).max(proximity).max(load);
        Self {
            parts: Parts {
                health: part(health, greatest),
                performance: part(performance, greatest),
                proximity: part(proximity, greatest),
                load: part(load, greatest),
            },
            weights,
            per_call: 1.0,
        }
    }

    /// So many calls in flight take half of the headroom of a candidate of mean weight; one unless told otherwise.
    #[must_use]
    pub fn half_load(mut self, calls: NonZeroU32) -> Self {
        self.per_call = (calls.get() as f32).recip();
        self
    }

    /// The weights.
    pub const fn weights(&self) -> Weights {
        self.weights
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a part of 0..=1 loses digits and no more"
)]
fn part(weight: f64, greatest: f64) -> f32 {
    if weight > 0.0 {
        (weight / greatest).max(LEAST_PART) as f32
    } else {
        0.0
    }
}

/// `log2` of the proximity that is so many [steps] away from unknown.
const NEARNESS: [f32; 5] = [0.0, -2.0, -1.0, -0.415_037_5, 0.0];
/// Whoever succeeds less often fails everything.
const FAILS_ALL: f32 = 1.0 / 1024.0;
/// The least logarithm of a score, whose power is a normal number.
const LEAST: f32 = -126.0;
/// The least headroom that a reported utilization leaves.
const LEAST_HEADROOM: f64 = 1.0 / 1024.0;

/// What the proximity of a candidate adds to its exponent, and what that is divided by.
#[derive(Debug, Clone, Copy, Default)]
struct Near {
    term: f32,
    /// 0 if there is nothing to go by.
    inverse: f32,
}

/// Where candidates are.
#[derive(Debug)]
enum Whereabouts<'a> {
    /// It is not asked, or the caller does not say where it is.
    Nowhere,
    /// By the numbers of their places.
    Numbered(Around, &'a Peers),
    /// By comparing with this place.
    Compared(&'a Locality, Option<&'a Peers>),
}

/// What all scores of a call have in common.
#[derive(Debug)]
struct Scene<'a> {
    candidates: &'a Candidates<'a>,
    now: Monotonic,
    parts: Parts,
    /// The inverse of the median; 0 without one, and then the part of the performance is 0 too.
    per_median: f32,
    per_call: f32,
    may_report: bool,
    whereabouts: Whereabouts<'a>,
    near: [Near; 5],
}

/// What one candidate is judged by.
#[derive(Debug, Clone, Copy)]
struct State {
    latency: f32,
    success: f32,
    /// The inverse of its headroom.
    load: f32,
    near: Near,
    is_known: bool,
}

const UNKNOWN: State = State {
    latency: 0.0,
    success: 1.0,
    load: 1.0,
    near: Near {
        term: 0.0,
        inverse: 0.0,
    },
    is_known: false,
};

impl<'a> Scene<'a> {
    fn new(
        four: &FourFactors,
        candidates: &'a Candidates<'a>,
        context: &PickContext<'_>,
        whereabouts: impl FnOnce(&'a Locality, Option<&'a Peers>) -> Whereabouts<'a>,
    ) -> Self {
        let peers = candidates.prepared::<Peers>();
        let mut parts = four.parts;
        let median = match peers {
            _ if parts.performance <= 0.0 => None,
            Some(peers) => peers.median(candidates, context),
            None => peers::sampled(candidates, context),
        };
        if median.is_none() {
            parts.performance = 0.0;
        }
        let caller = candidates.caller().filter(|_| parts.proximity > 0.0);
        let whereabouts = caller.map_or(Whereabouts::Nowhere, |caller| whereabouts(caller, peers));
        Self {
            candidates,
            now: context.now,
            near: near(parts),
            parts,
            per_median: median.map_or(0.0, f32::recip),
            per_call: four.per_call,
            may_report: peers.is_none_or(|peers| peers.may_report),
            whereabouts,
        }
    }

    /// To score one or a few.
    #[inline]
    fn of_few(
        four: &FourFactors,
        candidates: &'a Candidates<'a>,
        context: &PickContext<'_>,
    ) -> Self {
        Self::new(four, candidates, context, Whereabouts::Compared)
    }

    /// To score all.
    fn of_all(
        four: &FourFactors,
        candidates: &'a Candidates<'a>,
        context: &PickContext<'_>,
    ) -> Self {
        Self::new(four, candidates, context, |caller, peers| match peers {
            Some(peers) => match peers.places.around(caller) {
                Some(around) => Whereabouts::Numbered(around, peers),
                None => Whereabouts::Nowhere,
            },
            None => Whereabouts::Compared(caller, None),
        })
    }

    /// How near a candidate is, in steps from unknown.
    #[inline]
    fn steps(&self, index: usize) -> usize {
        match &self.whereabouts {
            Whereabouts::Nowhere => 0,
            Whereabouts::Numbered(around, peers) => around.steps(peers.places.number(index)),
            Whereabouts::Compared(..) => steps(self.proximity(index)),
        }
    }

    fn proximity(&self, index: usize) -> Option<Proximity> {
        let Whereabouts::Compared(caller, peers) = self.whereabouts else {
            return None;
        };
        match peers {
            Some(peers) => peers.places.proximity(caller, index),
            None => proximity(caller, &self.candidates.instance(index)?.locality),
        }
    }

    /// What is left of a candidate that reports how used it is.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a headroom of 0..=1 loses digits and no more"
    )]
    fn headroom(&self, index: usize) -> f32 {
        let used = self.candidates.utilization(index, self.now);
        used.map_or(1.0, |used| (1.0 - used).max(LEAST_HEADROOM) as f32)
    }

    #[inline]
    fn state(&self, index: usize) -> State {
        let Some(hot) = self.candidates.hot(index) else {
            return UNKNOWN;
        };
        let reading = self.candidates.reading_of(hot, self.now);
        let needs_none = self.parts.health <= 0.0 && self.parts.performance <= 0.0;
        let Reading { latency, success } = reading.unwrap_or(Reading {
            latency: UNKNOWN.latency,
            success: UNKNOWN.success,
        });
        let calls = hot.in_flight() as f32 * self.candidates.lightness(index);
        let mut load = 1.0 + calls * self.per_call;
        if self.may_report {
            load /= self.headroom(index);
        }
        let near = self
            .near
            .get(self.steps(index))
            .copied()
            .unwrap_or_default();
        State {
            latency,
            success,
            load,
            near,
            is_known: (reading.is_some() || needs_none) && near.inverse > 0.0,
        }
    }

    /// The score of what is known.
    #[inline]
    fn score(&self, state: State) -> f32 {
        let Parts {
            health,
            performance,
            load,
            ..
        } = self.parts;
        // Plain comparisons: those of `f32::max` care for NaN, which nothing here is.
        let succeeds = if state.success > FAILS_ALL {
            state.success
        } else {
            FAILS_ALL
        };
        let exponent = health * log2(succeeds)
            - performance * log2(1.0 + state.latency * self.per_median)
            + state.near.term
            - load * log2(state.load);
        let exponent = exponent * state.near.inverse;
        let exponent = if exponent > LEAST { exponent } else { LEAST };
        let score = exp2(if exponent < 0.0 { exponent } else { 0.0 });
        let fails_all = health > 0.0 && state.success < FAILS_ALL;
        if fails_all { 0.0 } else { score }
    }
}

fn near(parts: Parts) -> [Near; 5] {
    let without = parts.health + parts.performance + parts.load;
    let inverse = |sum: f32| if sum > 0.0 { sum.recip() } else { 0.0 };
    let (unknown, known) = (inverse(without), inverse(without + parts.proximity));
    let mut near = NEARNESS.map(|nearness| Near {
        term: parts.proximity * nearness,
        inverse: known,
    });
    let [first, ..] = &mut near;
    first.inverse = unknown;
    near
}

/// So many candidates are scored at a time: their states stay in the first cache.
const BLOCK: usize = 64;

/// The states of some candidates, each part by itself.
struct Block {
    latency: [f32; BLOCK],
    success: [f32; BLOCK],
    load: [f32; BLOCK],
    term: [f32; BLOCK],
    inverse: [f32; BLOCK],
    is_known: [bool; BLOCK],
}

impl Block {
    const EMPTY: Self = Self {
        latency: [UNKNOWN.latency; BLOCK],
        success: [UNKNOWN.success; BLOCK],
        load: [UNKNOWN.load; BLOCK],
        term: [UNKNOWN.near.term; BLOCK],
        inverse: [UNKNOWN.near.inverse; BLOCK],
        is_known: [UNKNOWN.is_known; BLOCK],
    };

    /// Reads those from `begin` on.
    #[inline]
    fn read(&mut self, scene: &Scene<'_>, begin: usize, count: usize) {
        for place in 0..BLOCK.min(count) {
            let state = scene.state(begin + place);
            self.latency[place] = state.latency;
            self.success[place] = state.success;
            self.load[place] = state.load;
            self.term[place] = state.near.term;
            self.inverse[place] = state.near.inverse;
            self.is_known[place] = state.is_known;
        }
    }

    #[inline]
    fn scores(&self, scene: &Scene<'_>) -> [f32; BLOCK] {
        let mut scores = [0.0; BLOCK];
        for place in 0..BLOCK {
            scores[place] = scene.score(State {
                latency: self.latency[place],
                success: self.success[place],
                load: self.load[place],
                near: Near {
                    term: self.term[place],
                    inverse: self.inverse[place],
                },
                is_known: true,
            });
        }
        scores
    }
}

impl Scorer for FourFactors {
    #[inline]
    fn score(
        &self,
        candidates: &Candidates<'_>,
        index: usize,
        context: &PickContext<'_>,
    ) -> Option<Score> {
        let scene = Scene::of_few(self, candidates, context);
        let state = scene.state(index);
        let score = || Score::clamped(f64::from(scene.score(state)));
        state.is_known.then(score)
    }

    fn score_all(
        &self,
        candidates: &Candidates<'_>,
        context: &PickContext<'_>,
        scores: &mut [Option<Score>],
    ) {
        let scene = Scene::of_all(self, candidates, context);
        let mut block = Block::EMPTY;
        for (number, scores) in scores.chunks_mut(BLOCK).enumerate() {
            block.read(&scene, number * BLOCK, scores.len());
            let values = block.scores(&scene);
            for ((score, value), is_known) in scores.iter_mut().zip(values).zip(block.is_known) {
                *score = is_known.then(|| Score::clamped(f64::from(value)));
            }
        }
    }

    fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        Some(Peers::new(members, before).prepared())
    }

    fn factors(
        &self,
        candidates: &Candidates<'_>,
        index: usize,
        context: &PickContext<'_>,
    ) -> Vec<Factor> {
        let scene = Scene::of_few(self, candidates, context);
        let state = scene.state(index);
        let hot = candidates.hot(index);
        let reading = hot.and_then(|hot| candidates.reading_of(hot, context.now));
        let clamped = |factor: f32| Score::clamped(f64::from(factor));
        let health = reading.map(|reading| clamped(reading.success));
        let compared = reading.filter(|_| scene.per_median > 0.0);
        let performance =
            compared.map(|reading| clamped((1.0 + reading.latency * scene.per_median).recip()));
        let steps = scene.steps(index);
        let nearness = NEARNESS.get(steps).filter(|_| steps > 0);
        let proximity = nearness.map(|nearness| clamped(nearness.exp2()));
        let load = hot.map(|_| clamped(state.load.recip()));
        vec![
            Factor::new("health", health, self.weights.health),
            Factor::new("performance", performance, self.weights.performance),
            Factor::new("proximity", proximity, self.weights.proximity),
            Factor::new("load", load, self.weights.load),
        ]
    }
}
