#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backoff;
pub mod endpoint;
pub mod ewma;
pub mod idempotency;
pub mod labels;
pub mod listener;
pub mod locality;
pub mod name;
pub mod outcome;
pub mod score;
pub mod time;
pub mod trace;

#[cfg(feature = "serde")]
mod serde;

pub use backoff::{Backoff, Jitter};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use ewma::Ewma;
pub use idempotency::{IdempotencyKey, InvalidKey};
pub use labels::{InvalidLabel, InvalidSelector, Labels, Operator, Requirement, Selector};
pub use listener::{Listener, Silent};
pub use locality::{Locality, Proximity};
pub use name::{InstanceId, InvalidName, NodeId, ServiceName};
pub use outcome::{ErrorClass, Outcome};
pub use score::{InvalidScore, Score};
#[cfg(feature = "tokio")]
pub use time::TokioClock;
pub use time::{Clock, Deadline, Monotonic, SystemClock, SystemWallClock, Timestamp, WallClock};
pub use trace::{InvalidTrace, SpanId, TraceContext, TraceFlags, TraceId, TraceState};
