//! The log of a saga.
//!
//! The state of a saga is the fold of its events and nothing else. An effect outside is caused only by
//! a `…_scheduled` event that is already durable: the write-ahead intent.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{Epoch, SagaId, StepName, Version};
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
    /// It had completed, and whoever it was part of goes back.
    Revoked {
        /// What they said.
        reason: String,
    },
}

/// Who intervened by hand, and why: kept with the saga for an audit.
///
/// ```
/// let by = orchestra_saga::Operator::new("ada", "the bank confirmed it by phone");
/// assert_eq!(by.to_string(), "ada: the bank confirmed it by phone");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Operator {
    /// Their name.
    pub who: String,
    /// Their reason.
    pub why: String,
}

impl Operator {
    /// This person, for this reason.
    pub fn new(who: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            who: who.into(),
            why: why.into(),
        }
    }
}

impl std::fmt::Display for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.who, self.why)
    }
}

/// What an operator found out about an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resolution {
    /// An action took effect and returned this, or is skipped with this in its place; a compensation is
    /// done, whatever this is.
    Done(Payload),
    /// An action had no effect and is not tried again: the step is given up. Not of a retriable step, nor of
    /// a saga that never goes back, which give nothing up. Whoever says so has seen to it that no attempt
    /// still under way has the effect later.
    NotApplied,
}

/// How a saga begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Started {
    /// The definition's id.
    pub definition: Arc<str>,
    /// The definition's version.
    pub version: Arc<str>,
    /// The definition's content hash.
    pub hash: Arc<str>,
    /// The input.
    pub input: Payload,
    /// When it is given up, unless it is past its point of no return.
    pub deadline: Option<Timestamp>,
    /// The caller's `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Arc<str>>,
    /// What it can be searched by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The saga of which it is a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SagaId>,
    /// The saga whose beginning it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_of: Option<SagaId>,
}

impl Started {
    /// Without time limit, trace, attributes or relatives.
    pub fn new(
        definition: impl Into<Arc<str>>,
        version: impl Into<Arc<str>>,
        hash: impl Into<Arc<str>>,
        input: Payload,
    ) -> Self {
        Self {
            definition: definition.into(),
            version: version.into(),
            hash: hash.into(),
            input,
            deadline: None,
            trace: None,
            attributes: BTreeMap::new(),
            parent: None,
            fork_of: None,
        }
    }
}

/// One thing that happened to a saga.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The saga exists. Always the first event.
    SagaStarted(Arc<Started>),
    /// A step of the saga that this one repeats had this output; its effect stays that saga's.
    StepCopied {
        /// The step.
        step: StepName,
        /// What it returned there.
        output: Payload,
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
    /// A long attempt is alive, and can be continued from here.
    StepHeartbeat {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// How far it has come, in its own words.
        details: Payload,
    },
    /// A step that only waits has begun to.
    TimerSet {
        /// The step.
        step: StepName,
        /// Until when.
        due: Timestamp,
    },
    /// Its time has come, and the step is done.
    TimerFired {
        /// The step.
        step: StepName,
    },
    /// A step waits for a signal.
    SignalAwaited {
        /// The step.
        step: StepName,
        /// How long, if not for ever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// Someone sent a signal; it is kept until a step takes it.
    SignalReceived {
        /// Its name.
        name: Arc<str>,
        /// What tells it from others of that name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<IdempotencyKey>,
        /// What it says.
        payload: Payload,
    },
    /// The step has taken the oldest signal that it waits for, and is done.
    SignalTaken {
        /// The step.
        step: StepName,
    },
    /// A question whether a step took effect may now be asked.
    ProbeScheduled {
        /// The step.
        step: StepName,
        /// Which question, from 1.
        attempt: u32,
        /// When it is given up.
        deadline: Timestamp,
    },
    /// It is known now whether the step took effect.
    ProbeCompleted {
        /// The step.
        step: StepName,
        /// Which question.
        attempt: u32,
        /// What the step returned, if it took effect.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "present"
        )]
        applied: Option<Payload>,
    },
    /// The question had no answer.
    ProbeFailed {
        /// The step.
        step: StepName,
        /// Which question.
        attempt: u32,
        /// What was said.
        reason: String,
        /// When it is asked again; if never, the step is compensated in case it took effect.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry: Option<Timestamp>,
    },
    /// From here on the saga goes back.
    CompensationStarted {
        /// Why.
        #[serde(flatten)]
        cause: Cause,
        /// Only to this save-point, from which it goes forward again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<StepName>,
    },
    /// It is back at its save-point, and goes forward again from there.
    SagaRestarted {
        /// The step that is the save-point.
        step: StepName,
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
    SagaRetried {
        /// Who.
        by: Operator,
    },
    /// An operator says what became of an operation.
    StepResolved {
        /// The step.
        step: StepName,
        /// Which of its operations.
        op: Operation,
        /// What they found out.
        resolution: Resolution,
        /// Who.
        by: Operator,
    },
    /// Nothing is begun until it is resumed.
    SagaPaused {
        /// Who asked for it.
        by: Operator,
    },
    /// It goes on after a pause.
    SagaResumed {
        /// Who asked for it.
        by: Operator,
    },
    /// It had completed, and goes back after all.
    SagaRevoked {
        /// Why.
        reason: String,
    },
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
            Self::SagaStarted(_) => "saga_started",
            Self::StepScheduled { .. } => "step_scheduled",
            Self::StepCompleted { .. } => "step_completed",
            Self::StepFailed { .. } => "step_failed",
            Self::StepUnknown { .. } => "step_unknown",
            Self::CompensationStarted { .. } => "compensation_started",
            Self::CompensationScheduled { .. } => "compensation_scheduled",
            Self::CompensationCompleted { .. } => "compensation_completed",
            Self::CompensationFailed { .. } => "compensation_failed",
            Self::SagaParked { .. } => "saga_parked",
            Self::SagaRetried { .. } => "saga_retried",
            Self::SagaPaused { .. } => "saga_paused",
            Self::SagaResumed { .. } => "saga_resumed",
            Self::SagaRevoked { .. } => "saga_revoked",
            Self::SagaRestarted { .. } => "saga_restarted",
            Self::StepCopied { .. } => "step_copied",
            Self::StepHeartbeat { .. } => "step_heartbeat",
            Self::StepResolved { .. } => "step_resolved",
            Self::TimerSet { .. } => "timer_set",
            Self::TimerFired { .. } => "timer_fired",
            Self::SignalAwaited { .. } => "signal_awaited",
            Self::SignalReceived { .. } => "signal_received",
            Self::SignalTaken { .. } => "signal_taken",
            Self::ProbeScheduled { .. } => "probe_scheduled",
            Self::ProbeCompleted { .. } => "probe_completed",
            Self::ProbeFailed { .. } => "probe_failed",
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
            | Self::StepCopied { step, .. }
            | Self::StepHeartbeat { step, .. }
            | Self::StepResolved { step, .. }
            | Self::TimerSet { step, .. }
            | Self::TimerFired { step }
            | Self::SignalAwaited { step, .. }
            | Self::SignalTaken { step }
            | Self::ProbeScheduled { step, .. }
            | Self::ProbeCompleted { step, .. }
            | Self::ProbeFailed { step, .. }
            | Self::SagaParked { step, .. } => Some(step),
            _ => None,
        }
    }

    /// What it carries of the saga's own data.
    pub(crate) fn payload_mut(&mut self) -> Option<&mut Payload> {
        match self {
            Self::SagaStarted(started) => Some(&mut Arc::make_mut(started).input),
            Self::StepCopied { output, .. } | Self::StepCompleted { output, .. } => Some(output),
            Self::StepScheduled { input, .. } => input.as_mut(),
            Self::StepHeartbeat { details, .. } => Some(details),
            Self::SignalReceived { payload, .. } => Some(payload),
            Self::ProbeCompleted { applied, .. } => applied.as_mut(),
            Self::StepResolved { resolution, .. } => match resolution {
                Resolution::Done(output) => Some(output),
                Resolution::NotApplied => None,
            },
            Self::StepFailed { .. }
            | Self::StepUnknown { .. }
            | Self::TimerSet { .. }
            | Self::TimerFired { .. }
            | Self::SignalAwaited { .. }
            | Self::SignalTaken { .. }
            | Self::ProbeScheduled { .. }
            | Self::ProbeFailed { .. }
            | Self::CompensationStarted { .. }
            | Self::SagaRestarted { .. }
            | Self::CompensationScheduled { .. }
            | Self::CompensationCompleted { .. }
            | Self::CompensationFailed { .. }
            | Self::SagaParked { .. }
            | Self::SagaRetried { .. }
            | Self::SagaPaused { .. }
            | Self::SagaResumed { .. }
            | Self::SagaCancelRequested { .. }
            | Self::SagaRevoked { .. }
            | Self::SagaRecovered
            | Self::SagaCompleted
            | Self::SagaCompensated => None,
        }
    }
}

/// Reads a member that is there as `Some`, also when it is `null`: an input may well be that.
pub(crate) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Payload>, D::Error> {
    Payload::deserialize(deserializer).map(Some)
}
