//! The laws of the shared vocabulary.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backoff;
mod endpoint;
mod ewma;
mod idempotency;
mod labels;
mod listener;
mod locality;
mod name;
mod outcome;
mod score;
#[cfg(feature = "serde")]
mod serde;
mod time;
mod trace;

fn is_thread_safe<T: Send + Sync + 'static>() {}

#[test]
fn every_type_may_cross_threads() {
    use orchestra_core::*;
    is_thread_safe::<ServiceName>();
    is_thread_safe::<Labels>();
    is_thread_safe::<Selector>();
    is_thread_safe::<Locality>();
    is_thread_safe::<Endpoint>();
    is_thread_safe::<Backoff>();
    is_thread_safe::<Ewma>();
    is_thread_safe::<TraceContext>();
    is_thread_safe::<IdempotencyKey>();
}
