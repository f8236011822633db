//! Against real servers.
//!
//! `.ci/live` installs them and names them in variables. A test whose variable is missing fails: it does not
//! pass by not running.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and figures are printed"
)]

mod beside;
mod common;
mod dns;
mod etcd;
mod health;
mod knot;
mod nats;
mod redis;

/// What the variable says.
fn variable(name: &str) -> String {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.unwrap_or_else(|| panic!("{name} must name what to test against; see .ci/live"))
}
