//! What people and other programs tell a running saga.

use std::sync::Arc;

use orchestra_core::IdempotencyKey;

use super::Executor;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Operator, Resolution};
use crate::id::{SagaId, StepName};
use crate::machine::Input;
use crate::payload::Payload;
use crate::recovery;
use crate::step::Operation;
use crate::two_phase::Decision;

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// It is durable: a step takes it, now or when it comes to that.
    Delivered,
    /// Nothing of the saga waits for it any more, or the same signal was delivered before.
    NotAwaited,
}

impl Executor {
    /// Sends a signal to the step that waits, or will wait, for one of this name. With an id, repetitions
    /// are heard once. Returns once it is durable.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use orchestra_saga::executor::Delivery;
    /// use orchestra_saga::{Call, Definition, Executor, MemoryStore, Start, Status};
    ///
    /// let mut d = Definition::builder("approval", "1");
    /// let answer = d.signal::<bool, _>("wait", (), "approved", None);
    /// d.step("tell", answer, |_: Call, yes: bool| async move { Ok(yes) }).read_only();
    ///
    /// let executor = Executor::builder(MemoryStore::default()).definition(d.build()?).build().await?;
    /// let saga = executor.start(Start::of("approval")).await?;
    /// assert_eq!(executor.signal(saga, "approved", None, &true).await?, Delivery::Delivered);
    /// assert_eq!(executor.wait(saga).await?.output("tell"), Some(&serde_json::json!(true).into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn signal<T: serde::Serialize + ?Sized>(
        &self,
        saga: SagaId,
        name: &str,
        id: Option<IdempotencyKey>,
        payload: &T,
    ) -> Result<Delivery> {
        let payload = Payload::of(payload).map_err(|source| {
            let message = format!("signal {name} is not JSON");
            Error::new(ErrorKind::InvalidInput, message)
                .of(saga)
                .caused_by(source)
        })?;
        self.shared.limits.check_input(&payload)?;
        let name = Arc::from(name);
        let delivered = self.shared.ask(saga, Input::Signal { name, id, payload });
        Ok(if delivered.await? {
            Delivery::Delivered
        } else {
            Delivery::NotAwaited
        })
    }

    /// Tries the parked steps of the saga again at once. Returns whether there were any.
    pub async fn retry(&self, saga: SagaId, by: Operator) -> Result<bool> {
        self.shared.ask(saga, Input::Retry { by }).await
    }

    /// Begins nothing more of the saga until it is resumed; calls in flight end. Time goes on, also that of
    /// its deadline. Returns false if it is paused already or has ended.
    pub async fn pause(&self, saga: SagaId, by: Operator) -> Result<bool> {
        self.shared.ask(saga, Input::Pause { by }).await
    }

    /// Goes on after a pause. Returns false if it was not paused.
    pub async fn resume(&self, saga: SagaId, by: Operator) -> Result<bool> {
        self.shared.ask(saga, Input::Resume { by }).await
    }

    /// Says what became of an operation that is parked, waits or was interrupted: whoever resolves it
    /// vouches for that. Returns false if the operation is in flight, settled or was never tried; a step that
    /// the saga does not have is [`ErrorKind::NotFound`].
    pub async fn resolve(
        &self,
        saga: SagaId,
        step: &StepName,
        op: Operation,
        resolution: Resolution,
        by: Operator,
    ) -> Result<bool> {
        let input = Input::Resolve {
            step: step.clone(),
            op,
            resolution,
            by,
        };
        let resolved = self.shared.ask(saga, input).await?;
        if !resolved && !self.has_step(saga, step).await? {
            let message = format!("there is no step {step}");
            return Err(Error::new(ErrorKind::NotFound, message).of(saga));
        }
        Ok(resolved)
    }

    async fn has_step(&self, saga: SagaId, step: &StepName) -> Result<bool> {
        let steps = self.status(saga).await?.steps;
        Ok(steps.iter().any(|view| view.name == *step))
    }

    /// Goes on as if the operation were done, with null for its output: what is skipped is not done, nor
    /// undone, by anyone. As for [`Executor::resolve`].
    pub async fn skip(
        &self,
        saga: SagaId,
        step: &StepName,
        op: Operation,
        by: Operator,
    ) -> Result<bool> {
        let nothing = Resolution::Done(Payload::default());
        self.resolve(saga, step, op, nothing, by).await
    }

    /// Runs a completed saga again from a step on, as another saga: the outputs of all steps that do not depend
    /// on it are taken over, and their effects stay those of the first one, which is not changed. Returns the
    /// new saga.
    ///
    /// What is [confirmed](crate::definition::StepBuilder::confirm) or committed in two phases was tried or
    /// prepared under the id of its saga. So a step from which a second part would run again and its first part
    /// would not is [`ErrorKind::InvalidInput`], as is a saga that has not completed, and nothing is written.
    pub async fn fork(&self, saga: SagaId, from: &StepName, by: Operator) -> Result<SagaId> {
        self.shared.fork(saga, from, &by).await
    }

    /// Whether the transactions of a saga's participants are to commit: for one that prepared, heard nothing
    /// since and asks. The answer is read from the log, so any executor on the store can give it.
    pub async fn decision(&self, saga: SagaId) -> Result<Decision> {
        let machine = recovery::load(&*self.shared.store, saga, &self.shared.definitions).await;
        match machine {
            Ok(machine) => Ok(machine.decision()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Decision::Abort),
            Err(error) => Err(error),
        }
    }

    /// Takes a completed saga back: it is compensated as if it had failed at its end. Returns false if it
    /// has not completed, or has steps that cannot be taken back.
    pub async fn revoke(&self, saga: SagaId, reason: impl Into<String>) -> Result<bool> {
        let reason = reason.into();
        self.shared.ask(saga, Input::Revoke { reason }).await
    }
}
