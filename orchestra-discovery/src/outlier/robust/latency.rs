//! Who is slow.

use std::time::Duration;

use super::order::{median, median_and_deviation};
use crate::outlier::{Host, Reason};

/// Deviations above the median that are still in line.
const DEVIATIONS: f64 = 5.0;
/// With fewer hosts there is no majority to compare with.
const FEWEST_HOSTS: usize = 3;
const LEAST_RATIO: f64 = 1.1;

#[derive(Debug, Clone, Copy)]
struct Sample {
    host: Host,
    mean: Duration,
    log: f64,
    /// The square root of the number of calls: a mean is so many times more certain than one call.
    certainty: f64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Slow {
    pub(super) host: Host,
    pub(super) reason: Reason,
    /// How many times slower than the median.
    pub(super) times: f64,
}

#[derive(Debug, Default)]
pub(super) struct Latencies {
    samples: Vec<Sample>,
    scratch: Vec<f64>,
}

/// The ratio, if it is one, or the least that can be told from none.
pub(super) fn sane_ratio(ratio: f64) -> f64 {
    ratio.max(LEAST_RATIO).min(1e6)
}

/// A latency so many times as long.
pub(super) fn scale(latency: Duration, times: f64) -> Duration {
    Duration::try_from_secs_f64(latency.as_secs_f64() * times).unwrap_or(Duration::MAX)
}

impl Latencies {
    /// Takes the mean latency of so many successes of each host.
    pub(super) fn fill(&mut self, hosts: impl Iterator<Item = (Host, Duration, u32)>) {
        self.samples.clear();
        self.samples.extend(hosts.map(|(host, mean, calls)| Sample {
            host,
            mean,
            // A nanosecond, the least that a clock can tell, stands for none.
            log: mean.as_secs_f64().max(1e-9).ln(),
            certainty: f64::from(calls.max(1)).sqrt(),
        }));
    }

    /// Those that are out of line, by host.
    pub(super) fn slow(&mut self, ratio: f64) -> Vec<Slow> {
        if self.samples.len() < FEWEST_HOSTS {
            return Vec::new();
        }
        let Some(center) = self.reduce(|it| it.log, median) else {
            return Vec::new();
        };
        if self.samples.iter().all(|it| it.log - center < ratio.ln()) {
            return Vec::new();
        }
        // Hosts may differ by nature, which more calls do not change, and by chance, which they do.
        let nature = self.reduce(|it| it.log, deviation).unwrap_or(0.0);
        let per_call = self.reduce(|it| (it.log - center) * it.certainty, deviation);
        // Service times are taken to vary as much as exponential ones at least.
        let per_call = per_call.unwrap_or(0.0).max(1.0);
        let typical = Duration::from_secs_f64(center.exp().min(1e9));
        let slow = self.samples.iter().filter_map(|it| {
            let deviation = nature.max(per_call / it.certainty);
            let threshold = ratio.ln().max(DEVIATIONS * deviation);
            let above = it.log - center;
            (above >= threshold).then(|| Slow {
                host: it.host,
                reason: Reason::Latency {
                    mean: it.mean,
                    typical,
                    threshold: scale(typical, threshold.exp()),
                },
                times: above.exp(),
            })
        });
        slow.collect()
    }

    fn reduce(
        &mut self,
        value: impl Fn(&Sample) -> f64,
        reduction: impl Fn(&mut [f64]) -> Option<f64>,
    ) -> Option<f64> {
        self.scratch.clear();
        self.scratch.extend(self.samples.iter().map(value));
        reduction(&mut self.scratch)
    }
}

fn deviation(values: &mut [f64]) -> Option<f64> {
    median_and_deviation(values).map(|(_, deviation)| deviation)
}
