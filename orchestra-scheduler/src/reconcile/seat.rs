use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic};

use super::Tuning;
use crate::schedule::Unschedulable;

/// The place of one replica of a workload.
#[derive(Debug, Clone, Default)]
pub struct Seat {
    pub(super) holder: Option<InstanceId>,
    pub(super) former: Option<InstanceId>,
    pub(super) not_before: Monotonic,
    pub(super) restarts: u32,
    pub(super) unschedulable: Option<Unschedulable>,
    failures: u32,
    delay: Duration,
}

impl Seat {
    /// The instance that holds the seat.
    pub fn holder(&self) -> Option<&InstanceId> {
        self.holder.as_ref()
    }

    /// How many instances of this seat ended without being asked to.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Why no node can carry its next instance.
    pub fn unschedulable(&self) -> Option<&Unschedulable> {
        self.unschedulable.as_ref()
    }

    /// When its next instance may start.
    pub fn not_before(&self) -> Monotonic {
        self.not_before
    }

    /// Takes note of an end that nobody asked for.
    pub(super) fn fail(&mut self, tuning: &Tuning, was_stable: bool, now: Monotonic, draw: u64) {
        self.restarts = self.restarts.saturating_add(1);
        if was_stable {
            self.failures = 0;
            self.delay = Duration::ZERO;
        }
        if self.failures > 0 {
            self.delay = tuning.backoff.delay(self.failures, self.delay, draw);
        }
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + self.delay;
    }

    /// Starts over, since something changed that may help.
    pub(super) fn forgive(&mut self) {
        self.failures = 0;
        self.delay = Duration::ZERO;
        self.not_before = Monotonic::ZERO;
    }
}
