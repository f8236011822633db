//! Weighted round robin without a lock: static stride scheduling.
//!
//! One counter is the only state. Its value `s` stands for candidate `s mod n` in round `s / n`; in each
//! round a candidate of weight `w` advances by `w / greatest` and is taken when it passes a whole number,
//! so after `r` rounds it was taken `r * w / greatest` times, give or take one, spread evenly (grpc's
//! `weighted_round_robin`, proposal A58, after Waldspurger's stride scheduling). We keep the weights as
//! they are, where grpc scales them to 16 bits: the shares are exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Balancer, Candidates, PoolMembers, Prepared};
use crate::resolver::PickContext;

/// Each in turn, as often as its weight says.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::{Resolver, RoundRobin, resolver::Config};
///
/// let turns = Arc::new(RoundRobin::default());
/// let resolver = Resolver::new("payments".parse()?, Config::default().balancer(turns));
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundRobin {
    start: u64,
}

impl RoundRobin {
    /// Begins at this step; give processes different ones so that they do not walk in line.
    pub const fn starting_at(start: u64) -> Self {
        Self { start }
    }
}

/// A pool's step, which outlives changes of its members.
#[derive(Debug)]
struct Step(AtomicU64);

impl Balancer for RoundRobin {
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        let Step(step) = candidates.prepared()?;
        let length = u64::try_from(candidates.len()).ok().filter(|&n| n > 0)?;
        // The heaviest is taken in every round, so a round finds an open one unless it is closed.
        for _ in 0..2 * length {
            let step = step.fetch_add(1, Ordering::Relaxed);
            let index = usize::try_from(step % length).ok()?;
            if is_turn(candidates, index, step / length) && candidates.is_open(index) {
                return Some(index);
            }
        }
        // The heaviest are closed, and the turns of the others are rare: no one of them may get all the rest.
        candidates.sample_open(context.draw)
    }

    fn prepare(&self, _: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        let kept = before.filter(|before| before.is::<Step>());
        Some(kept.unwrap_or_else(|| Arc::new(Step(AtomicU64::new(self.start)))))
    }
}

fn is_turn(candidates: &Candidates<'_>, index: usize, round: u64) -> bool {
    let weight = u64::from(candidates.weight(index));
    let greatest = u64::from(candidates.greatest_weight());
    let Some(round) = round.checked_rem(greatest) else {
        return false;
    };
    // Candidates of equal weight would all be taken in the same rounds without an offset.
    let offset = (index as u64 % 2) * (greatest / 2);
    (weight * round + offset) % greatest >= greatest - weight
}
