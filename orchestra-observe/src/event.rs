//! What happens inside, for whoever wants to hear it.

use std::sync::Arc;

use crate::ErrorKind;

/// Something that an operator would want to know about the observing itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A family reached its limit: new label sets now share its overflow series. Said once per family.
    SeriesOverflowed {
        /// The family.
        metric: Arc<str>,
        /// How many series of its own it may have.
        limit: usize,
    },
    /// A batch of spans was delivered.
    SpansExported {
        /// How many.
        count: usize,
    },
    /// A delivery failed and will be tried again.
    ExportRetried {
        /// Why.
        kind: ErrorKind,
        /// Which retry comes now, from one.
        retry: u32,
    },
    /// Spans were given up: the ring overwrote them, or their delivery failed for good.
    SpansLost {
        /// How many.
        count: u64,
        /// Why the delivery failed; `None` when the ring overwrote them.
        kind: Option<ErrorKind>,
    },
}
