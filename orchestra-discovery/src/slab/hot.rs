//! The state of one slot that calls touch: eight words, one cache line.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::Monotonic;

use super::claim::Claim;
use super::latency::Latency;
use super::standing::{Standing, forgiven};
use crate::outlier::{Counts, Effect, Interval, Step, Thresholds, Trigger};

pub(crate) use super::latency::Follow;

#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Hot {
    claim: Claim,
    latency: Latency,
    standing: Standing,
    external: Tally,
    local_origin: Tally,
    /// The nanoseconds that the successes of the interval took together.
    took: AtomicU64,
    /// Failures in a row: of any kind, of a gateway, of this side; 16 bits each.
    streaks: AtomicU64,
}

/// What the last calls say of a slot at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reading {
    /// The moving average of its latency in seconds.
    pub(crate) latency: f32,
    /// The moving average of its successes, in `0..=1`.
    pub(crate) success: f32,
}

/// Calls of an interval in one word: the successes in the upper half, all in the lower.
#[derive(Debug, Default)]
struct Tally(AtomicU64);

impl Tally {
    fn count(&self, success: bool) {
        let one = u64::from(success) << 32 | 1;
        self.0.fetch_add(one, Ordering::Relaxed);
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "each half of the word is taken apart"
    )]
    fn take(&self) -> Counts {
        let word = self.0.swap(0, Ordering::Relaxed);
        Counts::new((word >> 32) as u32, word as u32)
    }
}

/// A streak in the word of streaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streaks(u64);

const STREAK: u64 = 0xffff;

impl Streaks {
    const fn shift(trigger: Trigger) -> u32 {
        match trigger {
            Trigger::ConsecutiveErrors => 0,
            Trigger::ConsecutiveGateway => 16,
            Trigger::ConsecutiveLocalOrigin => 32,
        }
    }

    fn step(self, trigger: Trigger, step: Step) -> Self {
        let shift = Self::shift(trigger);
        let length = self.0 >> shift & STREAK;
        let length = match step {
            Step::Keep => return self,
            Step::Extend => (length + 1).min(STREAK),
            Step::Reset => 0,
        };
        Self(self.0 & !(STREAK << shift) | length << shift)
    }

    fn of(self, trigger: Trigger) -> u64 {
        self.0 >> Self::shift(trigger) & STREAK
    }

    /// The first streak that has its length.
    pub(crate) fn reached(self, thresholds: &Thresholds) -> Option<Trigger> {
        let limits = [
            (Trigger::ConsecutiveErrors, thresholds.errors),
            (Trigger::ConsecutiveGateway, thresholds.gateway),
            (Trigger::ConsecutiveLocalOrigin, thresholds.local_origin),
        ];
        let is_long = |trigger, limit: NonZeroU32| self.of(trigger) >= u64::from(limit.get());
        let found = limits
            .into_iter()
            .find(|&(trigger, limit)| limit.is_some_and(|limit| is_long(trigger, limit)));
        found.map(|(trigger, _)| trigger)
    }
}

impl Hot {
    /// For a new owner, of whom nothing is known.
    pub(super) fn begin_life(&self, generation: u32) {
        self.forget();
        self.claim.take(generation);
    }

    pub(super) fn end_life(&self) {
        self.claim.take(0);
    }

    fn forget(&self) {
        self.latency.reset();
        self.standing.reset();
        let _of_the_former = self.take_interval();
        self.streaks.store(0, Ordering::Relaxed);
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.claim.count()
    }

    /// Counts a call of the owner of this generation; false if there is another by now.
    pub(crate) fn begin(&self, generation: u32) -> bool {
        self.claim.begin(generation)
    }

    /// Ends a call of the owner of this generation; false if there is another by now.
    pub(crate) fn end(&self, generation: u32) -> bool {
        self.claim.end(generation)
    }

    /// The moving average of its latency in seconds.
    pub(crate) fn latency(&self, follow: Follow, now: Monotonic) -> Option<f32> {
        let (latency, kept) = self.latency.read(follow, now)?;
        Some(latency * kept)
    }

    /// What its calls say of it now: less, the longer ago the last one was. `None` before the first.
    #[inline]
    pub(crate) fn reading(&self, follow: Follow, now: Monotonic) -> Option<Reading> {
        let (latency, kept) = self.latency.read(follow, now)?;
        Some(Reading {
            latency: latency * kept,
            success: forgiven(self.standing.success(), kept),
        })
    }

    /// The moving average of its successes, as of its last call.
    pub(crate) fn success(&self) -> f32 {
        self.standing.success()
    }

    /// Whether it asked to be left alone.
    pub(crate) fn is_spared(&self, now: Monotonic) -> bool {
        self.standing.is_spared(now)
    }

    pub(crate) fn spare(&self, now: Monotonic, after: Duration) {
        self.standing.spare(now, after);
    }

    pub(crate) fn succeeded(&self, follow: Follow, now: Monotonic, took: Duration) {
        let kept = self.latency.observe(follow, now, took);
        self.standing.succeeded(kept);
    }

    pub(crate) fn failed(&self, follow: Follow, now: Monotonic, took: Duration) {
        let kept = self.latency.failed(follow, now, took);
        self.standing.failed(kept);
    }

    /// Counts a call for the detector of outliers; returns the streaks if one of them grew.
    pub(crate) fn count(&self, effect: Effect, took: Duration) -> Option<Streaks> {
        if let Some(success) = effect.external {
            self.external.count(success);
            if success {
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX >> 16);
                self.took.fetch_add(nanos, Ordering::Relaxed);
            }
        }
        if let Some(success) = effect.local_origin {
            self.local_origin.count(success);
        }
        let word = self.streaks.load(Ordering::Relaxed);
        let extends = [effect.errors, effect.gateway, effect.local_streak].contains(&Step::Extend);
        if word == 0 && !extends {
            return None;
        }
        let stepped = |word| {
            Streaks(word)
                .step(Trigger::ConsecutiveErrors, effect.errors)
                .step(Trigger::ConsecutiveGateway, effect.gateway)
                .step(Trigger::ConsecutiveLocalOrigin, effect.local_streak)
        };
        let update = |word| Some(stepped(word).0);
        let before = self
            .streaks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        extends.then(|| stepped(before.unwrap_or_else(|word| word)))
    }

    /// One streak starts over.
    pub(crate) fn reset_streak(&self, trigger: Trigger) {
        let update = |word| Some(Streaks(word).step(trigger, Step::Reset).0);
        let _was = self
            .streaks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    /// All streaks start over.
    pub(crate) fn reset_streaks(&self) {
        self.streaks.store(0, Ordering::Relaxed);
    }

    /// It is back after an ejection: what was known from before counts no more.
    pub(crate) fn restored(&self) {
        self.standing.reset();
        self.reset_streaks();
    }

    /// What was counted in the interval that ends now.
    pub(crate) fn take_interval(&self) -> Interval {
        let external = self.external.take();
        let took = self.took.swap(0, Ordering::Relaxed);
        let mean = took.checked_div(u64::from(external.success));
        Interval {
            external,
            local_origin: self.local_origin.take(),
            latency: mean.map(Duration::from_nanos),
        }
    }

    /// Brings moments up to date before they wrap.
    pub(crate) fn refresh(&self, follow: Follow, now: Monotonic) {
        let kept = self.latency.refresh(follow, now);
        self.standing.refresh(now, kept);
    }
}
