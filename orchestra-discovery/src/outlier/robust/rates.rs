//! Whose error rate is out of line.

use std::ops::RangeInclusive;

use super::binomial::ln_tail;
use super::order::{median, median_and_deviation};
use super::streak::Service;
use crate::outlier::{Counts, Host};

/// Robust deviations from the median that are still in line.
const DEVIATIONS: f64 = 3.0;
/// Hosts that it takes for their deviation to mean anything.
const ENOUGH_FOR_DEVIATION: usize = 8;
/// Within so many standard deviations no tail is as thin as the significance may be.
const PLAIN: f64 = 2.5;
/// Steps until nobody moves: two or three as a rule.
const MOST_STEPS: usize = 8;

/// Errors among calls; whole numbers, which an `f64` holds exactly for 285 years of a call per microsecond.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    errors: f64,
    calls: f64,
}

impl Tally {
    fn rate(self) -> f64 {
        self.errors / self.calls.max(1.0)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            errors: self.errors + other.errors,
            calls: self.calls + other.calls,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            errors: self.errors - other.errors,
            calls: self.calls - other.calls,
        }
    }

    /// With errors for successes.
    fn mirrored(self) -> Self {
        Self {
            errors: self.calls - self.errors,
            ..self
        }
    }

    /// Spares the exact tail: for a rate of at most one half, the binomial tail `PLAIN` deviations up or less
    /// is no thinner than the normal one, which is 0.6 % (Slud, "Distribution Inequalities for the Binomial
    /// Law", 1977), and that of an estimated rate is thicker. Downwards it can be thinner, but there a doubt
    /// does no harm.
    fn is_plain(self, others: Self) -> bool {
        let rate = others.rate();
        let excess = self.errors - self.calls * rate;
        rate <= 0.5
            && self.errors <= self.calls * (1.0 - rate)
            && excess * excess <= PLAIN * PLAIN * self.calls * rate * (1.0 - rate)
    }
}

/// Where a host stands to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    InLine,
    /// Out of line, as an outlier.
    Worse,
    /// Out of line: no fault, but no measure of the others either.
    Better,
}

/// The calls of one host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) host: Host,
    /// The share of calls that failed.
    pub(super) rate: f64,
    tally: Tally,
    place: Place,
    /// Where it stood a step ago.
    before: Place,
}

impl Sample {
    pub(super) fn new(host: Host, counts: Counts) -> Self {
        let tally = Tally {
            errors: f64::from(counts.errors()),
            calls: f64::from(counts.total),
        };
        Self {
            host,
            rate: tally.rate(),
            tally,
            place: Place::InLine,
            before: Place::InLine,
        }
    }
}

/// What a host is compared with, and how.
#[derive(Debug)]
struct Line {
    pool: Tally,
    margin: f64,
    ln_significance: f64,
}

impl Line {
    fn place(&self, sample: &Sample) -> Place {
        // Nobody vouches for himself.
        let others = match sample.place {
            Place::InLine => self.pool.minus(sample.tally),
            Place::Worse | Place::Better => self.pool,
        };
        // How far above, times the others' calls: most hosts are done with without a division.
        let above = sample.rate * others.calls - others.errors;
        let is_near = above.abs() <= self.margin * others.calls;
        if is_near || sample.tally.is_plain(others) {
            return Place::InLine;
        }
        // What is rare for errors on the one side is as rare for successes on the other.
        let (place, tally, others) = if above > 0.0 {
            (Place::Worse, sample.tally, others)
        } else {
            (Place::Better, sample.tally.mirrored(), others.mirrored())
        };
        let tail = ln_tail(tally.errors, tally.calls, others.errors, others.calls);
        if tail < self.ln_significance {
            place
        } else {
            Place::InLine
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Rates {
    samples: Vec<Sample>,
    scratch: Vec<f64>,
}

impl Rates {
    pub(super) fn fill(&mut self, samples: impl Iterator<Item = Sample>) {
        self.samples.clear();
        self.samples.extend(samples);
    }

    pub(super) fn hosts(&self) -> usize {
        self.samples.len()
    }

    /// Parts the outliers from the others, and says what the others are like; `None` if there is nobody.
    pub(super) fn settle(&mut self, margin: f64, significance: f64) -> Option<Service> {
        self.start()?;
        let mut line = Line {
            pool: Tally::default(),
            margin,
            ln_significance: significance.ln(),
        };
        for _ in 0..MOST_STEPS {
            if !self.step(&mut line) {
                break;
            }
        }
        if self.outliers().count() * 2 > self.samples.len() {
            self.samples
                .iter_mut()
                .for_each(|it| it.place = Place::InLine);
        }
        let pool = self.pool();
        Some(Service {
            rate: pool.rate(),
            calls_per_host: pool.calls / self.in_line().count().max(1) as f64,
        })
    }

    pub(super) fn outliers(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|it| it.place == Place::Worse)
    }

    fn in_line(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|it| it.place == Place::InLine)
    }

    fn pool(&self) -> Tally {
        self.in_line()
            .fold(Tally::default(), |pool, it| pool.plus(it.tally))
    }

    /// Takes the half that is nearest to the median for those in line.
    fn start(&mut self) -> Option<()> {
        self.scratch.clear();
        self.scratch.extend(self.samples.iter().map(|it| it.rate));
        let center = median(&mut self.scratch)?;
        for rate in &mut self.scratch {
            *rate = (*rate - center).abs();
        }
        let near = median(&mut self.scratch)?;
        for sample in &mut self.samples {
            // On which side the others are out of line, if they are, the first step says.
            sample.place = if (sample.rate - center).abs() <= near {
                Place::InLine
            } else {
                Place::Worse
            };
        }
        Some(())
    }

    /// Whether anybody moved.
    fn step(&mut self, line: &mut Line) -> bool {
        line.pool = self.pool();
        let mut are_in_line = true;
        for sample in &mut self.samples {
            sample.before = sample.place;
            sample.place = line.place(sample);
            are_in_line &= sample.place == Place::InLine;
        }
        // The deviation costs two selections, and nobody asks for it while all are in line without it.
        let usual = if are_in_line { None } else { self.usual() };
        if let Some(usual) = usual {
            for sample in &mut self.samples {
                if usual.contains(&sample.rate) {
                    sample.place = Place::InLine;
                }
            }
        }
        self.samples.iter().any(|it| it.place != it.before)
    }

    /// The rates within the deviation of those that were in line; `None` if that means nothing.
    fn usual(&mut self) -> Option<RangeInclusive<f64>> {
        let mut rates = std::mem::take(&mut self.scratch);
        rates.clear();
        let were_in_line = self.samples.iter().filter(|it| it.before == Place::InLine);
        rates.extend(were_in_line.map(|it| it.rate));
        let found = (rates.len() >= ENOUGH_FOR_DEVIATION)
            .then(|| median_and_deviation(&mut rates))
            .flatten();
        self.scratch = rates;
        let (center, deviation) = found?;
        let reach = DEVIATIONS * deviation;
        Some(center - reach..=center + reach)
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Place, Rates, Sample, Tally};
    use crate::outlier::{Counts, Host};

    #[test]
    fn nobody_vouches_for_himself() {
        let line = Line {
            pool: Tally {
                errors: 50.0,
                calls: 200.0,
            },
            margin: 0.05,
            ln_significance: -18.0,
        };
        let mut sample = Sample::new(Host::new(0), Counts::new(50, 100));
        // Its 50 errors are all there are.
        assert_eq!(line.place(&sample), Place::Worse);
        // Were they those of others, so many would be no surprise.
        sample.place = Place::Worse;
        assert_eq!(line.place(&sample), Place::InLine);
    }

    #[test]
    fn busy_hosts_in_order_do_not_make_outliers_of_the_majority() {
        let busy = [(1_000_000, 1_000_000), (960_000, 1_000_000)];
        let counts = busy
            .into_iter()
            .chain([(70, 100), (55, 100), (40, 100), (30, 100)]);
        let hosts = (0..).map(Host::new).zip(counts);
        let mut rates = Rates::default();
        rates.fill(
            hosts.map(|(host, (success, total))| Sample::new(host, Counts::new(success, total))),
        );
        assert!(rates.settle(0.05, 1e-6).is_some());
        assert_eq!(rates.outliers().count(), 0);
    }
}
