//! Uniform draws.

use super::{Balancer, Candidates};
use crate::resolver::PickContext;

/// Any of them, each with a chance in proportion to its weight.
///
/// There is no state, so any number of callers do what one would. After `n` calls a share is off by about the square
/// root of it; [`Weighted`](super::Weighted) is even.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::{Random, Resolver, resolver::Config};
///
/// let resolver = Resolver::new("payments".parse()?, Config::default().balancer(Arc::new(Random)));
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Random;

impl Balancer for Random {
    #[inline]
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        candidates.draw_open(context.draw)
    }
}
