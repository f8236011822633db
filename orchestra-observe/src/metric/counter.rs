use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::family::Series;
use super::{Line, MetricKind, Spec, Value};

/// A count that only rises.
///
/// One atomic addition per record; every addition is in the value, from however many threads. It wraps
/// at 2^64.
///
/// ```
/// use orchestra_observe::Registry;
///
/// let registry = Registry::new();
/// let orders = registry.counter("orders_total", "Orders that were accepted.")?;
/// orders.inc();
/// orders.add(2);
/// assert_eq!(orders.value(), 3);
/// # Ok::<(), orchestra_observe::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Counter(Arc<Line<AtomicU64>>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn value(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }
}

impl Series for Counter {
    const KIND: MetricKind = MetricKind::Counter;

    fn create(_: &Spec) -> Self {
        Self(Arc::default())
    }

    fn read(&self) -> Value {
        Value::Counter(self.value())
    }
}
