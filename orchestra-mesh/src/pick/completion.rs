use std::time::Duration;

use http::StatusCode;
use orchestra_core::Outcome;

use crate::retry::Failure;

/// What became of a call to an instance, as far as the client can say. An [`Outcome`] alone is one.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Outcome;
/// use orchestra_mesh::pick::Completion;
/// use orchestra_mesh::retry::Failure;
///
/// let refused = Completion::from(Outcome::Failure).result(Err(Failure::Connect));
/// let busy = Completion::from(Outcome::Failure)
///     .result(Ok(http::StatusCode::SERVICE_UNAVAILABLE))
///     .retry_after(Duration::from_secs(3));
/// assert_eq!(refused.outcome, busy.outcome);
/// assert_ne!(refused, busy);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Completion<'a> {
    /// What it says about the instance.
    pub outcome: Outcome,
    /// The status of the answer, or what kept it from coming or from ending; `None` if that is not known.
    ///
    /// Where gRPC fails with status 200, it is the status that this corresponds to (503 for `UNAVAILABLE`). It
    /// says how the call ended whoever's fault it was: that is for the outcome to tell.
    pub result: Option<Result<StatusCode, Failure>>,
    /// The instance asked to be left alone for so long: by a `Retry-After` with status 429 or 503.
    pub retry_after: Option<Duration>,
    /// What the instance said of its load: the header or trailer `endpoint-load-metrics` (ORCA), as it came.
    pub load: Option<&'a str>,
}

impl From<Outcome> for Completion<'_> {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            result: None,
            retry_after: None,
            load: None,
        }
    }
}

impl<'a> Completion<'a> {
    /// It ended like this.
    pub const fn result(mut self, result: Result<StatusCode, Failure>) -> Self {
        self.result = Some(result);
        self
    }

    /// The instance asked to be left alone for so long.
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The instance said this of its load.
    pub const fn load(mut self, load: &'a str) -> Self {
        self.load = Some(load);
        self
    }
}
