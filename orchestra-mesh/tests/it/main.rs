//! The crate's public behaviour, over real sockets where there is a wire.

#[cfg(feature = "test-util")]
mod conformance;
mod gateway;
mod upstream;
