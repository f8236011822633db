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

mod scene;
mod terms;

use std::num::NonZeroU32;

use orchestra_core::Score;

use self::scene::{BLOCK, Block, Scene};
use self::terms::{NEARNESS, Parts};
use super::peers::Peers;
use super::{Factor, Scorer};
use crate::balance::{Candidates, PoolMembers, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::resolver::PickContext;

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
    parts: Parts,
    /// What a call in flight adds to the load.
    per_call: f32,
}

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
        Self {
            parts: Parts::new(weights),
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
        let score = || Score::clamped(f64::from(scene.terms.score(state)));
        state.is_known.then(score)
    }

    fn score_all(
        &self,
        candidates: &Candidates<'_>,
        context: &PickContext<'_>,
        scores: &mut [Option<Score>],
    ) {
        let scene = Scene::of_all(self, candidates, context);
        let mut block = Block::UNKNOWN;
        for (number, scores) in scores.chunks_mut(BLOCK).enumerate() {
            block.read(&scene, number * BLOCK, scores.len());
            let values = block.scores(&scene.terms);
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
        let clamped = |factor: f32| Score::clamped(f64::from(factor));
        let reading = scene.reading(index);
        let compared = reading.filter(|_| scene.terms.parts.performance > 0.0);
        let performance = compared.map(|reading| scene.terms.performance(reading.latency));
        let steps = scene.steps(index);
        let nearness = NEARNESS.get(steps).filter(|_| steps > 0);
        let headroom = scene.state(index).load.recip();
        let Weights {
            health,
            performance: weight,
            proximity,
            load,
        } = self.weights;
        vec![
            Factor::new(
                "health",
                reading.map(|reading| clamped(reading.success)),
                health,
            ),
            Factor::new("performance", performance.map(clamped), weight),
            Factor::new(
                "proximity",
                nearness.map(|log| clamped(log.exp2())),
                proximity,
            ),
            Factor::new("load", Some(clamped(headroom)), load),
        ]
    }
}
