//! The log of a saga.
//!
//! The state of a saga is the fold of its events and nothing else. An effect outside is caused only by
//! a `…_scheduled` event that is already durable: the write-ahead intent.

use std::sync::Arc;

use crate::id::{Epoch, StepName, Version};
use crate::payload::Payload;
use crate::step::{Applied, Operation};
use orchestra_core::{IdempotencyKey, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

/// An event and its place in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recorded {
    /// The version of the saga after this event: 1 for the first.
    pub version: Version,
    /// The epoch of the owner that wrote it.
    pub epoch: Epoch,
    /// When it was decided, by the owner's clock.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

impl Recorded {
    /// An event at its place.
    pub fn new(version: Version, epoch: Epoch, at: Timestamp, event: Event) -> Self {
        Self {
            version,
            epoch,
            at,
            event,
        }
    }
}

/// Why a saga is unwound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// A step was refused, or stayed impossible until its retries were used up.
    Rejected {
        /// The step.
        step: StepName,
        /// What it said.
        reason: String,
    },
    /// Nobody knows whether a step took effect, and its retries are used up.
    Unknown {
        /// The step.
        step: StepName,
        /// What is known.
        reason: String,
    },
    /// Someone asked for it.
    Cancelled {
        /// What they said.
        reason: String,
    },
    /// The deadline of the saga passed before its point of no return.
    TimedOut,
}

/// One thing that happened to a saga.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The saga exists. Always the first event.
    SagaStarted {
        /// The definition's id.
        definition: Arc<str>,
        /// The definition's version.
        version: Arc<str>,
        /// The definition's content hash.
        hash: Arc<str>,
        /// The input.
        input: Payload,
        /// When it is given up, unless it is past its point of no return.
        deadline: Option<Timestamp>,
        /// The caller's `traceparent`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<Arc<str>>,
    },
    /// An attempt of a step may now be made: the write-ahead intent.
    StepScheduled {
        /// The step.
        step: StepName,
        /// Its attempt, from 1; an attempt that a crash interrupted is made again under its number.
        attempt: u32,
        /// The key, the same for all attempts.
        key: IdempotencyKey,
        /// The resolved input; written with the first attempt only, since it never changes.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "present"
        )]
        input: Option<Payload>,
        /// When the attempt is given up.
        deadline: Timestamp,
        /// When the step is given up.
        step_deadline: Timestamp,
    },
    /// The step took effect.
    StepCompleted {
        /// The step.
        step: StepName,
        /// The attempt that was answered.
        attempt: u32,
        /// What it returned.
        output: Payload,
    },
    /// The attempt had no effect.
    StepFailed {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// What it said.
        reason: String,
        /// When it is tried again; never, if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry: Option<Timestamp>,
    },
    /// Nobody knows whether the attempt had an effect.
    StepUnknown {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// What is known.
        reason: String,
        /// When it is tried again with the same key; never, if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry: Option<Timestamp>,
    },
    /// From here on the saga goes back.
    CompensationStarted {
        /// Why.
        #[serde(flatten)]
        cause: Cause,
    },
    /// An attempt to compensate a step may now be made: the write-ahead intent.
    CompensationScheduled {
        /// The step.
        step: StepName,
        /// Its attempt, from 1.
        attempt: u32,
        /// The key, the same for all attempts and another than the action's.
        key: IdempotencyKey,
        /// Whether the action is known to have taken effect.
        applied: Applied,
        /// When the attempt is given up.
        deadline: Timestamp,
    },
    /// The step is undone, or had nothing to undo.
    CompensationCompleted {
        /// The step.
        step: StepName,
        /// The attempt that was answered.
        attempt: u32,
    },
    /// The attempt to compensate did not succeed.
    CompensationFailed {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// What it said.
        reason: String,
        /// When it is tried again; if none, `saga_parked` follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry: Option<Timestamp>,
    },
    /// A step that may not be given up does not succeed: it is tried again slowly, and shown.
    SagaParked {
        /// The step.
        step: StepName,
        /// Which of its operations.
        op: Operation,
        /// What it said last.
        reason: String,
        /// When it is tried again.
        retry: Timestamp,
    },
    /// An operator asked to try parked steps again at once.
    SagaResumed,
    /// Someone asked to give the saga up.
    SagaCancelRequested {
        /// What they said.
        reason: String,
    },
    /// A new owner took over: attempts without an answer are interrupted.
    SagaRecovered,
    /// Every step took effect. Always the last event.
    SagaCompleted,
    /// Every effect is undone. Always the last event.
    SagaCompensated,
}

impl Event {
    /// The name of the event in the log.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SagaStarted { .. } => "saga_started",
            Self::StepScheduled { .. } => "step_scheduled",
            Self::StepCompleted { .. } => "step_completed",
            Self::StepFailed { .. } => "step_failed",
            Self::StepUnknown { .. } => "step_unknown",
            Self::CompensationStarted { .. } => "compensation_started",
            Self::CompensationScheduled { .. } => "compensation_scheduled",
            Self::CompensationCompleted { .. } => "compensation_completed",
            Self::CompensationFailed { .. } => "compensation_failed",
            Self::SagaParked { .. } => "saga_parked",
            Self::SagaResumed => "saga_resumed",
            Self::SagaCancelRequested { .. } => "saga_cancel_requested",
            Self::SagaRecovered => "saga_recovered",
            Self::SagaCompleted => "saga_completed",
            Self::SagaCompensated => "saga_compensated",
        }
    }

    /// The step it is about.
    pub const fn step(&self) -> Option<&StepName> {
        match self {
            Self::StepScheduled { step, .. }
            | Self::StepCompleted { step, .. }
            | Self::StepFailed { step, .. }
            | Self::StepUnknown { step, .. }
            | Self::CompensationScheduled { step, .. }
            | Self::CompensationCompleted { step, .. }
            | Self::CompensationFailed { step, .. }
            | Self::SagaParked { step, .. } => Some(step),
            _ => None,
        }
    }
}

/// Reads a member that is there as `Some`, also when it is `null`: an input may well be that.
pub(crate) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(deserializer).map(Some)
}
