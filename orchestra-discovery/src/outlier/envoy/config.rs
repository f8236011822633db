//! The fields of `outlier_detection`.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::outlier::{Origin, Percent, Reason, Trigger};

const FIVE: Option<NonZeroU32> = NonZeroU32::new(5);

/// The fields of Envoy's `outlier_detection`, with its defaults.
///
/// ```
/// use orchestra_discovery::outlier::{self, Detector, Percent, envoy};
///
/// let mut config = envoy::Config::default();
/// config.max_ejection = Percent::new(50);
/// let detector = Detector::new(outlier::Config::Envoy(config));
/// assert_eq!(detector.thresholds().errors.map(|it| it.get()), Some(5));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Between sweeps: 10 s.
    pub interval: Duration,
    /// How long the first ejection lasts: 30 s.
    pub base_ejection_time: Duration,
    /// The longest ejection; less than the base counts as the base (Envoy refuses it). `None`: 300 s or the
    /// base, whichever is longer.
    pub max_ejection_time: Option<Duration>,
    /// At most this is added to an ejection, in whole milliseconds: none.
    pub max_ejection_time_jitter: Duration,
    /// The share of hosts that may be out: 10 %.
    pub max_ejection: Percent,
    /// Whether one may be out whatever the share: no.
    pub always_eject_one_host: bool,
    /// Whether errors of local origin are counted apart: no.
    pub split_local_origin: bool,
    /// Whether a passed active check restores: yes.
    pub active_check_restores: bool,
    /// Failures in a row: 5.
    pub consecutive_5xx: Option<NonZeroU32>,
    /// Gateway failures in a row: 5.
    pub consecutive_gateway_failure: Option<NonZeroU32>,
    /// Failures of local origin in a row, if they are counted apart: 5.
    pub consecutive_local_origin_failure: Option<NonZeroU32>,
    /// The comparison of success rates.
    pub success_rate: SuccessRate,
    /// The limit of failures.
    pub failure_percentage: FailurePercentage,
    /// In what share of cases each reason ejects.
    pub enforcing: Enforcing,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: None,
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection: Percent::new(10),
            always_eject_one_host: false,
            split_local_origin: false,
            active_check_restores: true,
            consecutive_5xx: FIVE,
            consecutive_gateway_failure: FIVE,
            consecutive_local_origin_failure: FIVE,
            success_rate: SuccessRate::default(),
            failure_percentage: FailurePercentage::default(),
            enforcing: Enforcing::default(),
        }
    }
}

impl Config {
    pub(super) fn longest(&self) -> Duration {
        let longest = self.max_ejection_time.unwrap_or(Duration::from_secs(300));
        longest.max(self.base_ejection_time)
    }

    pub(super) fn ejection_time(&self, backoff: u32) -> Duration {
        let grown = self.base_ejection_time.saturating_mul(backoff);
        grown.min(self.longest())
    }
}

/// When a success rate is an outlier.
///
/// ```
/// use orchestra_discovery::outlier::envoy::SuccessRate;
///
/// let mut rate = SuccessRate::default();
/// assert_eq!((rate.stdev_factor, rate.request_volume), (1_900, 100));
/// rate.minimum_hosts = 10;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SuccessRate {
    /// Hosts with enough calls that there must be: 5.
    pub minimum_hosts: u32,
    /// Calls that a host must have had: 100.
    pub request_volume: u32,
    /// Standard deviations below the mean, in thousandths: 1900.
    pub stdev_factor: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor: 1900,
        }
    }
}

/// When a share of failures is too large.
///
/// ```
/// use orchestra_discovery::outlier::{Percent, envoy::FailurePercentage};
///
/// let mut failures = FailurePercentage::default();
/// assert_eq!(failures.threshold, Percent::new(85));
/// failures.threshold = Percent::new(50);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailurePercentage {
    /// Hosts with enough calls that there must be: 5.
    pub minimum_hosts: u32,
    /// Calls that a host must have had: 50.
    pub request_volume: u32,
    /// The share: 85 %.
    pub threshold: Percent,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self {
            minimum_hosts: 5,
            request_volume: 50,
            threshold: Percent::new(85),
        }
    }
}

/// In what share of cases each reason ejects.
///
/// ```
/// use orchestra_discovery::outlier::{Percent, envoy::Enforcing};
///
/// let mut enforcing = Enforcing::default();
/// assert_eq!(enforcing.failure_percentage, Percent::ZERO);
/// enforcing.failure_percentage = Percent::ALL;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enforcing {
    /// Failures in a row: always.
    pub consecutive_5xx: Percent,
    /// Gateway failures in a row: never.
    pub consecutive_gateway_failure: Percent,
    /// Failures of local origin in a row: always.
    pub consecutive_local_origin_failure: Percent,
    /// Success rate: always.
    pub success_rate: Percent,
    /// Success rate of local origin: always.
    pub local_origin_success_rate: Percent,
    /// Failure percentage: never.
    pub failure_percentage: Percent,
    /// Failure percentage of local origin: never.
    pub failure_percentage_local_origin: Percent,
}

impl Default for Enforcing {
    fn default() -> Self {
        Self {
            consecutive_5xx: Percent::ALL,
            consecutive_gateway_failure: Percent::ZERO,
            consecutive_local_origin_failure: Percent::ALL,
            success_rate: Percent::ALL,
            local_origin_success_rate: Percent::ALL,
            failure_percentage: Percent::ZERO,
            failure_percentage_local_origin: Percent::ZERO,
        }
    }
}

impl Enforcing {
    pub(super) fn share(self, reason: &Reason) -> Percent {
        match reason {
            Reason::Streak { trigger, .. } => match trigger {
                Trigger::ConsecutiveErrors => self.consecutive_5xx,
                Trigger::ConsecutiveGateway => self.consecutive_gateway_failure,
                Trigger::ConsecutiveLocalOrigin => self.consecutive_local_origin_failure,
            },
            Reason::SuccessRate { origin, .. } => match origin {
                Origin::External => self.success_rate,
                Origin::Local => self.local_origin_success_rate,
            },
            Reason::FailurePercentage { origin, .. } => match origin {
                Origin::External => self.failure_percentage,
                Origin::Local => self.failure_percentage_local_origin,
            },
            Reason::Latency { .. } => Percent::ZERO,
        }
    }
}
