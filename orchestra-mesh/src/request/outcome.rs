//! What a response says about the instance that gave it.

use http::{HeaderMap, HeaderValue, StatusCode};
use orchestra_core::Outcome;

/// From the status, or for gRPC's trailers-only responses from `grpc-status`.
///
/// A client error is a success of the instance. 429 says overloaded, as does a 5xx with Envoy's mark.
pub(crate) fn of_response(status: StatusCode, headers: &HeaderMap) -> Outcome {
    if status == StatusCode::TOO_MANY_REQUESTS || is_marked_overloaded(status, headers) {
        return Outcome::Overloaded;
    }
    if status.is_server_error() {
        return Outcome::Failure;
    }
    headers
        .get("grpc-status")
        .map_or(Outcome::Success, |code| of_grpc(code.as_bytes()))
}

/// The status, or for gRPC's trailers-only responses the one that their failure corresponds to, as Envoy has it.
pub(crate) fn status_of(status: StatusCode, headers: &HeaderMap) -> StatusCode {
    if !status.is_success() {
        return status;
    }
    match headers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"4") => StatusCode::GATEWAY_TIMEOUT,
        Some(b"8") => StatusCode::TOO_MANY_REQUESTS,
        Some(b"13" | b"15") => StatusCode::INTERNAL_SERVER_ERROR,
        Some(b"14") => StatusCode::SERVICE_UNAVAILABLE,
        _ => status,
    }
}

/// Whether the instance itself says that the time was up.
pub(crate) fn is_late(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::GATEWAY_TIMEOUT
        || headers.get("grpc-status").is_some_and(|code| code == "4")
}

fn is_marked_overloaded(status: StatusCode, headers: &HeaderMap) -> bool {
    status.is_server_error() && headers.contains_key("x-envoy-overloaded")
}

/// `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE` and `DATA_LOSS` are the instance's fault;
/// `RESOURCE_EXHAUSTED` is its load.
fn of_grpc(code: &[u8]) -> Outcome {
    match code {
        b"4" | b"13" | b"14" | b"15" => Outcome::Failure,
        b"8" => Outcome::Overloaded,
        _ => Outcome::Success,
    }
}
