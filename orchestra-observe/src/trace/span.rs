use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Monotonic, SpanId, Timestamp, TraceContext};

use super::attribute::Raw;
use super::{Attribute, SpanBuilder, Tracer};
use crate::{Masked, Threshold};

/// The part that a span plays in a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum SpanKind {
    /// Within one service.
    #[default]
    Internal,
    /// Answers a request.
    Server,
    /// Sends a request and waits for its answer.
    Client,
    /// Sends a message.
    Producer,
    /// Takes a message.
    Consumer,
}

/// How a span ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Status {
    /// Nobody said.
    #[default]
    Unset,
    /// As it should.
    Ok,
    /// It failed, for this reason.
    Error(Masked<String>),
}

/// A span that ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FinishedSpan {
    /// The trace, the span itself, and the tracestate.
    pub context: TraceContext,
    /// The span that this one is below.
    pub parent: Option<SpanId>,
    /// What was done.
    pub name: Masked<String>,
    /// The part that it plays.
    pub kind: SpanKind,
    /// When it began, by the wall clock.
    pub start: Timestamp,
    /// How long it took, by the monotonic clock.
    pub duration: Duration,
    /// How it ended.
    pub status: Status,
    /// What else is known, in the order in which it was first said.
    pub attributes: Vec<(Cow<'static, str>, Attribute)>,
    /// How many attributes were left out because there were too many.
    pub dropped_attributes: u32,
    /// The threshold that the trace was kept by.
    pub threshold: Option<Threshold>,
}

impl FinishedSpan {
    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        let found = self.attributes.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for FinishedSpan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let attributes: std::collections::BTreeMap<_, _> = self
            .attributes
            .iter()
            .map(|(name, value)| (name, value))
            .collect();
        let mut out = serializer.serialize_struct("FinishedSpan", 10)?;
        out.serialize_field("trace_id", &self.context.trace_id())?;
        out.serialize_field("span_id", &self.context.span_id())?;
        out.serialize_field("parent", &self.parent)?;
        out.serialize_field("name", &self.name)?;
        out.serialize_field("kind", &self.kind)?;
        out.serialize_field("start_unix_nanos", &self.start)?;
        out.serialize_field("duration_seconds", &self.duration.as_secs_f64())?;
        out.serialize_field("status", &self.status)?;
        out.serialize_field("attributes", &attributes)?;
        out.serialize_field("dropped_attributes", &self.dropped_attributes)?;
        out.end()
    }
}

/// A span that is under way. It ends when it is dropped: at the end of a scope, with a cancelled future, or
/// in a panic, which makes its status an error unless it has one.
///
/// ```
/// use orchestra_observe::Tracer;
///
/// let tracer = Tracer::builder().build();
/// let mut span = tracer.span("place order").start();
/// span.set("items", 3);
/// let child = span.child("charge").start();
/// child.end();
/// span.fail("card ending 1111 declined");
/// drop(span);
///
/// let [place, charge] = &tracer.spans().recent(2)[..] else { panic!("two spans") };
/// assert_eq!(charge.parent, Some(place.context.span_id()));
/// assert_eq!(place.attribute("items").map(ToString::to_string).as_deref(), Some("3"));
/// ```
#[derive(Debug)]
pub struct Span {
    tracer: Tracer,
    context: TraceContext,
    recording: Option<Box<Recording>>,
}

#[derive(Debug)]
pub(super) struct Recording {
    pub(super) span: FinishedSpan,
    pub(super) began: Monotonic,
}

impl Span {
    /// The most attributes that are kept.
    pub const MAX_ATTRIBUTES: usize = 64;
    /// The longest name, status or attribute value that is kept, in bytes.
    pub const MAX_TEXT: usize = 4096;

    pub(super) fn new(
        tracer: Tracer,
        context: TraceContext,
        recording: Option<Box<Recording>>,
    ) -> Self {
        Self {
            tracer,
            context,
            recording,
        }
    }

    /// The context to hand on to what this span calls.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Whether it is recorded.
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// Sets an attribute, in place of one of the same name.
    pub fn set<'v>(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Raw<'v>>) {
        if let Some(recording) = &mut self.recording {
            let name = name.into();
            let value = value.into();
            let value = value.masked(&name, self.tracer.masker(), Self::MAX_TEXT);
            recording.span.put(name, value);
        }
    }

    /// Says that it went well.
    pub fn succeed(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.span.status = Status::Ok;
        }
    }

    /// Says that it failed, and why.
    pub fn fail(&mut self, reason: &str) {
        if let Some(recording) = &mut self.recording {
            let reason = self.tracer.masker().mask_to(reason, Self::MAX_TEXT);
            recording.span.status = Status::Error(reason.into_owned());
        }
    }

    /// A span below this one.
    pub fn child<'a>(&'a self, name: &'a str) -> SpanBuilder<'a> {
        self.tracer.span(name).parent(&self.context)
    }

    /// Ends it now.
    pub fn end(self) {}
}

impl FinishedSpan {
    fn put(&mut self, name: Cow<'static, str>, value: Attribute) {
        let mut attributes = self.attributes.iter_mut();
        if let Some((_, old)) = attributes.find(|(other, _)| *other == name) {
            *old = value;
        } else if self.attributes.len() < Span::MAX_ATTRIBUTES {
            self.attributes.push((name, value));
        } else {
            self.dropped_attributes = self.dropped_attributes.saturating_add(1);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(recording) = self.recording.take() else {
            return;
        };
        let Recording { mut span, began } = *recording;
        span.duration = self.tracer.now().since(began);
        if std::thread::panicking() && span.status == Status::Unset {
            span.status = Status::Error(Masked::new("panicked".to_owned()));
        }
        self.tracer.spans().push(Arc::new(span));
    }
}
