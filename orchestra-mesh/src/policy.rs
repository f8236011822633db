//! How a client treats the calls to one service.

use std::time::Duration;

use crate::{Error, budget, retry};

/// Limits, retries and their budget, checked once when the client is built.
///
/// ```
/// use std::time::Duration;
/// use orchestra_mesh::{Policy, retry};
///
/// let policy = Policy::default()
///     .timeout(Duration::from_secs(2))
///     .attempt_timeout(Duration::from_millis(500))
///     .retry(retry::Policy::default().max_retries(1));
/// assert_ne!(policy, Policy::default());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub(crate) timeout: Option<Duration>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) retry: retry::Policy,
    pub(crate) budget: budget::Config,
}

impl Default for Policy {
    /// 15 s for a call, 5 s for an attempt, the default retries and budget.
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(15)),
            attempt_timeout: Some(Duration::from_secs(5)),
            retry: retry::Policy::default(),
            budget: budget::Config::default(),
        }
    }
}

impl Policy {
    /// The most time for a call: every attempt, every pause, and the response body.
    ///
    /// The caller's own deadline applies as well where it is shorter.
    #[must_use]
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Only the caller's own deadline limits a call, as long streams need.
    #[must_use]
    pub const fn without_timeout(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// The most time from the choice of an instance to its response headers.
    #[must_use]
    pub const fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout = Some(limit);
        self
    }

    /// Only the time of the call limits an attempt.
    #[must_use]
    pub const fn without_attempt_timeout(mut self) -> Self {
        self.attempt_timeout = None;
        self
    }

    /// Whether and when a failed attempt is followed by another.
    #[must_use]
    pub fn retry(mut self, retry: retry::Policy) -> Self {
        self.retry = retry;
        self
    }

    /// How many retries the load allows.
    #[must_use]
    pub const fn budget(mut self, budget: budget::Config) -> Self {
        self.budget = budget;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_zero = |limit: Option<Duration>| limit.is_some_and(|limit| limit.is_zero());
        if is_zero(self.timeout) || is_zero(self.attempt_timeout) {
            return Err(Error::config("a timeout of zero lets no call pass"));
        }
        Ok(())
    }
}
