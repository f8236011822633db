//! What travels.

use std::time::Duration;

use http::StatusCode;
use orchestra_core::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::instance::{Override, Status};
use crate::registry::Lease;
use crate::source::{Change, Revision, Scope, WatchEvent};

pub(super) const REGISTER: &str = "/v1/register";
pub(super) const RENEW: &str = "/v1/renew";
pub(super) const STATUS: &str = "/v1/status";
pub(super) const DEREGISTER: &str = "/v1/deregister";
pub(super) const OVERRIDE: &str = "/v1/override";
pub(super) const SNAPSHOT: &str = "/v1/snapshot";
pub(super) const WATCH: &str = "/v1/watch";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StatusChange {
    pub(super) lease: Lease,
    pub(super) status: Status,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OverrideChange {
    pub(super) service: ServiceName,
    pub(super) id: InstanceId,
    pub(super) forced: Option<Override>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SnapshotQuery {
    service: Option<ServiceName>,
}

impl SnapshotQuery {
    pub(super) fn scope(self) -> Scope {
        self.service.map_or(Scope::All, Scope::Service)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct WatchQuery {
    service: Option<ServiceName>,
    pub(super) after: Revision,
    wait_ms: u64,
}

impl WatchQuery {
    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }

    pub(super) fn scope(self) -> Scope {
        self.service.map_or(Scope::All, Scope::Service)
    }
}

/// The path with the query of a scope; names need no escaping.
pub(super) fn query(path: &str, scope: &Scope, rest: &str) -> String {
    match scope {
        Scope::Service(name) => format!("{path}?service={name}{rest}"),
        Scope::All => format!("{path}?{}", rest.trim_start_matches('&')),
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Polled {
    Changes {
        revision: Revision,
        changes: Vec<Change>,
    },
    Resync,
    Idle {
        revision: Revision,
    },
}

impl From<WatchEvent> for Polled {
    fn from(event: WatchEvent) -> Self {
        match event {
            WatchEvent::Changes { revision, changes } => Self::Changes { revision, changes },
            WatchEvent::Resync => Self::Resync,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    kind: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let after = error.class().retry_after();
        Self {
            kind: error.kind().as_str().to_owned(),
            message: error.to_string(),
            retry_after_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl Failure {
    /// The error of the other side; a kind that is not known here goes by the status.
    pub(super) fn into_error(self, status: StatusCode) -> Error {
        let kind = ErrorKind::parse(&self.kind).unwrap_or_else(|| kind_of(status));
        let error = Error::new(kind, self.message);
        match self.retry_after_ms {
            Some(after) => error.with_retry_after(Duration::from_millis(after)),
            None => error,
        }
    }
}

pub(super) fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::LeaseLost | ErrorKind::Replaced => StatusCode::CONFLICT,
        ErrorKind::Full => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Unavailable | ErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Protocol => StatusCode::BAD_GATEWAY,
    }
}

/// What an answer means that is none of ours: a proxy's, or a limit's of the server.
pub(super) fn kind_of(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        401 | 403 => ErrorKind::Unauthorized,
        400 | 413 | 414 | 431 => ErrorKind::Invalid,
        408 | 504 => ErrorKind::Timeout,
        429 | 500..=503 => ErrorKind::Unavailable,
        _ => ErrorKind::Protocol,
    }
}
