//! Spans on their way to an exporter, in virtual time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{Backoff, ErrorClass};
use orchestra_observe::export::Options;
use orchestra_observe::{
    Delivery, Error, ErrorKind, Event, Exporter, FinishedSpan, MemoryExporter, Tracer,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// Fails as its script says before it hands on.
#[derive(Debug)]
struct Scripted {
    inner: MemoryExporter,
    script: Mutex<Vec<Fault>>,
    calls: Mutex<Vec<Instant>>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Hang,
    Fail(ErrorClass),
}

impl Scripted {
    fn new(faults: &[Fault]) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryExporter::new(NonZeroUsize::new(10_000).unwrap()),
            script: Mutex::new(faults.iter().rev().copied().collect()),
            calls: Mutex::default(),
        })
    }

    fn names(&self) -> Vec<String> {
        let spans = self.inner.spans();
        spans.iter().map(|span| span.name.to_string()).collect()
    }
}

#[async_trait]
impl Exporter for Scripted {
    async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error> {
        self.calls.lock().push(Instant::now());
        let fault = self.script.lock().pop();
        match fault {
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Fail(class)) => Err(Error::export("scripted", class, "as told")),
            None => self.inner.export(batch).await,
        }
    }

    async fn shutdown(&self) -> Result<(), Error> {
        self.inner.shutdown().await
    }
}

struct Bench {
    tracer: Tracer,
    exporter: Arc<Scripted>,
    delivery: Delivery,
    heard: Arc<Mutex<Vec<Event>>>,
}

fn bench(capacity: usize, faults: &[Fault]) -> Bench {
    let capacity = NonZeroUsize::new(capacity).unwrap();
    let tracer = Tracer::builder().capacity(capacity).build();
    let exporter = Scripted::new(faults);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&heard);
    let mut options = Options::default();
    options.batch = NonZeroUsize::new(3).unwrap();
    options.retries = 2;
    options.backoff = Backoff::fixed(Duration::from_secs(1));
    options.listener = Arc::new(move |event: &Event| events.lock().push(event.clone()));
    let ring = Arc::clone(tracer.spans());
    let delivery = Delivery::start(ring, Arc::clone(&exporter), options);
    Bench {
        tracer,
        exporter,
        delivery,
        heard,
    }
}

impl Bench {
    fn finish(&self, names: &[&str]) {
        for name in names {
            self.tracer.span(name).start().end();
        }
    }
}

const TRANSIENT: Fault = Fault::Fail(ErrorClass::Transient);

#[tokio::test(start_paused = true)]
async fn a_full_batch_goes_at_once_and_a_part_of_one_after_the_interval() {
    let bench = bench(100, &[]);
    let start = Instant::now();
    bench.finish(&["a", "b", "c"]);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.exporter.names(), ["a", "b", "c"]);
    bench.finish(&["d"]);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(bench.exporter.names().len(), 3);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.exporter.names(), ["a", "b", "c", "d"]);
    let calls = bench.exporter.calls.lock().clone();
    assert_eq!(calls.len(), 2);
    assert_eq!((calls[1] - start).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn shutdown_sends_what_is_left_and_closes_the_exporter() {
    let bench = bench(100, &[]);
    bench.finish(&["a", "b", "c", "d", "e"]);
    bench.delivery.shutdown().await.unwrap();
    assert_eq!(bench.exporter.names(), ["a", "b", "c", "d", "e"]);
    let refused = bench.exporter.export(&[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    let exported = [3, 2].map(|count| Event::SpansExported { count });
    assert_eq!(*bench.heard.lock(), exported);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_is_sent_again_after_the_backoff() {
    let bench = bench(100, &[TRANSIENT, Fault::Hang]);
    bench.finish(&["a", "b", "c"]);
    bench.delivery.shutdown().await.unwrap();
    assert_eq!(bench.exporter.names(), ["a", "b", "c"]);
    let calls = bench.exporter.calls.lock().clone();
    let gaps: Vec<_> = calls
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect();
    // One second of backoff; then ten of timeout and one of backoff.
    assert_eq!(gaps, [1, 11]);
    let kinds: Vec<_> = bench.heard.lock().clone();
    assert_eq!(
        kinds,
        [
            Event::ExportRetried {
                kind: ErrorKind::Export,
                retry: 1
            },
            Event::ExportRetried {
                kind: ErrorKind::Timeout,
                retry: 2
            },
            Event::SpansExported { count: 3 },
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_peer_says_how_long_to_wait() {
    let after = Some(Duration::from_secs(30));
    let bench = bench(100, &[Fault::Fail(ErrorClass::Throttled { after })]);
    bench.finish(&["a"]);
    bench.delivery.shutdown().await.unwrap();
    let calls = bench.exporter.calls.lock().clone();
    assert_eq!((calls[1] - calls[0]).as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_for_good_is_lost_aloud_and_the_next_one_goes() {
    for faults in [&[TRANSIENT; 3][..], &[Fault::Fail(ErrorClass::Permanent)]] {
        let bench = bench(100, faults);
        bench.finish(&["a", "b", "c", "d"]);
        bench.delivery.shutdown().await.unwrap();
        assert_eq!(bench.exporter.names(), ["d"]);
        assert_eq!(bench.exporter.calls.lock().len(), faults.len() + 1);
        let lost = Event::SpansLost {
            count: 3,
            kind: Some(ErrorKind::Export),
        };
        assert!(bench.heard.lock().contains(&lost));
    }
}

#[tokio::test(start_paused = true)]
async fn spans_that_the_ring_overwrote_are_counted() {
    let bench = bench(4, &[]);
    bench.finish(&["a", "b", "c", "d", "e", "f"]);
    bench.delivery.shutdown().await.unwrap();
    assert_eq!(bench.exporter.names(), ["c", "d", "e", "f"]);
    let lost = Event::SpansLost {
        count: 2,
        kind: None,
    };
    assert_eq!(bench.heard.lock()[0], lost);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_delivery_stops_it() {
    let bench = bench(100, &[]);
    drop(bench.delivery);
    for _ in 0..9 {
        bench.tracer.span("x").start().end();
    }
    sleep(Duration::from_secs(60)).await;
    assert!(bench.exporter.names().is_empty());
    // The task is gone, and with it its hold on the exporter.
    assert_eq!(Arc::strong_count(&bench.exporter), 1);
}

#[tokio::test]
async fn the_memory_exporter_keeps_the_last_and_forgets_the_rest() {
    let tracer = Tracer::builder().build();
    for name in ["a", "b", "c"] {
        tracer.span(name).start().end();
    }
    let mut spans = tracer.spans().recent(3);
    spans.reverse();
    let exporter = MemoryExporter::new(NonZeroUsize::new(2).unwrap());
    let names = || {
        exporter
            .spans()
            .iter()
            .map(|span| span.name.to_string())
            .collect::<Vec<_>>()
    };
    exporter.export(&spans).await.unwrap();
    assert_eq!(names(), ["b", "c"]);
    exporter.export(&spans[..1]).await.unwrap();
    assert_eq!(names(), ["c", "a"]);
}
