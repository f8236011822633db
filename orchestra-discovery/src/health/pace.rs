//! The pure part about the rate: how soon the next probe may begin.

use std::num::NonZeroU32;
use std::time::Duration;

use orchestra_core::Monotonic;

/// How far probes may run ahead of the rate after a lull.
const BURST: Duration = Duration::from_millis(100);

/// A generic cell rate algorithm: one moment is all it knows.
#[derive(Debug)]
pub(super) struct Pace {
    gap: Duration,
    next: Monotonic,
}

impl Pace {
    /// This many in a second; without a limit if `None`.
    pub(super) fn new(per_second: Option<NonZeroU32>) -> Self {
        Self {
            gap: per_second.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.get()),
            next: Monotonic::ZERO,
        }
    }

    /// How long to wait until one may begin.
    pub(super) fn wait(&self, now: Monotonic) -> Duration {
        self.next.since(now).saturating_sub(BURST)
    }

    /// One begins.
    pub(super) fn begin(&mut self, now: Monotonic) {
        self.next = self.next.max(now) + self.gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_any_second_but_for_a_tenth_ahead() {
        let mut pace = Pace::new(NonZeroU32::new(50));
        let (mut now, mut begun) = (Monotonic::ZERO, 0);
        let end = Monotonic::ZERO + Duration::from_secs(2);
        while now < end {
            now = now + pace.wait(now);
            if now < end {
                pace.begin(now);
                begun += 1;
            }
        }
        assert_eq!(begun, 105);
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let mut pace = Pace::new(None);
        (0..1_000).for_each(|_| pace.begin(Monotonic::ZERO));
        assert_eq!(pace.wait(Monotonic::ZERO), Duration::ZERO);
    }
}
