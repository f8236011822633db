//! What the robust rule can be told.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Recovery, sane};
use crate::outlier::Percent;

/// How the robust rule decides.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::outlier::{self, Detector, robust};
///
/// let mut config = robust::Config::default();
/// config.interval = Duration::from_secs(2);
/// config.latency_ratio = None;
/// let detector = Detector::new(outlier::Config::Robust(config));
/// assert!(detector.is_counting());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Between sweeps: 5 s.
    pub interval: Duration,
    /// The share of hosts that may be out: 50 %. Above zero, one of several may always go; the only host of a
    /// service never does.
    pub max_ejection: Percent,
    /// Calls that a host must have had to be judged: 10.
    pub request_volume: u32,
    /// How probable it may be that one sweep ejects any host by chance: 1e-4; kept in `1e-12..=0.01`.
    pub significance: f64,
    /// Failures of any kind in a row, at least: 5.
    pub consecutive_errors: Option<NonZeroU32>,
    /// Gateway failures in a row, at least: not looked at.
    pub consecutive_gateway: Option<NonZeroU32>,
    /// Failures of local origin in a row, at least: 3.
    pub consecutive_local_origin: Option<NonZeroU32>,
    /// By how many percentage points a host must fail more than the others: 5; `None` compares no rates.
    pub success_rate_margin: Option<Percent>,
    /// The share of failures that is too much in any case: 90 %.
    pub failure_percentage: Option<Percent>,
    /// How many times the median latency is too slow: 3, at least 1.1; `None` compares no latencies.
    pub latency_ratio: Option<f64>,
    /// How an ejected host comes back.
    pub recovery: Recovery,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            max_ejection: Percent::new(50),
            request_volume: 10,
            significance: 1e-4,
            consecutive_errors: NonZeroU32::new(5),
            consecutive_gateway: None,
            consecutive_local_origin: NonZeroU32::new(3),
            success_rate_margin: Some(Percent::new(5)),
            failure_percentage: Some(Percent::new(90)),
            latency_ratio: Some(3.0),
            recovery: Recovery::default(),
        }
    }
}

impl Config {
    /// For one host of `hosts`; not a number counts as the least.
    pub(super) fn significance(&self, hosts: usize) -> f64 {
        sane(self.significance, 1e-12, 0.01) / hosts.max(1) as f64
    }
}
