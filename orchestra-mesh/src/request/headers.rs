//! What a hop does to headers.

use std::time::Duration;

use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use orchestra_core::TraceContext;

use crate::deadline;

pub(crate) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what belongs to one connection alone (RFC 9110, 7.6.1), and all that `Connection` names.
///
/// `te: trailers` stays: gRPC needs it from end to end.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // Taking these away would change the meaning of the message for the next hop.
            .filter(|name| *name != HOST && *name != http::header::CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHORIZATION,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    let has_trailers = headers.get_all(TE).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|part| part.trim() == "trailers"))
    });
    headers.remove(TE);
    if has_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// The trace that a request belongs to, if its headers tell.
pub(crate) fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (parent, None) = (parents.next()?, parents.next()) else {
        return None;
    };
    let states = headers.get_all(TRACESTATE).iter();
    let states = states.filter_map(|value| value.to_str().ok());
    TraceContext::from_headers(parent.to_str().ok()?, states).ok()
}

pub(crate) fn set_trace(headers: &mut HeaderMap, trace: Option<&TraceContext>) {
    headers.remove(TRACEPARENT);
    headers.remove(TRACESTATE);
    let Some(trace) = trace else { return };
    if let Ok(value) = HeaderValue::try_from(trace.to_string()) {
        headers.insert(TRACEPARENT, value);
    }
    if !trace.state().is_empty()
        && let Ok(value) = HeaderValue::try_from(trace.state().to_string())
    {
        headers.insert(TRACESTATE, value);
    }
}

/// What changes from attempt to attempt.
pub(crate) fn set_attempt(
    headers: &mut HeaderMap,
    number: u32,
    left: Option<Duration>,
    trace: Option<&TraceContext>,
) {
    headers.insert(ATTEMPT_COUNT, HeaderValue::from(number));
    deadline::to_headers(headers, left);
    set_trace(headers, trace);
}

/// Whether the caller is itself on its second attempt or later.
pub(crate) fn is_retry(headers: &HeaderMap) -> bool {
    let count = headers
        .get(ATTEMPT_COUNT)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u32>().ok());
    count.is_some_and(|count| count > 1)
}
