//! The power of two choices over scores.
//!
//! Two candidates are drawn, each in proportion to its weight, and the one of the higher score wins; of equals the
//! first that was drawn. Nobody gathers all calls by being the best of all: one that is better than its peers in
//! any pair gets twice its share at most, and as its calls add up its score falls.
//!
//! * One without a score, of which nothing is known yet, wins while it has no call in flight, and loses while it
//!   has one: it is tried once, and its first answer decides.
//! * One that asked to be left alone (`Retry-After`) loses to any that did not.

use orchestra_core::Score;

use super::{Balancer, Candidates, PoolMembers, Prepared, mix};
use crate::resolver::PickContext;
use crate::score::{Factor, FourFactors, Scorer};

/// The better of two choices, by the scores of any [`Scorer`].
///
/// What it tells as the cost of a candidate is its score subtracted from one.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::{Locality, Monotonic};
/// use orchestra_discovery::score::Weights;
/// use orchestra_discovery::{
///     FourFactors, Incarnation, Instance, PickContext, Resolver, Revision, Scope, Scored, Snapshot,
/// };
/// use orchestra_discovery::resolver::Config;
///
/// let scorer = FourFactors::new(Weights::default().proximity(60.0))?;
/// let resolver = Resolver::new("payments".parse()?, Config::default().balancer(Arc::new(Scored::new(scorer))));
/// let one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
///
/// let here = Locality::new("eu-west").zone("a");
/// let (choice, why) = resolver.choose_explained(&PickContext::new(Monotonic::ZERO, 42).locality(&here));
/// assert_eq!(choice?.instance.id.as_str(), "payments-1");
/// let names = why.members[0].factors.iter().map(|factor| factor.name);
/// assert_eq!(names.collect::<Vec<_>>(), ["health", "performance", "proximity", "load"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scored<S = FourFactors> {
    scorer: S,
}

impl<S: Scorer> Scored<S> {
    /// By the scores of this scorer.
    pub const fn new(scorer: S) -> Self {
        Self { scorer }
    }

    /// The scorer.
    pub const fn scorer(&self) -> &S {
        &self.scorer
    }

    /// What is compared, the more the better: above all scores for one to be tried, between 0 and -1 for one that
    /// is being tried, and far below for one to be left alone.
    #[inline]
    fn rank(&self, candidates: &Candidates<'_>, index: usize, context: &PickContext<'_>) -> f64 {
        let rank = match self.scorer.score(candidates, index, context) {
            Some(score) => score.value(),
            None => untried(candidates.in_flight(index)),
        };
        if candidates.is_spared(index, context.now) {
            return rank - SPARED;
        }
        rank
    }
}

/// More than what is between any two ranks of those that are not spared.
const SPARED: f64 = 4.0;

fn untried(in_flight: u32) -> f64 {
    match in_flight {
        0 => Score::ONE.value() + 1.0,
        calls => -f64::from(calls) / f64::from(u32::MAX),
    }
}

impl<S: Scorer> Balancer for Scored<S> {
    #[inline]
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        let first = candidates.draw_open(context.draw)?;
        let second = candidates.draw_open(mix(context.draw))?;
        let second = if second == first {
            candidates.open_from(first + 1)?
        } else {
            second
        };
        let rank = |index| self.rank(candidates, index, context);
        Some(if rank(second) > rank(first) {
            second
        } else {
            first
        })
    }

    fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        self.scorer.prepare(members, before)
    }

    fn cost(
        &self,
        candidates: &Candidates<'_>,
        index: usize,
        context: &PickContext<'_>,
    ) -> Option<f64> {
        Some(1.0 - self.rank(candidates, index, context))
    }

    fn factors(
        &self,
        candidates: &Candidates<'_>,
        index: usize,
        context: &PickContext<'_>,
    ) -> Vec<Factor> {
        self.scorer.factors(candidates, index, context)
    }
}
