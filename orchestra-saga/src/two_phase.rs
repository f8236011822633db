//! Two-phase commit, for participants that can prepare.
//!
//! A saga is seen half done; a two-phase commit is not, but its participants hold their locks until the
//! decision. The steps of both may stand in one saga. `prepare` is the first phase; the decision to commit
//! is the very append in which nothing that can fail is left (presumed abort: without it the transaction is
//! rolled back; Mohan, Lindsay and Obermarck, "Transaction management in the R* distributed database
//! management system", 1986); `commit` or `rollback` is the second phase, repeated until it succeeds.
//!
//! A participant that prepared and hears nothing is *in doubt*: it asks a [`Coordinator`].

mod coordinator;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub mod postgres;

pub use coordinator::Coordinator;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::definition::{Body, Handle, Inputs, StepBuilder};
use crate::payload::Payload;
use crate::step::{Call, Failure, Own, Step, StepOutcome};

/// What became of a transaction in two phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decision {
    /// Every participant commits.
    Commit,
    /// Every participant rolls back. A saga that nobody knows is aborted, too.
    Abort,
    /// Not decided yet: ask again.
    Undecided,
}

/// Someone who can promise to commit.
///
/// Laws:
/// 1. after `prepare` was `Ok`, both `commit` and `rollback` succeed in the end, whatever crashes meanwhile;
/// 2. all three may be called several times for one call key, also at once and by another process, and do
///    their work once;
/// 3. `commit` and `rollback` of what is not prepared any more are `Ok` if that outcome was reached before;
///    `rollback` of what was never prepared is `Ok`, and a `prepare` that comes after it is refused;
/// 4. `commit` and `rollback` do not refuse.
///
/// `commit` is a step of its own, named after the first with `.confirm` at the end, and after a save-point its
/// iteration may be another: it means what the saga and step prepared last.
///
/// Cancel: a phase whose deadline passes is dropped, and asked again.
#[async_trait]
pub trait Participant: fmt::Debug + Send + Sync {
    /// Does the work, makes it durable and keeps it from being seen.
    async fn prepare(&self, call: &Call) -> Result<Payload, Failure>;

    /// Makes it seen.
    async fn commit(&self, call: &Call) -> Result<(), Failure>;

    /// Takes it back.
    async fn rollback(&self, call: &Call) -> Result<(), Failure>;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: Participant + ?Sized> Participant for $pointer<T> {
            async fn prepare(&self, call: &Call) -> Result<Payload, Failure> {
                (**self).prepare(call).await
            }

            async fn commit(&self, call: &Call) -> Result<(), Failure> {
                (**self).commit(call).await
            }

            async fn rollback(&self, call: &Call) -> Result<(), Failure> {
                (**self).rollback(call).await
            }
        }
    )+};
}

forward!(Arc, Box);

/// A participant as the steps of a saga.
#[derive(Debug)]
struct Phases {
    participant: Arc<dyn Participant>,
    second: bool,
}

fn outcome(result: Result<Payload, Failure>) -> StepOutcome {
    match result {
        Ok(output) => StepOutcome::Done(output),
        Err(failure) => failure.into(),
    }
}

#[async_trait]
impl Step for Phases {
    async fn act(&self, call: &Call) -> StepOutcome {
        if self.second {
            let committed = self.participant.commit(call).await;
            return outcome(committed.map(|()| Payload::default()));
        }
        outcome(self.participant.prepare(call).await)
    }

    async fn compensate(&self, call: &Call) -> StepOutcome {
        let undone = self.participant.rollback(call).await;
        outcome(undone.map(|()| Payload::default()))
    }
}

/// The bodies of the three phases.
pub(crate) fn bodies(participant: &Arc<dyn Participant>) -> (Body, Body, Body) {
    let phase = |second| {
        let participant = Arc::clone(participant);
        Body::Code(Arc::new(Own(Phases {
            participant,
            second,
        })))
    };
    (phase(false), phase(true), phase(false))
}

impl crate::definition::Builder {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "handles are copied, and tuples of them read best by value"
    )]
    /// A step in two phases: the participant prepares, and commits once nothing in the saga can fail any
    /// more, or rolls back. The output of its `prepare` is read as `T`.
    pub fn two_phase<T, I: Inputs>(
        &mut self,
        name: &str,
        inputs: I,
        participant: impl Participant + 'static,
    ) -> TwoPhase<'_, I, T> {
        let participant: Arc<dyn Participant> = Arc::new(participant);
        let (prepare, commit, rollback) = bodies(&participant);
        TwoPhase {
            step: self.body(name, &inputs, prepare),
            second: (commit, rollback),
        }
    }
}

/// A step in two phases, to be finished by [`TwoPhase::end`].
#[derive(Debug)]
#[must_use = "the step belongs to the definition once it is ended"]
pub struct TwoPhase<'d, I, T> {
    step: StepBuilder<'d, I, T>,
    second: (Body, Body),
}

impl<'d, I: Inputs, T> TwoPhase<'d, I, T> {
    /// Changes retries and limits of the first phase.
    pub fn with(
        mut self,
        change: impl FnOnce(StepBuilder<'d, I, T>) -> StepBuilder<'d, I, T>,
    ) -> Self {
        self.step = change(self.step);
        self
    }

    /// Ends the step.
    pub fn end(self) -> Handle<T> {
        self.step.end_in_three(self.second)
    }
}
