//! How often and how fast a step is tried again.

use std::time::Duration;

use orchestra_core::Backoff;

/// A bounded number of repetitions and the delays before them.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Backoff;
/// use orchestra_saga::Retry;
///
/// let retry = Retry::new(5, Backoff::exponential(Duration::from_millis(50), 2.0));
/// assert_eq!(retry.max_retries(), 5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    max_retries: u32,
    backoff: Backoff,
}

impl Retry {
    /// One attempt and no more.
    pub const NONE: Self = Self::new(0, Backoff::fixed(Duration::ZERO));

    /// At most `max_retries` attempts after the first.
    pub const fn new(max_retries: u32, backoff: Backoff) -> Self {
        Self {
            max_retries,
            backoff,
        }
    }

    /// As it is, with another number of retries.
    #[must_use]
    pub const fn with_retries(mut self, max_retries: u32) -> Self {
        self.max_retries = max_retries;
        self
    }

    /// The number of attempts after the first.
    pub const fn max_retries(&self) -> u32 {
        self.max_retries
    }

    /// The delay after attempt number `tries` (from 1), `None` when that was the last.
    ///
    /// `after` is the least delay that the participant asked for.
    pub fn next(
        &self,
        tries: u32,
        previous: Duration,
        after: Option<Duration>,
        draw: u64,
    ) -> Option<Duration> {
        let delay = self.backoff.delay(tries, previous, draw);
        (tries <= self.max_retries).then(|| delay.max(after.unwrap_or_default()))
    }
}

/// Three retries, from 100 ms, doubled, with full jitter.
impl Default for Retry {
    fn default() -> Self {
        Self::new(3, Backoff::exponential(Duration::from_millis(100), 2.0))
    }
}

/// How a step is repeated and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Effort {
    pub(crate) retry: Retry,
    pub(crate) attempt: Option<Duration>,
    pub(crate) total: Duration,
}

impl Effort {
    /// The limit of one attempt: as given, or an even share of the total, at least a second.
    pub(crate) fn attempt_timeout(&self) -> Duration {
        let share = self.total / self.retry.max_retries.saturating_add(1);
        let fallback = share.max(Duration::from_secs(1)).min(self.total);
        self.attempt.unwrap_or(fallback)
    }
}
