//! Integration tests, through the public API.

mod reconcile_model;
mod reconciler;
mod schedule;
mod support;

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
