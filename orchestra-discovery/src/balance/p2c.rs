//! The power of two choices over peak-sensitive latency and calls in flight, with two more where both are dear.
//!
//! Two candidates are drawn, each in proportion to its weight, and the one of less cost wins:
//!
//! ```text
//! price = latency / success²
//! cost  = price * (1 + in_flight * mean weight / weight)
//! ```
//!
//! While nothing is in flight the draw alone follows the weights. Latency is Finagle's peak EWMA of
//! successes alone, and `success` the share of successes among the last calls, so an instance that fails fast
//! does not look fast. Both are forgiven with the time since its last call: the latency decays to zero, the
//! success to one, so whoever is avoided is tried again. Of two choices the maximal load is `log log n` instead
//! of `n / log log n` (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
//!
//! Where a tenth of the instances is slow, one pair in a hundred is slow on both sides, which is what the
//! slowest hundredth of all calls is made of. So where the winner's price is more than 1.5 times the typical one,
//! up to two more are drawn, and four are slow once in 10,000 times. The typical price is a running median
//! of what is drawn: one draw in 64 moves it by a twentieth, up or down ("Frugal Streaming for Estimating
//! Quantiles", Ma, Muthukrishnan, Sandler 2013). It excludes nobody: while it is wrong, as after all have become
//! slower at once, picks cost more and are none the worse.
//!
//! * One of whom nothing is known is free while it has no call in flight, and dear while it has one: it is
//!   tried once, and its first answer decides.
//! * One that asked to be left alone (`Retry-After`) loses to any that did not.

use std::hint::select_unpredictable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use orchestra_core::Monotonic;

use super::{Balancer, Candidates, Familiar, PoolMembers, Prepared, mix};
use crate::resolver::PickContext;
use crate::slab::Reading;

/// Power of two choices over weights, calls in flight, latency and successes.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::{P2c, Resolver, resolver::Config};
///
/// let resolver = Resolver::new("payments".parse()?, Config::default().balancer(Arc::new(P2c)));
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct P2c;

/// The cost of one of whom nothing is known and who has a call in flight, and what sparing adds: seconds that
/// no latency reaches.
const UNKNOWN: f32 = 1e6;
const SPARED: f32 = 1e9;

/// A price so many times the typical one is worth looking further.
const DEAR: f32 = 1.5;
/// How many more are drawn then.
const MORE: u32 = 2;

impl Balancer for P2c {
    #[inline]
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        let other = mix(context.draw);
        let first = candidates.draw_open(context.draw)?;
        let second = candidates.draw_open(other)?;
        let second = if second == first {
            another(candidates, first)?
        } else {
            second
        };
        candidates.touch(first);
        candidates.touch(second);
        let (a, b) = (
            Offer::of(candidates, first, context.now),
            Offer::of(candidates, second, context.now),
        );
        // Which of the two it is no branch foresees.
        let is_second = b.cost < a.cost;
        let best = select_unpredictable(is_second, second, first);
        let Familiar::Typical(typical) = candidates.familiar() else {
            return Some(best);
        };
        if Typical::is_asked(other) {
            typical.take(a.price);
        }
        let price = select_unpredictable(is_second, b.price, a.price);
        if price > typical.dear() {
            return Some(further(candidates, best, other, context.now));
        }
        Some(best)
    }

    fn prepare(&self, _: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        let kept = before.filter(|before| before.is::<Typical>());
        Some(kept.unwrap_or_else(|| Arc::new(Typical::default())))
    }

    fn cost(
        &self,
        candidates: &Candidates<'_>,
        index: usize,
        context: &PickContext<'_>,
    ) -> Option<f64> {
        Some(f64::from(Offer::of(candidates, index, context.now).cost))
    }
}

/// The best of this one and a few more.
#[cold]
fn further(candidates: &Candidates<'_>, mut best: usize, mut draw: u64, now: Monotonic) -> usize {
    let mut least = Offer::of(candidates, best, now).cost;
    for _ in 0..MORE {
        draw = mix(draw);
        if let Some(index) = candidates.draw_open(draw) {
            let cost = Offer::of(candidates, index, now).cost;
            if cost < least {
                (best, least) = (index, cost);
            }
        }
    }
    best
}

/// The open neighbour of one that was drawn twice; itself if there is none.
#[cold]
fn another(candidates: &Candidates<'_>, first: usize) -> Option<usize> {
    let next = if first + 1 < candidates.len() {
        first + 1
    } else {
        0
    };
    if candidates.all_open() {
        return Some(next);
    }
    candidates.open_from(next)
}

/// What a call to a candidate is taken to cost.
#[derive(Debug, Clone, Copy)]
struct Offer {
    price: f32,
    cost: f32,
}

impl Offer {
    #[inline]
    fn of(candidates: &Candidates<'_>, index: usize, now: Monotonic) -> Self {
        let Some(hot) = candidates.hot(index) else {
            let price = f32::INFINITY;
            return Self { price, cost: price };
        };
        let in_flight = hot.in_flight() as f32 * candidates.lightness(index);
        let mut price = match candidates.reading_of(hot, now) {
            // Never nothing, so that calls in flight count; divided only if need be, since that takes long.
            Some(Reading { latency, success }) => {
                let latency = latency.max(f32::MIN_POSITIVE);
                if success >= 1.0 {
                    latency
                } else {
                    latency / (success * success).max(1e-4)
                }
            }
            None if in_flight == 0.0 => 0.0,
            None => UNKNOWN,
        };
        if hot.is_spared(now) {
            price += SPARED;
        }
        Self {
            price,
            cost: price * (in_flight + 1.0),
        }
    }
}

/// A pool's typical price, which outlives changes of its members; zero before the first. It has a cache line
/// of its own: it is read by each pick.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Typical(AtomicU32);

impl Typical {
    /// How far one price moves it.
    const STEP: f32 = 1.05;

    /// Whether it takes what this draw found: one in 64, so that threads seldom write to it.
    #[inline]
    fn is_asked(draw: u64) -> bool {
        draw.trailing_zeros() >= 6
    }

    /// Of writes at the same time one may be lost: the median is none the worse.
    #[cold]
    fn take(&self, price: f32) {
        if price <= 0.0 || price >= UNKNOWN {
            return;
        }
        let now = f32::from_bits(self.0.load(Ordering::Relaxed));
        let next = if now == 0.0 {
            price
        } else if price > now {
            now * Self::STEP
        } else {
            now / Self::STEP
        };
        self.0.store(next.to_bits(), Ordering::Relaxed);
    }

    /// Above it a price is dear.
    #[inline]
    fn dear(&self) -> f32 {
        let typical = f32::from_bits(self.0.load(Ordering::Relaxed));
        if typical == 0.0 {
            return f32::INFINITY;
        }
        typical * DEAR
    }
}
