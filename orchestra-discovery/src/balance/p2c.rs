//! The power of two choices.
//!
//! Two candidates are drawn, each in proportion to its weight, and the one with fewer calls in flight per
//! weight wins: `a.in_flight / a.weight < b.in_flight / b.weight`, compared without division. The maximal
//! load falls from `log n / log log n` to `log log n` (Mitzenmacher, "The Power of Two Choices in
//! Randomized Load Balancing", 2001).
//!
//! On a tie, which is the rule while the service is idle, the first one drawn stays, so that shares follow
//! the weights; unless its latency is at least twice the other's. Latency is an average of successes alone
//! and decays while idle: an instance that fails fast does not look fast, and one that was slow is tried again.

use super::{Balancer, Candidates};
use crate::resolver::PickContext;

/// How often a draw that hits a closed candidate is repeated before the next open neighbour is taken.
const REDRAWS: u32 = 4;
/// The ratio of latencies below which a tie is left to the draw.
const SLOWER: f64 = 2.0;

/// Power of two choices over weights, calls in flight and latency.
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

impl Balancer for P2c {
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        let first = draw_open(candidates, context.draw)?;
        let second = draw_open(candidates, mix(context.draw))?;
        let second = if second == first {
            candidates.open_from(first + 1)?
        } else {
            second
        };
        if is_better(candidates, context, second, first) {
            Some(second)
        } else {
            Some(first)
        }
    }
}

fn draw_open(candidates: &Candidates<'_>, mut draw: u64) -> Option<usize> {
    let mut index = candidates.sample(draw)?;
    for _ in 0..REDRAWS {
        if candidates.is_open(index) {
            return Some(index);
        }
        draw = mix(draw);
        index = candidates.sample(draw)?;
    }
    candidates.open_from(index)
}

fn is_better(candidates: &Candidates<'_>, context: &PickContext<'_>, a: usize, b: usize) -> bool {
    let load = |of: usize, per: usize| {
        u64::from(candidates.in_flight(of)) * u64::from(candidates.weight(per))
    };
    let (load_a, load_b) = (load(a, b), load(b, a));
    if load_a != load_b {
        return load_a < load_b;
    }
    let latency = |of| candidates.latency(of, context.now);
    match (latency(a), latency(b)) {
        (Some(a), Some(b)) => a * SLOWER <= b && a < b,
        _ => false,
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): a second draw out of the first.
fn mix(draw: u64) -> u64 {
    let mut bits = draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
