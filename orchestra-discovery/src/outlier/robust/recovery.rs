//! How an ejected host comes back.

use std::time::Duration;

use orchestra_core::Monotonic;

use crate::outlier::draws::Draws;

/// More flaps than this make no difference.
const MOST_FLAPS: u32 = 8;
/// Trials to pass beyond the usual, at most, for a host that flaps.
const MOST_EXTRA: u32 = 2;

/// When trials are due, and how many must be passed.
///
/// The wait before trial number `n` after an ejection is `first · 2^(n − 1 + flaps)`, at most `longest`, where
/// `flaps` counts the recent ejections before this one; a passed trial is followed by the next after `first`.
/// Waits are shortened by up to a quarter by chance, so that clients do not try in step. A repaired host is
/// back after `longest + (passes + 1) · first` at the latest, plus the time its trials take.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::outlier::robust::Recovery;
///
/// let recovery = Recovery::default();
/// let latest = recovery.longest_wait + (recovery.passes.get() + 1) * recovery.first_wait;
/// assert_eq!(latest, Duration::from_secs(8));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// From the first ejection to its first trial: 1 s.
    pub first_wait: Duration,
    /// Between two trials at most: 5 s.
    pub longest_wait: Duration,
    /// Trials to pass in a row: 2, and up to 2 more for a host that flaps.
    pub passes: std::num::NonZeroU32,
    /// After this time an ejection counts half: 60 s.
    pub half_life: Duration,
    /// Whether a passed active check restores at once: no. A host can answer its checks and fail its calls,
    /// and would then be restored and ejected for ever.
    pub active_check_restores: bool,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(5),
            passes: std::num::NonZeroU32::MIN.saturating_add(1),
            half_life: Duration::from_secs(60),
            active_check_restores: false,
        }
    }
}

impl Recovery {
    fn wait(&self, doublings: u32, draws: &mut Draws) -> Duration {
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let wait = self.first_wait.saturating_mul(factor);
        let wait = wait.min(self.longest_wait);
        wait.saturating_sub(draws.millis(wait / 4))
    }
}

/// The ejections of a host, each worth half after every half-life.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Penalty {
    value: f64,
    at: Monotonic,
}

impl Penalty {
    /// One more ejection: how many recent ones there were before it.
    pub(super) fn add(&mut self, now: Monotonic, half_life: Duration) -> u32 {
        let half_lives = now.since(self.at).as_secs_f64() / half_life.as_secs_f64().max(1e-9);
        let before = self.value * (-half_lives).exp2();
        self.at = self.at.max(now);
        self.value = (before + 1.0).min(f64::from(MOST_FLAPS));
        // Half an ejection counts as one.
        let flaps = (1..=MOST_FLAPS).take_while(|&it| before + 0.5 >= f64::from(it));
        flaps.last().unwrap_or(0)
    }
}

/// The way back of one host.
#[derive(Debug)]
pub(super) struct Out {
    trial_at: Monotonic,
    flaps: u32,
    failed: u32,
    passed: u32,
    limit: Option<Duration>,
}

impl Out {
    pub(super) fn new(
        recovery: &Recovery,
        flaps: u32,
        limit: Option<Duration>,
        now: Monotonic,
        draws: &mut Draws,
    ) -> Self {
        Self {
            trial_at: now + recovery.wait(flaps, draws),
            flaps,
            failed: 0,
            passed: 0,
            limit,
        }
    }

    pub(super) fn trial_at(&self) -> Monotonic {
        self.trial_at
    }

    /// Whether that was the last trial to pass.
    pub(super) fn pass(
        &mut self,
        recovery: &Recovery,
        latency: Option<Duration>,
        now: Monotonic,
        draws: &mut Draws,
    ) -> bool {
        if self
            .limit
            .zip(latency)
            .is_some_and(|(limit, it)| it > limit)
        {
            self.fail(recovery, now, draws);
            return false;
        }
        self.passed = self.passed.saturating_add(1);
        self.trial_at = now + recovery.wait(0, draws);
        let extra = self.flaps.min(MOST_EXTRA);
        self.passed >= recovery.passes.get().saturating_add(extra)
    }

    pub(super) fn fail(&mut self, recovery: &Recovery, now: Monotonic, draws: &mut Draws) {
        self.passed = 0;
        self.failed = self.failed.saturating_add(1);
        let doublings = self.failed.saturating_add(self.flaps);
        self.trial_at = now + recovery.wait(doublings, draws);
    }
}
