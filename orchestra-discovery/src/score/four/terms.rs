//! The arithmetic of a score.

use super::Weights;
use crate::score::fast::{exp2, log2};

/// The weights as parts of the greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Parts {
    pub(super) health: f32,
    pub(super) performance: f32,
    pub(super) proximity: f32,
    pub(super) load: f32,
}

/// The least part of the greatest weight that one has which is not zero.
const LEAST_PART: f64 = 1e-6;

impl Parts {
    /// Of weights that are finite, not negative, and not all zero.
    pub(super) fn new(weights: Weights) -> Self {
        let Weights {
            health,
            performance,
            proximity,
            load,
        } = weights;
        let greatest = health.max(performance).max(proximity).max(load);
        Self {
            health: part(health, greatest),
            performance: part(performance, greatest),
            proximity: part(proximity, greatest),
            load: part(load, greatest),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a part of 0..=1 loses digits and no more"
)]
fn part(weight: f64, greatest: f64) -> f32 {
    if weight > 0.0 {
        (weight / greatest).max(LEAST_PART) as f32
    } else {
        0.0
    }
}

/// `log2` of the proximity, by the steps from unknown.
pub(super) const NEARNESS: [f32; 5] = [0.0, -2.0, -1.0, -0.415_037_5, 0.0];
/// Whoever succeeds less often fails everything.
const FAILS_ALL: f32 = 1.0 / 1024.0;
/// The least logarithm of a score, whose power is a normal number.
const LEAST: f32 = -126.0;

/// What the proximity of a candidate adds to its exponent, and what that is divided by.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Near {
    pub(super) term: f32,
    /// 0 if there is nothing to go by.
    pub(super) inverse: f32,
}

/// What one candidate is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    /// In seconds.
    pub(super) latency: f32,
    pub(super) success: f32,
    /// The inverse of its headroom.
    pub(super) load: f32,
    pub(super) near: Near,
    /// Whether it has a score.
    pub(super) is_known: bool,
}

impl State {
    /// Of one of whom nothing is known.
    pub(super) const UNKNOWN: Self = Self {
        latency: 0.0,
        success: 1.0,
        load: 1.0,
        near: Near {
            term: 0.0,
            inverse: 0.0,
        },
        is_known: false,
    };
}

/// What all scores of a call have in common.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) parts: Parts,
    /// The inverse of the median latency; 0 without one, and then the part of the performance is 0 too.
    pub(super) per_median: f32,
    near: [Near; 5],
}

impl Terms {
    pub(super) fn new(mut parts: Parts, median: Option<f32>) -> Self {
        if median.is_none() {
            parts.performance = 0.0;
        }
        Self {
            near: near(parts),
            parts,
            per_median: median.map_or(0.0, f32::recip),
        }
    }

    /// What so many steps from unknown make of an exponent.
    #[inline]
    pub(super) fn near(&self, steps: usize) -> Near {
        self.near.get(steps).copied().unwrap_or_default()
    }

    /// Whether calls say nothing that counts, so that a candidate without one has a score too.
    #[inline]
    pub(super) fn needs_no_sample(&self) -> bool {
        self.parts.health <= 0.0 && self.parts.performance <= 0.0
    }

    /// How this latency compares with the median: 1/2 if it is the median.
    pub(super) fn performance(&self, latency: f32) -> f32 {
        (1.0 + latency * self.per_median).recip()
    }

    /// The score of what is known, in `0..=1`.
    #[inline]
    pub(super) fn score(&self, state: State) -> f32 {
        let Parts {
            health,
            performance,
            load,
            ..
        } = self.parts;
        // Plain comparisons: those of `f32::max` care for NaN, which nothing here is.
        let succeeds = if state.success > FAILS_ALL {
            state.success
        } else {
            FAILS_ALL
        };
        let exponent = health * log2(succeeds)
            - performance * log2(1.0 + state.latency * self.per_median)
            + state.near.term
            - load * log2(state.load);
        let exponent = exponent * state.near.inverse;
        let exponent = if exponent > LEAST { exponent } else { LEAST };
        let score = exp2(if exponent < 0.0 { exponent } else { 0.0 });
        let fails_all = health > 0.0 && state.success < FAILS_ALL;
        if fails_all { 0.0 } else { score }
    }
}

fn near(parts: Parts) -> [Near; 5] {
    let without = parts.health + parts.performance + parts.load;
    let inverse = |sum: f32| if sum > 0.0 { sum.recip() } else { 0.0 };
    let (unknown, known) = (inverse(without), inverse(without + parts.proximity));
    let mut near = NEARNESS.map(|nearness| Near {
        term: parts.proximity * nearness,
        inverse: known,
    });
    let [first, ..] = &mut near;
    first.inverse = unknown;
    near
}

#[cfg(test)]
mod tests;
