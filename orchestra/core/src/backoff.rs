//! How long to wait before the next attempt.
//!
//! A [`Backoff`] is a pure function of the number of the retry, the delay before, and a random draw.
//! Exponential growth without jitter keeps colliding clients in step; *full jitter* draws uniformly from
//! zero to the exponential bound and *decorrelated jitter* from the base to three times the previous
//! delay (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

/// How the bound of the delay grows with the number of the retry.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Growth {
    Fixed,
    Linear,
    Exponential { factor: f64 },
    Decorrelated,
}

/// How a random draw shortens the delay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Jitter {
    /// The delay is the bound itself.
    None,
    /// Uniform in `0..=bound`: the least work for contending clients.
    #[default]
    Full,
    /// Uniform in `bound/2..=bound`: never zero.
    Equal,
}

/// A schedule of delays.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::{Backoff, Jitter};
///
/// let backoff = Backoff::exponential(Duration::from_millis(100), 2.0)
///     .cap(Duration::from_secs(1))
///     .jitter(Jitter::None);
/// let delays: Vec<_> = (1..=5).map(|n| backoff.delay(n, Duration::ZERO, 0).as_millis()).collect();
/// assert_eq!(delays, [100, 200, 400, 800, 1000]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    base: Duration,
    growth: Growth,
    cap: Duration,
    jitter: Jitter,
}

impl Backoff {
    /// The longest delay unless [`Backoff::cap`] says otherwise.
    pub const DEFAULT_CAP: Duration = Duration::from_secs(60);

    const fn new(base: Duration, growth: Growth, jitter: Jitter) -> Self {
        Self {
            base,
            growth,
            cap: Self::DEFAULT_CAP,
            jitter,
        }
    }

    /// Always `base`; no jitter unless asked for.
    pub const fn fixed(base: Duration) -> Self {
        Self::new(base, Growth::Fixed, Jitter::None)
    }

    /// `base · n`; full jitter.
    pub const fn linear(base: Duration) -> Self {
        Self::new(base, Growth::Linear, Jitter::Full)
    }

    /// `base · factor^(n-1)`; full jitter. A factor below one, or not a number, counts as one.
    pub const fn exponential(base: Duration, factor: f64) -> Self {
        let factor = if factor >= 1.0 { factor } else { 1.0 };
        Self::new(base, Growth::Exponential { factor }, Jitter::Full)
    }

    /// Uniform in `base..=3·previous`. Its jitter is its growth: [`Backoff::jitter`] changes nothing.
    pub const fn decorrelated(base: Duration) -> Self {
        Self::new(base, Growth::Decorrelated, Jitter::Full)
    }

    /// No delay is longer than this.
    #[must_use]
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// How the draw shortens the delay.
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The delay before retry number `retry`, counted from 1 (0 is taken as 1).
    ///
    /// `previous` is the delay before the retry before, used by the decorrelated schedule alone.
    /// `draw` is uniform over `u64`. The result never exceeds the cap, whatever the numbers.
    pub fn delay(&self, retry: u32, previous: Duration, draw: u64) -> Duration {
        if self.growth == Growth::Decorrelated {
            let low = self.base.min(self.cap);
            let high = previous.saturating_mul(3).clamp(low, self.cap);
            return low + uniform(high.saturating_sub(low), draw);
        }
        let bound = self.bound(retry.max(1));
        match self.jitter {
            Jitter::None => bound,
            Jitter::Full => uniform(bound, draw),
            Jitter::Equal => bound.saturating_sub(uniform(bound / 2, draw)),
        }
    }

    fn bound(&self, retry: u32) -> Duration {
        let bound = match self.growth {
            Growth::Fixed | Growth::Decorrelated => self.base,
            Growth::Linear => self.base.saturating_mul(retry),
            Growth::Exponential { factor } => {
                let seconds = self.base.as_secs_f64() * factor.powf(f64::from(retry - 1));
                // Zero times infinity is NaN, and a base of zero means no delay.
                if self.base.is_zero() {
                    Duration::ZERO
                } else {
                    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
                }
            }
        };
        bound.min(self.cap)
    }
}

/// Maps a uniform draw over `u64` to `0..=span`.
fn uniform(span: Duration, draw: u64) -> Duration {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let scaled = (u128::from(draw) * (u128::from(nanos) + 1)) >> 64;
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
}
