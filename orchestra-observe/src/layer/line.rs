use std::fmt::Write;

use orchestra_core::{SpanId, Timestamp, TraceId};
use tracing::Metadata;

use super::field::{Fields, Shown};
use super::time::Rfc3339;
use crate::Masked;
use crate::label::cut;

/// What is kept free for the end of the line: `,"truncated":true}` and its newline, and brackets.
const RESERVE: usize = 64;
/// The longest name of a target, a span or a field, in bytes.
const MAX_NAME: usize = 128;

/// One line of JSON under construction. Only masked texts and names from the source code go in.
pub(super) struct Line {
    out: String,
    budget: usize,
    truncated: bool,
    spans: bool,
}

impl Line {
    pub(super) fn new(max: usize) -> Self {
        Self {
            out: String::with_capacity(256),
            budget: max.saturating_sub(RESERVE),
            truncated: false,
            spans: false,
        }
    }

    pub(super) fn head(&mut self, time: Timestamp, metadata: &Metadata<'_>) {
        let (time, level) = (Rfc3339(time), metadata.level());
        let _ = write!(self.out, r#"{{"time":"{time}","level":"{level}","target":"#);
        quote(cut(metadata.target(), MAX_NAME), &mut self.out);
    }

    pub(super) fn event(&mut self, fields: &Fields, trace: Option<(TraceId, Option<SpanId>)>) {
        if let Some((trace, span)) = trace {
            let _ = write!(self.out, r#","trace_id":"{trace}""#);
            if let Some(span) = span {
                let _ = write!(self.out, r#","span_id":"{span}""#);
            }
        }
        if let Some(message) = fields.message() {
            let mut part = String::from(r#","message":"#);
            quote(message.as_str(), &mut part);
            self.add(&part);
        }
        self.fields(fields);
    }

    pub(super) fn span(&mut self, name: &'static str, fields: &Fields) {
        let mut part = String::from(if self.spans { "," } else { r#","spans":["# });
        part.push_str(r#"{"name":"#);
        quote(cut(name, MAX_NAME), &mut part);
        if self.add(&part) {
            self.spans = true;
            self.fields(fields);
            self.out.push('}');
        }
    }

    fn fields(&mut self, fields: &Fields) {
        const OPEN: &str = r#","fields":{"#;
        if fields.shown().is_empty() || !self.add(OPEN) {
            return;
        }
        let mut comma = "";
        for (name, shown) in fields.shown() {
            let mut part = comma.to_owned();
            quote(cut(name, MAX_NAME), &mut part);
            part.push(':');
            match shown {
                Shown::Text(text) => quote(text.as_str(), &mut part),
                Shown::Plain(json) => part.push_str(json.as_str()),
            }
            if self.add(&part) {
                comma = ",";
            }
        }
        self.out.push('}');
    }

    /// Appends a part whole, or not at all when it does not fit.
    fn add(&mut self, part: &str) -> bool {
        let fits = self.out.len() + part.len() <= self.budget;
        if fits {
            self.out.push_str(part);
        } else {
            self.truncated = true;
        }
        fits
    }

    pub(super) fn finish(mut self) -> Masked<String> {
        if self.spans {
            self.out.push(']');
        }
        if self.truncated {
            self.out.push_str(r#","truncated":true"#);
        }
        self.out.push_str("}\n");
        Masked::new(self.out)
    }
}

/// A string of JSON (RFC 8259, 7).
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // The two separators end a line for some readers.
            c if c < ' ' || matches!(c, '\u{7f}' | '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
