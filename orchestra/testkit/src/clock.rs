//! A time of day under the control of a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use orchestra_core::{Timestamp, WallClock};
use tokio::time::Instant;

/// A wall clock that follows tokio's time, which a test can pause, and steps when told to.
///
/// Clones show the same time: a step of one is a step of all.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::{Timestamp, WallClock};
/// use orchestra_testkit::FollowingWallClock;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
/// let clock = FollowingWallClock::starting_at(Timestamp::from_unix_nanos(9_000_000_000));
/// tokio::time::advance(Duration::from_secs(2)).await;
/// assert_eq!(clock.wall().as_unix_millis(), 11_000);
///
/// clock.step_back(Duration::from_secs(5));
/// assert_eq!(clock.wall().as_unix_millis(), 6_000);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FollowingWallClock {
    start: Timestamp,
    origin: Instant,
    stepped: Arc<AtomicI64>,
}

impl FollowingWallClock {
    /// A clock that shows `start` now.
    pub fn starting_at(start: Timestamp) -> Self {
        Self {
            start,
            origin: Instant::now(),
            stepped: Arc::default(),
        }
    }

    /// Sets the clock forward, as an operator or a time server does.
    pub fn step_forward(&self, by: Duration) {
        self.step(i64::saturating_add, by);
    }

    /// Sets the clock back; it never shows a time before 1970.
    pub fn step_back(&self, by: Duration) {
        self.step(i64::saturating_sub, by);
    }

    fn step(&self, apply: fn(i64, i64) -> i64, by: Duration) {
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        let stepped = |old| Some(apply(old, by));
        let _old = self
            .stepped
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, stepped);
    }
}

impl WallClock for FollowingWallClock {
    fn wall(&self) -> Timestamp {
        let followed = (self.start + self.origin.elapsed()).as_unix_nanos();
        let stepped = self.stepped.load(Ordering::Acquire);
        Timestamp::from_unix_nanos(followed.saturating_add_signed(stepped))
    }
}
