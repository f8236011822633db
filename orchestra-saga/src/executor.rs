//! Drives sagas: calls steps, appends what they said, wakes what sleeps, recovers what was left.
//!
//! One task per running saga asks its [`Machine`] what to do, appends the answer as one
//! batch and only then makes the calls of it. An error of the store is never an error of a step: the
//! saga is read again from its log and goes on. When a later claim fences this executor off, it stops
//! calling at once.

mod attempt;
mod builder;
mod drive;
mod mailbox;
mod shared;
mod timekeeper;

pub use builder::Builder;

use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{IdempotencyKey, Timestamp, TraceContext};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio_util::sync::DropGuard;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Recorded};
use crate::id::{Epoch, SagaId, StepName, Version};
use crate::machine::{Input, Machine};
use crate::payload::Payload;
use crate::recovery;
use crate::status::{SagaView, Status};
use crate::step::Operation;
use crate::store::{Filter, SagaStore, Summary};
use drive::{First, Letter, New};
use shared::Shared;

/// What an executor tells its listener.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// A batch is durable.
    Appended {
        /// The saga.
        saga: SagaId,
        /// Its definition.
        definition: &'a str,
        /// The status after the batch.
        status: Status,
        /// When the saga was started.
        started: Timestamp,
        /// When the batch was decided.
        at: Timestamp,
        /// What happened.
        events: &'a [Event],
    },
    /// An attempt ended; its result is not durable yet.
    Attempted {
        /// The saga.
        saga: SagaId,
        /// Its definition.
        definition: &'a str,
        /// The step.
        step: &'a StepName,
        /// Doing or undoing.
        op: Operation,
        /// The number of the attempt.
        attempt: u32,
        /// `done`, `rejected`, `retryable` or `unknown`.
        outcome: &'static str,
        /// How long it took.
        took: Duration,
        /// The trace of the saga.
        trace: Option<&'a TraceContext>,
    },
    /// The store failed; the saga is read again and goes on.
    StoreFailed {
        /// The saga.
        saga: SagaId,
        /// What the store said.
        error: &'a Error,
    },
    /// A saga that this executor cannot continue: its definition is missing or changed, or its log
    /// makes no sense. It stays in the store as it is.
    Unrecoverable {
        /// The saga.
        saga: SagaId,
        /// Why.
        error: &'a Error,
    },
    /// Another executor owns the partition: this one has stopped.
    Fenced {
        /// What the store said.
        error: &'a Error,
    },
}

/// What to start.
///
/// ```
/// use orchestra_core::IdempotencyKey;
/// use orchestra_saga::Start;
///
/// let start = Start::of("checkout")
///     .input(&serde_json::json!({ "order": 7 }))?
///     .key(IdempotencyKey::new("order-7")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Start {
    definition: String,
    version: Option<String>,
    input: Payload,
    key: Option<IdempotencyKey>,
    trace: Option<TraceContext>,
}

impl Start {
    /// A saga of the version of this definition that was given to the executor last.
    pub fn of(definition: impl Into<String>) -> Self {
        Self {
            definition: definition.into(),
            version: None,
            input: Payload::default(),
            key: None,
            trace: None,
        }
    }

    /// Of exactly this version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// With this input.
    pub fn input<T: Serialize + ?Sized>(mut self, input: &T) -> Result<Self> {
        self.input = Payload::of(input).map_err(|source| {
            let message = format!("input of saga definition {} is not JSON", self.definition);
            Error::new(ErrorKind::InvalidInput, message).caused_by(source)
        })?;
        Ok(self)
    }

    /// Once for this key: a repetition returns the saga of the first start.
    #[must_use]
    pub fn key(mut self, key: impl Into<Option<IdempotencyKey>>) -> Self {
        self.key = key.into();
        self
    }

    /// Inside this trace.
    #[must_use]
    pub fn trace(mut self, trace: impl Into<Option<TraceContext>>) -> Self {
        self.trace = trace.into();
        self
    }
}

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
        let shared = &self.shared;
        shared.check_accepting()?;
        let definition = shared.definition(&start.definition, start.version.as_deref())?;
        definition.check_input(&start.input)?;
        let permit = shared.try_permit()?;
        let now = shared.now();
        let saga = SagaId::from_parts(now, shared.draw_wide());
        let mut machine = Machine::new(definition, saga);
        let events = machine.start(start.input.clone(), start.trace.as_ref(), now);
        let (durable, answer) = oneshot::channel();
        let new = New {
            machine,
            events,
            key: start.key.clone(),
            at: now,
            durable,
            ended,
        };
        shared.spawn(saga, permit, First::Start(Box::new(new)));
        match answer.await {
            Ok(Ok(())) => Ok(saga),
            Ok(Err(error)) if error.kind() == ErrorKind::DuplicateStart => {
                self.repeated(error, &start).await
            }
            Ok(Err(error)) => Err(error),
            Err(_dropped) => Err(shared.stopping().of(saga)),
        }
    }

    /// The saga that has the key, if it was started by the same request.
    async fn repeated(&self, error: Error, start: &Start) -> Result<SagaId> {
        let Some(saga) = error.saga() else {
            return Err(error);
        };
        let log = self.shared.store.load(saga, Version(0)).await?;
        let same = log.first().is_some_and(|first| match &first.event {
            Event::SagaStarted {
                definition, input, ..
            } => {
                // The same content may be spelled in another order.
                **definition == *start.definition
                    && (*input == start.input || input.value() == start.input.value())
            }
            _ => false,
        });
        if same {
            return Ok(saga);
        }
        let message = "the start key was used for another definition or input";
        Err(Error::new(ErrorKind::KeyReused, message).of(saga))
    }

    /// The saga as its log has it.
    pub async fn status(&self, saga: SagaId) -> Result<SagaView> {
        let shared = &self.shared;
        let find = |id: &str, version: &str| shared.find(id, version);
        let machine = recovery::load(&*shared.store, saga, find).await?;
        Ok(SagaView::of(&machine))
    }

    /// The log of the saga.
    pub async fn history(&self, saga: SagaId) -> Result<Vec<Recorded>> {
        self.shared.store.load(saga, Version(0)).await
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
        self.until(saga, Status::is_terminal).await
    }

    /// Waits until the saga has ended or is parked.
    pub async fn settled(&self, saga: SagaId) -> Result<SagaView> {
        let settled = |status: Status| status.is_terminal() || status == Status::Parked;
        self.until(saga, settled).await
    }

    async fn until(&self, saga: SagaId, done: impl Fn(Status) -> bool) -> Result<SagaView> {
        let mut watch = self.shared.watch(saga);
        loop {
            let view = self.status(saga).await?;
            if done(view.status) {
                return Ok(view);
            }
            tokio::select! {
                () = self.shared.stop.cancelled() => return Err(self.shared.stopping().of(saga)),
                // The sender is gone once the saga has ended, and then its log says so.
                changed = watch.changes.wait_for(|status| done(*status)) => drop(changed),
            }
        }
    }

    /// Asks to give the saga up, also while it waits for a retry. Returns once that is durable.
    pub async fn cancel(&self, saga: SagaId, reason: impl Into<String>) -> Result<Cancel> {
        let reason = reason.into();
        let accepted = self.tell(saga, Input::Cancel { reason }).await?;
        Ok(if accepted {
            Cancel::Requested
        } else {
            Cancel::TooLate
        })
    }

    /// Tries the parked steps of the saga again at once. Returns whether there were any.
    pub async fn retry(&self, saga: SagaId) -> Result<bool> {
        self.tell(saga, Input::Resume).await
    }

    async fn tell(&self, saga: SagaId, input: Input) -> Result<bool> {
        self.shared.check_accepting()?;
        let (reply, answer) = oneshot::channel();
        let letter = Letter {
            input,
            reply: Some(reply),
        };
        self.shared.deliver(saga, letter, None)?;
        let lost = |_dropped| self.shared.stopping().of(saga);
        answer.await.map_err(lost)?
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
