//! The fields of `OutlierDetectionLoadBalancingConfig`.

use std::time::Duration;

use crate::outlier::Percent;

/// The fields of `OutlierDetectionLoadBalancingConfig`, with its defaults: neither algorithm is on.
///
/// ```
/// use orchestra_discovery::outlier::{self, Detector, grpc};
///
/// let mut config = grpc::Config::default();
/// assert!(!Detector::new(outlier::Config::Grpc(config.clone())).is_counting());
/// config.success_rate = Some(grpc::SuccessRate::default());
/// assert!(Detector::new(outlier::Config::Grpc(config)).is_counting());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Between sweeps: 10 s.
    pub interval: Duration,
    /// How long the first ejection lasts: 30 s.
    pub base_ejection_time: Duration,
    /// The longest ejection; less than the base counts as the base: 300 s.
    pub max_ejection_time: Duration,
    /// The share of hosts that may be out: 10 %.
    pub max_ejection: Percent,
    /// The comparison of success rates, if any.
    pub success_rate: Option<SuccessRate>,
    /// The limit of failures, if any.
    pub failure_percentage: Option<FailurePercentage>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection: Percent::new(10),
            success_rate: None,
            failure_percentage: None,
        }
    }
}

impl Config {
    pub(super) fn ejection_time(&self, multiplier: u32) -> Duration {
        let base = self.base_ejection_time;
        let longest = base.max(self.max_ejection_time);
        base.saturating_mul(multiplier).min(longest)
    }
}

/// When a success rate is an outlier.
///
/// ```
/// use orchestra_discovery::outlier::grpc::SuccessRate;
///
/// let mut rate = SuccessRate::default();
/// assert_eq!((rate.stdev_factor, rate.request_volume), (1_900, 100));
/// rate.minimum_hosts = 10;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SuccessRate {
    /// Standard deviations below the mean, in thousandths: 1900.
    pub stdev_factor: u32,
    /// In what share of cases it ejects: always.
    pub enforcement: Percent,
    /// Hosts with enough calls that there must be: 5.
    pub minimum_hosts: u32,
    /// Calls that a host must have had: 100.
    pub request_volume: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            stdev_factor: 1900,
            enforcement: Percent::ALL,
            minimum_hosts: 5,
            request_volume: 100,
        }
    }
}

/// When a share of failures is too large.
///
/// ```
/// use orchestra_discovery::outlier::{Percent, grpc::FailurePercentage};
///
/// let mut failures = FailurePercentage::default();
/// assert_eq!(failures.threshold, Percent::new(85));
/// failures.threshold = Percent::new(50);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailurePercentage {
    /// The share that must be exceeded: 85 %.
    pub threshold: Percent,
    /// In what share of cases it ejects: always.
    pub enforcement: Percent,
    /// Hosts with enough calls that there must be: 5.
    pub minimum_hosts: u32,
    /// Calls that a host must have had: 50.
    pub request_volume: u32,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self {
            threshold: Percent::new(85),
            enforcement: Percent::ALL,
            minimum_hosts: 5,
            request_volume: 50,
        }
    }
}
