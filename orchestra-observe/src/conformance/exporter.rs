//! The laws of [`Exporter`].

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{SpanId, TraceId};

use super::Violation;
use crate::{ErrorKind, Exporter, FinishedSpan, MemoryExporter, Tracer};

/// What tells a span.
pub type Id = (TraceId, SpanId);

/// An exporter together with a look at what it took. Each law gets a fresh one.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The exporter under test.
    fn exporter(&self) -> &dyn Exporter;

    /// What arrived at the other end, oldest first.
    async fn taken(&self) -> Vec<Id>;
}

#[async_trait]
impl Subject for MemoryExporter {
    fn exporter(&self) -> &dyn Exporter {
        self
    }

    async fn taken(&self) -> Vec<Id> {
        self.spans().iter().map(|span| id(span)).collect()
    }
}

/// A law under way: `Ok` when the exporter keeps it.
pub type Verdict<'a> = Pin<Box<dyn Future<Output = Result<(), Violation>> + Send + 'a>>;
/// A law.
pub type Law = for<'a> fn(&'a dyn Subject) -> Verdict<'a>;

/// The laws by their names.
pub const LAWS: [(&str, Law); 5] = [
    ("ok_means_every_span_was_taken", |s| {
        Box::pin(ok_means_every_span_was_taken(s))
    }),
    ("order_is_kept", |s| Box::pin(order_is_kept(s))),
    ("a_batch_sent_again_is_taken_once", |s| {
        Box::pin(a_batch_sent_again_is_taken_once(s))
    }),
    ("nothing_is_taken_after_shutdown", |s| {
        Box::pin(nothing_is_taken_after_shutdown(s))
    }),
    ("shutdown_may_be_called_again", |s| {
        Box::pin(shutdown_may_be_called_again(s))
    }),
];

fn id(span: &FinishedSpan) -> Id {
    (span.context.trace_id(), span.context.span_id())
}

/// This many spans of several traces, oldest first.
fn spans(count: usize) -> Vec<Arc<FinishedSpan>> {
    let tracer = Tracer::builder().seed(count as u64).build();
    for _ in 0..count.div_ceil(2) {
        let outer = tracer.span("place order").start();
        outer.child("charge").start().end();
        outer.end();
    }
    let mut spans = tracer.spans().recent(count);
    spans.reverse();
    spans
}

async fn send(subject: &dyn Subject, batch: &[Arc<FinishedSpan>]) -> Result<(), Violation> {
    let sent = subject.exporter().export(batch).await;
    sent.map_err(|error| Violation::new(format!("a plain batch was refused: {error}")))
}

/// Law 1.
pub async fn ok_means_every_span_was_taken(subject: &dyn Subject) -> Result<(), Violation> {
    let spans = spans(7);
    for batch in spans.chunks(3) {
        send(subject, batch).await?;
    }
    send(subject, &[]).await?;
    let taken = subject.taken().await;
    let missing = spans.iter().find(|span| !taken.contains(&id(span)));
    Violation::unless(missing.is_none(), || format!("{missing:?} is missing"))
}

/// Law 2.
pub async fn order_is_kept(subject: &dyn Subject) -> Result<(), Violation> {
    let spans = spans(7);
    for batch in spans.chunks(3) {
        send(subject, batch).await?;
    }
    let sent: Vec<_> = spans.iter().map(|span| id(span)).collect();
    let place = |id: &Id| sent.iter().position(|other| other == id);
    let places: Vec<_> = subject.taken().await.iter().filter_map(place).collect();
    Violation::unless(places.is_sorted(), || {
        format!("arrived in the order {places:?}")
    })
}

/// Law 3.
pub async fn a_batch_sent_again_is_taken_once(subject: &dyn Subject) -> Result<(), Violation> {
    let spans = spans(4);
    for _ in 0..3 {
        send(subject, &spans).await?;
    }
    let taken = subject.taken().await.len();
    Violation::unless(taken <= spans.len(), || {
        format!("{} spans were sent again, {taken} were taken", spans.len())
    })
}

/// Law 4.
pub async fn nothing_is_taken_after_shutdown(subject: &dyn Subject) -> Result<(), Violation> {
    let first = subject.exporter().shutdown().await;
    first.map_err(|error| Violation::new(format!("the shutdown failed: {error}")))?;
    match subject.exporter().export(&spans(2)).await {
        Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
        other => Err(Violation::new(format!(
            "expected the kind Closed, got {other:?}"
        ))),
    }
}

/// Law 5.
pub async fn shutdown_may_be_called_again(subject: &dyn Subject) -> Result<(), Violation> {
    for _ in 0..2 {
        let done = subject.exporter().shutdown().await;
        done.map_err(|error| Violation::new(format!("a shutdown failed: {error}")))?;
    }
    Ok(())
}

/// Stamps one test per law of [`Exporter`] into a module of this name. The expression is a closure that
/// gives a future of a fresh [`Subject`](crate::conformance::exporter::Subject).
///
/// ```
/// use std::num::NonZeroUsize;
/// use orchestra_observe::MemoryExporter;
///
/// orchestra_observe::exporter_suite!(memory, || async {
///     MemoryExporter::new(NonZeroUsize::MAX)
/// });
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! exporter_suite {
    ($name:ident, $make:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression may need what is around it")]
            use super::*;

            $crate::exporter_suite!(@ $make,
                ok_means_every_span_was_taken
                order_is_kept
                a_batch_sent_again_is_taken_once
                nothing_is_taken_after_shutdown
                shutdown_may_be_called_again
            );
        }
    };
    (@ $make:expr, $($law:ident)+) => {$(
        #[tokio::test]
        async fn $law() -> ::core::result::Result<(), $crate::conformance::Violation> {
            let subject = ($make)().await;
            $crate::conformance::exporter::$law(&subject).await
        }
    )+};
}
