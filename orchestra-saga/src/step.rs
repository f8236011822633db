//! Steps: what a saga does outside, and what the answers mean.
//!
//! Every attempt ends in one of four [`StepOutcome`]s. The difference between *it did not happen* and
//! *nobody knows* is kept all the way: an unknown outcome is asked again with the same
//! [`IdempotencyKey`](orchestra_core::IdempotencyKey), and a step that stays unknown is compensated *if applied*.

pub mod call;
mod request;
mod response;
mod typed;

pub use call::{Applied, Attempt, Call, Operation};
pub(crate) use call::{Beat, Heart};
pub use request::{Caller, StepCall, StepRequest};
pub(crate) use typed::{Decode, TypedAction, TypedCompensation, TypedProbe};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use crate::payload::Payload;

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepOutcome {
    /// It took effect, once, and this is what it returned.
    Done(Payload),
    /// It had no effect and never will: a refusal by the rules of the participant.
    Rejected(String),
    /// It had no effect, and may have one later.
    Retryable {
        /// What was said.
        reason: String,
        /// The least time to wait, if the participant named one.
        after: Option<Duration>,
    },
    /// Nobody knows: no answer in time, a connection that broke after sending, a crash.
    Unknown(String),
}

impl StepOutcome {
    /// The name of the variant, for labels of metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Rejected(_) => "rejected",
            Self::Retryable { .. } => "retryable",
            Self::Unknown(_) => "unknown",
        }
    }

    /// For a typed step: what was returned, read as `T`. What took effect and cannot be read is
    /// [`Unknown`](Failure::Unknown), never a refusal.
    ///
    /// ```
    /// use http::StatusCode;
    /// use orchestra_saga::{Call, Failure, StepOutcome};
    ///
    /// async fn charge(call: Call, cents: u64) -> Result<u64, Failure> {
    ///     // Send `cents` with `call.headers()` and a timeout of `call.budget` here.
    /// #   let _ = (call, cents);
    ///     let (status, body) = (StatusCode::OK, br"4200");
    ///     StepOutcome::from_http(status, None, body).into_result()
    /// }
    /// ```
    pub fn into_result<T: DeserializeOwned>(self) -> Result<T, Failure> {
        match self {
            Self::Done(output) => output
                .read()
                .map_err(|source| Failure::Unknown(format!("answer cannot be read: {source}"))),
            Self::Rejected(reason) => Err(Failure::Rejected(reason)),
            Self::Retryable { reason, after } => Err(Failure::Retryable { reason, after }),
            Self::Unknown(reason) => Err(Failure::Unknown(reason)),
        }
    }
}

/// Why an attempt of a typed step is not done; see [`StepOutcome`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It had no effect and never will.
    Rejected(String),
    /// It had no effect, and may have one later.
    Retryable {
        /// What was said.
        reason: String,
        /// The least time to wait.
        after: Option<Duration>,
    },
    /// Nobody knows whether it had an effect.
    Unknown(String),
}

impl Failure {
    /// It had no effect and never will.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self::Rejected(reason.into())
    }

    /// It had no effect, and may have one later.
    pub fn retryable(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Retryable {
            reason,
            after: None,
        }
    }

    /// It had no effect, and the participant asks to be left alone for that long.
    pub fn retryable_after(reason: impl Into<String>, after: Duration) -> Self {
        let reason = reason.into();
        Self::Retryable {
            reason,
            after: Some(after),
        }
    }

    /// Nobody knows whether it had an effect.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown(reason.into())
    }
}

impl From<Failure> for StepOutcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Rejected(reason) => Self::Rejected(reason),
            Failure::Retryable { reason, after } => Self::Retryable { reason, after },
            Failure::Unknown(reason) => Self::Unknown(reason),
        }
    }
}

/// The body of a step.
///
/// Laws:
/// 1. `act` may be called several times with one key, also by another process after a crash, and takes
///    effect at most once: pass [`Call::key`] on to a participant that keeps it (see
///    [`barrier`](crate::barrier)), or be idempotent by nature.
/// 2. `Rejected` and `Retryable` are said only when nothing happened. In doubt: `Unknown`.
/// 3. `compensate` undoes the effect of `act` of the same saga and step. It also holds when `act` never
///    took effect (`call.applied` is [`Applied::Unknown`]), and then nothing is undone.
/// 4. `compensate` does not refuse: a refusal parks the saga until a person resolves it.
///
/// Cancel: an attempt that outlives its deadline is dropped, and its outcome is `Unknown`. A panic is
/// caught and is `Unknown` too. Drop: a step is dropped with its definition.
///
/// ```
/// use async_trait::async_trait;
/// use orchestra_saga::{Call, Payload, Step, StepOutcome};
///
/// #[derive(Debug)]
/// struct Reserve;
///
/// #[async_trait]
/// impl Step for Reserve {
///     async fn act(&self, call: &Call) -> StepOutcome {
///         StepOutcome::Done(call.input.value()["item"].clone().into())
///     }
///
///     async fn compensate(&self, _call: &Call) -> StepOutcome {
///         StepOutcome::Done(Payload::default())
///     }
/// }
/// ```
#[async_trait]
pub trait Step: fmt::Debug + Send + Sync {
    /// Makes one attempt.
    async fn act(&self, call: &Call) -> StepOutcome;

    /// Finds out whether `act` took effect, of which nobody heard: `Done` with its output, `Rejected` if it
    /// had none and never will. Called only on steps that say [`probed`](crate::definition::StepBuilder::probed).
    async fn probe(&self, call: &Call) -> StepOutcome {
        StepOutcome::Unknown(format!("step {} cannot be asked", call.step))
    }

    /// Makes one attempt to undo. Called only on compensatable steps.
    async fn compensate(&self, call: &Call) -> StepOutcome {
        StepOutcome::Rejected(format!("step {} has no compensation", call.step))
    }
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: Step + ?Sized> Step for $pointer<T> {
            async fn act(&self, call: &Call) -> StepOutcome {
                (**self).act(call).await
            }

            async fn probe(&self, call: &Call) -> StepOutcome {
                (**self).probe(call).await
            }

            async fn compensate(&self, call: &Call) -> StepOutcome {
                (**self).compensate(call).await
            }
        }
    )+};
}

forward!(Arc, Box);
