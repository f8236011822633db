use std::time::Duration;

use orchestra_core::{Backoff, Jitter};
use proptest::prelude::*;

fn any_backoff() -> impl Strategy<Value = Backoff> {
    let base = any::<u64>().prop_map(Duration::from_nanos);
    let jitter = prop_oneof![Just(Jitter::None), Just(Jitter::Full), Just(Jitter::Equal)];
    (0..4, base, any::<f64>(), any::<Duration>(), jitter).prop_map(
        |(growth, base, factor, cap, jitter)| {
            let backoff = match growth {
                0 => Backoff::fixed(base),
                1 => Backoff::linear(base),
                2 => Backoff::exponential(base, factor),
                _ => Backoff::decorrelated(base),
            };
            backoff.cap(cap).jitter(jitter)
        },
    )
}

proptest! {
    #[test]
    fn no_delay_exceeds_the_cap_and_nothing_overflows(
        backoff in any_backoff(), cap in any::<Duration>(), retry: u32, previous: Duration, draw: u64,
    ) {
        prop_assert!(backoff.cap(cap).delay(retry, previous, draw) <= cap);
    }

    #[test]
    fn a_greater_draw_never_shortens_a_full_jitter_delay(retry in 1_u32..100, a: u64, b: u64) {
        let backoff = Backoff::exponential(Duration::from_millis(10), 2.0);
        let (low, high) = (a.min(b), a.max(b));
        let delay = |draw| backoff.delay(retry, Duration::ZERO, draw);
        prop_assert!(delay(low) <= delay(high));
    }

    #[test]
    fn equal_jitter_keeps_at_least_half(base in 1_u64..1 << 35, draw: u64) {
        let base = Duration::from_nanos(base);
        let delay = Backoff::fixed(base).jitter(Jitter::Equal).delay(1, Duration::ZERO, draw);
        prop_assert!(delay >= base / 2 && delay <= base);
    }

    #[test]
    fn decorrelated_stays_between_base_and_three_times_the_previous(
        base in 1_u64..1 << 30, previous in 0_u64..1 << 30, draw: u64,
    ) {
        let (base, previous) = (Duration::from_nanos(base), Duration::from_nanos(previous));
        let delay = Backoff::decorrelated(base).delay(1, previous, draw);
        prop_assert!(delay >= base && delay <= base.max(previous * 3));
    }

    #[test]
    fn without_jitter_the_draw_changes_nothing(retry: u32, a: u64, b: u64) {
        let backoff = Backoff::linear(Duration::from_millis(3)).jitter(Jitter::None);
        let delay = |draw| backoff.delay(retry, Duration::ZERO, draw);
        prop_assert_eq!(delay(a), delay(b));
    }
}

#[test]
fn each_growth_has_its_known_sequence() {
    let delays = |backoff: Backoff| {
        let backoff = backoff.cap(Duration::from_millis(35)).jitter(Jitter::None);
        [0, 1, 2, 3, 4].map(|retry| backoff.delay(retry, Duration::ZERO, 0).as_millis())
    };
    let base = Duration::from_millis(10);
    assert_eq!(delays(Backoff::fixed(base)), [10, 10, 10, 10, 10]);
    assert_eq!(delays(Backoff::linear(base)), [10, 10, 20, 30, 35]);
    assert_eq!(
        delays(Backoff::exponential(base, 1.5)),
        [10, 10, 15, 22, 33]
    );
    assert_eq!(delays(Backoff::exponential(base, f64::NAN)), [10; 5]);
    assert_eq!(delays(Backoff::exponential(base, 0.1)), [10; 5]);
}

#[test]
fn full_jitter_covers_its_whole_range() {
    let backoff = Backoff::linear(Duration::from_nanos(4));
    let mut seen = [false; 5];
    for step in 0..100 {
        let delay = backoff.delay(1, Duration::ZERO, step * (u64::MAX / 99));
        seen[usize::try_from(delay.as_nanos()).unwrap()] = true;
    }
    assert_eq!(seen, [true; 5]);
}
