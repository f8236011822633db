//! Trace context in the headers of a request (<https://www.w3.org/TR/trace-context-2/>).
//!
//! ```
//! use http::HeaderMap;
//! use orchestra_observe::propagate;
//!
//! let mut incoming = HeaderMap::new();
//! let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
//! incoming.insert("traceparent", parent.parse()?);
//! let context = propagate::extract(&incoming).ok_or("no context")?;
//!
//! let mut outgoing = HeaderMap::new();
//! propagate::inject(&context, &mut outgoing);
//! assert_eq!(outgoing, incoming);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use http::header::{HeaderMap, HeaderName, HeaderValue};
use orchestra_core::TraceContext;

/// The header that holds the trace, the span and the flags.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header that holds the members of vendors.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The context that a request came with; `None` when there is none, when it is broken, or when there
/// are two. A broken `tracestate` is dropped alone.
pub fn extract(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = parents.next()?.to_str().ok()?;
    if parents.next().is_some() {
        return None;
    }
    let states = headers.get_all(TRACESTATE).iter().map(HeaderValue::to_str);
    let states: Vec<_> = states.collect::<Result<_, _>>().unwrap_or_default();
    TraceContext::from_headers(parent, states).ok()
}

/// Puts the context into the headers, in place of any that is there.
pub fn inject(context: &TraceContext, headers: &mut HeaderMap) {
    put(headers, TRACEPARENT, &context.to_string());
    if context.state().is_empty() {
        headers.remove(TRACESTATE);
    } else {
        put(headers, TRACESTATE, &context.state().to_string());
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => headers.insert(name, value),
        Err(_) => headers.remove(name),
    };
}
