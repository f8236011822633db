//! Weighted shares in constant time, and evenly.
//!
//! One counter is the only state. Call `k` takes the target `frac(k φ)` of the sum of the weights, with
//! φ the golden ratio: of all sequences it keeps every stretch of the line closest to its share at every
//! moment (three-distance theorem; Knuth, "The Art of Computer Programming", vol. 3, section 6.4). A member is
//! one stretch, so after `n` calls it was taken `n w / W` times within a few, where random draws are off
//! by the square root. There is no queue to keep in order (EDF), no walk over all (smooth round robin), and no
//! loop whose length depends on the skew of the weights (static stride).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Balancer, Candidates, Familiar, PoolMembers, Prepared, mix};
use crate::resolver::PickContext;

/// The golden ratio's fraction in units of 2^-64, which is odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Each as often as its weight says, at the cost of one counter.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::{Resolver, Weighted, resolver::Config};
///
/// let weighted = Arc::new(Weighted::default());
/// let resolver = Resolver::new("payments".parse()?, Config::default().balancer(weighted));
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weighted {
    start: u64,
}

impl Weighted {
    /// Begins at this place; give processes different ones so that they do not walk in line.
    pub const fn starting_at(start: u64) -> Self {
        Self { start }
    }
}

/// A pool's counter, which outlives changes of its members.
#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Balancer for Weighted {
    #[inline]
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        let Familiar::Counter(counter) = candidates.familiar() else {
            return None;
        };
        let draw = counter.0.fetch_add(GOLDEN, Ordering::Relaxed);
        let index = candidates.sample(draw)?;
        if candidates.is_open(index) {
            return Some(index);
        }
        candidates
            .draw_open(mix(context.draw))
            .filter(|&index| candidates.is_open(index))
    }

    fn prepare(&self, _: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        let kept = before.filter(|before| before.is::<Counter>());
        Some(kept.unwrap_or_else(|| Arc::new(Counter(AtomicU64::new(mix(self.start))))))
    }
}
