//! The peak-sensitive moving average of a slot's latency in one atomic word.
//!
//! The word holds the moment of the last sample in units of 2^18 ns (a quarter of a millisecond, 13 days until
//! it wraps) and the average in seconds as an `f32`. With `w = e^(-Δt/τ)` for the time since the last sample,
//! the average decays to `c·w` while nobody asks. A sample above that is taken at once, one below pulls it to
//! `c·w + s·(1 - w)`. This is Finagle's `PeakEwma` with one difference: there a read observes a zero and moves the
//! time of the last sample, so what a sample weighs depends on how often the balancer looked. An instance that
//! turns slow is noticed by its first slow answer, and one that was slow is tried again later.
//!
//! A failed call says nothing of the latency, however long it took, but it is heard of: the average stays as it was
//! and decays from now on. So `w` tells how much of what is known still holds, for failures too.

use std::f32::consts::{LN_2, LOG2_E};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::Monotonic;

/// No sample yet: a NaN, which no sample is.
const EMPTY: u64 = u64::MAX;
const UNIT_SHIFT: u32 = 18;
/// So many units in a second.
const UNITS: f32 = 1e9 / (1 << UNIT_SHIFT) as f32;

/// How an average follows its samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Follow {
    /// How often what is known halves in a unit of the word.
    rate: f32,
    /// Whether a sample above the average is taken at once.
    peak: bool,
}

impl Follow {
    /// With this time constant; zero keeps the last sample alone.
    pub(crate) fn new(tau: Duration, peak: bool) -> Self {
        let units = (tau.as_secs_f32() * UNITS).max(f32::MIN_POSITIVE);
        Self {
            rate: LOG2_E / units,
            peak,
        }
    }

    /// What is left after so many units.
    #[inline]
    fn kept(self, units: u32) -> f32 {
        exp2_of_minus(units as f32 * self.rate)
    }
}

/// `2^-x` for `x >= 0`, off by no more than a hundred-thousandth of it, and 1 for 0.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is between 0 and 121"
)]
fn exp2_of_minus(x: f32) -> f32 {
    // A service that is called often enough to care: two terms of the series are exact.
    if x < 1.0 / 128.0 {
        let x = x * LN_2;
        return 1.0 - x + x * x * 0.5;
    }
    // Beyond it what is left is smaller than any latency can tell.
    if x > 120.0 {
        return 0.0;
    }
    // `2^-x = 2^-whole * 2^rest` with `rest` in `-1/2..=1/2`, and the least polynomial that is near enough.
    let whole = (x + 0.5) as u32;
    let rest = whole as f32 - x;
    let power = f32::from_bits((127 - whole) << 23);
    let polynomial = 0.055_838_3 + rest * 0.009_656_7;
    let polynomial = 0.240_225_3 + rest * polynomial;
    let polynomial = 0.693_136_7 + rest * polynomial;
    power * (1.0 + rest * polynomial)
}

#[derive(Debug)]
pub(super) struct Latency(AtomicU64);

impl Default for Latency {
    fn default() -> Self {
        Self(AtomicU64::new(EMPTY))
    }
}

impl Latency {
    pub(super) fn reset(&self) {
        self.0.store(EMPTY, Ordering::Relaxed);
    }

    /// Takes a sample, and says how much was left of what was known before. Of samples at the same time one may
    /// be lost: the average is none the worse.
    #[inline]
    pub(super) fn observe(&self, follow: Follow, now: Monotonic, nanos: u64) -> f32 {
        let sample = seconds(nanos);
        let Some((value, kept)) = self.read(follow, now) else {
            self.0.store(pack(now, sample), Ordering::Relaxed);
            return 0.0;
        };
        let decayed = value * kept;
        let value = if follow.peak && sample > decayed {
            sample
        } else {
            decayed + sample * (1.0 - kept)
        };
        self.0.store(pack(now, value), Ordering::Relaxed);
        kept
    }

    /// Hears of a call that failed after so long, and says how much was left of what was known before. Where
    /// that is nothing, there is no better average than its time.
    pub(super) fn failed(&self, follow: Follow, now: Monotonic, nanos: u64) -> f32 {
        let known = self.read(follow, now);
        let (value, kept) = known.unwrap_or_else(|| (seconds(nanos), 0.0));
        self.0.store(pack(now, value), Ordering::Relaxed);
        kept
    }

    /// The average in seconds as of the last call, and how much of it is left.
    #[inline]
    pub(super) fn read(&self, follow: Follow, now: Monotonic) -> Option<(f32, f32)> {
        let (value, units) = unpack(self.0.load(Ordering::Relaxed), now)?;
        Some((value, follow.kept(units)))
    }

    /// Brings the moment up to date, so that it never is half a turn old.
    pub(super) fn refresh(&self, follow: Follow, now: Monotonic) -> f32 {
        let Some((value, kept)) = self.read(follow, now) else {
            return 1.0;
        };
        self.0.store(pack(now, value * kept), Ordering::Relaxed);
        kept
    }
}

#[inline]
fn seconds(nanos: u64) -> f32 {
    nanos as f32 * 1e-9
}

/// The moment in units, which wraps.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the moment is meant to wrap"
)]
pub(super) fn units(now: Monotonic) -> u32 {
    (now.as_nanos() >> UNIT_SHIFT) as u32
}

/// The units from one moment to another; none if it is in the future, which another thread has just written.
#[inline]
pub(super) fn elapsed(now: u32, then: u32) -> u32 {
    let units = now.wrapping_sub(then);
    if units > u32::MAX / 2 { 0 } else { units }
}

#[inline]
fn pack(now: Monotonic, value: f32) -> u64 {
    u64::from(units(now)) << 32 | u64::from(value.to_bits())
}

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "each half of the word is taken apart"
)]
fn unpack(word: u64, now: Monotonic) -> Option<(f32, u32)> {
    if word == EMPTY {
        return None;
    }
    let age = elapsed(units(now), (word >> 32) as u32);
    Some((f32::from_bits(word as u32), age))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Latency {
        /// The average in seconds, decayed since the last call.
        fn decayed(&self, follow: Follow, now: Monotonic) -> Option<f32> {
            let (value, kept) = self.read(follow, now)?;
            Some(value * kept)
        }
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_millis(millis)
    }

    fn millis(millis: u64) -> u64 {
        millis * 1_000_000
    }

    fn peak() -> Follow {
        Follow::new(Duration::from_secs(10), true)
    }

    #[test]
    fn follows_the_formula_within_its_resolution() {
        let packed = Latency::default();
        let (mut cost, mut stamp) = (0.0_f64, 0);
        let mut rng = fastrand::Rng::with_seed(4);
        let mut now = 0;
        for _ in 0..2_000 {
            now += rng.u64(1..400);
            let sample = rng.u64(1..200);
            packed.observe(peak(), at(now), millis(sample));
            let kept = (-((now - stamp) as f64) / 10_000.0).exp();
            let (decayed, sample) = (cost * kept, sample as f64 / 1e3);
            cost = if sample > decayed {
                sample
            } else {
                decayed + sample * (1.0 - kept)
            };
            stamp = now;
            let found = f64::from(packed.decayed(peak(), at(now)).unwrap());
            assert!((found - cost).abs() / cost < 0.01, "{found} {cost}");
        }
    }

    /// Finagle's metric as its source states it. A balancer reads it at each pick, and answers come later.
    struct Finagle {
        stamp: f64,
        cost: f64,
    }

    impl Finagle {
        fn observe(&mut self, now: f64, rtt: f64) {
            let kept = (-(now - self.stamp) / 10.0).exp();
            self.stamp = now;
            self.cost = if rtt > self.cost {
                rtt
            } else {
                self.cost * kept + rtt * (1.0 - kept)
            };
        }
    }

    #[test]
    fn peaks_and_decays_as_finagle_does() {
        let (ours, mut theirs) = (
            Latency::default(),
            Finagle {
                stamp: 0.0,
                cost: 0.0,
            },
        );
        for (now, rtt) in [(1_000, 100), (3_000, 90), (9_000, 300), (20_000, 250)] {
            ours.observe(peak(), at(now), millis(rtt));
            theirs.observe(now as f64 / 1e3, 0.0);
            theirs.observe(now as f64 / 1e3, rtt as f64 / 1e3);
            for idle in [0, 700, 1_900] {
                theirs.observe((now + idle) as f64 / 1e3, 0.0);
                let found = f64::from(ours.decayed(peak(), at(now + idle)).unwrap());
                assert!(
                    (found - theirs.cost).abs() < 1e-3,
                    "{found} {}",
                    theirs.cost
                );
            }
        }
    }

    /// The steps of tower's test of its decay: a first 5 ms, then nothing for a second and another.
    #[test]
    fn decays_as_towers_does() {
        let follow = Follow::new(Duration::from_secs(1), true);
        let latency = Latency::default();
        latency.observe(follow, at(0), millis(5));
        for (after, expected) in [(0, 5.0), (1_000, 1.839), (2_000, 0.677)] {
            let found = latency.decayed(follow, at(after)).unwrap() * 1e3;
            assert!((found - expected).abs() < 0.01, "{found} after {after}");
        }
    }

    #[test]
    fn idle_latency_decays_towards_zero() {
        let latency = Latency::default();
        latency.observe(peak(), at(0), millis(1_000));
        assert!(latency.decayed(peak(), at(100_000)).unwrap() < 0.001);
    }

    #[test]
    fn a_reader_behind_the_writer_sees_the_value_undecayed() {
        let latency = Latency::default();
        latency.observe(peak(), at(5_000), millis(250));
        assert_eq!(latency.decayed(peak(), at(4_000)), Some(0.25));
    }

    #[test]
    fn refreshed_it_outlives_the_turn_of_its_clock() {
        let latency = Latency::default();
        latency.observe(peak(), at(0), millis(1_000));
        let day = 86_400_000;
        for days in 0..30 {
            latency.refresh(peak(), at(days * day));
        }
        assert!(latency.decayed(peak(), at(30 * day)).unwrap() < 1e-6);
    }

    #[test]
    fn failure_leaves_the_average_and_begins_its_decay_anew() {
        let latency = Latency::default();
        latency.observe(peak(), at(0), millis(80));
        let kept = latency.failed(peak(), at(10_000), millis(1_000 * 3));
        assert!((kept - (-1.0_f32).exp()).abs() < 1e-3, "{kept}");
        assert_eq!(latency.decayed(peak(), at(10_000)), Some(0.08));
    }

    #[test]
    fn first_call_leaves_nothing_of_what_was_known() {
        let (failed, answered) = (Latency::default(), Latency::default());
        let took = millis(7);
        assert!(failed.failed(peak(), at(5), took).abs() < 1e-6);
        assert!(answered.observe(peak(), at(5), took).abs() < 1e-6);
        assert!((failed.decayed(peak(), at(5)).unwrap() - 0.007).abs() < 1e-8);
    }

    #[test]
    fn absurd_time_constants_are_finite() {
        for tau in [Duration::ZERO, Duration::MAX] {
            let latency = Latency::default();
            let follow = Follow::new(tau, true);
            for n in 0..10 {
                latency.observe(follow, at(n * 1_000), millis(10 + n));
            }
            assert!(latency.decayed(follow, at(20_000)).unwrap().is_finite());
        }
    }

    #[test]
    fn what_is_left_is_near_the_exponential() {
        assert_eq!(exp2_of_minus(0.0).to_bits(), 1.0_f32.to_bits());
        for n in 0..130_000_u32 {
            let x = n as f32 / 1e3;
            let (exact, found) = ((-x).exp2(), exp2_of_minus(x));
            assert!(
                (found - exact).abs() <= 1e-5 * exact || exact < 1e-36,
                "{x}: {found}"
            );
            assert!((0.0..=1.0).contains(&found), "{x}: {found}");
        }
        assert!(exp2_of_minus(f32::INFINITY).abs() < f32::MIN_POSITIVE);
    }
}
