//! The power of two choices over peak-sensitive latency and calls in flight.
//!
//! Two candidates are drawn, each in proportion to its weight, and the cheaper one wins:
//!
//! ```text
//! cost = latency * (1 + in_flight * mean weight / weight) / success²
//! ```
//!
//! While nothing is in flight the draw alone follows the weights. Latency is Finagle's peak EWMA of
//! successes alone, and `success` the share of successes among the last calls, so an instance that fails fast
//! does not look fast. Of two choices the maximal load is `log log n` instead of `log n / log log n`
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
//!
//! * One of whom nothing is known is free while it has no call in flight, and dear while it has one: it is
//!   tried once, and its first answer decides.
//! * One that asked to be left alone (`Retry-After`) loses to any that did not.

use orchestra_core::Monotonic;

use super::{Balancer, Candidates, mix};
use crate::resolver::PickContext;

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

impl Balancer for P2c {
    #[inline]
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        let first = candidates.draw_open(context.draw)?;
        let other = mix(context.draw);
        let second = candidates.draw_open(other)?;
        let second = if second == first {
            another(candidates, first)?
        } else {
            second
        };
        let (a, b) = (
            cost(candidates, first, context.now),
            cost(candidates, second, context.now),
        );
        Some(if b < a { second } else { first })
    }
}

/// The open neighbour of one that was drawn twice; itself if there is none.
#[inline]
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

#[inline]
fn cost(candidates: &Candidates<'_>, index: usize, now: Monotonic) -> f32 {
    let Some(hot) = candidates.hot(index) else {
        return f32::INFINITY;
    };
    let in_flight = hot.in_flight() as f32 * candidates.lightness(index);
    let latency = match candidates.latency_of(hot, now) {
        Some(latency) => latency.max(f32::MIN_POSITIVE),
        None if in_flight == 0.0 => 0.0,
        None => UNKNOWN,
    };
    let success = hot.success();
    let cost = latency * (in_flight + 1.0) / (success * success).max(1e-4);
    if hot.is_spared(now) {
        cost + SPARED
    } else {
        cost
    }
}
