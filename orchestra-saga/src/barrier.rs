//! The participant's side: what makes a repeated, late or overtaken call harmless.
//!
//! A coordinator that crashes or hears no answer asks again, so a participant sees duplicates; a
//! compensation may arrive although the action never did (*null compensation*), and the action may
//! arrive after its compensation (*hanging*); a coordinator that lost its claim may still have calls on
//! the way. A barrier settles all four inside the participant's own transaction: [`sqlite`] and
//! [`postgres`] keep the same rows and are asked in the same way, and [`layer`] reads the call from the
//! headers of a request.
//!
//! # Laws
//!
//! 1. The work of one saga, step and operation is done at most once, and repetitions are answered from
//!    the record, refusals of actions too. A refused compensation is not recorded, so that it can succeed
//!    later, nor is what is put off as [`Abort::Retryable`]. So an action that the saga does not give up, a
//!    retriable one, is put off and never refused: a refusal on record would keep it parked for ever.
//! 2. A compensation whose action had no effect does nothing and refuses the action from then on.
//! 3. An action whose compensation was done is refused, and whoever probes it hears that as well.
//! 4. A call with a lower epoch than any seen for the saga is refused.
//! 5. The record is written in the caller's transaction: it is there exactly if the effect is.
//! 6. A call under the key of work that was done or refused, with another body, is refused and not answered
//!    from the record: it is not the call that was made before. That needs the body of both
//!    ([`BarrierCall::with_body`]), which [`layer`] sees to; calls without one are told apart by saga, step and
//!    operation alone. The bodies are compared byte by byte, as a hash: a coordinator sends the same ones at
//!    each attempt, and so must a step in code that sends its own.
//! 7. The calls of one saga to one database go one after another, from the barrier to the end of the
//!    transaction: of two that arrive at once, the second sees what became of the first.
//!
//! (dtm's sub-transaction barrier settles the first three with the same table; the epoch is ours. The sixth is that
//! of draft-ietf-httpapi-idempotency-key-header.)
//!
//! # How long rows are kept
//!
//! For ever, until `prune` forgets the sagas whose last call came before some moment. Of a saga that is
//! forgotten nothing is left: a repeated action has its effect again, a late one is no longer refused
//! after its compensation, an old coordinator is no longer fenced off. So the age must be more than any
//! call can be late: the longest that a saga of yours may sleep, wait for a person or stay parked between
//! two calls to this participant, plus the longest that the network or a queue may hold a call back. For
//! sagas of minutes, a week; for sagas that sleep for a month, two.

#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod layer;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub mod postgres;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod verdict;

use http::{HeaderMap, StatusCode};
use orchestra_core::IdempotencyKey;

use crate::error::{Error, ErrorKind, Result};
use crate::id::{Epoch, SagaId, StepName};
use crate::step::{Call, Failure, Operation, call};

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
    /// How often the saga went back past the step to a save-point before: each time it is another step.
    pub iteration: u32,
    /// The key of the operation.
    pub key: IdempotencyKey,
    /// The coordinator's fencing number.
    pub epoch: Epoch,
    /// The BLAKE3 hash of the request's body, if that is known; see [`with_body`](Self::with_body).
    pub body: Option<[u8; 32]>,
}

impl BarrierCall {
    /// With this body, so that another call under the same key is not taken for a repetition.
    ///
    /// ```
    /// use orchestra_saga::BarrierCall;
    ///
    /// # let mut headers = http::HeaderMap::new();
    /// # headers.insert("x-saga-id", "01890000-0000-7000-8000-000000000001".parse()?);
    /// # headers.insert("x-step-name", "charge".parse()?);
    /// # headers.insert("x-saga-op", "action".parse()?);
    /// # headers.insert("x-saga-epoch", "3".parse()?);
    /// # headers.insert("idempotency-key", "k-1".parse()?);
    /// let call = BarrierCall::from_headers(&headers)?;
    /// assert_eq!(call.body, None);
    /// let (one, other) = (call.clone().with_body(b"30"), call.with_body(b"31"));
    /// assert_ne!(one, other);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(*blake3::hash(body.as_ref()).as_bytes());
        self
    }

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
        let op = text(headers, &call::SAGA_OP)?;
        let op = OPERATIONS
            .into_iter()
            .find(|known| known.as_str() == op)
            .ok_or_else(|| invalid(&call::SAGA_OP, "no operation of a step"))?;
        let iteration = match headers.get(&call::SAGA_ITERATION) {
            Some(_) => text(headers, &call::SAGA_ITERATION)?
                .parse()
                .map_err(|source| invalid(&call::SAGA_ITERATION, source))?,
            None => 0,
        };
        Ok(Self {
            saga,
            step,
            iteration,
            op,
            key,
            epoch: Epoch(epoch),
            body: None,
        })
    }
}

/// The call itself, for participants in the same process. It has no body: the input is in the log, and so the same
/// at each attempt.
impl From<&Call> for BarrierCall {
    fn from(call: &Call) -> Self {
        Self {
            saga: call.saga,
            step: call.step.clone(),
            iteration: call.iteration,
            op: call.op,
            key: call.key.clone(),
            epoch: call.epoch,
            body: None,
        }
    }
}

/// Every operation that a participant can be asked for.
const OPERATIONS: [Operation; 3] = [Operation::Action, Operation::Compensation, Operation::Probe];

/// Why the participant's own work did not happen.
#[derive(Debug)]
#[non_exhaustive]
pub enum Abort<E> {
    /// Its rules refuse it, now and for ever; what it wrote is rolled back and the refusal recorded.
    Rejected(String),
    /// Not now; what it wrote is rolled back and nothing recorded, so the call may succeed when it is repeated.
    Retryable(String),
    /// The database failed; what it wrote is rolled back and nothing is recorded.
    Database(E),
}

impl<E> Abort<E> {
    /// A refusal by the participant's rules.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self::Rejected(reason.into())
    }

    /// Not now: the caller is to ask again. Of a step that is
    /// [`retriable`](crate::definition::StepBuilder::retriable) it is the only refusal that may ever end well.
    pub fn retryable(reason: impl Into<String>) -> Self {
        Self::Retryable(reason.into())
    }
}

impl<E> From<E> for Abort<E> {
    fn from(error: E) -> Self {
        Self::Database(error)
    }
}

/// What the barrier did with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Barriered<T> {
    /// The work was done now.
    Applied(T),
    /// The work was done before; this is what it returned then.
    Replayed(T),
    /// The participant's rules refused it, now or before.
    Rejected(String),
    /// A compensation of an action that had no effect: nothing was undone. A late action is refused
    /// from now on.
    NullCompensation,
    /// The action, or a probe of it, comes after its compensation: it has no effect any more, and never will.
    Tombstoned,
    /// A coordinator with a higher epoch has been here.
    Stale(Epoch),
    /// Under this key another body was sent before: nothing was done now, and what was done then is not the
    /// answer to this.
    KeyReused,
}

impl<T> Barriered<T> {
    /// The answer over HTTP: 200, 422 for a refusal or a key of another body, 409 for a call that came too late.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Applied(_) | Self::Replayed(_) | Self::NullCompensation => StatusCode::OK,
            Self::Rejected(_) | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Tombstoned | Self::Stale(_) => StatusCode::CONFLICT,
        }
    }

    /// The answer of a step in code: what the work returned, now or before, and the default for a compensation
    /// of what had no effect. As over HTTP, a refusal and an action that comes too late are
    /// [rejected](Failure::Rejected); under a key of another body nobody knows what became of the call, and a
    /// coordinator that was replaced is not the one to know.
    ///
    /// The error of a barrier becomes a failure by `?`: [`ErrorKind::Busy`] can be
    /// [tried again](Failure::Retryable), since nothing happened, and of anything else nobody knows.
    ///
    /// ```
    /// use orchestra_saga::Failure;
    /// use orchestra_saga::barrier::Barriered;
    ///
    /// assert_eq!(Barriered::Replayed(70).into_result(), Ok(70));
    /// assert_eq!(Barriered::<i64>::NullCompensation.into_result(), Ok(0));
    /// let poor = Barriered::<i64>::Rejected("not enough money".to_owned());
    /// assert_eq!(poor.into_result(), Err(Failure::rejected("not enough money")));
    /// ```
    pub fn into_result(self) -> Result<T, Failure>
    where
        T: Default,
    {
        match self {
            Self::Applied(value) | Self::Replayed(value) => Ok(value),
            Self::NullCompensation => Ok(T::default()),
            Self::Rejected(reason) => Err(Failure::Rejected(reason)),
            Self::Tombstoned => Err(Failure::rejected(TOO_LATE)),
            Self::Stale(epoch) => Err(Failure::Unknown(stale(epoch))),
            Self::KeyReused => Err(Failure::unknown(OTHER_BODY)),
        }
    }

    /// The answer of a [probe](crate::definition::StepBuilder::probe) in code: what the action returned, or none
    /// if it has no effect and never will.
    ///
    /// ```
    /// use orchestra_saga::barrier::Barriered;
    ///
    /// assert_eq!(Barriered::Replayed(70).into_probed(), Ok(Some(70)));
    /// assert_eq!(Barriered::<i64>::Tombstoned.into_probed(), Ok(None));
    /// ```
    pub fn into_probed(self) -> Result<Option<T>, Failure> {
        match self {
            Self::Applied(value) | Self::Replayed(value) => Ok(Some(value)),
            Self::NullCompensation | Self::Rejected(_) | Self::Tombstoned => Ok(None),
            Self::Stale(epoch) => Err(Failure::Unknown(stale(epoch))),
            Self::KeyReused => Err(Failure::unknown(OTHER_BODY)),
        }
    }

    /// What the work returned, now or before.
    pub fn into_value(self) -> Option<T> {
        match self {
            Self::Applied(value) | Self::Replayed(value) => Some(value),
            _ => None,
        }
    }
}

/// What says in an answer of 422 that the key was used with another body (a problem type of RFC 9457).
pub(crate) const KEY_REUSED: &str = "urn:orchestra-saga:key-reused";

/// Says [`Barriered::Tombstoned`] to whoever asked.
const TOO_LATE: &str = "it was compensated before, and has no effect";
/// Says [`Barriered::KeyReused`].
const OTHER_BODY: &str = "another body was sent under this key before";

/// Says [`Barriered::Stale`].
fn stale(epoch: Epoch) -> String {
    format!("a coordinator of epoch {epoch} has been here")
}

/// What is busy did nothing; of any other error nobody knows whether it had an effect.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Busy => Self::retryable(error.to_string()),
            _ => Self::unknown(error.to_string()),
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
