//! Who is slow.

use std::time::Duration;

use super::order::{median, median_and_deviation};
use super::sane;
use crate::outlier::{Host, Reason};

/// Deviations above the median that are still in line.
const DEVIATIONS: f64 = 5.0;
/// With fewer hosts there is no majority to compare with.
const FEWEST_HOSTS: usize = 3;
const LEAST_RATIO: f64 = 1.1;
/// Deviations within which a host is a measure of the others.
const INNER_DEVIATIONS: f64 = 3.0;
/// Steps until the measure is settled: two as a rule.
const MOST_STEPS: usize = 4;

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

/// The ratio within what can be told from none and what can be computed with.
pub(super) fn sane_ratio(ratio: f64) -> f64 {
    sane(ratio, LEAST_RATIO, 1e6)
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
        let Some(typical) = self.typical(ratio.ln()) else {
            return Vec::new();
        };
        let slow = self.samples.iter().filter_map(|it| typical.judge(it));
        slow.collect()
    }

    /// What those are like that are not slow; `None` if none is.
    fn typical(&mut self, ln_ratio: f64) -> Option<Typical> {
        let all = f64::INFINITY;
        let mut typical = Typical {
            center: self.reduce(all, |it| it.log, median)?,
            nature: 0.0,
            per_call: 1.0,
            ln_ratio,
        };
        let mut limit = all;
        for _ in 0..MOST_STEPS {
            let center = typical.center;
            if self.samples.iter().all(|it| it.log - center < ln_ratio) {
                return None;
            }
            let per_call = |it: &Sample| (it.log - center) * it.certainty;
            typical.nature = self.reduce(limit, |it| it.log, deviation)?;
            typical.per_call = self.reduce(limit, per_call, deviation)?.max(1.0);
            // The slow ones have moved the median and the deviation, if not far: without them once more.
            let next = center + ln_ratio.max(INNER_DEVIATIONS * typical.nature);
            if next >= limit {
                break;
            }
            limit = next;
            typical.center = self.reduce(limit, |it| it.log, median)?;
        }
        Some(typical)
    }

    /// A statistic of those up to a limit.
    fn reduce(
        &mut self,
        limit: f64,
        value: impl Fn(&Sample) -> f64,
        reduction: impl Fn(&mut [f64]) -> Option<f64>,
    ) -> Option<f64> {
        let judged = self.samples.iter().filter(|it| it.log <= limit);
        self.scratch.clear();
        self.scratch.extend(judged.map(value));
        reduction(&mut self.scratch)
    }
}

/// What hosts are like that are not slow, on the log scale.
#[derive(Debug)]
struct Typical {
    center: f64,
    /// How much hosts differ: by nature, which more calls do not change.
    nature: f64,
    /// How much one call differs from another, which more calls even out. Service times are taken to vary
    /// as much as exponential ones at least.
    per_call: f64,
    ln_ratio: f64,
}

impl Typical {
    fn judge(&self, sample: &Sample) -> Option<Slow> {
        let deviation = self.nature.max(self.per_call / sample.certainty);
        let threshold = self.ln_ratio.max(DEVIATIONS * deviation);
        let above = sample.log - self.center;
        let typical = Duration::from_secs_f64(self.center.exp().min(1e9));
        (above >= threshold).then(|| Slow {
            host: sample.host,
            reason: Reason::Latency {
                mean: sample.mean,
                typical,
                threshold: scale(typical, threshold.exp()),
            },
            times: above.exp(),
        })
    }
}

fn deviation(values: &mut [f64]) -> Option<f64> {
    median_and_deviation(values).map(|(_, deviation)| deviation)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Latencies;
    use crate::outlier::Host;

    /// If means of a thousand calls differ by a tenth, calls differ so much that a mean of ten tells little.
    #[test]
    fn mean_of_few_calls_is_trusted_less() {
        for (calls, found) in [(1000, 1), (10, 0)] {
            let others = (1..10).map(|host| {
                let mean = Duration::from_millis(88 + 4 * u64::from(host));
                (Host::new(host), mean, 1000)
            });
            let slow = (Host::new(0), Duration::from_secs(1), calls);
            let mut latencies = Latencies::default();
            latencies.fill(std::iter::once(slow).chain(others));
            assert_eq!(latencies.slow(3.0).len(), found, "{calls} calls");
        }
    }
}
