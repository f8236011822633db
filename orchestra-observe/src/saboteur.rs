//! Samplers and exporters that break one law each, to prove that the [suites](crate::conformance) see it.

mod exporter;
mod sampler;

pub use exporter::{DropsLast, Renumbers, Reopens, Reverses, ShutsOnce};
pub use sampler::{Boasts, KeepsLeast, Understates, Wavers};
