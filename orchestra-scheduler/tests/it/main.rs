//! Integration tests, through the public API.

mod reconcile_model;
mod reconciler;
mod schedule;
mod support;

#[cfg(all(feature = "process", target_os = "linux"))]
mod process;

#[cfg(feature = "test-util")]
mod suite;
