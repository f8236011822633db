//! One attempt, and the headers that carry it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use orchestra_core::{IdempotencyKey, Timestamp, TraceContext};
use serde::{Deserialize, Serialize};

use crate::id::{Epoch, SagaId, StepName};
use crate::payload::Payload;

/// The header with the id of the saga.
pub const SAGA_ID: HeaderName = HeaderName::from_static("x-saga-id");
/// The header with the name of the step.
pub const STEP_NAME: HeaderName = HeaderName::from_static("x-step-name");
/// The header with the key of the operation (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header with `action` or `compensation`.
pub const SAGA_OP: HeaderName = HeaderName::from_static("x-saga-op");
/// The header with the number of the attempt.
pub const SAGA_ATTEMPT: HeaderName = HeaderName::from_static("x-saga-attempt");
/// The header with the fencing number of the coordinator.
pub const SAGA_EPOCH: HeaderName = HeaderName::from_static("x-saga-epoch");
/// The header with the milliseconds left for the attempt.
pub const SAGA_DEADLINE: HeaderName = HeaderName::from_static("x-saga-deadline");

/// Which of a step's two operations is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// Doing it.
    Action,
    /// Undoing it.
    Compensation,
}

impl Operation {
    /// `action` or `compensation`, as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Compensation => "compensation",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a compensation knows of the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Applied {
    /// It took effect.
    Known,
    /// Perhaps it took effect: undo it if so.
    Unknown,
}

/// One attempt of one operation of one step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Call {
    /// The saga.
    pub saga: SagaId,
    /// The definition's id.
    pub definition: Arc<str>,
    /// The step.
    pub step: StepName,
    /// Doing or undoing.
    pub op: Operation,
    /// The number of the attempt, from 1. Attempts that a crash interrupted keep their number.
    pub attempt: u32,
    /// The same over all attempts and recoveries of this operation, and unlike any other's.
    pub key: IdempotencyKey,
    /// The fencing number of the coordinator.
    pub epoch: Epoch,
    /// When the coordinator gives the attempt up, by its wall clock.
    pub deadline: Timestamp,
    /// The time that was left when the attempt was issued.
    pub budget: Duration,
    /// The trace that the saga was started in.
    pub trace: Option<TraceContext>,
    /// The input of the action.
    pub input: Payload,
    /// For a compensation: what the action returned, if that is known.
    pub output: Option<Payload>,
    /// For a compensation: whether the action is known to have taken effect.
    pub applied: Applied,
}

impl Call {
    /// The key of an operation: a hash of saga, step and operation.
    #[expect(clippy::missing_panics_doc, reason = "32 hex digits are a valid key")]
    pub fn key_of(saga: SagaId, step: &StepName, op: Operation) -> IdempotencyKey {
        let mut hasher = blake3::Hasher::new_derive_key("orchestra-saga idempotency key v1");
        hasher.update(&saga.to_bytes());
        hasher.update(op.as_str().as_bytes());
        hasher.update(b"/");
        hasher.update(step.as_str().as_bytes());
        let hex = hasher.finalize().to_hex();
        let text = hex.as_str().get(..32).unwrap_or_default();
        #[expect(clippy::expect_used, reason = "32 hex digits are a valid key")]
        IdempotencyKey::new(text).expect("hex digits are visible")
    }

    /// The headers that carry the call to a participant.
    ///
    /// `x-saga-id`, `x-step-name`, `idempotency-key`, `x-saga-op`, `x-saga-attempt`, `x-saga-epoch`,
    /// `x-saga-deadline` (milliseconds left) and, inside a trace, `traceparent`.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        let mut put = |name: HeaderName, value: String| {
            // Each value is made of visible ASCII by its type.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        put(SAGA_ID, self.saga.to_string());
        put(STEP_NAME, self.step.to_string());
        put(IDEMPOTENCY_KEY, self.key.to_string());
        put(SAGA_OP, self.op.to_string());
        put(SAGA_ATTEMPT, self.attempt.to_string());
        put(SAGA_EPOCH, self.epoch.to_string());
        put(SAGA_DEADLINE, self.budget.as_millis().to_string());
        if let Some(trace) = &self.trace {
            put(HeaderName::from_static("traceparent"), trace.to_string());
        }
        headers
    }
}
