//! The participant's side: what makes a repeated, late or overtaken call harmless.
//!
//! A coordinator that crashes or hears no answer asks again, so a participant sees duplicates; a
//! compensation may arrive although the action never did (*null compensation*), and the action may
//! arrive after its compensation (*hanging*); a coordinator that lost its claim may still have calls on
//! the way. A barrier settles all four inside the participant's own transaction.

#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub mod sqlite;

use http::HeaderMap;
use orchestra_core::IdempotencyKey;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{Epoch, SagaId, StepName};
use crate::step::{Call, Operation, call};

/// Which call a participant was sent.
///
/// ```
/// use orchestra_saga::BarrierCall;
///
/// let mut headers = http::HeaderMap::new();
/// headers.insert("x-saga-id", "01890000-0000-7000-8000-000000000001".parse()?);
/// headers.insert("x-step-name", "charge".parse()?);
/// headers.insert("x-saga-op", "action".parse()?);
/// headers.insert("x-saga-epoch", "3".parse()?);
/// headers.insert("idempotency-key", "k-1".parse()?);
/// let call = BarrierCall::from_headers(&headers)?;
/// assert_eq!(call.step.as_str(), "charge");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BarrierCall {
    /// The saga.
    pub saga: SagaId,
    /// The step.
    pub step: StepName,
    /// Doing or undoing.
    pub op: Operation,
    /// The key of the operation.
    pub key: IdempotencyKey,
    /// The coordinator's fencing number.
    pub epoch: Epoch,
}

impl BarrierCall {
    /// What the headers of [`Call::headers`] say.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self> {
        let step = text(headers, &call::STEP_NAME)?;
        let step = StepName::new(step).map_err(|source| invalid(&call::STEP_NAME, source))?;
        let saga = text(headers, &call::SAGA_ID)?;
        let saga = saga
            .parse()
            .map_err(|source| invalid(&call::SAGA_ID, source))?;
        let epoch = text(headers, &call::SAGA_EPOCH)?;
        let epoch = epoch
            .parse()
            .map_err(|source| invalid(&call::SAGA_EPOCH, source))?;
        let key = text(headers, &call::IDEMPOTENCY_KEY)?;
        let key = key
            .parse()
            .map_err(|source| invalid(&call::IDEMPOTENCY_KEY, source))?;
        let op = match text(headers, &call::SAGA_OP)? {
            "action" => Operation::Action,
            "compensation" => Operation::Compensation,
            _ => return Err(invalid(&call::SAGA_OP, "neither action nor compensation")),
        };
        Ok(Self {
            saga,
            step,
            op,
            key,
            epoch: Epoch(epoch),
        })
    }
}

/// The call itself, for participants in the same process.
impl From<&Call> for BarrierCall {
    fn from(call: &Call) -> Self {
        Self {
            saga: call.saga,
            step: call.step.clone(),
            op: call.op,
            key: call.key.clone(),
            epoch: call.epoch,
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Result<&'a str> {
    let value = headers.get(name).ok_or_else(|| invalid(name, "missing"))?;
    value.to_str().map_err(|source| invalid(name, source))
}

fn invalid(
    name: &http::HeaderName,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let message = format!("header {name} does not describe a call of a saga");
    Error::new(ErrorKind::InvalidCall, message).caused_by(source)
}
