//! What an error of the driver or the server means.

use tokio_postgres::error::{Severity, SqlState};

use crate::error::{Error, ErrorKind};

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The transaction lost a conflict and has left nothing: the same again may succeed at once.
    Repeat,
    /// The connection, or its server, is of no more use; what was under way may have been written.
    Reconnect,
    /// Nothing was written, and the same again will fail again.
    Report,
}

pub(super) fn remedy(error: &tokio_postgres::Error) -> Remedy {
    let Some(answer) = error.as_db_error() else {
        return Remedy::Reconnect;
    };
    let code = answer.code();
    let fatal = matches!(
        answer.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    );
    // A server that became a standby is left for the one that took its place.
    let elsewhere = *code == SqlState::READ_ONLY_SQL_TRANSACTION;
    if fatal || elsewhere || code.code().starts_with("08") || code.code().starts_with("57P") {
        return Remedy::Reconnect;
    }
    let conflicts = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    if conflicts.contains(code) {
        return Remedy::Repeat;
    }
    Remedy::Report
}

fn kind(error: &tokio_postgres::Error) -> ErrorKind {
    let Some(code) = error.code() else {
        return ErrorKind::Store;
    };
    match code.code() {
        "53100" => ErrorKind::Full,
        "XX001" | "XX002" => ErrorKind::Corrupt,
        // Too many connections, no memory, no lock in time; conflicts that were repeated often enough.
        "55P03" | "57014" | "40001" | "40P01" => ErrorKind::Busy,
        other if other.starts_with("53") => ErrorKind::Busy,
        _ => ErrorKind::Store,
    }
}

/// The error of this crate for one of the driver.
pub(super) fn failed(what: &str, source: tokio_postgres::Error) -> Error {
    let kind = kind(&source);
    Error::new(kind, format!("saga store: {what} failed")).caused_by(source)
}

/// One error for several who wait for the same answer.
#[derive(Debug, Clone)]
pub(super) struct Outage {
    kind: ErrorKind,
    message: String,
    cause: Option<String>,
}

impl Outage {
    pub(super) fn of(what: &str, source: &tokio_postgres::Error) -> Self {
        let cause = match source.as_db_error() {
            Some(answer) => answer.to_string(),
            None => source.to_string(),
        };
        Self {
            kind: kind(source),
            message: format!("saga store: {what} failed"),
            cause: Some(cause),
        }
    }

    pub(super) fn error(&self) -> Error {
        let error = Error::new(self.kind, self.message.clone());
        match &self.cause {
            Some(cause) => error.caused_by(cause.clone()),
            None => error,
        }
    }
}

impl From<&Error> for Outage {
    fn from(error: &Error) -> Self {
        let cause = std::error::Error::source(error);
        Self {
            kind: error.kind(),
            message: error.to_string(),
            cause: cause.map(ToString::to_string),
        }
    }
}

pub(super) fn late(what: &str) -> Error {
    let message = format!("saga store: {what} was not answered in time");
    Error::new(ErrorKind::Store, message)
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Store, "the saga store is closed")
}
