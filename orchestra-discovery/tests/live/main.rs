//! Against real servers, which `.ci/live` installs and the tests start.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod dns;
mod knot;
