//! The family put together.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod affinity;
mod calling;
mod checking;
mod completing;
#[cfg(feature = "serde")]
mod designing;
mod fencing;
mod sagas;
mod shutting_down;
mod sources;
mod subsets;
mod support;
