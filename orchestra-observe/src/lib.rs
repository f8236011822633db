#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
pub mod error;
pub mod event;
pub mod export;
pub mod label;
#[cfg(feature = "layer")]
#[cfg_attr(docsrs, doc(cfg(feature = "layer")))]
pub mod layer;
pub mod mask;
pub mod metric;
pub mod propagate;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod saboteur;
pub mod sample;
pub mod trace;

pub use error::{Error, ErrorKind};
pub use event::Event;
pub use export::{Delivery, Exporter, MemoryExporter, prometheus::Format};
#[cfg(feature = "layer")]
pub use layer::LogLayer;
pub use mask::{Masked, Masker, Secret};
pub use metric::{Buckets, Counter, Family, Gauge, Histogram, Metric, MetricKind, Registry};
pub use metric::{Snapshot, Value};
pub use sample::{AlwaysOff, AlwaysOn, Decision, ParentBased, Ratio, Sampler, Threshold};
pub use trace::{FinishedSpan, Span, SpanKind, SpanRing, Status, Tracer};
