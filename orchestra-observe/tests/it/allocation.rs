//! Recording allocates nothing once the series exists.

use orchestra_observe::{Buckets, Masker, Registry};
use orchestra_testkit::allocations;

#[test]
fn a_record_allocates_nothing() {
    let registry = Registry::new();
    let counter = registry.counter("calls", "Calls.").unwrap();
    let gauge = registry.gauge("level", "Level.").unwrap();
    let histogram = registry
        .histogram("time_seconds", "Time.", &Buckets::seconds())
        .unwrap();
    let family = registry
        .counters("by_peer", "Calls.", ["peer", "status"])
        .unwrap();
    family.with(["payments", "200"]);
    let count = allocations(|| {
        counter.inc();
        gauge.add(1.5);
        histogram.observe(0.03);
        family.with(["payments", "200"]).inc();
    });
    assert_eq!(count, 0);
    assert_eq!(family.with(["payments", "200"]).value(), 1);
}

#[test]
fn a_clean_text_is_masked_without_allocation() {
    let masker = Masker::new();
    let text = "GET /orders: status=200, retries=0, took 12 ms";
    assert_eq!(
        allocations(|| assert_eq!(masker.mask(text).as_str(), text)),
        0
    );
}
