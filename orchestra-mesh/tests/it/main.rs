//! The crate's public behaviour, over real sockets where there is a wire.

mod allocations;
mod breaker;
mod budget;
mod client;
#[cfg(feature = "test-util")]
mod conformance;
mod faults;
mod gateway;
mod goodbye;
mod head;
mod layers;
mod listening;
mod retry;
mod routes;
mod types;
mod upstream;
