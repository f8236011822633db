//! Views made of the events of all sagas, each kept exactly once, and made anew when wanted.
//!
//! A [`View`] keeps what it makes of the events together with the place of the last of them, in one
//! transaction. So an event has its effect on the view once, whenever the process dies; this stands on that
//! transaction alone. A [`Projector`] follows the store and feeds the view; to rebuild a view it resets it and
//! begins at the start of the stream. Events that were purged are not there for a rebuild.
//!
//! [`search`] is such a view: sagas by status, definition, time and attribute.

pub mod search;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::Backoff;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::store::{Entry, Position, SagaStore};

/// Something that is made of events.
///
/// Laws: 1. `checkpoint` is the place of the last entry that was applied, [`Position::START`] before any; 2.
/// `apply` keeps what it makes of the entries and the place of the last of them, both or neither; 3. entries
/// that are not after the checkpoint have no effect: two projectors may feed one view; 4. after `reset` the
/// view is as new.
///
/// Cancel: a dropped `apply` is done or not done.
#[async_trait]
pub trait View: fmt::Debug + Send + Sync {
    /// How far it has come.
    async fn checkpoint(&self) -> Result<Position>;

    /// Applies entries in their order.
    async fn apply(&self, entries: &[Entry]) -> Result<()>;

    /// Forgets everything.
    async fn reset(&self) -> Result<()>;
}

#[async_trait]
impl<T: View + ?Sized> View for Arc<T> {
    async fn checkpoint(&self) -> Result<Position> {
        (**self).checkpoint().await
    }

    async fn apply(&self, entries: &[Entry]) -> Result<()> {
        (**self).apply(entries).await
    }

    async fn reset(&self) -> Result<()> {
        (**self).reset().await
    }
}

/// Entries read at a time.
const BATCH: usize = 512;
/// How fast a store or view that fails is asked again.
const AGAIN: Backoff = Backoff::exponential(Duration::from_millis(50), 2.0)
    .cap(Duration::from_secs(10))
    .jitter(orchestra_core::Jitter::Equal);

/// Follows a store and feeds a view.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::sync::Arc;
/// use orchestra_saga::projection::Projector;
/// use orchestra_saga::projection::search::{MemoryIndex, Query, Search};
/// use orchestra_saga::{Call, Definition, Executor, MemoryStore, Start, Status};
///
/// let mut d = Definition::builder("double", "1");
/// let n = d.input::<u64>();
/// d.step("double", n, |_: Call, n: u64| async move { Ok(n * 2) }).read_only();
/// let store = Arc::new(MemoryStore::default());
/// let executor = Executor::builder(Arc::clone(&store)).definition(d.build()?).build().await?;
/// let view = executor.run(Start::of("double").input(&21)?.attribute("order", "o-7")).await?;
///
/// let index = Arc::new(MemoryIndex::new(10_000));
/// let mut projector = Projector::new(store, Arc::clone(&index));
/// projector.catch_up().await?;
/// let found = index.search(&Query::default().attribute("order", "o-7")).await?;
/// assert_eq!((found[0].saga, found[0].status), (view.id, Status::Completed));
/// # executor.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Projector {
    store: Arc<dyn SagaStore>,
    view: Arc<dyn View>,
    poll: Duration,
}

impl Projector {
    /// From this store into this view.
    pub fn new(store: impl SagaStore + 'static, view: impl View + 'static) -> Self {
        Self {
            store: Arc::new(store),
            view: Arc::new(view),
            poll: Duration::from_millis(200),
        }
    }

    /// How often the store is looked at when nothing was new; every 200 ms by default.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval.max(Duration::from_millis(1));
        self
    }

    /// Applies everything that is there, and returns how many entries that were.
    ///
    /// Cancel: what was applied stays so.
    pub async fn catch_up(&mut self) -> Result<usize> {
        let mut all = 0;
        loop {
            match self.step().await? {
                0 => return Ok(all),
                applied => all += applied,
            }
        }
    }

    /// Makes the view anew from the start of the stream.
    ///
    /// Cancel: the view is left behind; another call completes it.
    pub async fn rebuild(&mut self) -> Result<usize> {
        self.view.reset().await?;
        self.catch_up().await
    }

    async fn step(&self) -> Result<usize> {
        let after = self.view.checkpoint().await?;
        let entries = self.store.read(after, BATCH).await?;
        if !entries.is_empty() {
            self.view.apply(&entries).await?;
        }
        Ok(entries.len())
    }

    /// Follows the store until it is told to stop. What fails is tried again, ever more slowly; an error that
    /// no repetition mends ends it.
    pub async fn follow(self, stop: CancellationToken) -> Result<()> {
        let mut failures = 0_u32;
        while !stop.is_cancelled() {
            let pause = match self.step().await {
                Ok(BATCH) => Duration::ZERO,
                Ok(_) => {
                    failures = 0;
                    self.poll
                }
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a view of sagas falls behind");
                    failures = failures.saturating_add(1);
                    AGAIN.delay(failures, Duration::ZERO, fastrand::u64(..))
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }
}

/// The events of all sagas as they come, from a place on.
///
/// It polls the store, and keeps nothing but its place and what it has read ahead.
#[derive(Debug)]
pub struct Subscription {
    store: Arc<dyn SagaStore>,
    position: Position,
    ahead: std::collections::VecDeque<Entry>,
    poll: Duration,
}

impl Subscription {
    /// Everything after that place.
    pub fn new(store: impl SagaStore + 'static, after: Position) -> Self {
        Self {
            store: Arc::new(store),
            position: after,
            ahead: std::collections::VecDeque::new(),
            poll: Duration::from_millis(50),
        }
    }

    /// How often the store is looked at when nothing was new; every 50 ms by default.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval.max(Duration::from_millis(1));
        self
    }

    /// The place of the last entry that was returned: to go on from later.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next entry, whenever it comes. After an error it may be called again.
    ///
    /// Cancel: no entry is lost.
    pub async fn next(&mut self) -> Result<Entry, Error> {
        loop {
            if let Some(entry) = self.ahead.pop_front() {
                self.position = entry.position;
                return Ok(entry);
            }
            let entries = self.store.read(self.position, BATCH).await?;
            if entries.is_empty() {
                tokio::time::sleep(self.poll).await;
            }
            self.ahead.extend(entries);
        }
    }
}
