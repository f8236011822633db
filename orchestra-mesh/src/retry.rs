//! Whether a failed attempt is followed by another, and when.
//!
//! Two questions are kept apart. *May it help?* is answered by [`RetryOn`], in the words of Envoy's
//! `retry_on`. *May it harm?* is answered by the request: an attempt that may have been processed is
//! repeated only if the method is idempotent (RFC 9110, 9.2.2), the request carries an `Idempotency-Key`,
//! or the policy declares all requests repeatable; without that, only proof that nothing was processed (no
//! connection, a refused stream) allows another.

mod condition;
mod course;

use std::time::Duration;

use http::header::HeaderName;
use http::{Method, StatusCode, request};
use orchestra_core::Backoff;

pub use condition::{Condition, RetryOn};
pub(crate) use course::Advice;
pub use course::Course;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection was gone before anything of the request was written.
    Unsent,
    /// The peer refused the HTTP/2 stream and vouches that it did nothing.
    RefusedStream,
    /// The peer ended the HTTP/2 connection in good order, and vouches that it did nothing on this stream.
    GoneAway,
    /// The connection broke after the request was on its way.
    Reset,
    /// No response headers within the limit of one attempt.
    Timeout,
    /// A response that reports a failure.
    Status(StatusCode),
    /// The request's own body could not be read; another attempt would fail as well.
    RequestBody,
}

impl Failure {
    /// Whether it is certain that the request was not processed.
    pub const fn proves_unprocessed(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::Unsent | Self::RefusedStream | Self::GoneAway
        )
    }

    /// Whether a connection was ended as any server may do at any time: that is neither a fault of the
    /// instance nor load to it.
    pub(crate) const fn is_goodbye(self) -> bool {
        matches!(self, Self::Unsent | Self::GoneAway)
    }
}

/// Why no other attempt follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// The policy does not retry on this.
    NotRetryable,
    /// The request may have been processed, and may not be processed twice.
    NotIdempotent,
    /// The body is too long to be kept for another attempt.
    BodyNotReplayable,
    /// There were as many retries as allowed.
    Exhausted,
    /// The pause would outlast the deadline, or the peer asked for a longer one than allowed.
    Deadline,
    /// The budget holds no retry.
    Budget,
    /// The peer says that it is overloaded and wants no retries.
    PeerOverloaded,
}

/// Which requests count as repeatable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Repeatable {
    /// Those of an idempotent method or with an `Idempotency-Key`.
    #[default]
    ByRequest,
    /// All: the service vouches for it.
    Always,
}

/// Whether and when a call is retried.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Backoff;
/// use orchestra_mesh::retry::Policy;
///
/// let policy = Policy::default()
///     .retry_on("gateway-error,connect-failure,reset".parse()?)
///     .max_retries(2)
///     .backoff(Backoff::exponential(Duration::from_millis(50), 2.0).cap(Duration::from_secs(1)));
/// assert_eq!(policy, policy.clone());
/// # Ok::<(), orchestra_mesh::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    retry_on: RetryOn,
    max_retries: u32,
    backoff: Backoff,
    repeatable: Repeatable,
    max_replay: usize,
    max_retry_after: Duration,
}

impl Default for Policy {
    /// Three retries on gateway errors, resets and failed connections; 25 ms doubling to 250 ms, full jitter.
    fn default() -> Self {
        Self {
            retry_on: RetryOn::default(),
            max_retries: 3,
            backoff: Backoff::exponential(Duration::from_millis(25), 2.0)
                .cap(Duration::from_millis(250)),
            repeatable: Repeatable::ByRequest,
            max_replay: 64 * 1024,
            max_retry_after: Duration::from_secs(10),
        }
    }
}

impl Policy {
    /// One attempt and no other.
    pub fn never() -> Self {
        Self::default().max_retries(0)
    }

    /// What may help.
    #[must_use]
    pub fn retry_on(mut self, retry_on: RetryOn) -> Self {
        self.retry_on = retry_on;
        self
    }

    /// The most attempts after the first.
    #[must_use]
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = retries;
        self
    }

    /// The pauses.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Which requests may be processed twice.
    #[must_use]
    pub fn repeatable(mut self, repeatable: Repeatable) -> Self {
        self.repeatable = repeatable;
        self
    }

    /// How many bytes of a body are kept to be sent again; a longer body is sent once.
    #[must_use]
    pub fn max_replay(mut self, bytes: usize) -> Self {
        self.max_replay = bytes;
        self
    }

    /// The longest `Retry-After` that is waited for; a longer one ends the call with what it has.
    #[must_use]
    pub fn max_retry_after(mut self, limit: Duration) -> Self {
        self.max_retry_after = limit;
        self
    }

    pub(crate) fn replay_limit(&self) -> usize {
        if self.max_retries == 0 {
            0
        } else {
            self.max_replay
        }
    }

    /// Whether a request that may have been processed may be processed again.
    pub(crate) fn is_repeatable(&self, request: &request::Parts) -> bool {
        self.repeatable == Repeatable::Always
            || is_idempotent(&request.method)
            || request.headers.contains_key(IDEMPOTENCY_KEY)
    }
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

fn is_idempotent(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PUT,
        Method::DELETE,
        Method::TRACE,
    ]
    .contains(method)
}
