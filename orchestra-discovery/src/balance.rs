//! Which of the candidates gets the next call.

mod edf;
mod hashed;
mod kept;
mod ketama;
mod least_request;
mod maglev;
mod p2c;
mod random;
mod rendezvous;
mod ring;
mod round_robin;
mod scored;
mod smooth;
mod total;
mod weighted;

pub use ketama::KetamaHash;
pub use least_request::LeastRequest;
pub use maglev::MaglevHash;
pub use p2c::P2c;
pub use random::Random;
pub use rendezvous::RendezvousHash;
pub use ring::RingHash;
pub use round_robin::RoundRobin;
pub use scored::Scored;
pub use smooth::SmoothRoundRobin;
pub use weighted::Weighted;

use std::any::Any;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Locality, Monotonic};

use self::p2c::Typical;
use self::weighted::Counter;
use crate::instance::Instance;
use crate::resolver::PickContext;
use crate::resolver::plan::Pool;
use crate::resolver::view::{Member, Members, Refused, View};
use crate::score::Factor;
use crate::slab::{Follow, Hot, Reading, Slab};

/// What a balancer prepared for a set of members: a hash table, a counter.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::AtomicU64;
/// use orchestra_discovery::Prepared;
///
/// let turns: Prepared = Arc::new(AtomicU64::new(7));
/// let turns = turns.downcast::<AtomicU64>().map_err(|_| "another balancer's")?;
/// assert_eq!(turns.load(std::sync::atomic::Ordering::Relaxed), 7);
/// # Ok::<(), &str>(())
/// ```
pub type Prepared = Arc<dyn Any + Send + Sync>;

/// What balancers of this crate prepared that are done with in less time than it takes to find out the type of
/// something: it is found out once.
#[derive(Debug, Default)]
pub(crate) enum Familiar {
    Typical(Arc<Typical>),
    Counter(Arc<Counter>),
    #[default]
    No,
}

impl Familiar {
    pub(crate) fn new(prepared: &Prepared) -> Self {
        let downcast = Prepared::clone(prepared).downcast();
        let counter = |prepared: Prepared| prepared.downcast().map_or(Self::No, Self::Counter);
        downcast.map_or_else(counter, Self::Typical)
    }
}

/// Chooses among candidates; one value serves one [`Resolver`](crate::Resolver).
///
/// A resolver keeps its members in pools (by health, priority, zone, subset), and a balancer chooses within
/// one of them.
///
/// Laws:
/// 1. The answer is the index of an open candidate, or `None` if there is no open one.
/// 2. It depends on nothing but the candidates, the context, what was prepared and the balancer's own state.
/// 3. `choose` does not allocate or panic, and waits for nothing but other calls of `choose`: those that keep an
///    order of turns ([`SmoothRoundRobin`], [`LeastRequest`] by unequal weights) take a lock for as long.
///
/// ```
/// use orchestra_discovery::{Balancer, Candidates, PickContext};
///
/// /// Always the first that is open.
/// #[derive(Debug)]
/// struct Failover;
///
/// impl Balancer for Failover {
///     fn choose(&self, candidates: &Candidates<'_>, _: &PickContext<'_>) -> Option<usize> {
///         (0..candidates.len()).find(|&index| candidates.is_open(index))
///     }
/// }
/// ```
pub trait Balancer: fmt::Debug + Send + Sync {
    /// The index of the candidate that gets the call.
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize>;

    /// Prepares a pool for being chosen from, after its members changed; [`Candidates::prepared`] gives it
    /// back. `before` is what was prepared for the pool's former members.
    ///
    /// It runs under the writer's lock: the change is visible when it returns. Nothing is prepared unless
    /// a balancer says so.
    fn prepare(&self, _members: &PoolMembers<'_>, _before: Option<Prepared>) -> Option<Prepared> {
        None
    }

    /// What it goes by when it compares the candidate at `index` with others, the less the better; for
    /// explanations. `None` where it does not compare.
    fn cost(
        &self,
        _candidates: &Candidates<'_>,
        _index: usize,
        _context: &PickContext<'_>,
    ) -> Option<f64> {
        None
    }

    /// What that is made of, for a balancer that goes by scores; for explanations, and it may allocate.
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
        impl<T: Balancer + ?Sized> Balancer for $pointer<T> {
            fn choose(
                &self,
                candidates: &Candidates<'_>,
                context: &PickContext<'_>,
            ) -> Option<usize> {
                (**self).choose(candidates, context)
            }

            fn prepare(
                &self,
                members: &PoolMembers<'_>,
                before: Option<Prepared>,
            ) -> Option<Prepared> {
                (**self).prepare(members, before)
            }

            fn cost(
                &self,
                candidates: &Candidates<'_>,
                index: usize,
                context: &PickContext<'_>,
            ) -> Option<f64> {
                (**self).cost(candidates, index, context)
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

/// The members of a pool, in the order of their ids.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::{Balancer, Candidates, PickContext, PoolMembers, Prepared};
///
/// /// Always the one with the greatest weight.
/// #[derive(Debug)]
/// struct Heaviest;
///
/// impl Balancer for Heaviest {
///     fn choose(&self, candidates: &Candidates<'_>, _: &PickContext<'_>) -> Option<usize> {
///         let heaviest = candidates.prepared::<usize>()?;
///         candidates.is_open(*heaviest).then_some(*heaviest)
///     }
///
///     fn prepare(&self, members: &PoolMembers<'_>, _: Option<Prepared>) -> Option<Prepared> {
///         let heaviest = (0..members.len()).max_by_key(|&index| members.weight(index))?;
///         Some(Arc::new(heaviest))
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct PoolMembers<'a> {
    members: &'a Members,
    pool: &'a Pool,
}

impl<'a> PoolMembers<'a> {
    pub(crate) fn new(members: &'a Members, pool: &'a Pool) -> Self {
        Self { members, pool }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pool.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pool.slots.is_empty()
    }

    /// The instance at `index`.
    pub fn instance(&self, index: usize) -> Option<&'a Instance> {
        let member = self.members.member(*self.pool.slots.get(index)?)?;
        Some(&member.instance)
    }

    /// The members of the resolver, by slot.
    pub(crate) fn all(&self) -> &'a Members {
        self.members
    }

    /// The slot of each.
    pub(crate) fn slots(&self) -> &'a [u32] {
        &self.pool.slots
    }

    /// What the member at each index is known by as long as it stays under the same incarnation.
    fn identities(&self) -> Box<[u64]> {
        let identity = |&slot: &u32| {
            let member = self.members.member(slot);
            let generation = member.map_or(0, |member| member.generation);
            u64::from(slot) << 32 | u64::from(generation)
        };
        self.pool.slots.iter().map(identity).collect()
    }

    /// Whether all have the same weight.
    pub fn is_uniform(&self) -> bool {
        matches!(self.pool.weights, crate::weights::Weights::Equal(_))
    }

    /// Its weight, which is not zero, as [`Candidates::weight`] gives it.
    pub fn weight(&self, index: usize) -> u32 {
        if index < self.len() {
            self.pool.weights.weight(index)
        } else {
            0
        }
    }
}

/// The members of a pool, in the order of their ids, as a call finds them.
///
/// A candidate that this call already tried, or whose gate refused it just now, is listed and not open.
/// An index out of range reads as a candidate of weight zero that is not open.
///
/// ```
/// use orchestra_discovery::{Balancer, Candidates, PickContext};
///
/// /// The one with the fewest calls in flight.
/// #[derive(Debug)]
/// struct Idlest;
///
/// impl Balancer for Idlest {
///     fn choose(&self, candidates: &Candidates<'_>, _: &PickContext<'_>) -> Option<usize> {
///         let open = (0..candidates.len()).filter(|&index| candidates.is_open(index));
///         open.min_by_key(|&index| candidates.in_flight(index))
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Candidates<'a> {
    slab: &'a Slab,
    follow: Follow,
    view: &'a View,
    pool: &'a Pool,
    context: &'a PickContext<'a>,
    refused: &'a Refused,
    all_open: bool,
}

impl<'a> Candidates<'a> {
    #[inline]
    pub(crate) fn new(
        (slab, follow): (&'a Slab, Follow),
        (view, pool): (&'a View, &'a Pool),
        context: &'a PickContext<'a>,
        refused: &'a Refused,
    ) -> Self {
        Self {
            slab,
            follow,
            view,
            pool,
            context,
            refused,
            all_open: refused.is_empty() && context.tried.is_empty(),
        }
    }

    #[inline]
    fn member(&self, index: usize) -> Option<&'a Member> {
        self.view.member_of(self.pool, index)
    }

    #[inline]
    pub(crate) fn hot(&self, index: usize) -> Option<&'a Hot> {
        self.slab.slot(*self.pool.slots.get(index)?)
    }

    /// How many there are, open or not.
    pub fn len(&self) -> usize {
        self.pool.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pool.slots.is_empty()
    }

    /// The instance at `index`.
    pub fn instance(&self, index: usize) -> Option<&'a Instance> {
        self.member(index).map(|member| &*member.instance)
    }

    /// What the balancer [prepared](Balancer::prepare) for this pool.
    #[inline]
    pub fn prepared<T: Any + Send + Sync>(&self) -> Option<&'a T> {
        self.pool.prepared.as_deref()?.downcast_ref()
    }

    /// Reads what admitting a call to it will need, so that what is far away comes in while others are compared.
    #[inline]
    pub(crate) fn touch(&self, index: usize) {
        if let Some(member) = self.member(index) {
            black_box(Arc::strong_count(&member.instance));
        }
    }

    #[inline]
    fn familiar(&self) -> &'a Familiar {
        &self.pool.familiar
    }

    /// Whether it may be chosen for this call.
    #[inline]
    pub fn is_open(&self, index: usize) -> bool {
        let Some(&slot) = self.pool.slots.get(index) else {
            return false;
        };
        self.all_open || !self.is_closed(index, slot)
    }

    fn is_closed(&self, index: usize, slot: u32) -> bool {
        self.refused.contains(slot)
            || self
                .member(index)
                .is_none_or(|member| self.context.has_tried(&member.instance.id))
    }

    /// Whether nobody is closed.
    #[inline]
    pub fn all_open(&self) -> bool {
        self.all_open
    }

    /// Its effective weight, which is not zero: slow start and reported load are in it.
    pub fn weight(&self, index: usize) -> u32 {
        if index < self.len() {
            self.pool.weights.weight(index)
        } else {
            0
        }
    }

    /// How much less than the mean weight it has: 2 for half of it.
    #[inline]
    pub(crate) fn lightness(&self, index: usize) -> f32 {
        self.pool.weights.lightness(index)
    }

    /// Whether all have the same weight.
    pub fn is_uniform(&self) -> bool {
        matches!(self.pool.weights, crate::weights::Weights::Equal(_))
    }

    /// The greatest weight of all.
    pub fn greatest_weight(&self) -> u32 {
        self.pool.weights.greatest()
    }

    /// Its calls that are not settled.
    pub fn in_flight(&self, index: usize) -> u32 {
        self.hot(index).map_or(0, Hot::in_flight)
    }

    /// The peak-sensitive moving average of its latency in seconds, which decays while it is idle; `None`
    /// before its first success.
    pub fn latency(&self, index: usize, now: Monotonic) -> Option<f64> {
        let latency = self.hot(index)?.latency(self.follow, now)?;
        Some(f64::from(latency))
    }

    /// Latency and success as of `now`, both forgiven with the time since the last call; `None` before the first.
    #[inline]
    pub(crate) fn reading_of(&self, hot: &Hot, now: Monotonic) -> Option<Reading> {
        hot.reading(self.follow, now)
    }

    /// The share of successes among its calls as of the last one, in `0..=1`; 1 before the first one.
    pub fn success(&self, index: usize) -> f64 {
        self.hot(index).map_or(1.0, |hot| f64::from(hot.success()))
    }

    /// Whether it asked to be left alone (`Retry-After`) for longer than until `now`.
    pub fn is_spared(&self, index: usize, now: Monotonic) -> bool {
        self.hot(index).is_some_and(|hot| hot.is_spared(now))
    }

    /// How much of it is used, as it last reported: 1 is all of it, and more is more than that. `None` without a
    /// report that has not expired, or unless the resolver takes
    /// [reports](crate::resolver::Config::reported).
    pub fn utilization(&self, index: usize, now: Monotonic) -> Option<f64> {
        self.hot(index)?.utilization(now).map(f64::from)
    }

    /// Where the caller is, as far as the context says.
    pub fn caller(&self) -> Option<&'a Locality> {
        self.context.locality
    }

    /// One of them by a uniform draw, each with a chance in proportion to its weight; in constant time.
    #[inline]
    pub fn sample(&self, draw: u64) -> Option<usize> {
        self.pool.weights.at(draw, self.pool.slots.len())
    }

    /// One of those that are open by a uniform draw, each with a chance in proportion to its weight; it walks
    /// over all of them.
    pub fn sample_open(&self, draw: u64) -> Option<usize> {
        let open = || (0..self.len()).filter(|&index| self.is_open(index));
        let weight = |index| u64::from(self.weight(index));
        let total: u64 = open().map(weight).sum();
        let mut left = u64::try_from((u128::from(draw) * u128::from(total)) >> 64).ok()?;
        open().find(|&index| {
            let taken = left < weight(index);
            left = left.saturating_sub(weight(index));
            taken
        })
    }

    /// The first open one at or after `index`, going around.
    pub fn open_from(&self, index: usize) -> Option<usize> {
        let length = self.len();
        let around = (index..length).chain(0..index.min(length));
        around.into_iter().find(|&index| self.is_open(index))
    }

    /// One that is open by a draw: by its weight, or a neighbour where many are closed.
    #[inline]
    pub(crate) fn draw_open(&self, draw: u64) -> Option<usize> {
        let index = self.sample(draw)?;
        if self.all_open {
            return Some(index);
        }
        self.open_near(index, draw)
    }

    #[cold]
    fn open_near(&self, mut index: usize, mut draw: u64) -> Option<usize> {
        for _ in 0..REDRAWS {
            if self.is_open(index) {
                return Some(index);
            }
            draw = mix(draw);
            index = self.sample(draw)?;
        }
        self.open_from(index)
    }
}

/// How often a draw that hits a closed candidate is repeated before the next open neighbour is taken.
const REDRAWS: u32 = 4;

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): a second draw out of the first.
#[inline]
pub(crate) fn mix(draw: u64) -> u64 {
    let mut bits = draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// How the latency that candidates show follows the samples.
pub(crate) const TAU: Duration = Duration::from_secs(10);
