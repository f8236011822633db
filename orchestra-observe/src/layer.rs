//! Logs: a `tracing-subscriber` layer that writes masked JSON lines.
//!
//! Every text passes the [`Masker`] when it is recorded, so that the fields of a span are masked before they
//! are kept for the events below it. One event is one line:
//!
//! ```json
//! {"time":"2026-01-02T03:04:05.678901Z","level":"INFO","target":"shop::orders","message":"accepted",
//!  "trace_id":"4bf9…","span_id":"00f0…","fields":{"order":41},"spans":[{"name":"request","fields":{}}]}
//! ```
//!
//! The trace is that of the innermost span with the fields `trace_id` and `span_id`, which
//! [`log_span`] makes from a [`Span`].

mod field;
mod line;
mod time;

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orchestra_core::{SystemWallClock, WallClock};
use parking_lot::Mutex;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::trace::Span;
use crate::{Masked, Masker};
use field::Fields;
use line::Line;

/// Writes each event as one masked line of JSON.
///
/// The line is written by the thread that logs, while it holds a lock: a slow writer belongs behind a
/// queue, and the writer must not log. A line that cannot be written is counted ([`LogLayer::lost`]) and
/// forgotten.
/// Wrap it in a filter of `tracing-subscriber` to choose levels and targets.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_observe::LogLayer;
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let (reader, writer) = std::io::pipe()?;
/// let subscriber = tracing_subscriber::registry().with(LogLayer::new(writer));
/// tracing::subscriber::with_default(subscriber, || {
///     tracing::info!(user = "ada@example.org", "login with password=hunter2");
/// });
/// let mut line = String::new();
/// std::io::BufRead::read_line(&mut std::io::BufReader::new(reader), &mut line)?;
/// assert!(line.contains(r#""message":"login with password=[masked]""#));
/// assert!(line.contains(r#""fields":{"user":"[masked:email]"}"#));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct LogLayer(Arc<Inner>);

struct Inner {
    masker: Arc<Masker>,
    wall: Arc<dyn WallClock>,
    max_line: usize,
    sink: Sink,
}

impl fmt::Debug for LogLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLayer")
            .field("max_line", &self.0.max_line)
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

/// Options of a [`LogLayer`].
pub struct Builder {
    masker: Arc<Masker>,
    wall: Arc<dyn WallClock>,
    max_line: usize,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("max_line", &self.max_line)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Masks with this masker.
    #[must_use]
    pub fn masker(mut self, masker: Arc<Masker>) -> Self {
        self.masker = masker;
        self
    }

    /// Takes the time of day from this clock.
    #[must_use]
    pub fn wall_clock(mut self, wall: Arc<dyn WallClock>) -> Self {
        self.wall = wall;
        self
    }

    /// The longest line in bytes; 16 KiB, at least 1 KiB.
    #[must_use]
    pub fn max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes.max(1024);
        self
    }

    /// A layer that writes to `writer`.
    pub fn build(self, writer: impl Write + Send + 'static) -> LogLayer {
        LogLayer(Arc::new(Inner {
            masker: self.masker,
            wall: self.wall,
            max_line: self.max_line,
            sink: Sink::new(writer),
        }))
    }
}

impl LogLayer {
    /// A layer with the default options.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self::builder().build(writer)
    }

    /// Sets options.
    pub fn builder() -> Builder {
        Builder {
            masker: Arc::default(),
            wall: Arc::new(SystemWallClock),
            max_line: 16 * 1024,
        }
    }

    /// How many lines could not be written.
    pub fn lost(&self) -> u64 {
        self.0.sink.lost.load(Ordering::Relaxed)
    }

    fn key(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn fields(&self) -> Fields {
        // No single text may crowd out all others.
        Fields::new(Arc::clone(&self.0.masker), self.0.max_line / 4)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = self.fields();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            let mut extensions = span.extensions_mut();
            match extensions.get_mut::<PerLayer>() {
                Some(all) => all.0.push((self.key(), fields)),
                None => extensions.insert(PerLayer(vec![(self.key(), fields)])),
            }
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        // Recorded outside the lock on the extensions: a Debug implementation may log.
        let mut later = self.fields();
        values.record(&mut later);
        let mut extensions = span.extensions_mut();
        let all = extensions.get_mut::<PerLayer>();
        if let Some(fields) = all.and_then(|all| all.of_mut(self.key())) {
            fields.merge(later);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = self.fields();
        event.record(&mut fields);
        let mut line = Line::new(self.0.max_line);
        line.head(self.0.wall.wall(), event.metadata());
        let spans: Vec<_> = context
            .event_scope(event)
            .map(|scope| scope.from_root().collect())
            .unwrap_or_default();
        let trace = spans.iter().rev().find_map(|span| {
            let extensions = span.extensions();
            extensions.get::<PerLayer>()?.of(self.key())?.trace()
        });
        line.event(&fields, fields.trace().or(trace));
        for span in &spans {
            let extensions = span.extensions();
            let all = extensions.get::<PerLayer>();
            if let Some(fields) = all.and_then(|all| all.of(self.key())) {
                line.span(span.name(), fields);
            }
        }
        self.0.sink.write(&line.finish());
    }
}

/// The fields of a span as each layer masked them: two layers may have different maskers.
struct PerLayer(Vec<(usize, Fields)>);

impl PerLayer {
    fn of(&self, key: usize) -> Option<&Fields> {
        let found = self.0.iter().find(|(other, _)| *other == key);
        found.map(|(_, fields)| fields)
    }

    fn of_mut(&mut self, key: usize) -> Option<&mut Fields> {
        let found = self.0.iter_mut().find(|(other, _)| *other == key);
        found.map(|(_, fields)| fields)
    }
}

/// The only way out: it takes nothing that was not masked.
struct Sink {
    writer: Mutex<Box<dyn Write + Send>>,
    lost: AtomicU64,
}

impl Sink {
    fn new(writer: impl Write + Send + 'static) -> Self {
        Self {
            writer: Mutex::new(Box::new(writer)),
            lost: AtomicU64::new(0),
        }
    }

    fn write(&self, line: &Masked<String>) {
        let mut writer = self.writer.lock();
        let written = writer.write_all(line.as_str().as_bytes());
        if written.and_then(|()| writer.flush()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A `tracing` span of level INFO that carries the ids of `span`, so that lines within it carry them too.
///
/// ```
/// use orchestra_observe::{Tracer, layer};
///
/// let tracer = Tracer::builder().build();
/// let span = tracer.span("checkout").start();
/// let _entered = layer::log_span(&span).entered();
/// tracing::info!("charged");
/// ```
pub fn log_span(span: &Span) -> tracing::Span {
    let context = span.context();
    tracing::info_span!(
        "trace",
        trace_id = %context.trace_id(),
        span_id = %context.span_id(),
    )
}
