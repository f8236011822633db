//! Which of the candidates gets the next call.

mod p2c;
mod round_robin;

pub use p2c::P2c;
pub use round_robin::RoundRobin;

use std::fmt;
use std::sync::Arc;

use orchestra_core::Monotonic;

use crate::instance::Instance;
use crate::resolver::PickContext;
use crate::resolver::view::{Entry, Refused, View};

/// Chooses among candidates; one value serves one [`Resolver`](crate::Resolver).
///
/// Laws:
/// 1. The answer is the index of an open candidate, or `None` if there is no open one.
/// 2. It depends on nothing but the candidates, the context and the balancer's own state.
/// 3. It does not block, allocate or panic.
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
        }
    )+};
}

forward!(Arc, Box);

/// The members that take calls, in the order of their ids.
///
/// A candidate that this call already tried, or whose gate refused it just now, is listed and not open.
/// An index out of range reads as a candidate of weight zero that is not open.
#[derive(Debug)]
pub struct Candidates<'a> {
    view: &'a View,
    tried: &'a PickContext<'a>,
    refused: &'a Refused,
}

impl<'a> Candidates<'a> {
    pub(crate) fn new(view: &'a View, tried: &'a PickContext<'a>, refused: &'a Refused) -> Self {
        Self {
            view,
            tried,
            refused,
        }
    }

    fn entry(&self, index: usize) -> Option<&'a Entry> {
        self.view.ready.get(index)
    }

    /// How many there are, open or not.
    pub fn len(&self) -> usize {
        self.view.ready.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.view.ready.is_empty()
    }

    /// The instance at `index`.
    pub fn instance(&self, index: usize) -> Option<&'a Instance> {
        self.entry(index).map(|entry| &*entry.instance)
    }

    /// Whether it may be chosen for this call.
    pub fn is_open(&self, index: usize) -> bool {
        let open = |entry: &Entry| !self.tried.has_tried(&entry.instance.id);
        self.entry(index).is_some_and(open) && !self.refused.contains(index)
    }

    /// Its weight, which is not zero.
    pub fn weight(&self, index: usize) -> u32 {
        self.entry(index).map_or(0, |entry| entry.instance.weight)
    }

    /// The greatest weight of all.
    pub fn greatest_weight(&self) -> u32 {
        self.view.greatest_weight
    }

    /// Its calls that are not settled.
    pub fn in_flight(&self, index: usize) -> u32 {
        self.entry(index).map_or(0, |entry| entry.slot.in_flight())
    }

    /// The moving average of its latency in seconds, which decays while it is idle; `None` before its first
    /// success.
    pub fn latency(&self, index: usize, now: Monotonic) -> Option<f64> {
        self.entry(index)?.slot.latency(now)
    }

    /// One of them by a uniform draw, each with a chance in proportion to its weight.
    pub fn sample(&self, draw: u64) -> Option<usize> {
        let total = self.view.ready.last()?.upto;
        let target = u64::try_from((u128::from(draw) * u128::from(total)) >> 64).ok()?;
        let at = self
            .view
            .ready
            .partition_point(|entry| entry.upto <= target);
        Some(at)
    }

    /// One of those that are open by a uniform draw, each with a chance in proportion to its weight; it walks
    /// over all of them.
    fn sample_open(&self, draw: u64) -> Option<usize> {
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
}
