use std::time::Duration;

use orchestra_core::{
    Clock, Deadline, Monotonic, SystemClock, SystemWallClock, Timestamp, WallClock,
};
use proptest::prelude::*;

proptest! {
    #[test]
    fn adding_saturates_and_never_goes_back(start: u64, step: Duration) {
        let start = Monotonic::from_nanos(start);
        prop_assert!(start + step >= start);
        prop_assert!((start + step).since(start) <= step);
    }

    #[test]
    fn a_deadline_expires_exactly_when_nothing_remains(now: u32, limit in 0..9_u64, later in 0..9_u64) {
        let now = Monotonic::from_nanos(now.into());
        let deadline = Deadline::after(now, Duration::from_nanos(limit));
        let then = now + Duration::from_nanos(later);
        prop_assert_eq!(deadline.is_expired(then), later >= limit);
        prop_assert_eq!(deadline.remaining(then), Some(Duration::from_nanos(limit.saturating_sub(later))));
    }

    #[test]
    fn never_is_later_than_every_deadline(at: u64) {
        prop_assert!(Deadline::at(Monotonic::from_nanos(at)) <= Deadline::NEVER);
    }
}

#[test]
fn never_never_expires() {
    assert!(!Deadline::NEVER.is_expired(Monotonic::MAX));
    assert_eq!(
        Deadline::after(Monotonic::ZERO, Duration::MAX),
        Deadline::NEVER
    );
}

#[test]
fn a_wall_clock_that_stepped_back_gives_no_negative_time() {
    let (early, late) = (Timestamp::from_unix_nanos(1), Timestamp::from_unix_nanos(3));
    assert_eq!(early.since(late), Duration::ZERO);
    assert_eq!(late.since(early), Duration::from_nanos(2));
}

#[test]
fn the_systems_clocks_move() {
    let clock = SystemClock::new();
    let (first, second) = (clock.now(), clock.now());
    assert!(second >= first);
    assert!(SystemWallClock.wall() > Timestamp::from_unix_nanos(1_700_000_000_000_000_000));
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn tokios_clock_follows_virtual_time() {
    let clock = orchestra_core::TokioClock::new();
    let before = clock.now();
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(clock.now().since(before), Duration::from_secs(3600));
    let wake = clock.now() + Duration::from_secs(1);
    tokio::time::sleep_until(clock.instant(wake)).await;
    assert!(clock.now() >= wake);
    assert!(clock.instant(Monotonic::MAX) > clock.instant(wake));
}

#[test]
fn moments_are_shown_as_dates() {
    let at = Timestamp::from_unix_nanos;
    let table = [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399_000_000_000, "2000-02-28T23:59:59Z"),
        (951_782_400_120_000_000, "2000-02-29T00:00:00.120Z"),
        (1_767_323_045_000_007_000, "2026-01-02T03:04:05.000007Z"),
        (4_107_542_400_000_000_001, "2100-03-01T00:00:00.000000001Z"),
        (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
    ];
    for (nanos, text) in table {
        assert_eq!(at(nanos).to_string(), text);
        assert_eq!(format!("{:?}", at(nanos)), format!("Timestamp({text})"));
    }
    let moment = at(1_767_323_045_999_999_999);
    assert_eq!(format!("{moment:.3}"), "2026-01-02T03:04:05.999Z");
    assert_eq!(format!("{moment:.0}"), "2026-01-02T03:04:05Z");
    assert_eq!(format!("{moment:.12}"), "2026-01-02T03:04:05.999999999Z");
}
