use std::sync::Arc;

use orchestra_core::{IdempotencyKey, Timestamp};
use tokio::sync::oneshot;

use super::Start;
use super::drive::{Birth, Letter, Next, Run, Ticket};
use super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Operator};
use crate::id::{SagaId, StepName, Version};
use crate::machine::{Input, Machine};
use crate::recovery;
use crate::status::{SagaView, Status};

/// Whether a saga counts among those that may run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    Needed,
    /// A part of one that counts: it must not wait for room that its parent holds.
    OfParent,
}

/// A saga that is not in the store yet.
struct Born {
    machine: Machine,
    events: Vec<Event>,
    key: Option<IdempotencyKey>,
    at: Timestamp,
}

impl Shared {
    pub(super) async fn begin(
        self: &Arc<Self>,
        start: Start,
        ended: Option<oneshot::Sender<SagaView>>,
        seat: Seat,
    ) -> Result<SagaId> {
        self.check_accepting()?;
        let definition = self
            .definitions
            .start(&start.definition, start.version.as_deref())?;
        self.limits.check_input(&start.input)?;
        definition.check_input(&start.input)?;
        let ticket = match seat {
            Seat::Needed => Ticket::Held(self.admission.enter(start.priority).await?),
            Seat::OfParent => Ticket::NotNeeded,
        };
        let now = self.now();
        let saga = SagaId::from_parts(now, self.draw_wide());
        let mut machine = Machine::new(definition, saga);
        let events = machine.start(&start, now);
        let new = Born {
            machine,
            events,
            key: start.key.clone(),
            at: now,
        };
        match self.bear(new, ticket, ended).await {
            Err(error) if error.kind() == ErrorKind::DuplicateStart => {
                self.repeated(error, &start).await
            }
            answer => answer,
        }
    }

    /// Makes a new saga durable and drives it.
    async fn bear(
        self: &Arc<Self>,
        born: Born,
        ticket: Ticket,
        ended: Option<oneshot::Sender<SagaView>>,
    ) -> Result<SagaId> {
        let saga = born.machine.saga();
        let (durable, answer) = oneshot::channel();
        let run = Box::new(Run::new(Arc::clone(self), born.machine, ended));
        let batch = run.batch(born.events, born.at).start_key(born.key);
        let birth = Box::new(Birth {
            run,
            batch,
            durable,
        });
        self.spawn(saga, ticket, Next::Start(birth));
        match answer.await {
            Ok(Ok(())) => Ok(saga),
            Ok(Err(error)) => Err(error),
            Err(_dropped) => Err(self.stopping().of(saga)),
        }
    }

    /// A saga that repeats a completed one from a step on.
    pub(super) async fn fork(
        self: &Arc<Self>,
        of: SagaId,
        from: &StepName,
        by: &Operator,
    ) -> Result<SagaId> {
        self.check_accepting()?;
        let source = recovery::load(&*self.store, of, &self.definitions).await?;
        let ticket = Ticket::Held(self.admission.enter(0).await?);
        let now = self.now();
        let saga = SagaId::from_parts(now, self.draw_wide());
        let mut machine = Machine::new(Arc::clone(source.definition()), saga);
        let events = machine.fork(&source, from, by, now)?;
        let born = Born {
            machine,
            events,
            key: None,
            at: now,
        };
        self.bear(born, ticket, None).await
    }

    /// The saga that has the key, if it was started by the same request.
    async fn repeated(&self, error: Error, start: &Start) -> Result<SagaId> {
        let Some(saga) = error.saga() else {
            return Err(error);
        };
        let log = self.store.load(saga, Version(0)).await?;
        let same = log.first().is_some_and(|first| match &first.event {
            Event::SagaStarted(begun) => {
                let input = &begun.input;
                // The same content may be spelled in another order.
                *begun.definition == *start.definition
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

    pub(super) async fn status(&self, saga: SagaId) -> Result<SagaView> {
        let machine = recovery::load(&*self.store, saga, &self.definitions).await?;
        Ok(SagaView::of(&machine))
    }

    pub(super) async fn until(
        self: &Arc<Self>,
        saga: SagaId,
        done: impl Fn(Status) -> bool,
    ) -> Result<SagaView> {
        let mut watch = self.watch(saga);
        loop {
            let view = self.status(saga).await?;
            if done(view.status) {
                return Ok(view);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(self.stopping().of(saga)),
                // The sender is gone once the saga has ended, and then its log says so.
                changed = watch.changes.wait_for(|status| done(*status)) => drop(changed),
            }
        }
    }

    /// Tells a saga something, and whether it mattered once that is durable.
    pub(super) async fn ask(self: &Arc<Self>, saga: SagaId, input: Input) -> Result<bool> {
        self.check_accepting()?;
        let (reply, answer) = oneshot::channel();
        let letter = Letter {
            input,
            reply: Some(reply),
        };
        self.deliver(saga, letter, Ticket::Wanted)?;
        let lost = |_dropped| self.stopping().of(saga);
        answer.await.map_err(lost)?
    }
}
