use std::time::Duration;

use orchestra_core::Outcome;

use crate::outlier::Report;
use crate::reported::LoadReport;

/// What became of a call, as far as the caller can say. An [`Outcome`] alone is one.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Outcome;
/// use orchestra_discovery::Completion;
/// use orchestra_discovery::outlier::Report;
///
/// let unavailable = Completion::from(Outcome::Failure).report(Report::Gateway);
/// let throttled = Completion::from(Outcome::Overloaded).retry_after(Duration::from_secs(3));
/// assert_eq!(throttled.outcome(), Outcome::Overloaded);
/// assert_ne!(unavailable, throttled);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct Completion<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) report: Option<Report>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) load: Option<&'a LoadReport>,
}

impl From<Outcome> for Completion<'_> {
    /// A success, or a failure of which nothing more is known: an error that the instance answered.
    fn from(outcome: Outcome) -> Self {
        let report = match outcome {
            Outcome::Success => Some(Report::Success),
            Outcome::Failure => Some(Report::Error),
            // An overloaded instance asks for fewer calls, not to be ejected.
            _ => None,
        };
        Self {
            outcome,
            report,
            retry_after: None,
            load: None,
        }
    }
}

impl<'a> Completion<'a> {
    /// What it counts as for the detection of outliers: whose failure it was.
    pub const fn report(mut self, report: Report) -> Self {
        self.report = Some(report);
        self
    }

    /// The instance asked to be left alone for so long (`Retry-After`, gRPC's retry pushback); at most five
    /// minutes are granted.
    pub const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// What the instance said of its load (ORCA).
    pub const fn load(mut self, load: &'a LoadReport) -> Self {
        self.load = Some(load);
        self
    }

    /// What the call says about the instance.
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }
}
