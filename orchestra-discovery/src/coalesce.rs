//! A merge window for changes: under churn, many small changes become few large ones.
//!
//! The first change after a quiet time passes at once; what follows within the window waits for its end and
//! leaves as one batch. Of the changes of one instance that wait together only their effect is kept: at most a
//! removal and an upsert, in this order. Applied to any membership, a batch leaves exactly what the changes
//! themselves would have left, so the last state of an instance is never lost.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic, ServiceName};

use crate::instance::Instance;
use crate::source::{Change, Removal};

/// How long changes are gathered.
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::time::Duration;
/// use orchestra_discovery::coalesce::Config;
///
/// let config = Config::default()
///     .window(Duration::from_millis(20))
///     .max_batch(NonZeroUsize::new(64).ok_or("zero")?);
/// assert_ne!(config, Config::off());
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The least time between two batches; zero lets every change pass at once.
    pub window: Duration,
    /// So many instances that wait are a full batch, which does not wait any longer.
    pub max_batch: NonZeroUsize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: Duration::from_millis(100),
            max_batch: NonZeroUsize::MIN.saturating_add(1_023),
        }
    }
}

impl Config {
    /// Every change passes at once.
    pub fn off() -> Self {
        Self {
            window: Duration::ZERO,
            ..Self::default()
        }
    }

    /// With this window.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// With batches of at most about this many instances.
    #[must_use]
    pub fn max_batch(mut self, max_batch: NonZeroUsize) -> Self {
        self.max_batch = max_batch;
        self
    }
}

/// The effect of all changes of one instance that wait.
#[derive(Debug, Clone, Default)]
struct Net {
    /// The rank of its first change, which is its place in the batch.
    rank: u64,
    removed: Option<Removal>,
    upserted: Option<Arc<Instance>>,
}

impl Net {
    fn upsert(&mut self, instance: Arc<Instance>) {
        let stale = |held: &Arc<Instance>| held.incarnation > instance.incarnation;
        if !self.upserted.as_ref().is_some_and(stale) {
            self.upserted = Some(instance);
        }
    }

    fn remove(&mut self, removal: Removal) {
        if let Some(upserted) = &self.upserted {
            if upserted.incarnation > removal.incarnation {
                return;
            }
            self.upserted = None;
        }
        let covers = |held: &Removal| held.incarnation > removal.incarnation;
        if !self.removed.as_ref().is_some_and(covers) {
            self.removed = Some(removal);
        }
    }
}

/// Changes that wait for the end of the window.
///
/// Pure: the caller brings `now` and sleeps until [`due`](Self::due). Memory: one entry per instance that waits.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::coalesce::{Coalescer, Config};
/// use orchestra_discovery::{Change, Incarnation, Instance};
///
/// let orders = Instance::new(
///     "orders".parse()?, "orders-1".parse()?, Incarnation::new(1), "10.0.0.1:80".parse()?,
/// );
/// let change = Change::Upserted(orders.into());
/// let mut changes = Coalescer::new(Config::default());
/// let start = Monotonic::ZERO + Duration::from_secs(1);
///
/// changes.offer([change.clone()]);
/// assert_eq!(changes.take(start), [change.clone()]);
/// changes.offer([change.clone(), change.clone()]);
/// assert_eq!(changes.take(start), []);
/// let later = start + Duration::from_millis(100);
/// assert_eq!(changes.take(later), [change]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Coalescer {
    config: Config,
    waiting: BTreeMap<(ServiceName, InstanceId), Net>,
    next_rank: u64,
    /// Before this moment a batch waits unless it is full.
    opens: Monotonic,
}

impl Coalescer {
    /// Nothing waits.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            waiting: BTreeMap::new(),
            next_rank: 0,
            opens: Monotonic::ZERO,
        }
    }

    /// Adds changes, in order.
    pub fn offer(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Upserted(instance) => {
                    let key = (instance.service.clone(), instance.id.clone());
                    self.net(key).upsert(instance);
                }
                Change::Removed(removal) => {
                    let key = (removal.service.clone(), removal.id.clone());
                    self.net(key).remove(removal);
                }
            }
        }
    }

    fn net(&mut self, key: (ServiceName, InstanceId)) -> &mut Net {
        let rank = self.next_rank;
        self.next_rank = self.next_rank.wrapping_add(1);
        self.waiting.entry(key).or_insert_with(|| Net {
            rank,
            ..Net::default()
        })
    }

    /// When the next batch may be taken; `None` while nothing waits.
    pub fn due(&self) -> Option<Monotonic> {
        match self.waiting.len() {
            0 => None,
            full if full >= self.config.max_batch.get() => Some(Monotonic::ZERO),
            _ => Some(self.opens),
        }
    }

    /// The next batch if it is due at `now`, and nothing otherwise.
    pub fn take(&mut self, now: Monotonic) -> Vec<Change> {
        if self.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.flush(now)
    }

    /// All that waits, be it due or not: nothing follows, or what follows does not say it again.
    pub fn flush(&mut self, now: Monotonic) -> Vec<Change> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.opens = now + self.config.window;
        self.next_rank = 0;
        let mut nets: Vec<Net> = std::mem::take(&mut self.waiting).into_values().collect();
        nets.sort_by_key(|net| net.rank);
        nets.into_iter().flat_map(changes).collect()
    }

    /// Drops what waits: a snapshot says all of it anew.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

fn changes(net: Net) -> impl Iterator<Item = Change> {
    let removed = net.removed.map(Change::Removed);
    removed
        .into_iter()
        .chain(net.upserted.map(Change::Upserted))
}

#[cfg(test)]
mod tests;
