//! Against real servers.
//!
//! `.ci/live` installs them and names them in variables. A test whose variable is missing fails: it does not
//! pass by not running.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod barrier;
mod outbox;
mod schema;
mod store;
mod two_phase;

/// What the variable says.
fn variable(name: &str) -> String {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.unwrap_or_else(|| panic!("{name} must name what to test against; see .ci/live"))
}
