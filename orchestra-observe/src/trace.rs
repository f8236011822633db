//! Spans: what was done, for how long, and by whom it was asked.
//!
//! A [`Tracer`] begins spans; a [`Span`] ends when it is dropped. What was recorded goes, masked, into the
//! tracer's [`SpanRing`], from where a page shows it and a [`Delivery`](crate::Delivery) takes it to an
//! exporter. A span that is not sampled costs its context and nothing else. Durations are measured by the
//! monotonic clock; only the start is a time of day.

mod attribute;
mod ring;
mod span;
mod tracer;

pub use attribute::{Attribute, Raw};
pub use ring::{Batch, Cursor, SpanRing};
pub use span::{FinishedSpan, Span, SpanKind, Status};
pub use tracer::{Builder, SpanBuilder, Tracer};
