//! Which traces are recorded.
//!
//! [`Ratio`] is the consistent probability sampling of OpenTelemetry (specification, "`TraceState`:
//! Probability Sampling"): with the randomness R, the last 56 bits of the trace id (or the `rv` member of
//! the tracestate), and the threshold T = 2^56 · (1 - p), a trace is kept when R >= T. Every service that
//! decides so keeps the same traces, and what a lower ratio keeps a higher one keeps too. The root writes
//! its T into the tracestate (`ot=th:…`), so each kept span stands for 2^56 / (2^56 - T) like it.
//! [`ParentBased`] follows the decision of the caller and asks another sampler at the root.

mod state;
mod threshold;

pub(crate) use state::decided;
pub use state::threshold_of;
pub use threshold::Threshold;

use std::fmt;
use std::sync::Arc;

use orchestra_core::{TraceContext, TraceId};

use crate::trace::SpanKind;
use crate::{Error, ErrorKind};
use state::{low_bits, randomness};
use threshold::RANGE;

/// What a sampler knows of the span that is to begin.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// The context of the caller; `None` at a root.
    pub parent: Option<&'a TraceContext>,
    /// The trace: the parent's, or a new one.
    pub trace: TraceId,
    /// The name of the span.
    pub name: &'a str,
    /// Its kind.
    pub kind: SpanKind,
}

impl<'a> Candidate<'a> {
    /// The root of a new trace.
    pub fn root(trace: TraceId, name: &'a str, kind: SpanKind) -> Self {
        Self {
            parent: None,
            trace,
            name,
            kind,
        }
    }

    /// A span below `parent`.
    pub fn child(parent: &'a TraceContext, name: &'a str, kind: SpanKind) -> Self {
        Self {
            parent: Some(parent),
            trace: parent.trace_id(),
            name,
            kind,
        }
    }

    /// The 56 bits that decide: `rv` of the tracestate, or else the end of the trace id.
    pub fn randomness(&self) -> u64 {
        let stated = self.parent.and_then(|parent| randomness(parent.state()));
        stated.unwrap_or_else(|| low_bits(self.trace))
    }
}

/// What becomes of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Decision {
    /// It is propagated, not recorded.
    Drop,
    /// It is recorded.
    Record {
        /// The threshold that its trace was kept by, if one is known.
        threshold: Option<Threshold>,
    },
}

impl Decision {
    /// Whether the span is recorded.
    pub const fn is_recorded(self) -> bool {
        matches!(self, Self::Record { .. })
    }
}

/// Decides which spans are recorded.
///
/// Laws: 1. equal candidates get equal answers; 2. of two candidates that differ in their randomness alone,
/// when the lesser is recorded so is the greater; 3. a root that is recorded with a threshold has at least
/// that randomness; 4. when a root is recorded with a threshold, so is every root alike with at least that
/// randomness. (By 3 and 4 the threshold tells the exact share.)
///
/// A sampler does not block and does not allocate.
pub trait Sampler: fmt::Debug + Send + Sync {
    /// The decision for one span.
    fn sample(&self, candidate: &Candidate<'_>) -> Decision;
}

impl<S: Sampler + ?Sized> Sampler for Arc<S> {
    fn sample(&self, candidate: &Candidate<'_>) -> Decision {
        (**self).sample(candidate)
    }
}

impl<S: Sampler + ?Sized> Sampler for Box<S> {
    fn sample(&self, candidate: &Candidate<'_>) -> Decision {
        (**self).sample(candidate)
    }
}

/// Records every span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AlwaysOn;

impl Sampler for AlwaysOn {
    fn sample(&self, _: &Candidate<'_>) -> Decision {
        Decision::Record {
            threshold: Some(Threshold::ALL),
        }
    }
}

/// Records no span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AlwaysOff;

impl Sampler for AlwaysOff {
    fn sample(&self, _: &Candidate<'_>) -> Decision {
        Decision::Drop
    }
}

/// Records a share of the traces, the same traces everywhere.
///
/// ```
/// use orchestra_core::TraceId;
/// use orchestra_observe::sample::Candidate;
/// use orchestra_observe::{Decision, Ratio, Sampler, SpanKind};
///
/// let half = Ratio::new(0.5)?;
/// let low = Candidate::root(TraceId::from_draw(1), "GET /", SpanKind::Server);
/// assert_eq!(half.sample(&low), Decision::Drop);
/// let high = Candidate::root(TraceId::from_draw(1 << 55), "GET /", SpanKind::Server);
/// assert!(half.sample(&high).is_recorded());
/// # Ok::<(), orchestra_observe::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio(Option<Threshold>);

impl Ratio {
    /// This share of the traces, from none (0) to all (1); a share below 2^-56 is none.
    pub fn new(ratio: f64) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&ratio) {
            let reason = "must be in 0..=1";
            return Err(Error::new(
                ErrorKind::InvalidRatio,
                &ratio.to_string(),
                reason,
            ));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0..=2^56, which a float holds exactly"
        )]
        let kept = (ratio * RANGE as f64).round() as u64;
        Ok(Self(Threshold::new(RANGE - kept)))
    }

    /// The threshold; `None` when nothing is kept.
    pub fn threshold(self) -> Option<Threshold> {
        self.0
    }
}

impl Sampler for Ratio {
    fn sample(&self, candidate: &Candidate<'_>) -> Decision {
        match self.0 {
            Some(threshold) if candidate.randomness() >= threshold.least() => Decision::Record {
                threshold: Some(threshold),
            },
            _ => Decision::Drop,
        }
    }
}

/// Does as the caller did; asks another sampler when there is no caller.
///
/// ```
/// use orchestra_observe::sample::Candidate;
/// use orchestra_observe::{AlwaysOff, ParentBased, Sampler, SpanKind};
///
/// let sampler = ParentBased::new(AlwaysOff);
/// let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
/// assert!(sampler.sample(&Candidate::child(&parent, "charge", SpanKind::Server)).is_recorded());
/// # Ok::<(), orchestra_core::InvalidTrace>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentBased<S> {
    root: S,
}

impl<S: Sampler> ParentBased<S> {
    /// Asks `root` where a trace begins.
    pub const fn new(root: S) -> Self {
        Self { root }
    }
}

impl<S: Sampler> Sampler for ParentBased<S> {
    fn sample(&self, candidate: &Candidate<'_>) -> Decision {
        match candidate.parent {
            None => self.root.sample(candidate),
            Some(parent) if parent.flags().is_sampled() => Decision::Record {
                threshold: threshold_of(parent.state()),
            },
            Some(_) => Decision::Drop,
        }
    }
}
