//! Whose error rate is out of line.

use super::binomial::ln_tail;
use super::order::median_and_deviation;
use super::streak::Service;
use crate::outlier::{Counts, Host};

/// Robust deviations above the median that are still in line.
const DEVIATIONS: f64 = 3.0;
/// Hosts that it takes for their deviation to mean anything.
const ENOUGH_FOR_DEVIATION: usize = 8;
/// Below so many standard deviations no tail is as thin as the significance may be.
const PLAIN: f64 = 2.5;
/// Steps until nobody moves: two or three as a rule.
const MOST_STEPS: usize = 8;

/// The errors of one host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) host: Host,
    errors: u64,
    calls: u64,
    /// The share of calls that failed.
    pub(super) rate: f64,
    is_aside: bool,
}

impl Sample {
    /// There must be calls.
    pub(super) fn new(host: Host, counts: Counts) -> Self {
        Self {
            host,
            errors: u64::from(counts.errors()),
            calls: u64::from(counts.total),
            rate: f64::from(counts.errors()) / f64::from(counts.total.max(1)),
            is_aside: false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Rates {
    samples: Vec<Sample>,
    scratch: Vec<f64>,
}

/// The hosts in order, taken together.
#[derive(Debug, Clone, Copy, Default)]
struct Pool {
    errors: u64,
    calls: u64,
    /// The rate up to which a host is within the deviation of the others.
    usual: f64,
}

impl Pool {
    fn without(self, sample: &Sample) -> Self {
        if sample.is_aside {
            return self;
        }
        Self {
            errors: self.errors.saturating_sub(sample.errors),
            calls: self.calls.saturating_sub(sample.calls),
            ..self
        }
    }

    fn is_in_line(&self, sample: &Sample, margin: f64, ln_significance: f64) -> bool {
        let others = self.without(sample);
        if others.calls == 0 || sample.rate <= self.usual {
            return true;
        }
        let rate = others.errors as f64 / others.calls as f64;
        if sample.rate <= rate + margin || is_plain(sample, others) {
            return true;
        }
        ln_tail(sample.errors, sample.calls, others.errors, others.calls) >= ln_significance
    }
}

/// Spares the exact tail: for a rate of at most one half, the binomial tail `PLAIN` deviations up or less is no
/// thinner than the normal one, which is 0.6 % (Slud, "Distribution Inequalities for the Binomial Law", 1977),
/// and that of an estimated rate is thicker.
fn is_plain(sample: &Sample, others: Pool) -> bool {
    let (errors, calls) = (sample.errors as f64, sample.calls as f64);
    let rate = others.errors as f64 / others.calls as f64;
    let excess = errors - calls * rate;
    rate <= 0.5
        && errors <= calls * (1.0 - rate)
        && excess * excess <= PLAIN * PLAIN * calls * rate * (1.0 - rate)
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
        let better = self.samples.len().checked_sub(1)? / 2;
        let by_rate = |a: &Sample, b: &Sample| a.rate.total_cmp(&b.rate);
        self.samples.select_nth_unstable_by(better, by_rate);
        for worse in self.samples.iter_mut().skip(better + 1) {
            worse.is_aside = true;
        }
        for _ in 0..MOST_STEPS {
            if !self.step(margin, significance.ln()) {
                break;
            }
        }
        if self.outliers().count() * 2 > self.samples.len() {
            self.samples.iter_mut().for_each(|it| it.is_aside = false);
        }
        let pool = self.pool();
        Some(Service {
            rate: pool.errors as f64 / pool.calls.max(1) as f64,
            calls_per_host: pool.calls as f64 / self.in_order().count().max(1) as f64,
        })
    }

    pub(super) fn outliers(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|it| it.is_aside)
    }

    fn in_order(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|it| !it.is_aside)
    }

    fn pool(&self) -> Pool {
        let mut pool = Pool::default();
        for sample in self.in_order() {
            pool.errors += sample.errors;
            pool.calls += sample.calls;
        }
        pool
    }

    /// Whether anybody moved.
    fn step(&mut self, margin: f64, ln_significance: f64) -> bool {
        let mut pool = self.pool();
        let is_in_line = |pool: &Pool, it: &Sample| pool.is_in_line(it, margin, ln_significance);
        // The deviation costs two selections, and nobody asks for it while all are in line without it.
        if self.samples.iter().any(|it| !is_in_line(&pool, it)) {
            pool.usual = self.usual();
        }
        let mut moved = false;
        for sample in &mut self.samples {
            let is_aside = !is_in_line(&pool, sample);
            moved |= sample.is_aside != is_aside;
            sample.is_aside = is_aside;
        }
        moved
    }

    fn usual(&mut self) -> f64 {
        let mut rates = std::mem::take(&mut self.scratch);
        rates.clear();
        rates.extend(self.in_order().map(|it| it.rate));
        let found = (rates.len() >= ENOUGH_FOR_DEVIATION)
            .then(|| median_and_deviation(&mut rates))
            .flatten();
        self.scratch = rates;
        found.map_or(0.0, |(center, deviation)| center + DEVIATIONS * deviation)
    }
}
