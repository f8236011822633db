//! How a slot's calls end, and until when it asked to be left alone, in one atomic word.
//!
//! The upper half is the moment (in the units of the latency's word) until which it is to be spared, 0 for
//! none; the lower half the average of successes, as an `f32` in `0..=1`.
//!
//! The average forgets by count and by time. With `w = e^(-Δt/τ)` for the time since the last call, what
//! is missing to 1 fades to `w` of it while nobody asks, and an outcome has the weight `max(1/16, 1 - w)`: among many
//! calls it tells of the last few dozen, and a call after a long silence tells nearly all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::Monotonic;

use super::latency::units;

const SHARE: f32 = 1.0 / 16.0;
/// An average so near to 1 is 1: calls that go well need not write then.
const PERFECT: f32 = 0.999;
/// No peer may ask to be left alone for longer.
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Standing(AtomicU64);

impl Default for Standing {
    fn default() -> Self {
        Self(AtomicU64::new(pack(0, 1.0)))
    }
}

impl Standing {
    pub(super) fn reset(&self) {
        self.0.store(pack(0, 1.0), Ordering::Relaxed);
    }

    /// A call went well, when so much was left of what was known before it.
    #[inline]
    pub(super) fn succeeded(&self, kept: f32) {
        let word = self.0.load(Ordering::Relaxed);
        if unpack(word).1 >= 1.0 {
            return;
        }
        self.change(|until, average| {
            let average = forgiven(average, kept);
            let average = average + (1.0 - average) * share(kept);
            (until, if average > PERFECT { 1.0 } else { average })
        });
    }

    /// Changes both at once: a wish is not lost by an average that is written at the same time.
    fn change(&self, change: impl Fn(u32, f32) -> (u32, f32)) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (until, average) = unpack(word);
            let (until, average) = change(until, average);
            let next = pack(until, average);
            let swapped =
                self.0
                    .compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return,
                Err(found) => word = found,
            }
        }
    }

    /// A call failed, when so much was left of what was known before it.
    pub(super) fn failed(&self, kept: f32) {
        self.change(|until, average| (until, forgiven(average, kept) * (1.0 - share(kept))));
    }

    /// It asked to be left alone for so long; at most five minutes are granted.
    pub(super) fn spare(&self, now: Monotonic, after: Duration) {
        // Zero would mean never.
        let until = units(now + after.min(LONGEST)).max(1);
        self.change(|_, average| (until, average));
    }

    /// The average of successes as of the last call.
    #[inline]
    pub(super) fn success(&self) -> f32 {
        unpack(self.0.load(Ordering::Relaxed)).1
    }

    /// Whether it asked to be left alone now.
    #[inline]
    pub(super) fn is_spared(&self, now: Monotonic) -> bool {
        let (until, _) = unpack(self.0.load(Ordering::Relaxed));
        is_ahead(until, now)
    }

    /// Forgets a wish that is over, before its moment comes round again, and all but so much of the failures.
    pub(super) fn refresh(&self, now: Monotonic, kept: f32) {
        self.change(|until, average| {
            let until = if is_ahead(until, now) { until } else { 0 };
            (until, forgiven(average, kept))
        });
    }
}

/// Whether a moment in units, 0 for none, is still to come.
#[inline]
pub(super) fn is_ahead(moment: u32, now: Monotonic) -> bool {
    let left = moment.wrapping_sub(units(now));
    moment != 0 && left != 0 && left < u32::MAX / 2
}

/// The average when this much of what was known is left.
#[inline]
pub(super) fn forgiven(average: f32, kept: f32) -> f32 {
    1.0 - (1.0 - average) * kept
}

/// The weight of an outcome.
#[inline]
fn share(kept: f32) -> f32 {
    SHARE.max(1.0 - kept)
}

#[inline]
pub(super) fn pack(until: u32, average: f32) -> u64 {
    u64::from(until) << 32 | u64::from(average.to_bits())
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "each half of the word is taken apart"
)]
pub(super) fn unpack(word: u64) -> (u32, f32) {
    ((word >> 32) as u32, f32::from_bits(word as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn spared_as_long_as_it_asked_and_no_longer_than_allowed() {
        let standing = Standing::default();
        assert!(!standing.is_spared(at(0)));
        standing.spare(at(1_000), Duration::from_secs(2));
        assert!(standing.is_spared(at(2_900)));
        assert!(!standing.is_spared(at(3_001)));
        standing.spare(at(0), Duration::MAX);
        assert!(standing.is_spared(at(299_000)));
        assert!(!standing.is_spared(at(301_000)));
    }

    #[test]
    fn average_follows_the_outcomes() {
        let standing = Standing::default();
        for _ in 0..100 {
            standing.failed(1.0);
        }
        assert!(standing.success() < 0.01);
        for _ in 0..100 {
            standing.succeeded(1.0);
        }
        assert!(standing.success() > 0.99);
        for _ in 0..20 {
            standing.succeeded(1.0);
        }
        assert!(standing.success() > 0.999_9);
    }
    #[test]
    fn call_after_a_silence_tells_nearly_all() {
        let standing = Standing::default();
        standing.failed(0.0);
        assert!(standing.success().abs() < 1e-6);
        // Of what is missing a quarter is left, and the call has the weight of the rest.
        standing.succeeded(0.25);
        assert!((standing.success() - (0.75 + 0.25 * 0.75)).abs() < 1e-6);
        standing.failed(0.5);
        assert!((standing.success() - ((1.0 - 0.0625 / 2.0) * 0.5)).abs() < 1e-6);
    }
}
