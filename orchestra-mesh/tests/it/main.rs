//! The crate's public behaviour, over real sockets where there is a wire.

mod gateway;
mod upstream;
