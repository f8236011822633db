//! One attempt, and the headers that carry it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};
use orchestra_core::{IdempotencyKey, Timestamp, TraceContext};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
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
/// The header with the number of times that the saga went back past the step to a save-point.
pub const SAGA_ITERATION: HeaderName = HeaderName::from_static("x-saga-iteration");
/// The header with the number of the attempt.
pub const SAGA_ATTEMPT: HeaderName = HeaderName::from_static("x-saga-attempt");
/// The header with the fencing number of the coordinator.
pub const SAGA_EPOCH: HeaderName = HeaderName::from_static("x-saga-epoch");
/// The header with the milliseconds left for the attempt.
pub const SAGA_DEADLINE: HeaderName = HeaderName::from_static("x-saga-deadline");

/// Which of a step's operations is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// Doing it.
    Action,
    /// Undoing it.
    Compensation,
    /// Asking whether it was done.
    Probe,
}

impl Operation {
    /// `action`, `compensation` or `probe`, as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Compensation => "compensation",
            Self::Probe => "probe",
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

/// One attempt of one operation of one step: an [`Attempt`] that clones share, so a clone costs next to nothing.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use orchestra_saga::{Call, Definition, Executor, Failure, MemoryStore, Start};
///
/// async fn charge(call: Call, cents: u32) -> Result<String, Failure> {
///     // Who is asked, and under which key a repetition is known.
///     let headers = call.headers();
///     assert_eq!(headers["x-step-name"], call.step.as_str());
///     assert_eq!(headers["idempotency-key"], call.key.as_str());
///     Ok(format!("{cents} in attempt {}", call.attempt))
/// }
///
/// let mut d = Definition::builder("payment", "1");
/// let cents = d.input::<u32>();
/// d.step("charge", cents, charge).pivot();
/// let executor = Executor::builder(MemoryStore::default()).definition(d.build()?).build().await?;
/// let view = executor.run(Start::of("payment").input(&30)?).await?;
/// let said = view.output("charge").map(|output| output.as_str());
/// assert_eq!(said, Some(r#""30 in attempt 1""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Call(Arc<Attempt>);

/// What a [`Call`] says: its fields are read through the call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Attempt {
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
    /// The same over all attempts and recoveries of this operation, and unlike any other's. A probe
    /// carries the key of the action that it asks about.
    pub key: IdempotencyKey,
    /// How often the saga went back past the step to a save-point before.
    pub iteration: u32,
    /// The fencing number of the coordinator.
    pub epoch: Epoch,
    /// When the coordinator gives the attempt up, by its wall clock.
    pub deadline: Timestamp,
    /// The time that was left when the attempt was issued.
    pub budget: Duration,
    /// The trace that the saga was started in.
    pub trace: Option<Arc<TraceContext>>,
    /// The input of the action.
    pub input: Payload,
    /// For a compensation: what the action returned, if that is known.
    pub output: Option<Payload>,
    /// For a compensation: whether the action is known to have taken effect.
    pub applied: Applied,
    /// How far an earlier attempt came, by its last [`Call::heartbeat`].
    pub details: Option<Payload>,
    /// The number of the step in its definition.
    pub(crate) number: u32,
    pub(crate) heart: Heart,
}

impl Deref for Call {
    type Target = Attempt;

    fn deref(&self) -> &Attempt {
        &self.0
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where heartbeats of a call go.
#[derive(Clone, Default)]
pub(crate) struct Heart(Option<Arc<dyn Beat>>);

/// Hears heartbeats.
#[async_trait]
pub(crate) trait Beat: Send + Sync {
    async fn beat(self: Arc<Self>, call: &Call, details: Payload) -> Result<()>;
}

impl Heart {
    pub(crate) fn new(beat: Arc<dyn Beat>) -> Self {
        Self(Some(beat))
    }
}

/// Calls are the same wherever their heartbeats go.
impl PartialEq for Heart {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Heart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heart")
    }
}

impl Call {
    pub(crate) fn new(attempt: Attempt) -> Self {
        Self(Arc::new(attempt))
    }

    /// Makes another call of it, for tests of steps and participants. Clones stay what they were.
    ///
    /// ```
    /// use orchestra_saga::{Call, Operation};
    ///
    /// fn undoing(call: &Call) -> Call {
    ///     let mut undo = call.clone();
    ///     undo.edit().op = Operation::Compensation;
    ///     undo
    /// }
    /// ```
    #[cfg(feature = "test-util")]
    pub fn edit(&mut self) -> &mut Attempt {
        Arc::make_mut(&mut self.0)
    }

    /// Says that the attempt is alive, and how far it has come: the next attempt finds the last of it in
    /// [`details`](Attempt::details). Returns once it is durable, so not more often than it is worth an append.
    ///
    /// Cancel: it is durable or not.
    pub async fn heartbeat<T: Serialize + ?Sized + Sync>(&self, details: &T) -> Result<()> {
        let details = Payload::of(details).map_err(|source| {
            let message = format!("heartbeat of step {} is not JSON", self.step);
            Error::new(ErrorKind::InvalidInput, message).caused_by(source)
        })?;
        match &self.heart.0 {
            Some(heart) => Arc::clone(heart).beat(self, details).await,
            None => Ok(()),
        }
    }

    /// The key of an operation: a hash of saga, step, iteration and operation.
    #[expect(clippy::missing_panics_doc, reason = "32 hex digits are a valid key")]
    pub fn key_of(saga: SagaId, step: &StepName, iteration: u32, op: Operation) -> IdempotencyKey {
        const CONTEXT: &[u8; 32] = b"orchestra-saga idempotency key 1";
        let number = iteration.to_le_bytes();
        let (slash, number): (&[u8], &[u8]) = match iteration {
            0 => (b"", b""),
            _ => (b"/", &number),
        };
        let (op, step) = (op.as_str().as_bytes(), step.as_str().as_bytes());
        // The longest text has 16 + 12 + 1 + 64 + 5 bytes.
        let (mut text, mut length) = ([0; 128], 0);
        for part in [&saga.to_bytes(), op, b"/", step, slash, number] {
            if let Some(room) = text.get_mut(length..length + part.len()) {
                room.copy_from_slice(part);
                length += part.len();
            }
        }
        let hash = blake3::keyed_hash(CONTEXT, text.get(..length).unwrap_or_default());
        let hex = hash.to_hex();
        let text = hex.as_str().get(..32).unwrap_or_default();
        #[expect(clippy::expect_used, reason = "32 hex digits are a valid key")]
        IdempotencyKey::new(text).expect("hex digits are visible")
    }

    /// The headers that carry the call to a participant.
    ///
    /// `x-saga-id`, `x-step-name`, `idempotency-key`, `x-saga-op`, `x-saga-iteration`,
    /// `x-saga-attempt`, `x-saga-epoch`,
    /// `x-saga-deadline` (milliseconds left) and, inside a trace, `traceparent`.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(9);
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
        put(SAGA_ITERATION, self.iteration.to_string());
        put(SAGA_ATTEMPT, self.attempt.to_string());
        put(SAGA_EPOCH, self.epoch.to_string());
        put(SAGA_DEADLINE, self.budget.as_millis().to_string());
        if let Some(trace) = &self.trace {
            put(HeaderName::from_static("traceparent"), trace.to_string());
        }
        headers
    }
}
