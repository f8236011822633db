use std::error::Error;
use std::fmt::{Debug, Display, Write};
use std::sync::Arc;

use orchestra_core::{SpanId, TraceId};
use tracing::field::{Field, Visit};

use crate::{Masked, Masker};

/// A masked field, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shown {
    /// A text, to be quoted.
    Text(Masked<String>),
    /// A number or a truth value, as JSON.
    Plain(Masked<String>),
}

/// The fields of a span or an event, masked while they are recorded.
#[derive(Debug)]
pub(super) struct Fields {
    masker: Arc<Masker>,
    max_text: usize,
    message: Option<Masked<String>>,
    shown: Vec<(&'static str, Shown)>,
    trace: Option<TraceId>,
    span: Option<SpanId>,
}

impl Fields {
    pub(super) fn new(masker: Arc<Masker>, max_text: usize) -> Self {
        Self {
            masker,
            max_text,
            message: None,
            shown: Vec::new(),
            trace: None,
            span: None,
        }
    }

    pub(super) fn message(&self) -> Option<&Masked<String>> {
        self.message.as_ref()
    }

    pub(super) fn shown(&self) -> &[(&'static str, Shown)] {
        &self.shown
    }

    pub(super) fn trace(&self) -> Option<(TraceId, Option<SpanId>)> {
        self.trace.map(|trace| (trace, self.span))
    }

    /// Takes over what was recorded later.
    pub(super) fn merge(&mut self, later: Self) {
        self.trace = later.trace.or(self.trace);
        self.span = later.span.or(self.span);
        if later.message.is_some() {
            self.message = later.message;
        }
        for (name, shown) in later.shown {
            self.put(name, shown);
        }
    }

    fn put(&mut self, name: &'static str, shown: Shown) {
        match self.shown.iter_mut().find(|(other, _)| *other == name) {
            Some((_, old)) => *old = shown,
            None => self.shown.push((name, shown)),
        }
    }

    fn text(&mut self, name: &'static str, text: &str) {
        // What parses as an id is one: these two are never masked.
        match name {
            "trace_id" if let Ok(trace) = text.parse() => return self.trace = Some(trace),
            "span_id" if let Ok(span) = text.parse() => return self.span = Some(span),
            _ => {}
        }
        let masked = self.masker.field_to(name, text, self.max_text).into_owned();
        if name == "message" {
            self.message = Some(masked);
        } else {
            self.put(name, Shown::Text(masked));
        }
    }

    /// A number may be the number of a card.
    fn plain(&mut self, name: &'static str, value: impl Display, is_json: bool) {
        let text = value.to_string();
        let masked = self.masker.field(name, &text).into_owned();
        let shown = if is_json && masked.as_str() == text {
            Shown::Plain(masked)
        } else {
            Shown::Text(masked)
        };
        self.put(name, shown);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut chain = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            // Writing to a string does not fail.
            let _ = write!(chain, ": {error}");
            source = error.source();
        }
        self.text(field.name(), &chain);
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.text(field.name(), &String::from_utf8_lossy(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), value, true);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), value, true);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.plain(field.name(), value, false);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.plain(field.name(), value, false);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.plain(field.name(), value, value.is_finite());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value, true);
    }
}
