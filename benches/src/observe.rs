//! Recording into metrics that exist.

use std::hint::black_box;

use orchestra_observe::{Buckets, Counter, Family, Histogram, Registry};

use crate::measure::{Session, alone};

/// One metric of each kind.
#[derive(Debug)]
pub struct Metrics {
    pub counter: Counter,
    pub family: Family<Counter, 2>,
    pub histogram: Histogram,
}

impl Metrics {
    /// Metrics in a registry of their own; the histogram has 14 buckets.
    pub fn new() -> Result<Self, orchestra_observe::Error> {
        let registry = Registry::new();
        let labels = ["method", "status"];
        Ok(Self {
            counter: registry.counter("orders_total", "Orders.")?,
            family: registry.counters("requests_total", "Requests.", labels)?,
            histogram: registry.histogram("seconds", "Time.", &Buckets::seconds())?,
        })
    }

    /// Counts by a handle.
    pub fn count(&self) {
        self.counter.inc();
    }

    /// Looks up the handle of two label values and counts.
    pub fn count_labelled(&self) {
        self.family.with(black_box(["GET", "200"])).inc();
    }

    /// Draws values over all buckets.
    pub fn observe(&self, value: &mut f64) {
        self.histogram.observe(next(value));
    }
}

/// Values from a millisecond to 16 seconds in turn: each is twice the one before.
fn next(value: &mut f64) -> f64 {
    *value = if *value > 10.0 { 0.001 } else { *value * 2.0 };
    *value
}

/// By one thread, and by two on the same metric.
pub fn figures(session: &Session) {
    let metrics = Metrics::new().expect("valid metrics");
    let observer = || {
        let mut value = 0.001;
        let metrics = &metrics;
        move || metrics.observe(&mut value)
    };
    session.time("observe_counter", alone(|| metrics.count()));
    session.time_of_two("observe_counter_2_threads", || || metrics.count());
    session.time("observe_family", alone(|| metrics.count_labelled()));
    session.time_of_two("observe_family_2_threads", || || metrics.count_labelled());
    session.time("observe_histogram", alone(observer()));
    session.time_of_two("observe_histogram_2_threads", observer);
}
