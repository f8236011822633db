//! The laws of the crate, through its public API.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod allocation;
#[cfg(feature = "test-util")]
mod conformance;
mod delivery;
mod exposition;
#[cfg(feature = "layer")]
mod logs;
mod masking;
mod metrics;
#[cfg(feature = "http")]
mod page;
mod sampling;
mod spans;

use orchestra_testkit::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;
