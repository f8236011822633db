//! What has passed through a proxy.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the proxy was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections that the proxy reset, by a fault or because a side had reset them.
    pub reset: u64,
    /// Connections that were reset because the upstream could not be connected to.
    pub unreachable: u64,
    /// Bytes delivered to the upstream.
    pub to_upstream: u64,
    /// Bytes delivered to clients.
    pub to_client: u64,
    /// Bytes that were swallowed, in both directions.
    pub swallowed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: Counter,
    pub(super) closed: Counter,
    pub(super) reset: Counter,
    pub(super) unreachable: Counter,
    pub(super) to_upstream: Counter,
    pub(super) to_client: Counter,
    pub(super) swallowed: Counter,
}

impl Counters {
    pub(super) fn read(&self) -> Traffic {
        // Read before `accepted`: a connection is counted there first, so the difference is never negative.
        let closed = self.closed.count();
        let accepted = self.accepted.count();
        Traffic {
            accepted,
            open: accepted.saturating_sub(closed),
            reset: self.reset.count(),
            unreachable: self.unreachable.count(),
            to_upstream: self.to_upstream.count(),
            to_client: self.to_client.count(),
            swallowed: self.swallowed.count(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::AcqRel);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
