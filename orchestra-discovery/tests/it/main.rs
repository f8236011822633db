//! The laws of the crate, through its public API.

mod common;
mod driver;
