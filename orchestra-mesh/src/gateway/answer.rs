//! What the gateway says when it speaks for itself.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

use crate::Body;
use crate::error::{Error, Kind};

/// An answer of the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    /// For programs, stable.
    pub(super) reason: &'static str,
    /// For people; no text from outside, no address.
    message: &'static str,
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) const fn new(
        status: StatusCode,
        reason: &'static str,
        message: &'static str,
    ) -> Self {
        Self {
            status,
            reason,
            message,
            retry_after: None,
        }
    }

    pub(super) const fn bad_request(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) const fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_route", "no route matches")
    }

    pub(super) const fn body_too_large() -> Self {
        let message = "the request body is too long";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// 503 with a time to come back: as soon as the error says, or in a second.
    fn unavailable(reason: &'static str, message: &'static str, error: &Error) -> Self {
        let after = error.class().retry_after();
        Self {
            retry_after: Some(after.unwrap_or(Duration::from_secs(1))),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, message)
        }
    }

    pub(super) fn into_response(self, request_id: &str) -> Response<Body> {
        let Self {
            reason, message, ..
        } = self;
        let body =
            format!(r#"{{"error":"{reason}","message":"{message}","request_id":"{request_id}"}}"#);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up: too early is worse than late.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            let seconds = HeaderValue::from(seconds.max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// The response to HEAD: with the length that GET would have, and nothing else of the body.
///
/// HTTP/1.1 leaves the body out by itself; over HTTP/2 it would break the stream.
pub(super) fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let length = http_body::Body::size_hint(&body).exact();
    if let Some(length) = length.filter(|length| *length > 0) {
        let length = HeaderValue::from(length);
        parts
            .headers
            .entry(header::CONTENT_LENGTH)
            .or_insert(length);
    }
    Response::from_parts(parts, Body::empty())
}

/// What a failed call looks like from outside.
pub(super) fn refusal_of(error: &Error) -> Refusal {
    let unavailable = |reason, message| Refusal::unavailable(reason, message, error);
    match error.kind() {
        Kind::NoEndpoint => unavailable("no_endpoint", "the service has no instance that is ready"),
        Kind::CircuitOpen => {
            unavailable("circuit_open", "the service is failing and is left alone")
        }
        Kind::BudgetExhausted => unavailable(
            "retry_budget",
            "the service is failing and is not asked again",
        ),
        Kind::Connect => unavailable("unreachable", "the service could not be reached"),
        Kind::ShutDown => unavailable("shutting_down", "the gateway is shutting down"),
        Kind::DeadlineExceeded | Kind::AttemptTimeout => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline_exceeded",
            "the service did not answer in time",
        ),
        Kind::BodyTooLarge => Refusal::body_too_large(),
        Kind::Body => Refusal::bad_request("the request body could not be read"),
        Kind::InvalidRequest => Refusal::bad_request("the request cannot be forwarded"),
        _ => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "upstream_failed",
            "the service broke the connection",
        ),
    }
}
