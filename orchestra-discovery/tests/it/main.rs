//! The laws of the crate, through its public API.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod balancers;
mod common;
#[cfg(feature = "test-util")]
mod conformance;
mod doubles;
mod follow;
mod gates;
mod health;
mod heartbeat;
#[cfg(feature = "http")]
mod http;
mod registry;
mod resolver;
mod route;

#[global_allocator]
static ALLOCATOR: orchestra_testkit::alloc::CountingAllocator =
    orchestra_testkit::alloc::CountingAllocator;
