//! What a detector decides, and why.

use std::num::NonZeroU32;
use std::time::Duration;

use orchestra_core::{Monotonic, Score};

use super::{Host, Trigger};

/// A decision about one host.
///
/// ```
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::outlier::{Config, Counts, Detector, Host, Interval};
///
/// let mut detector = Detector::new(Config::default());
/// for number in 0..5 {
///     detector.insert(Host::new(number), Monotonic::ZERO);
/// }
/// let now = detector.next_sweep().ok_or("nothing to do")?;
/// let verdicts = detector.sweep(now, 7, |host| Interval {
///     external: if host == Host::new(0) { Counts::new(33, 100) } else { Counts::new(99, 100) },
///     ..Interval::default()
/// });
/// assert_eq!(verdicts[0].host, Host::new(0));
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Whom it is about.
    pub host: Host,
    /// What is decided.
    pub change: Change,
}

impl Verdict {
    pub(super) const fn ejected(host: Host, reason: Reason, back_at: Monotonic) -> Self {
        Self {
            host,
            change: Change::Ejected { reason, back_at },
        }
    }

    pub(super) const fn restored(host: Host) -> Self {
        Self {
            host,
            change: Change::Restored,
        }
    }

    pub(super) const fn withheld(host: Host, reason: Reason, by: Withheld) -> Self {
        Self {
            host,
            change: Change::Withheld { reason, by },
        }
    }
}

/// What is decided about a host.
///
/// ```
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::outlier::{Change, Config, Counts, Detector, Host, Interval};
///
/// let mut detector = Detector::new(Config::default());
/// for number in 0..5 {
///     detector.insert(Host::new(number), Monotonic::ZERO);
/// }
/// let now = detector.next_sweep().ok_or("nothing to do")?;
/// let verdicts = detector.sweep(now, 7, |host| Interval {
///     external: if host == Host::new(0) { Counts::new(33, 100) } else { Counts::new(99, 100) },
///     ..Interval::default()
/// });
/// let Change::Ejected { back_at, .. } = verdicts[0].change else { return Err("it stays") };
/// assert!(back_at > now);
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It gets no calls.
    Ejected {
        /// Why.
        reason: Reason,
        /// The earliest moment of its return (the first sweep at or after it restores it), or that of its
        /// first trial, if it comes back by trials.
        back_at: Monotonic,
    },
    /// It gets calls again.
    Restored,
    /// It is an outlier, and stays nevertheless.
    Withheld {
        /// Why it would be ejected.
        reason: Reason,
        /// Why it is not.
        by: Withheld,
    },
}

/// Why an outlier is not ejected.
///
/// ```
/// use orchestra_discovery::outlier::Withheld;
///
/// fn word(by: Withheld) -> &'static str {
///     match by {
///         Withheld::Cap => "too many are out already",
///         _ => "not enforced",
///     }
/// }
/// assert_eq!(word(Withheld::Cap), "too many are out already");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Withheld {
    /// As many hosts are out as may be.
    Cap,
    /// The reason is enforced in a share of cases, and this was none of them.
    Enforcement,
}

/// Which counts a reason is drawn from.
///
/// ```
/// use orchestra_discovery::outlier::Origin;
///
/// fn whom_to_ask(origin: Origin) -> &'static str {
///     match origin {
///         Origin::External => "the owners of the hosts",
///         _ => "whoever runs the network",
///     }
/// }
/// assert_eq!(whom_to_ask(Origin::External), "the owners of the hosts");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// What the hosts answered.
    External,
    /// What went wrong on this side.
    Local,
}

/// Why a host is an outlier, with the numbers.
///
/// ```
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::outlier::{Change, Config, Counts, Detector, Host, Interval, Reason};
///
/// let mut detector = Detector::new(Config::default());
/// for number in 0..5 {
///     detector.insert(Host::new(number), Monotonic::ZERO);
/// }
/// let now = detector.next_sweep().ok_or("nothing to do")?;
/// let verdicts = detector.sweep(now, 7, |host| Interval {
///     external: if host == Host::new(0) { Counts::new(33, 100) } else { Counts::new(99, 100) },
///     ..Interval::default()
/// });
/// let Change::Ejected { reason, .. } = verdicts[0].change else { return Err("it stays") };
/// let Reason::SuccessRate { rate, threshold, .. } = reason else { return Err("another reason") };
/// assert!(rate < threshold);
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Too many failures in a row.
    Streak {
        /// Of this kind.
        trigger: Trigger,
        /// This many.
        length: NonZeroU32,
    },
    /// Fewer of its calls succeed than those of the others.
    SuccessRate {
        /// The counts.
        origin: Origin,
        /// Its own share of successes.
        rate: Score,
        /// That of the others: their mean (Envoy, gRPC) or the pooled share of those in order.
        typical: Score,
        /// The share below which it is an outlier.
        threshold: Score,
    },
    /// Too many of its calls fail, whatever those of others do.
    FailurePercentage {
        /// The counts.
        origin: Origin,
        /// Its own share of failures.
        failures: Score,
        /// The share from which it is an outlier.
        threshold: Score,
    },
    /// It answers more slowly than the others.
    Latency {
        /// Its own mean latency.
        mean: Duration,
        /// The median of the hosts' mean latencies.
        typical: Duration,
        /// The mean from which it is an outlier.
        threshold: Duration,
    },
}
