use std::fmt;
use std::str::FromStr;

use http::StatusCode;

use super::Failure;
use crate::Error;

/// One kind of failure after which another attempt may help; the names are those of Envoy's `retry_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// `5xx`: any status from 500, and no response at all.
    ServerError,
    /// `gateway-error`: 502, 503 and 504.
    GatewayError,
    /// `connect-failure`: no connection.
    ConnectFailure,
    /// `refused-stream`: the peer refused the HTTP/2 stream, or ended the connection without looking at it.
    RefusedStream,
    /// `reset`: no response for whatever reason, a timeout of the attempt included.
    Reset,
    /// `reset-before-request`: the connection was gone before the request was written.
    ResetBeforeRequest,
    /// `retriable-4xx`: 409.
    Retriable4xx,
    /// `retriable-status-codes`: those given with [`RetryOn::statuses`].
    StatusCodes,
}

const NAMES: [(Condition, &str); 8] = [
    (Condition::ServerError, "5xx"),
    (Condition::GatewayError, "gateway-error"),
    (Condition::ConnectFailure, "connect-failure"),
    (Condition::RefusedStream, "refused-stream"),
    (Condition::Reset, "reset"),
    (Condition::ResetBeforeRequest, "reset-before-request"),
    (Condition::Retriable4xx, "retriable-4xx"),
    (Condition::StatusCodes, "retriable-status-codes"),
];

impl Condition {
    /// The name.
    pub fn as_str(self) -> &'static str {
        let found = NAMES.iter().find(|(condition, _)| *condition == self);
        found.map_or("", |(_, name)| name)
    }

    fn matches(self, failure: Failure, statuses: &[StatusCode]) -> bool {
        let is_response = matches!(failure, Failure::Status(_) | Failure::RequestBody);
        let status =
            |test: fn(u16) -> bool| matches!(failure, Failure::Status(code) if test(code.as_u16()));
        match self {
            Self::ServerError => !is_response || status(|code| code >= 500),
            Self::GatewayError => status(|code| matches!(code, 502..=504)),
            Self::ConnectFailure => failure == Failure::Connect,
            Self::RefusedStream => {
                matches!(failure, Failure::RefusedStream | Failure::GoneAway)
            }
            Self::Reset => !is_response,
            Self::ResetBeforeRequest => failure == Failure::Unsent,
            Self::Retriable4xx => status(|code| code == 409),
            Self::StatusCodes => {
                matches!(failure, Failure::Status(code) if statuses.contains(&code))
            }
        }
    }
}

impl FromStr for Condition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(condition, _)| *condition).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            Error::config(format!("unknown retry condition {shown:?}"))
        })
    }
}

/// The set of failures after which another attempt may help.
///
/// Its text form is a list with commas; an unknown word is an error, for a policy that silently does
/// nothing is found out on the wrong day.
///
/// ```
/// use http::StatusCode;
/// use orchestra_mesh::retry::{Failure, RetryOn};
///
/// let retry_on: RetryOn = "connect-failure, gateway-error".parse()?;
/// assert!(retry_on.matches(Failure::Status(StatusCode::BAD_GATEWAY)));
/// assert!(!retry_on.matches(Failure::Status(StatusCode::INTERNAL_SERVER_ERROR)));
/// # Ok::<(), orchestra_mesh::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryOn {
    conditions: Vec<Condition>,
    statuses: Vec<StatusCode>,
}

impl Default for RetryOn {
    /// `gateway-error,connect-failure,refused-stream,reset,reset-before-request`.
    fn default() -> Self {
        Self::new([
            Condition::GatewayError,
            Condition::ConnectFailure,
            Condition::RefusedStream,
            Condition::Reset,
            Condition::ResetBeforeRequest,
        ])
    }
}

impl RetryOn {
    /// These conditions.
    pub fn new(conditions: impl IntoIterator<Item = Condition>) -> Self {
        let mut conditions = Vec::from_iter(conditions);
        conditions.sort_unstable();
        conditions.dedup();
        Self {
            conditions,
            statuses: Vec::new(),
        }
    }

    /// Adds these statuses, and [`Condition::StatusCodes`] with them.
    #[must_use]
    pub fn statuses(self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        let conditions = self.conditions.into_iter().chain([Condition::StatusCodes]);
        Self {
            statuses: statuses.into_iter().collect(),
            ..Self::new(conditions)
        }
    }

    /// Whether another attempt may help after this.
    pub fn matches(&self, failure: Failure) -> bool {
        let statuses = &self.statuses;
        self.conditions
            .iter()
            .any(|condition| condition.matches(failure, statuses))
    }
}

impl FromStr for RetryOn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let words = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        words
            .map(str::parse)
            .collect::<Result<Vec<_>, _>>()
            .map(Self::new)
    }
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, condition) in self.conditions.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", condition.as_str())?;
        }
        Ok(())
    }
}
