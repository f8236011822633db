use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Clock, Listener, Monotonic, Silent, SystemWallClock, TokioClock, WallClock};

use super::definitions::Definitions;
use super::limits::Limits;
use super::shared::{self, Listening, Shared, Time};
use super::{Executor, Notice, timekeeper};
use crate::config::Config;
use crate::definition::Definition;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{Epoch, Partition};
use crate::step::Caller;
use crate::store::{Claim, MemoryStore, SagaStore};

/// Collects the parts of an [`Executor`].
#[derive(Clone)]
pub struct Builder {
    given: Arc<dyn SagaStore>,
    /// The one that was given, unless sagas are to be kept in memory.
    store: Arc<dyn SagaStore>,
    definitions: Vec<Arc<Definition>>,
    caller: Option<Arc<dyn Caller>>,
    clock: Arc<dyn Clock>,
    wall: Arc<dyn WallClock>,
    listener: Listening,
    max_running: usize,
    max_waiting: usize,
    limits: Limits,
    partition: Partition,
    owner: String,
    seed: Option<u64>,
    config: Config,
    poll: Duration,
    retention: Option<Duration>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("store", &self.store)
            .field("definitions", &self.definitions)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new(store: Arc<dyn SagaStore>) -> Self {
        Self {
            given: Arc::clone(&store),
            store,
            definitions: Vec::new(),
            caller: None,
            clock: Arc::new(TokioClock::new()),
            wall: Arc::new(SystemWallClock),
            listener: Arc::new(Silent),
            max_running: 10_000,
            max_waiting: 0,
            limits: Limits {
                payload: 2 * 1024 * 1024,
                events: 50_000,
            },
            partition: Partition(0),
            owner: format!("pid {}", std::process::id()),
            seed: None,
            config: Config::default(),
            poll: Duration::from_secs(1),
            retention: None,
        }
    }

    /// A definition that may be started and continued. Several versions of one id stand side by side;
    /// [`Start::of`](super::Start::of) takes the last.
    #[must_use]
    pub fn definition(mut self, definition: impl Into<Arc<Definition>>) -> Self {
        self.definitions.push(definition.into());
        self
    }

    /// Sends the requests of declarative steps. Needed if a definition has any.
    #[must_use]
    pub fn caller(mut self, caller: impl Caller + 'static) -> Self {
        self.caller = Some(Arc::new(caller));
        self
    }

    /// Measures time; tokio's clock by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tells the time of day, read once: from then on the clock is added to it.
    #[must_use]
    pub fn wall_clock(mut self, wall: Arc<dyn WallClock>) -> Self {
        self.wall = wall;
        self
    }

    /// Hears what happens.
    #[must_use]
    pub fn listener(mut self, listener: impl for<'a> Listener<Notice<'a>> + 'static) -> Self {
        self.listener = Arc::new(listener);
        self
    }

    /// The most sagas that run at a time; ten thousand by default. Parked sagas do not count.
    #[must_use]
    pub fn max_running(mut self, limit: NonZeroU32) -> Self {
        self.max_running = usize::try_from(limit.get()).unwrap_or(usize::MAX);
        self
    }

    /// How many starts may wait for room when as many run as may, those of the highest
    /// [`priority`](super::Start::priority) first; none by default: they are refused.
    #[must_use]
    pub fn max_waiting(mut self, limit: usize) -> Self {
        self.max_waiting = limit;
        self
    }

    /// The largest input, output, signal or heartbeat in bytes of JSON; two mebibytes by default. Keep what
    /// is larger elsewhere, and pass its name.
    #[must_use]
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.limits.payload = bytes;
        self
    }

    /// How many events a log may have before signals and heartbeats are refused; fifty thousand by default.
    #[must_use]
    pub fn max_history(mut self, events: u64) -> Self {
        self.limits.events = events;
        self
    }

    /// The share of the sagas that is owned; zero by default.
    #[must_use]
    pub fn partition(mut self, partition: Partition) -> Self {
        self.partition = partition;
        self
    }

    /// The owner's name in the store, for people.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }

    /// Makes ids and delays repeatable for one epoch of the partition.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How sagas are kept, and what definitions go by that are read from the store.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self.store = if config.persistence.is_enabled {
            Arc::clone(&self.given)
        } else {
            Arc::new(MemoryStore::default())
        };
        self
    }

    /// How often the timers of sleeping sagas are looked at; each second by default.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval.max(Duration::from_millis(1));
        self
    }

    /// How long ended sagas are kept, with their start keys; for ever by default. After it they are purged, and a
    /// repeated start with the same key would start another saga.
    /// Keep them for longer than sagas with [children](crate::definition::Builder::children) last: a child that is
    /// forgotten is not taken back with its parent.
    #[must_use]
    pub fn retention(mut self, kept: impl Into<Option<Duration>>) -> Self {
        self.retention = kept.into();
        self
    }

    /// Claims the partition, which fences off whoever had it, and continues every unfinished saga.
    ///
    /// Must be called inside a tokio runtime with time enabled.
    pub async fn build(self) -> Result<Executor> {
        self.check()?;
        let claim = self.store.claim(self.partition, &self.owner).await?;
        self.assemble(claim).await
    }

    /// Whether what was collected fits together.
    pub(crate) fn check(&self) -> Result<()> {
        self.checked_definitions().map(drop)
    }

    pub(crate) fn store(&self) -> Arc<dyn SagaStore> {
        Arc::clone(&self.store)
    }

    pub(crate) fn owner_name(&self) -> &str {
        &self.owner
    }

    pub(crate) fn monotonic(&self) -> Monotonic {
        self.clock.now()
    }

    /// An executor under this claim, which continues every unfinished saga.
    pub(crate) async fn assemble(self, claim: Claim) -> Result<Executor> {
        let definitions = self.checked_definitions()?;
        for definition in definitions.given() {
            self.store.define(&definition.blueprint()).await?;
        }
        let time = Time::new(self.clock, &*self.wall);
        let snapshot_every = if self.store.prefers_logs() {
            0
        } else {
            self.config.persistence.snapshot_every
        };
        let shared = Arc::new(Shared::new(shared::Parts {
            store: self.store,
            definitions,
            caller: self.caller,
            time,
            listener: self.listener,
            max_running: self.max_running,
            max_waiting: self.max_waiting,
            limits: self.limits,
            claim,
            rng: self
                .seed
                .map_or_else(fastrand::Rng::new, |seed| repeatable(seed, claim.epoch)),
            snapshot_every,
            poll: self.poll,
            retention: self.retention,
        }));
        timekeeper::spawn(&shared);
        Ok(Executor::new(shared))
    }

    fn checked_definitions(&self) -> Result<Definitions> {
        let mut found = Definitions::new(self.config);
        for definition in &self.definitions {
            let (id, version) = (&definition.id, &definition.version);
            let fail = |reason: &str| {
                let message = format!("saga definition {id} {version} {reason}");
                Err(Error::new(ErrorKind::InvalidDefinition, message))
            };
            if definition.has_requests() && self.caller.is_none() {
                return fail("has requests as steps, but the executor has no caller");
            }
            if !found.add(definition) {
                return fail("was given twice");
            }
        }
        Ok(found)
    }
}

/// The same seed in the next epoch must not make the same ids again.
fn repeatable(seed: u64, epoch: Epoch) -> fastrand::Rng {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    fastrand::Rng::with_seed(seed ^ epoch.0.wrapping_mul(ODD))
}
