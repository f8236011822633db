use std::time::Duration;

/// How far an answer can be trusted; the greater, the less.
///
/// The terms are those of RFC 5861.
///
/// ```
/// use orchestra_discovery::cache::Freshness;
///
/// assert!(Freshness::Fresh < Freshness::StaleIfError);
/// let is_good_enough = |freshness| freshness <= Freshness::StaleWhileRevalidate;
/// assert!(!is_good_enough(Freshness::LastGood));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Freshness {
    /// A watch is up, or the last poll is young.
    Fresh,
    /// The source is asked anew, and until it answers this is as good.
    StaleWhileRevalidate,
    /// The source has been failing for a while.
    StaleIfError,
    /// Too old for the source, but kept on disk: better than nothing.
    LastGood,
    /// Too old to be served.
    Expired,
}

/// Where data is from.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::cache::{Freshness, Limits, Origin};
///
/// let at_once = |origin| Limits::default().judge(origin, Duration::ZERO);
/// assert_eq!(at_once(Origin::Polled), Freshness::Fresh);
/// assert_eq!(at_once(Origin::Lost), Freshness::StaleWhileRevalidate);
/// assert_eq!(at_once(Origin::Disk), Freshness::LastGood);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// Of a watch that is up.
    Watched,
    /// Of a poll.
    Polled,
    /// Of a source that has failed since.
    Lost,
    /// Of the file of a former life.
    Disk,
}

/// Up to which age data has which [`Freshness`].
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::cache::{Freshness, Limits, Origin};
///
/// let mut limits = Limits::default();
/// limits.error = Duration::from_secs(600);
/// limits.last_good = Duration::ZERO;
/// let quarter = Duration::from_secs(900);
/// assert_eq!(limits.judge(Origin::Lost, quarter), Freshness::Expired);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// What was polled is fresh up to this age.
    pub fresh: Duration,
    /// Up to this age it is stale while the source is asked.
    pub revalidate: Duration,
    /// Up to this age it is stale because the source fails.
    pub error: Duration,
    /// Up to this age it is the last good answer; of use with a file alone, and counted from when the file was
    /// read: the wall clock may step, so how long it lay there is not asked.
    pub last_good: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(90),
            revalidate: Duration::from_secs(120),
            error: Duration::from_secs(3_600),
            last_good: Duration::from_secs(86_400),
        }
    }
}

impl Limits {
    /// The freshness of data of this origin and age.
    ///
    /// ```
    /// use std::time::Duration;
    /// use orchestra_discovery::cache::{Freshness, Limits, Origin};
    ///
    /// let limits = Limits::default();
    /// let age = Duration::from_secs(121);
    /// assert_eq!(limits.judge(Origin::Watched, age), Freshness::Fresh);
    /// assert_eq!(limits.judge(Origin::Lost, age), Freshness::StaleIfError);
    /// assert_eq!(limits.judge(Origin::Disk, age), Freshness::LastGood);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn judge(&self, origin: Origin, age: Duration) -> Freshness {
        match origin {
            Origin::Watched => Freshness::Fresh,
            Origin::Polled if age <= self.fresh => Freshness::Fresh,
            Origin::Polled | Origin::Lost if age <= self.revalidate => {
                Freshness::StaleWhileRevalidate
            }
            Origin::Polled | Origin::Lost if age <= self.error => Freshness::StaleIfError,
            _ if age <= self.last_good => Freshness::LastGood,
            _ => Freshness::Expired,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_the_last_moment_of_its_state() {
        use Freshness::{Expired, Fresh, LastGood, StaleIfError, StaleWhileRevalidate};
        let limits = Limits::default();
        let cases = [
            (Origin::Watched, u64::MAX, Fresh),
            (Origin::Polled, 90, Fresh),
            (Origin::Polled, 91, StaleWhileRevalidate),
            (Origin::Polled, 3_601, LastGood),
            (Origin::Lost, 0, StaleWhileRevalidate),
            (Origin::Lost, 120, StaleWhileRevalidate),
            (Origin::Lost, 121, StaleIfError),
            (Origin::Lost, 3_600, StaleIfError),
            (Origin::Lost, 86_400, LastGood),
            (Origin::Lost, 86_401, Expired),
            (Origin::Disk, 0, LastGood),
            (Origin::Disk, 86_401, Expired),
        ];
        for (origin, age, expected) in cases {
            let found = limits.judge(origin, Duration::from_secs(age));
            assert_eq!(found, expected, "{origin:?} of {age} s");
        }
    }
}
