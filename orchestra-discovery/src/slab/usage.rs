//! How much of a slot's instance is in use, as it last said, and until when that holds: one atomic word.
//!
//! The upper half is the moment (in the units of the latency's word) until which it holds, 0 for never; the lower
//! half the utilization as an `f32`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::Monotonic;

use super::latency::units;
use super::standing::{is_ahead, pack, unpack};

/// Moments are told apart for some days only.
const LONGEST: Duration = Duration::from_secs(86_400);

#[derive(Debug, Default)]
pub(super) struct Usage(AtomicU64);

impl Usage {
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Holds for this time, at most for a day.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a share loses digits and no more"
    )]
    pub(super) fn report(&self, utilization: f64, now: Monotonic, holds: Duration) {
        // Zero would mean never.
        let until = units(now + holds.min(LONGEST)).max(1);
        let utilization = utilization.min(f64::from(f32::MAX)) as f32;
        self.0.store(pack(until, utilization), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn utilization(&self, now: Monotonic) -> Option<f32> {
        let (until, utilization) = unpack(self.0.load(Ordering::Relaxed));
        is_ahead(until, now).then_some(utilization)
    }

    /// Forgets what holds no more, before its moment comes round again.
    pub(super) fn refresh(&self, now: Monotonic) {
        if self.utilization(now).is_none() {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn holds_as_long_as_was_said_and_no_longer_than_moments_are_told_apart() {
        let usage = Usage::default();
        assert_eq!(usage.utilization(at(0)), None);
        usage.report(0.5, at(50), Duration::from_secs(180));
        assert_eq!(usage.utilization(at(229)), Some(0.5));
        assert_eq!(usage.utilization(at(231)), None);
        usage.report(1.5, at(231), Duration::MAX);
        assert_eq!(usage.utilization(at(86_000)), Some(1.5));
        assert_eq!(usage.utilization(at(90_000)), None);
        usage.refresh(at(90_000));
        let turn = (u64::from(u32::MAX) + 1) << 18;
        assert_eq!(usage.utilization(Monotonic::from_nanos(turn + 1_000)), None);
    }
}
