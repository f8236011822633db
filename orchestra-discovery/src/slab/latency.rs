//! The moving average of a slot's latency in one atomic word.
//!
//! The word holds the moment of the last sample in units of 2^20 ns (about a millisecond, 52 days until it
//! wraps) and the average in seconds as an `f32`. The arithmetic is [`Ewma`]'s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::{Ewma, Monotonic};

/// How fast the average forgets.
const TAU: Duration = Duration::from_secs(10);
/// No sample yet: a NaN, which no sample is.
const EMPTY: u64 = u64::MAX;
const UNIT_SHIFT: u32 = 20;

#[derive(Debug)]
pub(super) struct Latency(AtomicU64);

impl Default for Latency {
    fn default() -> Self {
        Self(AtomicU64::new(EMPTY))
    }
}

impl Latency {
    pub(super) fn observe(&self, now: Monotonic, sample: Duration) {
        let fold = |word| {
            let mut average = unpack(word, now);
            average.observe(now, sample.as_secs_f64());
            average.value().map(|value| pack(now, value))
        };
        // `None` would mean that a duration is not finite; there is nothing to store then.
        let _unchanged = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fold);
    }

    /// The average in seconds, decayed since the last sample.
    pub(super) fn decayed(&self, now: Monotonic) -> Option<f64> {
        unpack(self.0.load(Ordering::Relaxed), now).decayed(now)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an f32 keeps seven digits of a latency, and the moment is meant to wrap"
)]
fn pack(now: Monotonic, value: f64) -> u64 {
    let moment = (now.as_nanos() >> UNIT_SHIFT) as u32;
    u64::from(moment) << 32 | u64::from((value as f32).to_bits())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "each half of the word is taken apart"
)]
fn unpack(word: u64, now: Monotonic) -> Ewma {
    let mut average = Ewma::new(TAU);
    if word == EMPTY {
        return average;
    }
    let units = ((now.as_nanos() >> UNIT_SHIFT) as u32).wrapping_sub((word >> 32) as u32);
    // More than half a turn is a moment in the future, which another thread has just written.
    let units = if units > u32::MAX / 2 { 0 } else { units };
    let at = now
        .as_nanos()
        .saturating_sub(u64::from(units) << UNIT_SHIFT);
    let value = f32::from_bits(word as u32);
    average.observe(Monotonic::from_nanos(at), f64::from(value));
    average
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn no_sample_is_no_latency() {
        assert_eq!(Latency::default().decayed(at(5)), None);
    }

    #[test]
    fn follows_the_exact_average_within_its_resolution() {
        let (packed, mut exact) = (Latency::default(), Ewma::new(TAU));
        for step in 1..200_u64 {
            let (now, sample) = (at(step * 37), Duration::from_micros(step * 131));
            packed.observe(now, sample);
            exact.observe(now, sample.as_secs_f64());
        }
        let (now, exact) = (at(9_000), exact.decayed(at(9_000)).unwrap());
        let found = packed.decayed(now).unwrap();
        assert!((found - exact).abs() / exact < 0.01, "{found} {exact}");
    }

    #[test]
    fn idle_latency_decays_towards_zero() {
        let latency = Latency::default();
        latency.observe(at(0), Duration::from_secs(1));
        assert!(latency.decayed(at(100_000)).unwrap() < 0.001);
    }

    #[test]
    fn a_reader_behind_the_writer_sees_the_value_undecayed() {
        let latency = Latency::default();
        latency.observe(at(5_000), Duration::from_millis(250));
        assert_eq!(latency.decayed(at(4_000)), Some(0.25));
    }
}
