use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::family::Series;
use super::gauge::add_f64;
use super::{Bucket, Line, MetricKind, Spec, Value};
use crate::{Error, ErrorKind};

/// The upper bounds of a histogram's buckets: finite, not negative, strictly rising, 1 to 256 of them.
/// A last bucket without a bound always follows.
///
/// ```
/// use orchestra_observe::Buckets;
///
/// let sizes = Buckets::exponential(256.0, 4.0, 4)?;
/// assert_eq!(sizes.bounds(), [256.0, 1024.0, 4096.0, 16384.0]);
/// assert!(Buckets::new([1.0, 1.0]).is_err());
/// # Ok::<(), orchestra_observe::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Buckets(Arc<[f64]>);

impl Buckets {
    const MAX: usize = 256;

    /// The buckets with these upper bounds.
    pub fn new(bounds: impl AsRef<[f64]>) -> Result<Self, Error> {
        let bounds = bounds.as_ref();
        let fail = |reason| {
            let shown = format!("{bounds:?}");
            Err(Error::new(ErrorKind::InvalidBuckets, &shown, reason))
        };
        if bounds.is_empty() || bounds.len() > Self::MAX {
            return fail("need 1 to 256 of them");
        }
        if bounds
            .iter()
            .any(|b| !b.is_finite() || b.is_sign_negative())
        {
            return fail("must be finite and not negative");
        }
        if !bounds.is_sorted_by(|a, b| a < b) {
            return fail("must rise strictly");
        }
        Ok(Self(Arc::from(bounds)))
    }

    /// `count` bounds, from `start`, each `factor` times the one before.
    pub fn exponential(start: f64, factor: f64, count: usize) -> Result<Self, Error> {
        let next = |bound: &f64| Some(bound * factor);
        let bounds = std::iter::successors(Some(start), next).take(count.min(Self::MAX + 1));
        Self::new(bounds.collect::<Vec<_>>())
    }

    /// For the duration of a request in seconds: the boundaries that the semantic conventions of
    /// OpenTelemetry advise for `http.server.request.duration`.
    pub fn seconds() -> Self {
        Self(Arc::from([
            0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
        ]))
    }

    /// The bounds.
    pub fn bounds(&self) -> &[f64] {
        &self.0
    }

    pub(super) fn shared(&self) -> Arc<[f64]> {
        Arc::clone(&self.0)
    }
}

/// Counts observations by size, and sums them.
///
/// A value belongs to the first bucket whose bound is not below it. Every observation is in exactly one
/// bucket, and the exposed count is the sum of the buckets, so the two never disagree; the sum may run
/// ahead of the count, or behind it, by the observations that are being recorded during a read. A value
/// that is negative, infinite or not a number would spoil the sum for good: it is refused and counted
/// in [`Histogram::rejected`], which the registry exposes.
///
/// ```
/// use std::time::Duration;
/// use orchestra_observe::{Buckets, Registry};
///
/// let registry = Registry::new();
/// let latency = registry.histogram(
///     "request_duration_seconds",
///     "Time to answer a request.",
///     &Buckets::seconds(),
/// )?;
/// latency.observe_duration(Duration::from_millis(30));
/// latency.observe(f64::NAN);
/// assert_eq!((latency.count(), latency.rejected()), (1, 1));
/// # Ok::<(), orchestra_observe::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Line<Cells>>);

#[derive(Debug)]
struct Cells {
    bounds: Arc<[f64]>,
    /// One more than there are bounds; not cumulative.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    rejected: AtomicU64,
}

impl Histogram {
    /// Records a value.
    pub fn observe(&self, value: f64) {
        let cells = &self.0.0;
        if !value.is_finite() || value < 0.0 {
            cells.rejected.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let index = cells.bounds.partition_point(|&bound| bound < value);
        if let Some(bucket) = cells.buckets.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        add_f64(&cells.sum, value);
    }

    /// Records a duration, in seconds.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(duration.as_secs_f64());
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        let buckets = self.0.0.buckets.iter();
        buckets.map(|b| b.load(Ordering::Relaxed)).sum()
    }

    /// The sum of the values.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.0.0.sum.load(Ordering::Relaxed))
    }

    /// How many values were refused.
    pub fn rejected(&self) -> u64 {
        self.0.0.rejected.load(Ordering::Relaxed)
    }
}

impl Series for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;

    fn create(spec: &Spec) -> Self {
        let buckets = (0..=spec.bounds.len()).map(|_| AtomicU64::new(0));
        Self(Arc::new(Line(Cells {
            bounds: Arc::clone(&spec.bounds),
            buckets: buckets.collect(),
            sum: AtomicU64::new(0.0_f64.to_bits()),
            rejected: AtomicU64::new(0),
        })))
    }

    fn read(&self) -> Value {
        let cells = &self.0.0;
        let sum = self.sum();
        let mut count = 0;
        let bounds = cells.bounds.iter().copied();
        let buckets = bounds
            .chain([f64::INFINITY])
            .zip(&cells.buckets)
            .map(|(le, bucket)| {
                count += bucket.load(Ordering::Relaxed);
                Bucket { le, count }
            })
            .collect();
        Value::Histogram {
            buckets,
            sum,
            count,
        }
    }

    fn refused(&self) -> u64 {
        self.rejected()
    }
}
