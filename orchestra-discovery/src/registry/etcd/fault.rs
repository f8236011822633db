//! What an error of the client or the server means here.

use etcd_client::Error as Fault;

use crate::error::{Error, ErrorKind};

/// The numbers of gRPC's status codes (`google.rpc.Code`).
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const DEADLINE_EXCEEDED: i32 = 4;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const DATA_LOSS: i32 = 15;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// The error that a fault is; the message says what was asked, and of whom.
pub(super) fn error(fault: Fault, message: impl Into<String>) -> Error {
    Error::new(kind(&fault), message).with_source(fault)
}

/// Whether the revision that was asked for is compacted.
pub(super) fn is_compacted(fault: &Fault) -> bool {
    out_of_range(fault).is_some_and(|message| message.contains("compacted"))
}

/// Whether the answer was larger than the limit: that is found out here and not by etcd.
pub(super) fn is_too_large(fault: &Fault) -> bool {
    out_of_range(fault).is_some_and(|message| message.contains("too large"))
}

fn out_of_range(fault: &Fault) -> Option<&str> {
    match fault {
        Fault::GRpcStatus(status) if i32::from(status.code()) == code::OUT_OF_RANGE => {
            Some(status.message())
        }
        _ => None,
    }
}

fn kind(fault: &Fault) -> ErrorKind {
    match fault {
        Fault::GRpcStatus(status) => of_status(i32::from(status.code()), status.message()),
        Fault::LeaseKeepAliveError(message) if message.contains("not found") => {
            ErrorKind::LeaseLost
        }
        Fault::InvalidArgs(_) | Fault::InvalidUri(_) | Fault::InvalidMetadataValue(_) => {
            ErrorKind::Invalid
        }
        Fault::Utf8Error(_) => ErrorKind::Protocol,
        // The transport, or a stream that ended.
        _ => ErrorKind::Unavailable,
    }
}

/// etcd's codes are those of `api/v3rpc/rpctypes/error.go`; where one has several meanings the text decides.
pub(super) fn of_status(status: i32, message: &str) -> ErrorKind {
    match status {
        code::UNAUTHENTICATED | code::PERMISSION_DENIED => ErrorKind::Unauthorized,
        code::INVALID_ARGUMENT | code::FAILED_PRECONDITION
            if ["authentication", "user name", "auth token", "password"]
                .iter()
                .any(|sign| message.contains(sign)) =>
        {
            ErrorKind::Unauthorized
        }
        code::INVALID_ARGUMENT => ErrorKind::Invalid,
        code::RESOURCE_EXHAUSTED if message.contains("space exceeded") => ErrorKind::Full,
        code::NOT_FOUND if message.contains("lease") => ErrorKind::LeaseLost,
        code::OUT_OF_RANGE if message.contains("lease TTL") => ErrorKind::Invalid,
        code::OUT_OF_RANGE | code::NOT_FOUND | code::DATA_LOSS => ErrorKind::Protocol,
        code::DEADLINE_EXCEEDED => ErrorKind::Timeout,
        code::UNIMPLEMENTED => ErrorKind::Unsupported,
        // "too many requests" among them: it is the moment that is wrong, not the request.
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes and texts as etcd's `rpctypes` lists them.
    #[test]
    fn statuses_of_etcd_have_their_kinds() {
        let known = [
            (3, "etcdserver: request is too large", ErrorKind::Invalid),
            (3, "etcdserver: user name is empty", ErrorKind::Unauthorized),
            (
                3,
                "etcdserver: authentication failed, invalid user ID or password",
                ErrorKind::Unauthorized,
            ),
            (4, "context deadline exceeded", ErrorKind::Timeout),
            (
                5,
                "etcdserver: requested lease not found",
                ErrorKind::LeaseLost,
            ),
            (7, "etcdserver: permission denied", ErrorKind::Unauthorized),
            (
                8,
                "etcdserver: mvcc: database space exceeded",
                ErrorKind::Full,
            ),
            (8, "etcdserver: too many requests", ErrorKind::Unavailable),
            (11, "etcdserver: too large lease TTL", ErrorKind::Invalid),
            (
                11,
                "etcdserver: mvcc: required revision has been compacted",
                ErrorKind::Protocol,
            ),
            (12, "unknown service", ErrorKind::Unsupported),
            (14, "etcdserver: no leader", ErrorKind::Unavailable),
            (14, "etcdserver: request timed out", ErrorKind::Unavailable),
            (
                16,
                "etcdserver: invalid auth token",
                ErrorKind::Unauthorized,
            ),
            (2, "transport error", ErrorKind::Unavailable),
        ];
        for (code, message, kind) in known {
            assert_eq!(of_status(code, message), kind, "{message}");
        }
    }
}
