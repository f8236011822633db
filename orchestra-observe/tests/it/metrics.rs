//! Counters, gauges, histograms, families and the registry.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use orchestra_core::Listener;
use orchestra_observe::label::OVERFLOW;
use orchestra_observe::{Buckets, ErrorKind, Event, Registry, Value};
use parking_lot::Mutex;
use proptest::prelude::*;

fn with_limit(limit: usize) -> Registry {
    let limit = NonZeroUsize::new(limit).unwrap();
    Registry::builder().series_limit(limit).build()
}

fn total(registry: &Registry, name: &str) -> u64 {
    let snapshot = registry.snapshot();
    let series = &snapshot.family(name).unwrap().series;
    let counts = series.iter().map(|series| match series.value {
        Value::Counter(count) | Value::Histogram { count, .. } => count,
        _ => panic!("not a count: {series:?}"),
    });
    counts.sum()
}

#[test]
fn no_record_is_lost_under_threads() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 20_000;
    let registry = Registry::new();
    let buckets = Buckets::new([1.0, 2.0]).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (registry, buckets) = (&registry, &buckets);
            scope.spawn(move || {
                let counter = registry.counter("calls", "Calls.").unwrap();
                let gauge = registry.gauge("level", "Level.").unwrap();
                let histogram = registry.histogram("size", "Sizes.", buckets).unwrap();
                for round in 0..ROUNDS {
                    counter.inc();
                    gauge.add(if round % 2 == 0 { 2.0 } else { -1.0 });
                    histogram.observe(thread as f64);
                }
            });
        }
    });
    let calls = registry.counter("calls", "Calls.").unwrap();
    let level = registry.gauge("level", "Level.").unwrap();
    let size = registry.histogram("size", "Sizes.", &buckets).unwrap();
    assert_eq!(calls.value(), THREADS * ROUNDS);
    assert!((level.value() - (THREADS * ROUNDS / 2) as f64).abs() < f64::EPSILON);
    assert_eq!(size.count(), THREADS * ROUNDS);
    assert!((size.sum() - (6 * ROUNDS) as f64).abs() < f64::EPSILON);
}

#[test]
fn families_lose_and_double_nothing_while_label_sets_race_for_the_last_places() {
    let registry = with_limit(8);
    thread::scope(|scope| {
        for thread in 0..4 {
            let registry = &registry;
            scope.spawn(move || {
                let family = registry.counters("calls", "Calls.", ["peer"]).unwrap();
                for round in 0..5_000_u32 {
                    let peer = ((round * 7 + thread) % 23).to_string();
                    family.with([&peer]).inc();
                }
            });
        }
    });
    assert_eq!(total(&registry, "calls"), 20_000);
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.family("calls").unwrap().series.len(), 9);
}

#[test]
fn label_sets_beyond_the_limit_share_the_overflow_series() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&heard);
    let listener = move |event: &Event| events.lock().push(event.clone());
    let listener: Arc<dyn Listener<Event>> = Arc::new(listener);
    let limit = NonZeroUsize::new(2).unwrap();
    let registry = Registry::builder()
        .series_limit(limit)
        .listener(listener)
        .build();
    let family = registry
        .counters("calls_total", "Calls.", ["peer"])
        .unwrap();
    for peer in ["a", "b", "c", "d", "a", OVERFLOW] {
        family.with([peer]).inc();
    }
    let snapshot = registry.snapshot();
    let value = |peer| snapshot.value("calls_total", &[("peer", peer)]);
    assert_eq!(value("a"), Some(&Value::Counter(2)));
    assert_eq!(value("b"), Some(&Value::Counter(1)));
    assert_eq!(value(OVERFLOW), Some(&Value::Counter(3)));
    assert_eq!(value("c"), None);
    let own = snapshot.value("orchestra_observe_overflowed_total", &[("metric", "calls")]);
    assert_eq!(own, Some(&Value::Counter(2)));
    let event = Event::SeriesOverflowed {
        metric: Arc::from("calls"),
        limit: 2,
    };
    assert_eq!(*heard.lock(), [event]);
}

#[test]
fn the_overflow_series_is_one_even_for_who_asks_for_it_by_name() {
    let registry = with_limit(1);
    let family = registry.counters("calls", "Calls.", ["peer"]).unwrap();
    for peer in [OVERFLOW, "a", "b", OVERFLOW] {
        family.with([peer]).inc();
    }
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.family("calls").unwrap().series.len(), 2);
    let overflow = snapshot.value("calls", &[("peer", OVERFLOW)]);
    assert_eq!(overflow, Some(&Value::Counter(3)));
}

#[test]
fn a_removed_series_leaves_the_exposition_and_frees_its_place() {
    let registry = with_limit(1);
    let family = registry.gauges("up", "Up.", ["instance"]).unwrap();
    family.with(["a"]).set(1.0);
    assert!(family.remove(["a"]));
    assert!(!family.remove(["a"]));
    family.with(["b"]).set(1.0);
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.value("up", &[("instance", "a")]), None);
    assert_eq!(
        snapshot.value("up", &[("instance", "b")]),
        Some(&Value::Gauge(1.0))
    );
}

#[test]
fn label_values_are_masked_and_cut() {
    let registry = Registry::new();
    let family = registry.counters("logins", "Logins.", ["user"]).unwrap();
    family.with(["ada@example.org"]).inc();
    family.with(["bob@example.org"]).inc();
    family.with([&"x".repeat(2_000)]).inc();
    let snapshot = registry.snapshot();
    let value = |user| snapshot.value("logins", &[("user", user)]);
    assert_eq!(value("[masked:email]"), Some(&Value::Counter(2)));
    assert_eq!(value(&"x".repeat(512)), Some(&Value::Counter(1)));
}

#[test]
fn the_same_registration_gives_the_same_metric() {
    let registry = Registry::new();
    registry.counter("calls", "Calls.").unwrap().inc();
    assert_eq!(
        registry.counter("calls_total", "Calls.").unwrap().value(),
        1
    );
}

#[test]
fn another_registration_of_the_same_name_is_a_conflict() {
    let registry = Registry::new();
    let buckets = Buckets::new([1.0]).unwrap();
    registry
        .histograms("size", "Sizes.", ["kind"], &buckets)
        .unwrap();
    let other = Buckets::new([2.0]).unwrap();
    let conflicts = [
        registry.counter("size", "Sizes.").map(drop),
        registry.gauges("size", "Sizes.", ["kind"]).map(drop),
        registry
            .histograms("size", "Sizes.", ["sort"], &buckets)
            .map(drop),
        registry
            .histograms("size", "Sizes.", ["kind"], &other)
            .map(drop),
        registry
            .histograms("size", "Other.", ["kind"], &buckets)
            .map(drop),
    ];
    for conflict in conflicts {
        let error = conflict.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(error.subject(), "size");
    }
}

#[test]
fn names_outside_the_alphabet_or_reserved_are_refused() {
    let registry = Registry::new();
    for name in [
        "",
        "1st",
        "a-b",
        "a b",
        "ä",
        "calls_bucket",
        "calls_sum",
        "calls_count",
        "calls_created",
        "orchestra_observe_x",
        "x_total_total",
    ] {
        let error = registry.counter(name, "Help.").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}");
    }
    assert_eq!(
        registry.gauge("jobs_total", "Jobs.").unwrap_err().kind(),
        ErrorKind::InvalidName
    );
    for labels in [
        ["a", "a"],
        ["le", "a"],
        ["quantile", "a"],
        ["__x", "a"],
        ["a:b", "a"],
        ["", "a"],
    ] {
        let error = registry.counters("calls", "Calls.", labels).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidLabel, "{labels:?}");
    }
    assert!(registry.snapshot().families.is_empty());
}

#[test]
fn buckets_that_are_no_buckets_are_refused() {
    let refused: [&[f64]; 6] = [
        &[],
        &[1.0, 1.0],
        &[2.0, 1.0],
        &[-1.0, 1.0],
        &[f64::NAN],
        &[1.0, f64::INFINITY],
    ];
    for bounds in refused {
        let error = Buckets::new(bounds).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidBuckets, "{bounds:?}");
    }
    assert!(Buckets::exponential(1.0, 1.0, 3).is_err());
    assert!(Buckets::exponential(1.0, 2.0, 100_000).is_err());
}

#[test]
fn observations_that_would_spoil_the_sum_are_refused_and_counted() {
    let registry = Registry::new();
    let buckets = Buckets::new([1.0]).unwrap();
    let histogram = registry.histogram("size", "Sizes.", &buckets).unwrap();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.5] {
        histogram.observe(value);
    }
    assert_eq!((histogram.count(), histogram.rejected()), (1, 4));
    let snapshot = registry.snapshot();
    let own = snapshot.value(
        "orchestra_observe_rejected_observations_total",
        &[("metric", "size")],
    );
    assert_eq!(own, Some(&Value::Counter(4)));
}

#[cfg(feature = "serde")]
#[test]
fn a_snapshot_is_written_as_json() {
    let registry = Registry::new();
    registry
        .counters("calls", "Calls.", ["peer"])
        .unwrap()
        .with(["a"])
        .add(3);
    let json = serde_json::to_value(registry.snapshot()).unwrap();
    let family = &json["families"][0];
    assert_eq!(family["name"], "calls");
    assert_eq!(family["kind"], "counter");
    assert_eq!(family["series"][0]["labels"][0], "a");
    assert_eq!(family["series"][0]["value"]["counter"], 3);
}

#[test]
fn handles_and_registry_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Registry>();
    shared::<orchestra_observe::Histogram>();
    shared::<orchestra_observe::Tracer>();
    shared::<orchestra_observe::Span>();
    shared::<orchestra_observe::Masker>();
    shared::<orchestra_observe::Error>();
    shared::<orchestra_observe::Delivery>();
}

proptest! {
    #[test]
    fn a_histogram_agrees_with_a_count_of_each_value(
        steps in prop::collection::vec(1_u32..1000, 1..20),
        values in prop::collection::vec(0_u32..12_000, 0..200),
    ) {
        let bounds: Vec<f64> = steps
            .iter()
            .scan(0, |sum, step| { *sum += step; Some(f64::from(*sum)) })
            .collect();
        let registry = Registry::new();
        let buckets = Buckets::new(&bounds).unwrap();
        let histogram = registry.histogram("size", "Sizes.", &buckets).unwrap();
        for &value in &values {
            histogram.observe(f64::from(value));
        }
        let snapshot = registry.snapshot();
        let Some(Value::Histogram { buckets, sum, count }) = snapshot.value("size", &[]) else {
            panic!("a histogram");
        };
        prop_assert_eq!(*count, values.len() as u64);
        prop_assert!((sum - f64::from(values.iter().sum::<u32>())).abs() < 1e-6);
        for bucket in buckets {
            let at_most = values.iter().filter(|&&value| f64::from(value) <= bucket.le).count();
            prop_assert_eq!(bucket.count, at_most as u64, "le {}", bucket.le);
        }
        prop_assert_eq!(buckets.len(), bounds.len() + 1);
    }

    #[test]
    fn a_family_agrees_with_a_map(
        calls in prop::collection::vec(("[ab]{0,2}", "[xy\"\\\\\n]{0,2}"), 0..60),
        limit in 1_usize..12,
    ) {
        let registry = with_limit(limit);
        let family = registry.counters("calls", "Calls.", ["a", "b"]).unwrap();
        let mut model = std::collections::BTreeMap::new();
        for (a, b) in &calls {
            family.with([a, b]).inc();
            let known = model.contains_key(&(a.as_str(), b.as_str())) || model.len() < limit;
            if known {
                *model.entry((a.as_str(), b.as_str())).or_insert(0) += 1;
            }
        }
        let snapshot = registry.snapshot();
        for (&(a, b), &count) in &model {
            let value = snapshot.value("calls", &[("b", b), ("a", a)]);
            prop_assert_eq!(value, Some(&Value::Counter(count)));
        }
        prop_assert_eq!(total(&registry, "calls"), calls.len() as u64);
    }
}
