//! Counters, gauges and histograms, alone or in families.
//!
//! A handle is one reference count to clone and one atomic operation to record: no lock, no allocation,
//! no lookup. A [`Family`] finds the handle of a label set under a read lock; a caller that records often
//! with the same labels keeps the handle. Reading never stops the writers.

mod counter;
mod family;
mod gauge;
mod histogram;
mod registry;
mod snapshot;

pub use counter::Counter;
pub use family::{Family, Metric};
pub use gauge::Gauge;
pub use histogram::{Buckets, Histogram};
pub use registry::{Builder, Registry};
pub use snapshot::{Bucket, FamilySnapshot, MetricKind, SeriesSnapshot, Snapshot, Value};

use std::sync::Arc;

/// Keeps two hot counters out of one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line<T>(T);

/// What a family is registered as.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    name: Arc<str>,
    help: Arc<str>,
    kind: MetricKind,
    label_names: Arc<[Arc<str>]>,
    bounds: Arc<[f64]>,
}
