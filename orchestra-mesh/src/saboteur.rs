//! Implementations that break exactly one law each, to prove that the suites notice.

mod breaker;
mod pick;

pub use breaker::{BreakerFault, BrokenBreaker};
pub use pick::{BrokenPick, PickFault};
