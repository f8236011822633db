//! The state of one slot that calls touch: eight words, one cache line.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::Monotonic;

use super::claim::Claim;
use super::latency::Latency;
use super::standing::{Standing, forgiven};
use super::usage::Usage;
use crate::outlier::{Counts, Effect, Interval, Step, Thresholds, Trigger};

pub(crate) use super::latency::Follow;

#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Hot {
    claim: Claim,
    latency: Latency,
    standing: Standing,
    usage: Usage,
    successes: Successes,
    failures: AtomicU32,
    local_origin: Tally,
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

/// The successes of an interval and the time that they took together, in one word: counted by one addition.
///
/// The lower 24 bits are the successes, the others the time in units of 256 ns.
#[derive(Debug, Default)]
struct Successes(AtomicU64);

impl Successes {
    const COUNT: u64 = (1 << Self::TIME) - 1;
    const TIME: u32 = 24;
    const UNIT: u32 = 8;
    /// A single call counts for an hour at most.
    const LONGEST: u64 = 1 << 34;
    /// The greatest bit of either part: there is room for one more call than can be under way, and no more.
    const NEARLY_FULL: u64 = 1 << 63 | 1 << 23;

    /// Whether it is time to [halve](Self::halve).
    #[inline]
    fn count(&self, nanos: u64) -> bool {
        let units = (nanos.saturating_add(1 << Self::UNIT >> 1) >> Self::UNIT).min(Self::LONGEST);
        let before = self.0.fetch_add(units << Self::TIME | 1, Ordering::Relaxed);
        before & Self::NEARLY_FULL != 0
    }

    /// Counts each for half, which leaves means and shares as they are; false if another thread did.
    fn halve(&self) -> bool {
        let half = |word| {
            let (count, time) = (word & Self::COUNT, word >> Self::TIME);
            (word & Self::NEARLY_FULL != 0).then_some(((time / 2) << Self::TIME) | (count / 2))
        };
        let halved = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
        halved.is_ok()
    }

    /// The number, and the mean time.
    fn take(&self) -> (u32, Option<Duration>) {
        let word = self.0.swap(0, Ordering::Relaxed);
        let count = word & Self::COUNT;
        let nanos = (word >> Self::TIME) << Self::UNIT;
        let mean = nanos.checked_div(count).map(Duration::from_nanos);
        (count as u32, mean)
    }
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
        // No streak is counted further.
        let is_long =
            |trigger, limit: NonZeroU32| self.of(trigger) >= u64::from(limit.get()).min(STREAK);
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
        self.forget_calls();
        let _of_the_former = self.take_interval();
        self.streaks.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.claim.count()
    }

    /// Counts a call of the owner of this generation; false if there is another by now.
    #[inline]
    pub(crate) fn begin(&self, generation: u32) -> bool {
        self.claim.begin(generation)
    }

    /// Ends a call of the owner of this generation; false if there is another by now.
    #[inline]
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
    #[inline]
    pub(crate) fn is_spared(&self, now: Monotonic) -> bool {
        self.standing.is_spared(now)
    }

    /// How much of it is in use, as it last said.
    #[inline]
    pub(crate) fn utilization(&self, now: Monotonic) -> Option<f32> {
        self.usage.utilization(now)
    }

    pub(crate) fn report(&self, utilization: f64, now: Monotonic, holds: Duration) {
        self.usage.report(utilization, now, holds);
    }

    pub(crate) fn spare(&self, now: Monotonic, after: Duration) {
        self.standing.spare(now, after);
    }

    #[inline]
    pub(crate) fn succeeded(&self, follow: Follow, now: Monotonic, nanos: u64) {
        let kept = self.latency.observe(follow, now, nanos);
        self.standing.succeeded(kept);
    }

    pub(crate) fn failed(&self, follow: Follow, now: Monotonic, nanos: u64) {
        let kept = self.latency.failed(follow, now, nanos);
        self.standing.failed(kept);
    }

    /// Counts a call for the detector of outliers; returns the streaks if one of them grew.
    #[inline]
    pub(crate) fn count(&self, effect: Effect, nanos: u64) -> Option<Streaks> {
        if effect.external == Some(true) && self.successes.count(nanos) {
            self.halve();
        } else if effect.external == Some(false) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(success) = effect.local_origin {
            self.local_origin.count(success);
        }
        let word = self.streaks.load(Ordering::Relaxed);
        let extends = [effect.errors, effect.gateway, effect.local_streak].contains(&Step::Extend);
        if word == 0 && !extends {
            return None;
        }
        self.step(effect, extends)
    }

    #[cold]
    fn halve(&self) {
        if self.successes.halve() {
            let half = |failures| Some(failures / 2);
            let _was = self
                .failures
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
        }
    }

    /// Steps the streaks; returns them if one of them grew.
    #[cold]
    fn step(&self, effect: Effect, extends: bool) -> Option<Streaks> {
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
        let (successes, latency) = self.successes.take();
        let failures = self.failures.swap(0, Ordering::Relaxed);
        Interval {
            external: Counts::new(successes, successes.saturating_add(failures)),
            local_origin: self.local_origin.take(),
            latency,
        }
    }

    /// Brings moments up to date before they wrap.
    /// Forgets what its calls said.
    pub(crate) fn forget_calls(&self) {
        self.latency.reset();
        self.standing.reset();
        self.usage.reset();
    }

    pub(crate) fn refresh(&self, follow: Follow, now: Monotonic) {
        let kept = self.latency.refresh(follow, now);
        self.standing.refresh(now, kept);
        self.usage.refresh(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(successes: &Successes, count: u32, nanos: u64) {
        for _ in 0..count {
            if successes.count(nanos) {
                successes.halve();
            }
        }
    }

    #[test]
    fn successes_and_their_mean_time_fit_one_word() {
        let successes = Successes::default();
        counted(&successes, 1_000, 3_000_000);
        counted(&successes, 1_000, 5_000_000);
        let (count, mean) = successes.take();
        assert_eq!(count, 2_000);
        let off = mean.unwrap().abs_diff(Duration::from_millis(4));
        assert!(off <= Duration::from_nanos(256), "{off:?}");
        assert_eq!(successes.take(), (0, None));
    }

    #[test]
    fn endless_intervals_and_calls_keep_the_mean() {
        let hot = Hot::default();
        let long = 365 * 86_400 * 1_000_000_000;
        for _ in 0..100_000 {
            hot.count(
                Effect {
                    external: Some(true),
                    ..Effect::NOTHING
                },
                long,
            );
        }
        let interval = hot.take_interval();
        let hour = Duration::from_nanos(Successes::LONGEST << Successes::UNIT);
        assert!(
            interval.latency.unwrap().abs_diff(hour) < hour / 10,
            "{interval:?}"
        );

        let nearly = (1 << 23) - 1_000;
        let successes = Successes(AtomicU64::new((nearly * 3_906) << Successes::TIME | nearly));
        counted(&successes, 2_000, 3_906 << Successes::UNIT);
        let (count, mean) = successes.take();
        assert!((1 << 22..1 << 23).contains(&count), "{count}");
        let off = mean
            .unwrap()
            .abs_diff(Duration::from_nanos(3_906 << Successes::UNIT));
        assert!(off < Duration::from_micros(1), "{mean:?}");
    }

    #[test]
    fn failures_are_halved_with_the_successes() {
        let hot = Hot::default();
        let (success, failure) = (
            Effect {
                external: Some(true),
                ..Effect::NOTHING
            },
            Effect {
                external: Some(false),
                ..Effect::NOTHING
            },
        );
        let nearly = (1_u32 << 23) - 9_000;
        hot.successes.0.store(u64::from(nearly), Ordering::Relaxed);
        hot.failures.store(nearly / 9, Ordering::Relaxed);
        for n in 0..100_000 {
            hot.count(if n % 10 == 0 { failure } else { success }, 1_000);
        }
        let Counts { success, total } = hot.take_interval().external;
        assert!(total < 1 << 23, "{total}");
        let share = f64::from(success) / f64::from(total);
        assert!((share - 0.9).abs() < 0.001, "{share}");
    }
}
