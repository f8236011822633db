//! Laws of the testkit.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod alloc;
mod clock;
mod process;
mod proxy;
mod seed;
