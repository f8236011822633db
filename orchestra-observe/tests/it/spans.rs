//! Spans, their ring, and what they may hold.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::{Clock, Monotonic, Timestamp, WallClock};
use orchestra_observe::trace::{Attribute, Cursor};
use orchestra_observe::{AlwaysOff, Span, SpanKind, Status, Tracer};
use proptest::prelude::*;

/// Both clocks, moved by hand.
#[derive(Debug, Default)]
struct Hands(AtomicU64);

impl Hands {
    fn turn(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap();
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now(&self) -> Monotonic {
        Monotonic::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl WallClock for Hands {
    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_nanos(self.0.load(Ordering::Relaxed)) + Duration::from_secs(1_000)
    }
}

fn tracer(capacity: usize) -> Tracer {
    let capacity = NonZeroUsize::new(capacity).unwrap();
    Tracer::builder().capacity(capacity).seed(7).build()
}

#[test]
fn a_span_knows_its_start_its_duration_and_its_parent() {
    let hands = Arc::new(Hands::default());
    let tracer = Tracer::builder()
        .clock(Arc::<Hands>::clone(&hands))
        .wall_clock(Arc::<Hands>::clone(&hands))
        .build();
    hands.turn(Duration::from_secs(5));
    let outer = tracer.span("place order").kind(SpanKind::Server).start();
    hands.turn(Duration::from_millis(20));
    let inner = outer
        .child("charge")
        .kind(SpanKind::Client)
        .attribute("try", 1)
        .start();
    hands.turn(Duration::from_millis(30));
    inner.end();
    let trace = outer.context().trace_id();
    drop(outer);

    let spans = tracer.spans().trace(trace);
    let [inner, outer] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(outer.name.as_str(), "place order");
    assert_eq!(outer.parent, None);
    assert_eq!(
        outer.start,
        Timestamp::UNIX_EPOCH + Duration::from_secs(1_005)
    );
    assert_eq!(outer.duration, Duration::from_millis(50));
    assert_eq!(inner.parent, Some(outer.context.span_id()));
    assert_eq!(inner.kind, SpanKind::Client);
    assert_eq!(inner.duration, Duration::from_millis(30));
    assert_eq!(inner.attribute("try"), Some(&Attribute::Int(1)));
}

#[test]
fn a_span_that_is_not_sampled_is_propagated_and_not_kept() {
    let tracer = Tracer::builder().sampler(AlwaysOff).build();
    let mut span = tracer.span("quiet").start();
    span.set("a", 1);
    assert!(!span.context().flags().is_sampled());
    let child = span.child("quiet too").start();
    assert_eq!(child.context().trace_id(), span.context().trace_id());
    assert_ne!(child.context().span_id(), span.context().span_id());
    drop((child, span));
    assert!(tracer.spans().recent(9).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_future_ends_its_span() {
    let tracer = tracer(8);
    let work = async {
        let _span = tracer.span("slow").start();
        tokio::time::sleep(Duration::from_secs(60)).await;
    };
    let cancelled = tokio::time::timeout(Duration::from_secs(1), work).await;
    assert!(cancelled.is_err());
    assert_eq!(tracer.spans().recent(1)[0].status, Status::Unset);
}

fn status_after_a_panic(prepare: fn(&mut Span)) -> Status {
    let tracer = tracer(8);
    let mut span = tracer.span("risky").start();
    prepare(&mut span);
    let work = std::panic::AssertUnwindSafe(move || {
        let _span = span;
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(std::panic::catch_unwind(work).is_err());
    tracer.spans().recent(1)[0].status.clone()
}

#[test]
fn a_panic_ends_its_span_as_an_error_unless_it_has_a_status() {
    let status = status_after_a_panic(|_| {});
    assert!(
        matches!(&status, Status::Error(reason) if reason.as_str() == "panicked"),
        "{status:?}"
    );
    assert_eq!(status_after_a_panic(Span::succeed), Status::Ok);
}

#[test]
fn everything_that_a_span_keeps_is_masked() {
    let tracer = tracer(8);
    let mut span = tracer.span("mail ada@example.org").start();
    span.set("card", 4_111_111_111_111_111_i64);
    span.set("api_key", "plain");
    span.set("pin", 1234);
    span.set("note", "token=abc123");
    span.set("count", 3);
    span.fail("refused postgres://app:hunter2@db/shop");
    span.end();
    let span = &tracer.spans().recent(1)[0];
    let shown = |name| span.attribute(name).unwrap().to_string();
    assert_eq!(span.name.as_str(), "mail [masked:email]");
    assert_eq!(shown("card"), "[masked:card]");
    assert_eq!(shown("api_key"), "[masked]");
    assert_eq!(shown("pin"), "[masked]");
    assert_eq!(shown("note"), "token=[masked]");
    assert_eq!(shown("count"), "3");
    let Status::Error(reason) = &span.status else {
        panic!("{span:?}")
    };
    assert_eq!(
        reason.as_str(),
        "refused postgres://[masked:userinfo]@db/shop"
    );
}

#[test]
fn attributes_are_bounded_and_replaced_by_name() {
    let tracer = tracer(8);
    let mut span = tracer.span("many").start();
    for index in 0..100 {
        span.set(format!("a{index}"), index);
    }
    span.set("a0", "again");
    span.set("a1", "x".repeat(100_000));
    span.end();
    let span = &tracer.spans().recent(1)[0];
    assert_eq!(span.attributes.len(), Span::MAX_ATTRIBUTES);
    assert_eq!(span.dropped_attributes, 36);
    assert_eq!(span.attribute("a0").unwrap().to_string(), "again");
    assert!(span.attribute("a1").unwrap().to_string().len() < Span::MAX_TEXT + 32);
}

#[test]
fn two_tracers_of_one_seed_draw_the_same_ids_and_unseeded_ones_do_not() {
    let ids = |tracer: &Tracer| {
        let span = tracer.span("x").start();
        (span.context().trace_id(), span.context().span_id())
    };
    assert_eq!(ids(&tracer(1)), ids(&tracer(1)));
    assert_ne!(
        ids(&Tracer::builder().build()),
        ids(&Tracer::builder().build())
    );
}

#[cfg(feature = "serde")]
#[test]
fn a_finished_span_is_written_as_json() {
    let tracer = tracer(8);
    let mut span = tracer.span("charge").kind(SpanKind::Client).start();
    span.set("items", 2);
    span.fail("declined");
    span.end();
    let json = serde_json::to_value(&*tracer.spans().recent(1)[0]).unwrap();
    assert_eq!(json["name"], "charge");
    assert_eq!(json["kind"], "client");
    assert_eq!(json["attributes"]["items"], 2);
    assert_eq!(json["status"]["error"], "declined");
    assert_eq!(json["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(json["parent"], serde_json::Value::Null);
}

proptest! {
    #[test]
    fn every_reader_gets_each_span_once_in_order_or_hears_that_it_is_lost(
        capacity in 1_usize..8,
        steps in prop::collection::vec(prop::option::of(1_usize..5), 1..60),
    ) {
        // A step finishes a span, or reads at most so many.
        let tracer = tracer(capacity);
        let (mut cursor, mut finished, mut accounted) = (Cursor::default(), 0_u64, 0_u64);
        for step in steps.into_iter().chain([Some(100)]) {
            let Some(max) = step else {
                tracer.span(&finished.to_string()).start().end();
                finished += 1;
                continue;
            };
            let batch = tracer.spans().after(cursor, max);
            cursor = batch.next;
            accounted += batch.lost;
            prop_assert!(batch.spans.len() <= max.min(capacity));
            for span in &batch.spans {
                prop_assert_eq!(span.name.as_str(), accounted.to_string());
                accounted += 1;
            }
        }
        prop_assert_eq!(accounted, finished);
    }
}
