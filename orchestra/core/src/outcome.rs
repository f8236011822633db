//! What became of a call, and what an error allows the caller to do.

use std::time::Duration;

/// What a finished call says about the instance that served it.
///
/// ```
/// use orchestra_core::Outcome;
///
/// assert!(Outcome::Failure.is_failure());
/// assert!(!Outcome::Neutral.is_failure() && !Outcome::Neutral.is_success());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It answered, and the answer is not its fault, whatever it says.
    Success,
    /// It could not be reached, did not answer in time, or answered that it failed.
    Failure,
    /// It answered that it has too much to do.
    Overloaded,
    /// Nothing is learned: the caller gave up, or the call was never sent.
    Neutral,
}

impl Outcome {
    /// Whether the instance proved that it works.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Success)
    }

    /// Whether the instance failed; being overloaded is not a failure.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failure)
    }
}

/// What an error allows.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::ErrorClass;
///
/// let class = ErrorClass::Throttled { after: Some(Duration::from_secs(2)) };
/// assert!(class.is_retryable());
/// assert_eq!(class.retry_after(), Some(Duration::from_secs(2)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The same call fails again: the input, the configuration or the state is wrong.
    Permanent,
    /// The same call may succeed later.
    Transient,
    /// The same call may succeed later, and not before `after`, if the peer said so.
    Throttled {
        /// How long the peer asked to be left alone.
        after: Option<Duration>,
    },
}

impl ErrorClass {
    /// Whether another attempt makes sense.
    pub const fn is_retryable(self) -> bool {
        !matches!(self, Self::Permanent)
    }

    /// How long the peer asked to be left alone.
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Throttled { after } => after,
            Self::Permanent | Self::Transient => None,
        }
    }
}
