//! What errors of the database libraries mean.

use crate::error::ErrorKind;

/// An error of SQLite, where the database does nothing but wait for somebody else: [`ErrorKind::Busy`].
#[cfg(feature = "sqlite")]
pub(crate) fn sqlite_kind(error: &rusqlite::Error) -> ErrorKind {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            ErrorKind::Busy
        }
        _ => ErrorKind::Store,
    }
}

/// An error of PostgreSQL. Transactions that got in each other's way are [`ErrorKind::Busy`]: the loser
/// was rolled back, and a repetition may succeed.
#[cfg(feature = "postgres")]
pub(crate) fn postgres_kind(error: &tokio_postgres::Error) -> ErrorKind {
    use tokio_postgres::error::SqlState;

    const BUSY: [SqlState; 3] = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    match error.code() {
        Some(code) if BUSY.contains(code) => ErrorKind::Busy,
        _ => ErrorKind::Store,
    }
}
