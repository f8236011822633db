//! prometheus-client's metrics, of the same shapes as ours.

#[allow(dead_code, reason = "a rival needs a part of it")]
#[path = "../../../src/measure.rs"]
mod measure;

use std::hint::black_box;

use measure::{Session, alone};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// The labels as most users have them; ours take borrowed text, which is part of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: String,
    status: String,
}

fn count_labelled(family: &Family<Labels, Counter>) {
    let [method, status] = black_box(["GET", "200"]).map(str::to_owned);
    family.get_or_create(&Labels { method, status }).inc();
}

/// Values from a millisecond to 16 seconds in turn: each is twice the one before.
fn next(value: &mut f64) -> f64 {
    *value = if *value > 10.0 { 0.001 } else { *value * 2.0 };
    *value
}

fn main() {
    let counter: Counter = Counter::default();
    let family = Family::default();
    let histogram = Histogram::new([
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ]);
    let counting = || {
        counter.inc();
    };
    let observer = || {
        let mut value = 0.001;
        let histogram = &histogram;
        move || histogram.observe(next(&mut value))
    };
    let session = Session::of("prometheus-client");
    session.time("observe_counter", alone(counting));
    session.time_of_two("observe_counter_2_threads", || counting);
    session.time("observe_family", alone(|| count_labelled(&family)));
    session.time_of_two("observe_family_2_threads", || || count_labelled(&family));
    session.time("observe_histogram", alone(observer()));
    session.time_of_two("observe_histogram_2_threads", observer);
}
