use std::time::Duration;

use orchestra_core::{Ewma, Monotonic};
use proptest::prelude::*;

fn samples() -> impl Strategy<Value = Vec<(u64, f64)>> {
    prop::collection::vec((0_u64..5_000_000_000, -1e6..1e6_f64), 1..60)
}

proptest! {
    /// The recurrence equals the closed form: each sample weighted by the time that it stood.
    #[test]
    fn the_average_equals_the_closed_form(samples in samples()) {
        let tau = Duration::from_secs(2);
        let mut ewma = Ewma::new(tau);
        let mut now = Monotonic::ZERO;
        let mut moments = Vec::new();
        for &(gap, value) in &samples {
            now = now + Duration::from_nanos(gap);
            ewma.observe(now, value);
            moments.push((now, value));
        }
        let fade = |from: Monotonic| (-(now.since(from).as_secs_f64()) / tau.as_secs_f64()).exp();
        let mut expected = moments[0].1 * fade(moments[0].0);
        for pair in moments.windows(2) {
            expected += pair[1].1 * (fade(pair[1].0) - fade(pair[0].0));
        }
        let actual = ewma.value().unwrap();
        prop_assert!((actual - expected).abs() <= 1e-6 * expected.abs().max(1.0));
    }

    #[test]
    fn the_average_stays_within_its_samples(samples in samples()) {
        let mut ewma = Ewma::new(Duration::from_secs(1));
        let mut now = Monotonic::ZERO;
        for &(gap, value) in &samples {
            now = now + Duration::from_nanos(gap);
            ewma.observe(now, value);
        }
        let values = || samples.iter().map(|&(_, value)| value);
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
        let value = ewma.value().unwrap();
        prop_assert!(value >= low - 1e-6 && value <= high + 1e-6);
    }
}

#[test]
fn what_is_not_a_number_leaves_no_trace() {
    let mut ewma = Ewma::new(Duration::from_secs(1));
    ewma.observe(Monotonic::ZERO, f64::NAN);
    assert_eq!(ewma.value(), None);
    ewma.observe(Monotonic::ZERO, 3.0);
    ewma.observe(Monotonic::from_nanos(1 << 40), f64::INFINITY);
    assert_eq!(ewma.value(), Some(3.0));
}

#[test]
fn a_clock_that_stands_still_or_errs_does_not_corrupt_the_average() {
    let mut ewma = Ewma::new(Duration::from_secs(1));
    ewma.observe(Monotonic::from_nanos(100), 1.0);
    ewma.observe(Monotonic::from_nanos(100), 9.0);
    ewma.observe(Monotonic::from_nanos(50), 9.0);
    assert_eq!(ewma.value(), Some(1.0));
}

#[test]
fn an_idle_source_decays_to_zero() {
    let mut ewma = Ewma::new(Duration::from_secs(1));
    ewma.observe(Monotonic::ZERO, 8.0);
    let decayed = ewma
        .decayed(Monotonic::ZERO + Duration::from_secs(1))
        .unwrap();
    assert!((decayed - 8.0 * (-1.0_f64).exp()).abs() < 1e-12);
    assert!(ewma.decayed(Monotonic::MAX).unwrap() < 1e-12);
}

#[test]
fn without_memory_the_last_sample_stands() {
    let mut ewma = Ewma::new(Duration::ZERO);
    ewma.observe(Monotonic::ZERO, 1.0);
    ewma.observe(Monotonic::from_nanos(1), 2.0);
    assert_eq!(ewma.value(), Some(2.0));
}
