use std::time::Duration;

use http::HeaderMap;
use orchestra_core::{Deadline, Monotonic};

use super::{Failure, Policy, Stop};

/// What the peer says in a response about being asked again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Advice {
    pub(crate) retry_after: Option<Duration>,
    is_overloaded: bool,
}

impl Advice {
    /// Reads `retry-after` in seconds and Envoy's marks of an overloaded or limiting peer.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let seconds = headers
            .get(http::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .filter(|text| text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok());
        Self {
            retry_after: seconds.map(Duration::from_secs),
            is_overloaded: headers.contains_key("x-envoy-overloaded")
                || headers.contains_key("x-envoy-ratelimited"),
        }
    }
}

/// The retries of one call: a pure state machine that the client and the tower layer drive.
///
/// ```
/// use orchestra_core::{Deadline, Monotonic};
/// use orchestra_mesh::retry::{Course, Failure, Policy, Stop};
///
/// let policy = Policy::default().max_retries(1);
/// let request = http::Request::post("/orders").body(())?.into_parts().0;
/// let mut course = Course::new(&policy, &request, Deadline::NEVER);
/// // A POST that may have been processed is not repeated, one that was never sent is.
/// let now = Monotonic::ZERO;
/// assert_eq!(course.next(Failure::Reset, None, now, 0), Err(Stop::NotIdempotent));
/// assert!(course.next(Failure::Connect, None, now, 0).is_ok());
/// assert_eq!(course.next(Failure::Connect, None, now, 0), Err(Stop::Exhausted));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Course<'a> {
    policy: &'a Policy,
    is_repeatable: bool,
    deadline: Deadline,
    retries: u32,
    last_delay: Duration,
}

impl<'a> Course<'a> {
    /// The course of a call that has not been retried yet.
    pub fn new(policy: &'a Policy, request: &http::request::Parts, deadline: Deadline) -> Self {
        Self {
            policy,
            is_repeatable: policy.is_repeatable(request),
            deadline,
            retries: 0,
            last_delay: Duration::ZERO,
        }
    }

    /// After a failed attempt: the pause before the next, or why there is none.
    ///
    /// `response` is the head of the response, if there was one. A retry that is granted counts.
    pub fn next(
        &mut self,
        failure: Failure,
        response: Option<&HeaderMap>,
        now: Monotonic,
        draw: u64,
    ) -> Result<Duration, Stop> {
        if !self.policy.retry_on.matches(failure) {
            return Err(Stop::NotRetryable);
        }
        let advice = response.map(Advice::from_headers).unwrap_or_default();
        if advice.is_overloaded {
            return Err(Stop::PeerOverloaded);
        }
        if !self.is_repeatable && !failure.proves_unprocessed() {
            return Err(Stop::NotIdempotent);
        }
        if self.retries >= self.policy.max_retries {
            return Err(Stop::Exhausted);
        }
        let delay = self.delay(advice, draw).ok_or(Stop::Deadline)?;
        if self
            .deadline
            .remaining(now)
            .is_some_and(|left| delay >= left)
        {
            return Err(Stop::Deadline);
        }
        self.retries += 1;
        self.last_delay = delay;
        Ok(delay)
    }

    /// The longer one of our own pause and the one that the peer asks for; `None` if that is too long.
    fn delay(&self, advice: Advice, draw: u64) -> Option<Duration> {
        let own = self
            .policy
            .backoff
            .delay(self.retries + 1, self.last_delay, draw);
        match advice.retry_after {
            Some(asked) if asked > self.policy.max_retry_after => None,
            Some(asked) => Some(own.max(asked)),
            None => Some(own),
        }
    }
}
