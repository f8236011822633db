//! Envoy's least request.
//!
//! While all weights are equal, a few candidates are drawn, with replacement, and the one with the fewest calls in
//! flight wins, the first drawn of equals; or all are looked at, and one of those with the fewest is drawn. With
//! unequal weights, or when a bias is set, turns are scheduled by earliest deadline with the weight
//! `weight / (calls in flight + 1) ^ bias`, taken when the member had its last turn (`least_request_lb.cc`).
//!
//! With two candidates and two draws, the busier one still gets a quarter of the calls: it is drawn twice.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::edf::Schedule;
use super::{Balancer, Candidates, PoolMembers, Prepared, mix};
use crate::error::{Error, ErrorKind, Result};
use crate::resolver::PickContext;

/// The one with the fewest calls in flight, of a few or of all.
///
/// ```
/// use std::num::NonZeroU32;
/// use std::sync::Arc;
/// use orchestra_discovery::{LeastRequest, Resolver, resolver::Config};
///
/// let of_three = LeastRequest::default().choices(NonZeroU32::MIN.saturating_add(2));
/// assert!(of_three.active_request_bias(-1.0).is_err());
/// let resolver = Resolver::new("payments".parse()?, Config::default().balancer(Arc::new(of_three)));
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeastRequest {
    selection: Selection,
    bias: Option<f64>,
    start: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Selection {
    Choices(NonZeroU32),
    FullScan,
}

impl Default for LeastRequest {
    /// Of two choices, with a bias of 1 where weights differ.
    fn default() -> Self {
        Self {
            selection: Selection::Choices(NonZeroU32::MIN.saturating_add(1)),
            bias: None,
            start: 0,
        }
    }
}

impl LeastRequest {
    /// Of so many draws, while weights are equal; one is a random choice.
    #[must_use]
    pub fn choices(mut self, count: NonZeroU32) -> Self {
        self.selection = Selection::Choices(count);
        self
    }

    /// Of all candidates, while weights are equal: a pick looks at each of them.
    #[must_use]
    pub fn full_scan(mut self) -> Self {
        self.selection = Selection::FullScan;
        self
    }

    /// Schedules by weights, equal or not, that calls in flight lower with this exponent; 0 leaves them alone.
    ///
    /// An error unless it is a number, and not negative.
    pub fn active_request_bias(mut self, bias: f64) -> Result<Self> {
        if !bias.is_finite() || bias < 0.0 {
            let message = format!("least request: the bias {bias} is not a number from 0 on");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        self.bias = Some(bias);
        Ok(self)
    }

    /// Begins the schedule so many turns later, modulo the members; give processes different ones so that they do
    /// not walk in line.
    #[must_use]
    pub fn starting_at(mut self, turns: usize) -> Self {
        self.start = turns;
        self
    }

    fn weight(&self, candidates: &Candidates<'_>, index: usize) -> f64 {
        let weight = f64::from(candidates.weight(index));
        let calls = f64::from(candidates.in_flight(index)) + 1.0;
        match self.bias {
            None => weight / calls,
            Some(bias) => weight / calls.powf(bias),
        }
    }
}

impl Balancer for LeastRequest {
    #[inline]
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        if let Some(schedule) = candidates.prepared::<Schedule>() {
            return schedule.next(
                |index| candidates.is_open(index),
                |index| self.weight(candidates, index),
            );
        }
        match self.selection {
            Selection::Choices(count) => of_choices(candidates, context.draw, count.get()),
            Selection::FullScan => of_all(candidates, context.draw),
        }
    }

    fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        if self.bias.is_none() && members.is_uniform() {
            return None;
        }
        let before = before.and_then(|before| before.downcast::<Schedule>().ok());
        let schedule = Schedule::new(members, before.as_deref(), self.start);
        Some(Arc::new(schedule))
    }
}

fn of_choices(candidates: &Candidates<'_>, draw: u64, count: u32) -> Option<usize> {
    let mut best = candidates.draw_open(draw)?;
    let mut fewest = candidates.in_flight(best);
    let mut draw = draw;
    for _ in 1..count {
        draw = mix(draw);
        let other = candidates.draw_open(draw)?;
        let calls = candidates.in_flight(other);
        if calls < fewest {
            (best, fewest) = (other, calls);
        }
    }
    Some(best)
}

/// One of those with the fewest calls, each with the same chance: the `k`-th of them replaces the ones before with a
/// chance of `1 / k` (reservoir sampling).
fn of_all(candidates: &Candidates<'_>, mut draw: u64) -> Option<usize> {
    let (mut best, mut fewest, mut ties) = (None, u32::MAX, 0_u64);
    for index in (0..candidates.len()).filter(|&index| candidates.is_open(index)) {
        let calls = candidates.in_flight(index);
        if best.is_none() || calls < fewest {
            (best, fewest, ties) = (Some(index), calls, 1);
        } else if calls == fewest {
            ties += 1;
            draw = mix(draw);
            if draw.is_multiple_of(ties) {
                best = Some(index);
            }
        }
    }
    best
}
