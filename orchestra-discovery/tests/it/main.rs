//! The laws of the crate, through its public API.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bad_input;
mod balancers;
mod cache;
mod cache_simulation;
mod common;
#[cfg(feature = "test-util")]
mod conformance;
mod deciding;
#[cfg(feature = "dns")]
mod dns;
mod doubles;
mod explain;
#[cfg(feature = "file")]
mod file;
mod follow;
mod gates;
#[cfg(feature = "http")]
mod grpc;
mod health;
mod heartbeat;
#[cfg(feature = "http")]
mod http;
mod margins;
mod p2c;
#[cfg(feature = "http")]
mod probes;
mod registry;
mod resolver;
mod route;
mod scoring;
mod simulation;
#[cfg(feature = "test-util")]
mod source;
mod trials;
mod upstreams;

#[global_allocator]
static ALLOCATOR: orchestra_testkit::alloc::CountingAllocator =
    orchestra_testkit::alloc::CountingAllocator;
