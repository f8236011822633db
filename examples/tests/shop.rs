//! The shop as its users and its enemies meet it: real processes, real sockets, real kills.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../shop/audit.rs"]
mod audit;
#[path = "../shop/catalogue.rs"]
mod catalogue;
#[path = "../shop/load.rs"]
mod load;

#[path = "shop/bad_input.rs"]
mod bad_input;
#[path = "shop/campaign.rs"]
mod campaign;
#[path = "shop/isolation.rs"]
mod isolation;
#[path = "shop/lifecycle.rs"]
mod lifecycle;
#[path = "shop/running.rs"]
mod running;
