//! Which traces are recorded.
//!
//! [`Ratio`] is the consistent probability sampling of OpenTelemetry (specification, "`TraceState`:
//! Probability Sampling"): with the randomness R, the last 56 bits of the trace id (or the `rv` member of
//! the tracestate), and the threshold T = 2^56 · (1 - p), a trace is kept when R >= T. Every service that
//! decides so keeps the same traces, and what a lower ratio keeps a higher one keeps too. The root writes
//! its T into the tracestate (`ot=th:…`), so each kept span stands for 2^56 / (2^56 - T) like it.
//! [`ParentBased`] follows the decision of the caller and asks another sampler at the root.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use orchestra_core::{TraceContext, TraceId, TraceState};

use crate::trace::SpanKind;
use crate::{Error, ErrorKind};

/// 2^56: the number of values that R can take.
const RANGE: u64 = 1 << 56;

/// The least randomness that is kept: 0 keeps all.
///
/// ```
/// use orchestra_observe::{Ratio, Threshold};
///
/// let tenth: Threshold = "e6666666666666".parse()?;
/// assert_eq!(Ratio::new(0.1)?.threshold(), Some(tenth));
/// assert!((tenth.adjusted_count() - 10.0).abs() < 1e-9);
/// assert_eq!("8".parse::<Threshold>()?.to_string(), "8");
/// # Ok::<(), orchestra_observe::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold(u64);

impl Threshold {
    /// Keeps all.
    pub const ALL: Self = Self(0);

    /// This threshold; `None` from 2^56 on, which would keep nothing.
    pub const fn new(least: u64) -> Option<Self> {
        if least < RANGE {
            Some(Self(least))
        } else {
            None
        }
    }

    /// The least randomness that is kept.
    pub const fn least(self) -> u64 {
        self.0
    }

    /// How many traces each kept one stands for.
    pub fn adjusted_count(self) -> f64 {
        RANGE as f64 / (RANGE - self.0) as f64
    }
}

/// Hex digits without the trailing zeros, as in the tracestate.
impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:014x}", self.0);
        let short = digits.trim_end_matches('0');
        f.write_str(if short.is_empty() { "0" } else { short })
    }
}

impl FromStr for Threshold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = || {
            let reason = "a threshold is 1 to 14 lower-case hex digits";
            Error::new(ErrorKind::InvalidRatio, text, reason)
        };
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if !(1..=14).contains(&text.len()) || !text.bytes().all(lower) {
            return Err(fail());
        }
        let least = u64::from_str_radix(&format!("{text:0<14}"), 16);
        least.map(Self).map_err(|error| fail().with_source(error))
    }
}

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

fn low_bits(trace: TraceId) -> u64 {
    u64::try_from(trace.as_number() & u128::from(RANGE - 1)).unwrap_or_default()
}

/// A part of the member `ot` of the tracestate, whose parts are `key:value` with `;` between.
fn member<'a>(state: &'a TraceState, key: &str) -> Option<&'a str> {
    let parts = state.value("ot")?.split(';');
    let mut values = parts.filter_map(|part| part.split_once(':'));
    values
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value)
}

fn randomness(state: &TraceState) -> Option<u64> {
    let value = member(state, "rv").filter(|value| value.len() == 14)?;
    value.parse().ok().map(Threshold::least)
}

/// The threshold that a trace was sampled by, if its root wrote one down.
pub fn threshold_of(state: &TraceState) -> Option<Threshold> {
    member(state, "th")?.parse().ok()
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

/// The context of the span that the decision is about: the flag is the decision, and the tracestate tells
/// its threshold, or no more tells one that is not true any more.
pub(crate) fn decided(context: &TraceContext, decision: Decision) -> TraceContext {
    let threshold = match decision {
        Decision::Record { threshold } => threshold,
        Decision::Drop => None,
    };
    let same_flag = context.flags().is_sampled() == decision.is_recorded();
    if same_flag && threshold == threshold_of(context.state()) {
        return context.clone();
    }
    let flags = context.flags().with_sampled(decision.is_recorded());
    let parent = format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        flags.bits()
    );
    let state = with_threshold(context.state(), threshold);
    TraceContext::from_headers(&parent, [state.as_str()]).unwrap_or_else(|_| context.clone())
}

fn with_threshold(state: &TraceState, threshold: Option<Threshold>) -> String {
    let old = state.value("ot").unwrap_or_default();
    let kept = old.split(';').filter(|part| !part.starts_with("th:"));
    let new = threshold.map(|threshold| format!("th:{threshold}"));
    let parts: Vec<&str> = new
        .as_deref()
        .into_iter()
        .chain(kept.filter(|part| !part.is_empty()))
        .collect();
    if let Ok(state) = state.with("ot", &parts.join(";")) {
        return state.to_string();
    }
    // No part is left, or too much for one member: the member goes.
    let text = state.to_string();
    let others = text.split(',').filter(|part| !part.starts_with("ot="));
    others.collect::<Vec<_>>().join(",")
}
