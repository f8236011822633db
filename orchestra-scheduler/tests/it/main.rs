//! Integration tests, through the public API.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test fails like the test"
)]

mod reconcile_model;
mod reconciler;
mod schedule;
mod support;
mod values;

#[cfg(all(feature = "process", target_os = "linux"))]
mod process;
#[cfg(all(feature = "process", target_os = "linux"))]
mod process_death;
#[cfg(all(feature = "process", target_os = "linux"))]
mod process_limits;
#[cfg(all(feature = "process", target_os = "linux"))]
mod whole;

#[cfg(feature = "test-util")]
mod suite;
