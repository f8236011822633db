//! The crate through its public API.

mod checkout;
mod executing;
