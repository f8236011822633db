//! Weights from the load that servers report of themselves.
//!
//! A server says with its answers how busy it is and how much it gets done ([`LoadReport`], ORCA). Its weight
//! is what it would get done if it were fully used, less a penalty for errors:
//!
//! ```text
//! weight = rps / (utilization + eps / rps * error penalty)
//! ```
//!
//! with the utilization of the application if it reports one, else the greatest of some named metrics, else
//! that of the CPU. This is gRPC's client-side weighted round robin (proposals A58 and A114). Its caution is
//! the same: a server that began to report only now keeps the mean weight of the others for a while, as does
//! one whose last report is old; and with fewer than two servers that report, all are equal.

mod report;

pub use report::{LoadReport, MAX_NAMED_METRICS, MAX_REPORT};

use std::str::FromStr;
use std::time::Duration;

use orchestra_core::Monotonic;

use crate::error::{Error, ErrorKind, Result};

/// Weights are not computed more often than this.
const SHORTEST_UPDATE: Duration = Duration::from_millis(100);
/// What the greatest weight is scaled to, and so the largest ratio of two weights.
const GREATEST: f64 = 65_535.0;

/// A metric that can tell how used a server is.
///
/// ```
/// use orchestra_discovery::reported::Metric;
///
/// let queue: Metric = "named_metrics.queue".parse()?;
/// assert_eq!(queue, Metric::Named("queue".into()));
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Metric {
    /// `application_utilization`
    Application,
    /// `cpu_utilization`
    Cpu,
    /// `mem_utilization`
    Memory,
    /// `named_metrics.` and this name.
    Named(Box<str>),
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "application_utilization" => Ok(Self::Application),
            "cpu_utilization" => Ok(Self::Cpu),
            "mem_utilization" => Ok(Self::Memory),
            _ => match text.strip_prefix("named_metrics.") {
                Some(name) if !name.is_empty() => Ok(Self::Named(name.into())),
                _ => {
                    let text: String = text.chars().take(64).collect();
                    let message = format!("metric {text:?} cannot tell the utilization");
                    Err(Error::new(ErrorKind::Invalid, message))
                }
            },
        }
    }
}

/// How reports become weights.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::reported::{Config, Metric};
///
/// let mut config = Config::default();
/// config.utilization = vec!["named_metrics.queue".parse::<Metric>()?];
/// config.blackout = Duration::from_secs(30);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Where no application utilization is reported, the greatest of these is taken.
    pub utilization: Vec<Metric>,
    /// What an error per call adds to the utilization; negative or no number counts as 0.
    pub error_penalty: f64,
    /// How long a server has to have reported before its weight is used.
    pub blackout: Duration,
    /// How long after its last report its weight is no longer used.
    pub expiration: Duration,
    /// How often weights are computed; below 100 ms counts as 100 ms.
    pub update: Duration,
}

impl Default for Config {
    /// Error penalty 1, blackout 10 s, expiration 3 min, update every second, no further metrics.
    fn default() -> Self {
        Self {
            utilization: Vec::new(),
            error_penalty: 1.0,
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            update: Duration::from_secs(1),
        }
    }
}

impl Config {
    /// The weight by this report; `None` if it does not tell the rate of calls and a utilization.
    pub fn weight(&self, report: &LoadReport) -> Option<f64> {
        let rps = positive(report.rps_fractional)?;
        let utilization = self.utilization(report)?;
        let errors = positive(report.eps).unwrap_or(0.0);
        let penalty = positive(self.error_penalty).unwrap_or(0.0);
        // The greatest weight is as good as any other beyond it, and sums stay finite.
        positive((rps / (utilization + errors / rps * penalty)).min(f64::from(u32::MAX)))
    }

    /// The utilization by this report: a positive finite number; `None` if it tells none.
    pub fn utilization(&self, report: &LoadReport) -> Option<f64> {
        let value = |metric: &Metric| match metric {
            Metric::Application => Some(report.application_utilization),
            Metric::Cpu => Some(report.cpu_utilization),
            Metric::Memory => Some(report.mem_utilization),
            Metric::Named(name) => report.named_metrics.get(&**name).copied(),
        };
        let named = self.utilization.iter().filter_map(value);
        positive(report.application_utilization)
            .or_else(|| named.filter_map(positive).reduce(f64::max))
            .or_else(|| positive(report.cpu_utilization))
    }

    /// When weights that were computed at `last` are computed again.
    pub fn next_update(&self, last: Monotonic) -> Monotonic {
        last + self.update.max(SHORTEST_UPDATE)
    }
}

fn positive(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then_some(value)
}

/// The weight that one server reported, and since when it does.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::reported::{Config, LoadReport, ReportedWeight};
///
/// let (config, at) = (Config::default(), |s| Monotonic::ZERO + Duration::from_secs(s));
/// let report = LoadReport::parse("TEXT rps_fractional=1000, application_utilization=0.5")?;
/// let mut weight = ReportedWeight::default();
/// weight.on_report(&config, &report, at(0));
/// assert_eq!(weight.get(&config, at(9)), None);
/// assert_eq!(weight.get(&config, at(10)), Some(2_000.0));
/// assert_eq!(weight.get(&config, at(180)), None);
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReportedWeight {
    latest: Option<Latest>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Latest {
    weight: f64,
    at: Monotonic,
    since: Monotonic,
}

impl ReportedWeight {
    /// Takes a report. One that tells no weight is as none.
    pub fn on_report(&mut self, config: &Config, report: &LoadReport, now: Monotonic) {
        let Some(weight) = config.weight(report) else {
            return;
        };
        // After a silence as long as the expiration the blackout begins anew.
        let going_on = self.latest.filter(|latest| !latest.is_old(config, now));
        let since = going_on.map_or(now, |latest| latest.since);
        self.latest = Some(Latest {
            weight,
            at: now,
            since,
        });
    }

    /// Its connection is new: what was reported before does not count.
    pub fn on_connect(&mut self) {
        self.latest = None;
    }

    /// The weight, if it may be used now.
    pub fn get(&self, config: &Config, now: Monotonic) -> Option<f64> {
        let usable = |latest: &Latest| {
            !latest.is_old(config, now) && now.since(latest.since) >= config.blackout
        };
        self.latest.filter(usable).map(|latest| latest.weight)
    }
}

impl Latest {
    fn is_old(&self, config: &Config, now: Monotonic) -> bool {
        now.since(self.at) >= config.expiration
    }
}

/// Fills `weights` with an integer weight for each server, from what those that report have reported.
///
/// The greatest becomes 65,535, none becomes zero, and a server without a weight of its own gets the mean of
/// the others. With fewer than two that have one all get 1. What is not a positive finite number counts as no
/// weight. It allocates only if `weights` has to grow.
///
/// ```
/// use orchestra_discovery::reported::relative;
///
/// let mut weights = Vec::new();
/// relative(&[Some(2_000.0), None, Some(1_000.0)], &mut weights);
/// assert_eq!(weights, [65_535, 49_151, 32_768]);
/// relative(&[Some(2_000.0), None], &mut weights);
/// assert_eq!(weights, [1, 1]);
/// ```
pub fn relative(reported: &[Option<f64>], weights: &mut Vec<u32>) {
    let known = || reported.iter().filter_map(|weight| positive((*weight)?));
    let count = known().count();
    weights.clear();
    if count < 2 {
        weights.resize(reported.len(), 1);
        return;
    }
    let greatest = known().fold(0.0, f64::max);
    // Each part is at most one, so the sum is finite.
    let mean = known().map(|weight| weight / greatest).sum::<f64>() / count as f64;
    weights.extend(reported.iter().map(|weight| {
        let part = weight.and_then(positive).map(|weight| weight / greatest);
        scale(part.unwrap_or(mean))
    }));
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of 0..=1 of a u16 is a u32"
)]
fn scale(part: f64) -> u32 {
    (part * GREATEST).round().max(1.0) as u32
}

#[cfg(test)]
mod tests;
