//! How good each candidate is, as one number.
//!
//! A [`Scorer`] judges the candidates that are left: health checks, ejection, drain and subsets decided before
//! it who is a candidate at all, and gates decide after it. So nothing that it says brings back an instance
//! that takes no calls, and it need not say anything of those. [`FourFactors`] goes by health, performance,
//! proximity and load; [`Scored`](crate::Scored) is the balancer that goes by scores.

mod around;
mod fast;
mod four;
mod peers;

pub use four::{FourFactors, Weights};

use std::fmt;
use std::sync::Arc;

use orchestra_core::Score;

use crate::balance::{Candidates, PoolMembers, Prepared};
use crate::resolver::PickContext;

/// Scores the candidates of a pool for one call.
///
/// Laws:
/// 1. A score is finite and in `0..=1`, which its type says; the higher, the better.
/// 2. `None` says that nothing is known yet that it could go by, as of an instance without a single call. That
///    is no bad score, and no middling one either: whoever chooses decides, and [`Scored`](crate::Scored) tries
///    the instance once. An index out of range is `None` too.
/// 3. It depends on nothing but the candidates, the context and what was prepared. A score is never kept: the
///    next caller may be in another zone.
/// 4. [`score_all`](Self::score_all) gives for each candidate what [`score`](Self::score) gives.
/// 5. Scoring does not block, allocate or panic.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::{Monotonic, Score};
/// use orchestra_discovery::{
///     Candidates, Incarnation, Instance, PickContext, Resolver, Revision, Scope, Scored, Scorer, Snapshot,
/// };
/// use orchestra_discovery::resolver::Config;
///
/// /// The cheaper machines first, as long as they answer well.
/// #[derive(Debug)]
/// struct Thrifty;
///
/// impl Scorer for Thrifty {
///     fn score(&self, candidates: &Candidates<'_>, index: usize, _: &PickContext<'_>) -> Option<Score> {
///         let price = candidates.instance(index)?.labels.value("price")?.parse::<f64>().ok()?;
///         Some(Score::clamped(candidates.success(index) / (1.0 + price)))
///     }
/// }
///
/// let resolver = Resolver::new("payments".parse()?, Config::default().balancer(Arc::new(Scored::new(Thrifty))));
/// let mut members = Vec::new();
/// for (id, price) in [("payments-1", "0.4"), ("payments-2", "0.1")] {
///     let mut instance = Instance::new(
///         "payments".parse()?, id.parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
///     );
///     instance.labels = [("price", price)].try_into()?;
///     members.push(Arc::new(instance));
/// }
/// resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), members));
///
/// let call = resolver.pick(&PickContext::new(Monotonic::ZERO, 42))?;
/// assert_eq!(call.instance().id.as_str(), "payments-2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Scorer: fmt::Debug + Send + Sync {
    /// The score of the candidate at `index`.
    fn score(
        &self,
        candidates: &Candidates<'_>,
        index: usize,
        context: &PickContext<'_>,
    ) -> Option<Score>;

    /// The scores of all candidates from the first on, as many as fit; whatever is left of `scores` becomes `None`.
    ///
    /// Unless a scorer has a quicker way, it is one [`score`](Self::score) after the other.
    fn score_all(
        &self,
        candidates: &Candidates<'_>,
        context: &PickContext<'_>,
        scores: &mut [Option<Score>],
    ) {
        for (index, score) in scores.iter_mut().enumerate() {
            *score = self.score(candidates, index, context);
        }
    }

    /// Prepares a pool for being scored, as [`Balancer::prepare`](crate::Balancer::prepare) does for being
    /// chosen from. What is prepared serves callers of all zones. Nothing is, unless a scorer says so.
    fn prepare(&self, _members: &PoolMembers<'_>, _before: Option<Prepared>) -> Option<Prepared> {
        None
    }

    /// What the score of the candidate at `index` is made of, for explanations; it may allocate.
    fn factors(
        &self,
        _candidates: &Candidates<'_>,
        _index: usize,
        _context: &PickContext<'_>,
    ) -> Vec<Factor> {
        Vec::new()
    }
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        impl<T: Scorer + ?Sized> Scorer for $pointer<T> {
            fn score(
                &self,
                candidates: &Candidates<'_>,
                index: usize,
                context: &PickContext<'_>,
            ) -> Option<Score> {
                (**self).score(candidates, index, context)
            }

            fn score_all(
                &self,
                candidates: &Candidates<'_>,
                context: &PickContext<'_>,
                scores: &mut [Option<Score>],
            ) {
                (**self).score_all(candidates, context, scores);
            }

            fn prepare(
                &self,
                members: &PoolMembers<'_>,
                before: Option<Prepared>,
            ) -> Option<Prepared> {
                (**self).prepare(members, before)
            }

            fn factors(
                &self,
                candidates: &Candidates<'_>,
                index: usize,
                context: &PickContext<'_>,
            ) -> Vec<Factor> {
                (**self).factors(candidates, index, context)
            }
        }
    )+};
}

forward!(Arc, Box);

/// One of the things that a score is made of.
///
/// ```
/// use orchestra_core::Score;
/// use orchestra_discovery::score::Factor;
///
/// let health = Factor::new("health", Some(Score::new(0.98)?), 40.0);
/// assert_eq!(health.to_string(), "health 0.980 (weight 40)");
/// assert_eq!(Factor::new("performance", None, 30.0).to_string(), "performance unknown (weight 30)");
/// # Ok::<(), orchestra_core::InvalidScore>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Factor {
    /// What it is called.
    pub name: &'static str,
    /// How good the candidate is in this alone; `None` where nothing is known.
    pub score: Option<Score>,
    /// How much it counts, beside the weights of the others.
    pub weight: f64,
}

impl Factor {
    /// A factor of this name.
    pub const fn new(name: &'static str, score: Option<Score>, weight: f64) -> Self {
        Self {
            name,
            score,
            weight,
        }
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, weight, .. } = self;
        match self.score {
            Some(score) => write!(f, "{name} {:.3} (weight {weight})", score.value()),
            None => write!(f, "{name} unknown (weight {weight})"),
        }
    }
}
