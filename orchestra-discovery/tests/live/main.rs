//! Against real servers.
//!
//! `.ci/live` starts them and names them in variables. A test whose variable is missing fails: it does not
//! pass by not running.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and figures are printed"
)]

mod common;
mod nats;
mod redis;
