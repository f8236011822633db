//! Requests and responses on their way: bodies, replay, and the headers that a hop changes.

mod body;
pub(crate) mod headers;
pub(crate) mod outcome;
pub(crate) mod replay;

pub use body::Body;
