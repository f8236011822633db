use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::family::Series;
use super::{Line, MetricKind, Spec, Value};

/// A value that goes up and down. Not-a-number and the infinities are values like any other.
///
/// ```
/// use orchestra_observe::Registry;
///
/// let registry = Registry::new();
/// let running = registry.gauge("sagas_running", "Sagas that are not finished.")?;
/// running.set(7.0);
/// running.sub(2.0);
/// assert_eq!(running.value(), 5.0);
/// # Ok::<(), orchestra_observe::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gauge(Arc<Line<AtomicU64>>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds to the value; no concurrent addition is lost.
    pub fn add(&self, change: f64) {
        add_f64(&self.0.0, change);
    }

    /// Subtracts from the value; no concurrent subtraction is lost.
    pub fn sub(&self, change: f64) {
        self.add(-change);
    }

    /// The value.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.0.load(Ordering::Relaxed))
    }
}

pub(super) fn add_f64(cell: &AtomicU64, change: f64) {
    let mut seen = cell.load(Ordering::Relaxed);
    loop {
        let next = (f64::from_bits(seen) + change).to_bits();
        match cell.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => seen = other,
        }
    }
}

impl Series for Gauge {
    const KIND: MetricKind = MetricKind::Gauge;

    fn create(_: &Spec) -> Self {
        Self(Arc::default())
    }

    fn read(&self) -> Value {
        Value::Gauge(self.value())
    }
}
