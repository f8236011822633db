//! How a call ended, and what that counts for.

/// How a call ended, seen from the caller.
///
/// ```
/// use orchestra_discovery::outlier::{Config, Detector, Report, Step, envoy};
///
/// let detector = Detector::new(Config::Envoy(envoy::Config::default()));
/// let effect = detector.effect(Report::Gateway);
/// assert_eq!((effect.errors, effect.gateway), (Step::Extend, Step::Extend));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Report {
    /// The host answered, and not with a failure (HTTP: anything but 5xx).
    Success,
    /// The host answered that it failed (HTTP 500, 501, 505 and above).
    Error,
    /// It answered as a gateway whose upstream failed, or that it is unavailable (HTTP 502, 503, 504).
    Gateway,
    /// The connection was made; whether the call succeeds is reported apart.
    Connected,
    /// No connection could be made, or it broke.
    ConnectFailed,
    /// The time was up before an answer came.
    TimedOut,
}

/// What becomes of a streak.
///
/// ```
/// use orchestra_discovery::outlier::{Config, Detector, Report, Step, envoy};
///
/// let detector = Detector::new(Config::Envoy(envoy::Config::default()));
/// assert_eq!(detector.effect(Report::Success).errors, Step::Reset);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// It is as it was.
    #[default]
    Keep,
    /// It is one longer.
    Extend,
    /// It starts over at zero.
    Reset,
}

/// What a call is counted as.
///
/// ```
/// use orchestra_discovery::outlier::{Config, Detector, Effect, Report};
///
/// let detector = Detector::new(Config::Off);
/// assert_eq!(detector.effect(Report::Error), Effect::NOTHING);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Effect {
    /// One more call in [`Interval::external`](super::Interval::external): a success if true.
    pub external: Option<bool>,
    /// One more call in [`Interval::local_origin`](super::Interval::local_origin): a success if true.
    pub local_origin: Option<bool>,
    /// The streak of [`Trigger::ConsecutiveErrors`](super::Trigger::ConsecutiveErrors).
    pub errors: Step,
    /// The streak of [`Trigger::ConsecutiveGateway`](super::Trigger::ConsecutiveGateway).
    pub gateway: Step,
    /// The streak of [`Trigger::ConsecutiveLocalOrigin`](super::Trigger::ConsecutiveLocalOrigin).
    pub local_streak: Step,
}

impl Effect {
    /// It counts for nothing.
    pub const NOTHING: Self = Self {
        external: None,
        local_origin: None,
        errors: Step::Keep,
        gateway: Step::Keep,
        local_streak: Step::Keep,
    };

    /// An answer that is no failure.
    pub(super) const SUCCESS: Self = Self {
        external: Some(true),
        errors: Step::Reset,
        gateway: Step::Reset,
        ..Self::NOTHING
    };

    /// An answer that is a failure, though not a gateway's.
    pub(super) const ERROR: Self = Self {
        external: Some(false),
        errors: Step::Extend,
        gateway: Step::Reset,
        ..Self::NOTHING
    };

    /// A gateway's failure.
    pub(super) const GATEWAY: Self = Self {
        external: Some(false),
        errors: Step::Extend,
        gateway: Step::Extend,
        ..Self::NOTHING
    };

    /// The same, and what it means for this side.
    pub(super) const fn with_local(mut self, success: bool) -> Self {
        self.local_origin = Some(success);
        self.with_local_streak(success)
    }

    /// The same, and what it means for the streak of this side.
    pub(super) const fn with_local_streak(mut self, success: bool) -> Self {
        self.local_streak = if success { Step::Reset } else { Step::Extend };
        self
    }
}
