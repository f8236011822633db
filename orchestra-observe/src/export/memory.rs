use std::collections::{HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{SpanId, TraceId};
use parking_lot::Mutex;

use super::Exporter;
use crate::{Error, FinishedSpan};

/// Keeps the last spans in memory.
///
/// ```
/// use std::num::NonZeroUsize;
/// use orchestra_observe::{Exporter, MemoryExporter, Tracer};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let tracer = Tracer::builder().build();
/// tracer.span("checkout").start().end();
/// let exporter = MemoryExporter::new(NonZeroUsize::MIN);
/// exporter.export(&tracer.spans().recent(1)).await?;
/// assert_eq!(exporter.spans()[0].name.as_str(), "checkout");
/// # Ok::<(), orchestra_observe::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct MemoryExporter {
    capacity: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    spans: VecDeque<Arc<FinishedSpan>>,
    ids: HashSet<(TraceId, SpanId)>,
    closed: bool,
}

impl MemoryExporter {
    /// Keeps this many; the oldest go first.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            capacity: capacity.get(),
            kept: Mutex::default(),
        }
    }

    /// What was taken, oldest first.
    pub fn spans(&self) -> Vec<Arc<FinishedSpan>> {
        self.kept.lock().spans.iter().cloned().collect()
    }
}

fn id(span: &FinishedSpan) -> (TraceId, SpanId) {
    (span.context.trace_id(), span.context.span_id())
}

#[async_trait]
impl Exporter for MemoryExporter {
    async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error> {
        let mut kept = self.kept.lock();
        if kept.closed {
            return Err(Error::closed("memory"));
        }
        for span in batch {
            if kept.ids.insert(id(span)) {
                kept.spans.push_back(Arc::clone(span));
            }
            if kept.spans.len() > self.capacity
                && let Some(old) = kept.spans.pop_front()
            {
                kept.ids.remove(&id(&old));
            }
        }
        Ok(())
    }

    async fn shutdown(&self) -> Result<(), Error> {
        self.kept.lock().closed = true;
        Ok(())
    }
}
