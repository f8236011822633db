use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{
    Clock, Monotonic, SpanId, SystemClock, SystemWallClock, TraceContext, TraceId, WallClock,
};
use parking_lot::Mutex;

use super::attribute::Raw;
use super::span::Recording;
use super::{FinishedSpan, Span, SpanKind, SpanRing, Status};
use crate::Masker;
use crate::sample::{AlwaysOn, Candidate, Decision, ParentBased, Sampler, decided};

/// Begins spans. A clone is the same tracer.
///
/// ```
/// use orchestra_core::TraceContext;
/// use orchestra_observe::{ParentBased, Ratio, SpanKind, Tracer};
///
/// let tracer = Tracer::builder()
///     .sampler(ParentBased::new(Ratio::new(0.1)?))
///     .build();
/// let incoming: TraceContext =
///     "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
/// let span = tracer.span("GET /orders").kind(SpanKind::Server).parent(&incoming).start();
/// assert!(span.is_recorded());
/// assert_eq!(span.context().trace_id(), incoming.trace_id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    sampler: Box<dyn Sampler>,
    clock: Arc<dyn Clock>,
    wall: Arc<dyn WallClock>,
    masker: Arc<Masker>,
    ring: Arc<SpanRing>,
    draws: Mutex<fastrand::Rng>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer")
            .field("sampler", &self.sampler)
            .finish_non_exhaustive()
    }
}

/// Options of a [`Tracer`].
#[derive(Debug)]
pub struct Builder {
    sampler: Box<dyn Sampler>,
    clock: Arc<dyn Clock>,
    wall: Arc<dyn WallClock>,
    masker: Arc<Masker>,
    capacity: NonZeroUsize,
    seed: Option<u64>,
}

impl Builder {
    /// Which traces are recorded; by default all but those that the caller does not record.
    #[must_use]
    pub fn sampler(mut self, sampler: impl Sampler + 'static) -> Self {
        self.sampler = Box::new(sampler);
        self
    }

    /// Measures durations by this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Takes the time of day from this clock.
    #[must_use]
    pub fn wall_clock(mut self, wall: Arc<dyn WallClock>) -> Self {
        self.wall = wall;
        self
    }

    /// Masks names, attributes and reasons with this masker.
    #[must_use]
    pub fn masker(mut self, masker: Arc<Masker>) -> Self {
        self.masker = masker;
        self
    }

    /// How many finished spans are kept; 4096.
    #[must_use]
    pub fn capacity(mut self, capacity: NonZeroUsize) -> Self {
        self.capacity = capacity;
        self
    }

    /// Draws ids from this seed: for tests that must repeat. Two tracers of one seed give the same ids.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The tracer.
    pub fn build(self) -> Tracer {
        let draws = self
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Tracer(Arc::new(Inner {
            sampler: self.sampler,
            clock: self.clock,
            wall: self.wall,
            masker: self.masker,
            ring: Arc::new(SpanRing::new(self.capacity)),
            draws: Mutex::new(draws),
        }))
    }
}

impl Tracer {
    /// Sets options.
    pub fn builder() -> Builder {
        Builder {
            sampler: Box::new(ParentBased::new(AlwaysOn)),
            clock: Arc::new(SystemClock::new()),
            wall: Arc::new(SystemWallClock),
            masker: Arc::default(),
            capacity: NonZeroUsize::MIN.saturating_add(4095),
            seed: None,
        }
    }

    /// Prepares a span.
    pub fn span<'a>(&'a self, name: &'a str) -> SpanBuilder<'a> {
        SpanBuilder {
            tracer: self,
            name,
            kind: SpanKind::default(),
            parent: None,
            attributes: Vec::new(),
        }
    }

    /// The spans that finished.
    pub fn spans(&self) -> &Arc<SpanRing> {
        &self.0.ring
    }

    pub(super) fn masker(&self) -> &Masker {
        &self.0.masker
    }

    pub(super) fn now(&self) -> Monotonic {
        self.0.clock.now()
    }
}

/// A span that is about to begin.
#[derive(Debug)]
#[must_use = "a span begins with `start`"]
pub struct SpanBuilder<'a> {
    tracer: &'a Tracer,
    name: &'a str,
    kind: SpanKind,
    parent: Option<&'a TraceContext>,
    attributes: Vec<(&'static str, Raw<'a>)>,
}

impl<'a> SpanBuilder<'a> {
    /// The part that it plays.
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// The context that it is below; without one it begins a trace.
    pub fn parent(mut self, parent: impl Into<Option<&'a TraceContext>>) -> Self {
        self.parent = parent.into();
        self
    }

    /// Adds an attribute.
    pub fn attribute(mut self, name: &'static str, value: impl Into<Raw<'a>>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// Begins it.
    pub fn start(self) -> Span {
        let (trace, id) = {
            let mut draws = self.tracer.0.draws.lock();
            let trace = || TraceId::from_draw(draws.u128(..));
            let trace = self.parent.map_or_else(trace, TraceContext::trace_id);
            (trace, SpanId::from_draw(draws.u64(..)))
        };
        let candidate = Candidate {
            trace,
            ..match self.parent {
                Some(parent) => Candidate::child(parent, self.name, self.kind),
                None => Candidate::root(trace, self.name, self.kind),
            }
        };
        let decision = self.tracer.0.sampler.sample(&candidate);
        let context = match self.parent {
            Some(parent) => parent.child(id),
            None => TraceContext::root(trace, id, decision.is_recorded()),
        };
        let context = decided(&context, decision);
        let recording = self.recording(&context, decision).map(Box::new);
        let mut span = Span::new(self.tracer.clone(), context, recording);
        for (name, value) in self.attributes {
            span.set(name, value);
        }
        span
    }

    fn recording(&self, context: &TraceContext, decision: Decision) -> Option<Recording> {
        let Decision::Record { threshold } = decision else {
            return None;
        };
        let inner = &self.tracer.0;
        let name = inner.masker.mask_to(self.name, Span::MAX_TEXT);
        let span = FinishedSpan {
            context: context.clone(),
            parent: self.parent.map(TraceContext::span_id),
            name: name.into_owned(),
            kind: self.kind,
            start: inner.wall.wall(),
            duration: Duration::ZERO,
            status: Status::default(),
            attributes: Vec::new(),
            dropped_attributes: 0,
            threshold,
        };
        let began = inner.clock.now();
        Some(Recording { span, began })
    }
}
