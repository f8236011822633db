//! Time as decisions see it, and the clocks that drivers read.
//!
//! [`Monotonic`] orders events and measures ages within one process: it never goes back and is not
//! comparable across processes. [`Timestamp`] is the wall clock: it can be stored and shown, and it can
//! step in either direction, so no decision subtracts two of them.

use std::fmt;
use std::time::Duration;

/// Nanoseconds since an arbitrary moment of this process; 584 years until it ends.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Monotonic;
///
/// let start = Monotonic::from_nanos(5);
/// let later = start + Duration::from_nanos(7);
/// assert_eq!(later.since(start), Duration::from_nanos(7));
/// assert_eq!(start.since(later), Duration::ZERO);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The moment that all others are counted from.
    pub const ZERO: Self = Self(0);
    /// The last moment.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment this many nanoseconds after [`Monotonic::ZERO`].
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds after [`Monotonic::ZERO`].
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Monotonic {
    type Output = Self;

    /// Saturates at [`Monotonic::MAX`].
    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(duration)))
    }
}

#[inline]
fn saturating_nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.subsec_nanos().into())
}

/// Nanoseconds since 1970-01-01 UTC, without leap seconds. Shown as RFC 3339 has it, with as many digits of the second
/// as it has, or as the format asks for: `{:.3}`.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Timestamp;
///
/// let stored = Timestamp::from_unix_nanos(1_000_000_000);
/// assert_eq!((stored + Duration::from_secs(1)).as_unix_millis(), 2_000);
/// assert_eq!(stored.to_string(), "1970-01-01T00:00:01Z");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 1970-01-01 00:00:00 UTC.
    pub const UNIX_EPOCH: Self = Self(0);

    /// The moment this many nanoseconds after the epoch.
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds after the epoch.
    pub const fn as_unix_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds after the epoch.
    pub const fn as_unix_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds after the epoch.
    pub fn as_unix_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The time from `earlier` to this moment by the wall clock; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND: u64 = 1_000_000_000;
        let (seconds, nanos) = (self.0 / SECOND, self.0 % SECOND);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        let shortest = match nanos {
            0 => 0,
            _ if nanos.is_multiple_of(1_000_000) => 3,
            _ if nanos.is_multiple_of(1_000) => 6,
            _ => 9,
        };
        let digits = f.precision().unwrap_or(shortest).min(9);
        if digits > 0 {
            // Cut and not rounded, so that a moment is not shown before it is there.
            let cut = u32::try_from(9 - digits).unwrap_or_default();
            write!(f, ".{:0digits$}", nanos / 10_u64.pow(cut))?;
        }
        f.write_str("Z")
    }
}

/// As it is shown.
impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

/// The date of a day after 1970-01-01 (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at the year 2554.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(duration)))
    }
}

/// The moment after which an answer is worthless.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::{Deadline, Monotonic};
///
/// let now = Monotonic::ZERO;
/// let overall = Deadline::after(now, Duration::from_secs(15));
/// let attempt = overall.min(Deadline::after(now, Duration::from_secs(5)));
/// assert_eq!(attempt.remaining(now), Some(Duration::from_secs(5)));
/// assert_eq!(Deadline::NEVER.remaining(now), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Monotonic);

impl Deadline {
    /// No limit.
    pub const NEVER: Self = Self(Monotonic::MAX);

    /// At this moment.
    pub const fn at(moment: Monotonic) -> Self {
        Self(moment)
    }

    /// This long after `now`.
    pub fn after(now: Monotonic, limit: Duration) -> Self {
        Self(now + limit)
    }

    /// The moment; `None` for [`Deadline::NEVER`].
    pub fn moment(self) -> Option<Monotonic> {
        (self != Self::NEVER).then_some(self.0)
    }

    /// The time left at `now`, zero once expired; `None` for [`Deadline::NEVER`].
    pub fn remaining(self, now: Monotonic) -> Option<Duration> {
        self.moment().map(|moment| moment.since(now))
    }

    /// Whether nothing is left at `now`.
    pub fn is_expired(self, now: Monotonic) -> bool {
        self.remaining(now).is_some_and(|left| left.is_zero())
    }
}

/// The source of [`Monotonic`] moments. Drivers read it; decisions are told `now`.
///
/// Laws: 1. two reads of one clock never go back; 2. components that hand moments to each other share
/// one clock.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The current moment.
    fn now(&self) -> Monotonic;
}

/// The source of [`Timestamp`]s. It may step in either direction.
pub trait WallClock: fmt::Debug + Send + Sync {
    /// The current time of day.
    fn wall(&self) -> Timestamp;
}

macro_rules! forward {
    ($trait:ident, $method:ident, $output:ty, $($pointer:ident),+) => {$(
        impl<T: $trait + ?Sized> $trait for $pointer<T> {
            fn $method(&self) -> $output {
                (**self).$method()
            }
        }
    )+};
}

use std::sync::Arc;
forward!(Clock, now, Monotonic, Arc, Box);
forward!(WallClock, wall, Timestamp, Arc, Box);

/// The operating system's monotonic clock, counted from the creation of this value.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl SystemClock {
    /// A clock that begins now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others are told to read"
    )]
    pub fn new() -> Self {
        Self {
            origin: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Monotonic {
        Monotonic::ZERO + self.origin.elapsed()
    }
}

/// The operating system's time of day.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemWallClock;

impl WallClock for SystemWallClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others are told to read"
    )]
    fn wall(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp::UNIX_EPOCH + since.unwrap_or_default()
    }
}

/// tokio's clock: the system's, or the virtual one of a test that paused it.
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    origin: tokio::time::Instant,
}

#[cfg(feature = "tokio")]
impl TokioClock {
    /// A clock that begins now.
    pub fn new() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
        }
    }

    /// The instant of tokio's clock at `moment`, to sleep until; far moments saturate at 30 years.
    pub fn instant(&self, moment: Monotonic) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
        self.origin + moment.since(Monotonic::ZERO).min(FAR)
    }
}

#[cfg(feature = "tokio")]
impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "tokio")]
impl Clock for TokioClock {
    fn now(&self) -> Monotonic {
        Monotonic::ZERO + self.origin.elapsed()
    }
}
