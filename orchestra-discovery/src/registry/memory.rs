//! The registry in the memory of one process.
//!
//! Expiry is computed, not swept: every call first drops what lapsed by its own clock reading, and a
//! waiting watch wakes at the next deadline. So a lapsed instance is never seen, no task runs, and with no
//! caller and no watch an [`Event::Removed`] waits for the next call.
//!
//! Bounds: the number of instances, of overrides (as many), the text of each (labels and locality: 4 KiB), the changes remembered, and
//! the ttl.
//!
//! Revisions start at the wall clock (milliseconds, shifted left by 20) unless told otherwise: a registry
//! that was restarted answers a watch from its former life with `Resync`, and its incarnations go on rising.

mod table;
mod watch;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{
    Clock, InstanceId, Listener, Monotonic, ServiceName, SystemWallClock, TokioClock, WallClock,
};
use parking_lot::Mutex;

use self::table::Table;
use self::watch::MemoryWatch;
use super::{Lease, Registry};
use crate::error::Result;
use crate::event::{Event, Events};
use crate::instance::{Override, Registration, Status};
use crate::source::{Capabilities, Revision, Scope, Snapshot, Source, Watch};

/// The bounds of a [`MemoryRegistry`] and what it is connected to.
///
/// ```
/// use std::num::NonZeroUsize;
/// use orchestra_discovery::MemoryRegistry;
/// use orchestra_discovery::registry::memory::Config;
///
/// let mut config = Config::default();
/// config.max_instances = NonZeroUsize::new(1_000).ok_or("zero")?;
/// let registry = MemoryRegistry::new(config);
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The most instances that are held; one more is refused as `Full`.
    pub max_instances: NonZeroUsize,
    /// The most changes that are remembered for watches that fell behind.
    pub max_changes: NonZeroUsize,
    /// The longest ttl that is granted; a longer one is refused as `Invalid`.
    pub max_ttl: Duration,
    /// The revision before the first change.
    pub start: Revision,
    clock: Arc<dyn Clock>,
    events: Events,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_instances: NonZeroUsize::MIN.saturating_add(99_999),
            max_changes: NonZeroUsize::MIN.saturating_add(16_383),
            max_ttl: Duration::from_secs(86_400),
            start: Revision::new(SystemWallClock.wall().as_unix_millis() << 20),
            clock: Arc::new(TokioClock::new()),
            events: Events::default(),
        }
    }
}

impl Config {
    /// Reads this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tells this listener, in the order of the revisions and under the registry's lock.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.events = Events::new(listener);
        self
    }
}

/// A bounded registry in memory; a clone is another handle to the same registry.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::{MemoryRegistry, Registration, Registry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::default();
/// let asked = Registration::new(
///     "orders".parse()?, "orders-1".parse()?, "unix:/run/o1.sock".parse()?, Duration::from_secs(5),
/// );
/// let first = registry.register(asked.clone()).await?;
/// let second = registry.register(asked).await?;
/// assert!(second.incarnation > first.incarnation);
/// assert!(registry.renew(&first).await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryRegistry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    clock: Arc<dyn Clock>,
    events: Events,
    latest: tokio::sync::watch::Sender<Revision>,
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Shared {
    fn new(config: Config) -> Self {
        let table = Table::new(
            config.max_instances,
            config.max_changes,
            config.max_ttl,
            config.start,
        );
        Self {
            table: Mutex::new(table),
            clock: config.clock,
            events: config.events,
            latest: tokio::sync::watch::Sender::new(config.start),
        }
    }

    /// Drops what lapsed, acts, tells the listener, and wakes the watches if anything changed.
    fn act<T>(&self, act: impl FnOnce(&mut Table, Monotonic) -> T) -> T {
        let mut table = self.table.lock();
        let now = self.clock.now();
        table.expire(now);
        let result = act(&mut table, now);
        for event in table.take_events() {
            self.events.emit(&event);
        }
        let revision = table.revision();
        self.latest.send_if_modified(|latest| {
            let moved = *latest != revision;
            *latest = revision;
            moved
        });
        result
    }
}

impl MemoryRegistry {
    /// An empty registry.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Shared::new(config)))
    }
}

#[async_trait]
impl Source for MemoryRegistry {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        Ok(self.0.act(|table, _| table.snapshot(scope)))
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let stream = MemoryWatch::new(Arc::clone(&self.0), scope.clone(), after);
        Ok(Watch::new(stream))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn register(&self, registration: Registration) -> Result<Lease> {
        self.0.act(|table, now| table.register(&registration, now))
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.0.act(|table, now| table.renew(lease, now))
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        self.0.act(|table, _| table.set_status(lease, status))
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.0.act(|table, _| table.deregister(lease));
        Ok(())
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        self.0
            .act(|table, _| table.set_override(service, id, forced))
    }
}
