//! Gates that refuse, count and remember.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::{Monotonic, Outcome};
use orchestra_discovery::{Gate, GateToken, Gates, Instance, Refusal};
use parking_lot::Mutex;

/// Refuses these instances.
#[derive(Debug)]
pub(crate) struct Shut(pub(crate) Vec<String>);

impl<const N: usize> From<[&str; N]> for Shut {
    fn from(ids: [&str; N]) -> Self {
        Self(ids.map(str::to_owned).into())
    }
}

#[derive(Debug)]
struct ShutGate;

impl Gate for ShutGate {
    fn try_admit(&self, _: Monotonic) -> Result<GateToken, Refusal> {
        Err(Refusal::new("shut", Some(Duration::from_secs(3))))
    }

    fn settle(&self, _: GateToken, _: Outcome, _: Monotonic) {}
}

impl Gates for Shut {
    fn bind(&self, instance: &Instance) -> Arc<dyn Gate> {
        if self.0.iter().any(|id| id == instance.id.as_str()) {
            Arc::new(ShutGate)
        } else {
            Arc::new(orchestra_discovery::gate::Open)
        }
    }
}

/// Refuses everything and counts how often it was asked.
#[derive(Debug)]
pub(crate) struct Counting(pub(crate) Arc<AtomicU64>);

impl Gate for Counting {
    fn try_admit(&self, _: Monotonic) -> Result<GateToken, Refusal> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(Refusal::new("counting", None))
    }

    fn settle(&self, _: GateToken, _: Outcome, _: Monotonic) {}
}

impl Gates for Counting {
    fn bind(&self, _: &Instance) -> Arc<dyn Gate> {
        Arc::new(Self(Arc::clone(&self.0)))
    }
}

/// Numbers its admissions and keeps what became of them.
#[derive(Debug, Default)]
pub(crate) struct Recording(pub(crate) Arc<Mutex<Vec<(u64, Outcome, Monotonic)>>>);

#[derive(Debug)]
struct RecordingGate(Arc<Mutex<Vec<(u64, Outcome, Monotonic)>>>, AtomicU64);

impl Gates for Recording {
    fn bind(&self, _: &Instance) -> Arc<dyn Gate> {
        Arc::new(RecordingGate(Arc::clone(&self.0), AtomicU64::new(0)))
    }
}

impl Gate for RecordingGate {
    fn try_admit(&self, _: Monotonic) -> Result<GateToken, Refusal> {
        Ok(GateToken::new(self.1.fetch_add(1, Ordering::Relaxed)))
    }

    fn settle(&self, token: GateToken, outcome: Outcome, now: Monotonic) {
        self.0.lock().push((token.as_u64(), outcome, now));
    }
}
