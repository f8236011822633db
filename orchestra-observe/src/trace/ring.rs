use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use orchestra_core::TraceId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::FinishedSpan;

/// The last spans that finished, in the order in which they did.
///
/// Each span has a number, counted from zero; a reader remembers the number where it goes on and so learns
/// how many were overwritten before it came. Any number of readers may read; none slows the spans down.
#[derive(Debug)]
pub struct SpanRing {
    capacity: usize,
    kept: Mutex<Kept>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    spans: VecDeque<Arc<FinishedSpan>>,
    /// The number of the first span that is kept.
    first: u64,
}

/// Where a reader of the ring goes on; the default is the beginning of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(u64);

/// What a reader got.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Batch {
    /// The spans, oldest first.
    pub spans: Vec<Arc<FinishedSpan>>,
    /// How many were overwritten between the cursor and the first of these.
    pub lost: u64,
    /// Where to go on.
    pub next: Cursor,
}

impl SpanRing {
    /// A ring that keeps this many.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            capacity: capacity.get(),
            kept: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    pub(crate) fn push(&self, span: Arc<FinishedSpan>) {
        let mut kept = self.kept.lock();
        if kept.spans.len() == self.capacity {
            kept.spans.pop_front();
            kept.first += 1;
        }
        kept.spans.push_back(span);
        drop(kept);
        self.arrived.notify_one();
    }

    /// At most `max` spans from the cursor on.
    pub fn after(&self, cursor: Cursor, max: usize) -> Batch {
        let kept = self.kept.lock();
        let lost = kept.first.saturating_sub(cursor.0);
        let start = cursor.0.max(kept.first);
        let skip = usize::try_from(start - kept.first).unwrap_or(usize::MAX);
        let spans: Vec<_> = kept.spans.iter().skip(skip).take(max).cloned().collect();
        let next = Cursor(start + spans.len() as u64);
        Batch { spans, lost, next }
    }

    /// The last `max` spans, newest first.
    pub fn recent(&self, max: usize) -> Vec<Arc<FinishedSpan>> {
        let kept = self.kept.lock();
        kept.spans.iter().rev().take(max).cloned().collect()
    }

    /// The spans of one trace, in the order in which they finished.
    pub fn trace(&self, trace: TraceId) -> Vec<Arc<FinishedSpan>> {
        let kept = self.kept.lock();
        let of_trace = |span: &&Arc<FinishedSpan>| span.context.trace_id() == trace;
        kept.spans.iter().filter(of_trace).cloned().collect()
    }

    /// Waits until a span finished since the last call returned. One waiter at a time is woken.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// How many spans wait behind the cursor.
    pub(crate) fn waiting(&self, cursor: Cursor) -> usize {
        let kept = self.kept.lock();
        let end = kept.first + kept.spans.len() as u64;
        usize::try_from(end.saturating_sub(cursor.0)).unwrap_or(usize::MAX)
    }
}
