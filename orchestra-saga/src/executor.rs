//! Drives sagas: calls steps, appends what they said, wakes what sleeps, recovers what was left.
//!
//! One task per running saga asks its [`Machine`](crate::Machine) what to do, appends the answer as one
//! batch and only then makes the calls of it. An error of the store is never an error of a step: the
//! saga is read again from its log and goes on. When a later claim fences this executor off, it stops
//! calling at once.

mod admission;
mod attempt;
mod builder;
mod calls;
mod children;
pub(crate) mod definitions;
mod drive;
mod intervene;
mod limits;
mod mailbox;
mod notice;
mod shared;
mod snapshots;
mod start;
mod starting;
mod timekeeper;

pub use builder::Builder;
pub use intervene::Delivery;
pub use notice::Notice;
pub use start::Start;

use std::sync::Arc;

use orchestra_core::{IdempotencyKey, Monotonic};
use tokio::sync::oneshot;
use tokio_util::sync::DropGuard;

use crate::error::{Error, ErrorKind, Result};
use crate::event::Recorded;
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::machine::Input;
use crate::status::{SagaView, Status};
use crate::store::{Filter, SagaStore, Summary};
use definitions::Definitions;
use shared::Shared;
use starting::Seat;

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cancel {
    /// The request is durable; the saga goes back, unless a pivot in flight turns out to be done.
    Requested,
    /// The saga is past its point of no return, goes back already, or has ended.
    TooLate,
}

/// Runs the sagas of one partition of a store. A clone is the same executor.
///
/// Drop: when the last clone is dropped, no further call is issued, and what runs is let finish in the
/// background; [`Executor::shutdown`] waits for that. Sagas stay resumable either way.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use orchestra_saga::{Call, Definition, Executor, MemoryStore, Start, Status};
///
/// let mut d = Definition::builder("double", "1");
/// let n = d.input::<u64>();
/// d.step("double", n, |_: Call, n: u64| async move { Ok(n * 2) }).read_only();
///
/// let executor = Executor::builder(MemoryStore::default()).definition(d.build()?).build().await?;
/// let saga = executor.start(Start::of("double").input(&21)?).await?;
/// let view = executor.wait(saga).await?;
/// assert_eq!(view.status, Status::Completed);
/// assert_eq!(view.output("double").map(|output| output.as_str()), Some("42"));
/// executor.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Executor {
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

impl Executor {
    /// Begins an executor on this store.
    pub fn builder(store: impl SagaStore + 'static) -> Builder {
        Builder::new(Arc::new(store))
    }

    fn new(shared: Arc<Shared>) -> Self {
        let stop = Arc::new(shared.stop.clone().drop_guard());
        Self {
            shared,
            _stop: stop,
        }
    }

    /// Starts a saga and returns its id once `saga_started` is durable.
    ///
    /// With a start key the same request returns the same id, whenever and however often it is
    /// repeated; another input under that key is [`ErrorKind::KeyReused`]. Too many running sagas are
    /// [`ErrorKind::Overloaded`].
    ///
    /// Cancel: the start goes on without its caller.
    pub async fn start(&self, start: Start) -> Result<SagaId> {
        self.begin(start, None).await
    }

    /// Starts a saga and waits until it has ended, without reading its log for that.
    ///
    /// Cancel: the saga goes on without its caller.
    pub async fn run(&self, start: Start) -> Result<SagaView> {
        let (ended, view) = oneshot::channel();
        let saga = self.begin(start, Some(ended)).await?;
        match view.await {
            Ok(view) => Ok(view),
            // It was started before, sleeps, or is read again.
            Err(_dropped) => self.wait(saga).await,
        }
    }

    async fn begin(
        &self,
        start: Start,
        ended: Option<oneshot::Sender<SagaView>>,
    ) -> Result<SagaId> {
        self.shared.begin(start, ended, Seat::Needed).await
    }

    /// The saga as its log has it.
    pub async fn status(&self, saga: SagaId) -> Result<SagaView> {
        self.shared.status(saga).await
    }

    /// The log of the saga, whoever runs it, and also if its definition is not known here.
    pub async fn history(&self, saga: SagaId) -> Result<Vec<Recorded>> {
        let history = self.shared.store.load(saga, Version(0)).await?;
        if history.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "no such saga").of(saga));
        }
        Ok(history)
    }

    /// The saga that was started with this key.
    pub async fn find(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        self.shared.store.find_start(key).await
    }

    /// A page of sagas.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        self.shared.store.list(filter).await
    }

    /// Waits until the saga has ended. A parked saga has not; see [`Executor::settled`].
    pub async fn wait(&self, saga: SagaId) -> Result<SagaView> {
        self.shared.until(saga, Status::is_terminal).await
    }

    /// Waits until the saga has ended or is parked.
    pub async fn settled(&self, saga: SagaId) -> Result<SagaView> {
        let settled = |status: Status| status.is_terminal() || status == Status::Parked;
        self.shared.until(saga, settled).await
    }

    /// Asks to give the saga up, also while it waits for a retry. Returns once that is durable.
    pub async fn cancel(&self, saga: SagaId, reason: impl Into<String>) -> Result<Cancel> {
        let reason = reason.into();
        let accepted = self.shared.ask(saga, Input::Cancel { reason }).await?;
        Ok(if accepted {
            Cancel::Requested
        } else {
            Cancel::TooLate
        })
    }

    /// The share of the sagas that it owns.
    pub fn partition(&self) -> Partition {
        self.shared.claim.partition
    }

    pub(crate) fn store(&self) -> &dyn SagaStore {
        &*self.shared.store
    }

    pub(crate) fn definitions(&self) -> &Definitions {
        &self.shared.definitions
    }

    /// The claim is a lease, and may be relied on until then.
    pub(crate) fn rely_until(&self, until: Monotonic) {
        self.shared.rely_until(until);
    }

    /// Stops calling: another owner has the partition, or may have it.
    pub(crate) fn fence(&self, error: &Error) {
        self.shared.fence(error);
    }

    /// The number of sagas that have a task.
    pub fn running(&self) -> usize {
        self.shared.running.lock().len()
    }

    /// The fencing number of this executor's claim.
    pub fn epoch(&self) -> Epoch {
        self.shared.claim.epoch
    }

    /// Issues no further call, waits for those in flight and makes their results durable.
    ///
    /// Unfinished sagas stay in the store as they are; the next executor continues them.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}
