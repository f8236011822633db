//! Declarative steps through the mesh.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, Method, StatusCode};
use orchestra::Orchestra;
use orchestra::core::{Backoff, Jitter, SpanId, TraceContext, TraceId};
use orchestra::observe::Value as Metric;
use orchestra::saga::step::{Caller, StepOutcome, StepRequest};
use orchestra::saga::{Definition, Event, MemoryStore, Retry, SagaId, Start, Status, StepCall};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, known, register, server, status};

fn charge(retries: u32) -> Definition {
    let mut saga = Definition::builder("pay", "1");
    let order = saga.input::<Value>();
    let call = || {
        StepCall::new(
            "payment".parse().unwrap(),
            Method::POST,
            "/charge/${input.order}",
        )
    };
    let backoff = Backoff::fixed(Duration::from_millis(1)).jitter(Jitter::None);
    saga.call::<Value, _>(
        "charge",
        order,
        call().body(json!({ "cents": "${input.cents}" })),
    )
    .retry(Retry::new(retries, backoff))
    .attempt_timeout(Duration::from_millis(300))
    .compensate_with(call().no_body());
    saga.build().unwrap()
}

async fn platform(definition: Definition) -> Orchestra {
    let builder = Orchestra::builder().saga_store(MemoryStore::default());
    builder.definition(definition).build().await.unwrap()
}

async fn run(orchestra: &Orchestra, trace: Option<TraceContext>) -> (SagaId, Status) {
    let sagas = orchestra.sagas().unwrap();
    let input = json!({ "order": "o-7", "cents": 250 });
    let start = Start::of("pay").input(&input).unwrap().trace(trace);
    let id = sagas.start(start).await.unwrap();
    (id, sagas.wait(id).await.unwrap().status)
}

async fn names(orchestra: &Orchestra, id: SagaId) -> Vec<&'static str> {
    let history = orchestra.sagas().unwrap().history(id).await.unwrap();
    history
        .iter()
        .map(|recorded| recorded.event.name())
        .collect()
}

#[tokio::test]
async fn a_step_is_one_request_with_everything_the_participant_needs() {
    let orchestra = platform(charge(0)).await;
    let seen = Arc::new(Mutex::new(Vec::<(String, HeaderMap)>::new()));
    let log = Arc::clone(&seen);
    let answer: Answer = Arc::new(move |request| {
        log.lock()
            .push((request.uri().path().to_owned(), request.headers().clone()));
        status(StatusCode::OK)
    });
    let (endpoint, serving) = server(answer).await;
    let _lease = register(&orchestra, "payment", "payment-1", endpoint).await;
    known(&orchestra, "payment", 1).await;

    let trace = TraceContext::root(TraceId::from_draw(7), SpanId::from_draw(9), true);
    let (id, end) = run(&orchestra, Some(trace.clone())).await;
    assert_eq!(end, Status::Completed);
    let (path, headers) = seen.lock().pop().unwrap();
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(path, "/charge/o-7");
    assert_eq!(header("x-saga-id"), id.to_string());
    assert_eq!(header("x-step-name"), "charge");
    assert_eq!(header("x-saga-op"), "action");
    assert_eq!(header("x-saga-attempt"), "1");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("idempotency-key").len(), 32);
    let sent: TraceContext = header("traceparent").parse().unwrap();
    assert_eq!(sent.trace_id(), trace.trace_id());
    assert_ne!(sent.span_id(), trace.span_id());

    let spans = orchestra.tracer().spans().trace(trace.trace_id());
    let spans: Vec<_> = spans
        .iter()
        .map(|span| span.name.as_str().to_owned())
        .collect();
    assert_eq!(spans, ["action charge"]);
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    serving.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_refusal_is_final_and_an_absent_service_is_asked_again() {
    let orchestra = platform(charge(3)).await;
    let (id, end) = run(&orchestra, None).await;
    assert_eq!(end, Status::Compensated);
    let events = names(&orchestra, id).await;
    assert_eq!(
        events
            .iter()
            .filter(|name| **name == "step_scheduled")
            .count(),
        4,
        "{events:?}"
    );
    assert!(
        !events.contains(&"step_unknown"),
        "it was never sent: {events:?}"
    );

    let (endpoint, serving) = server(Arc::new(|_| status(StatusCode::CONFLICT))).await;
    let _lease = register(&orchestra, "payment", "payment-1", endpoint).await;
    known(&orchestra, "payment", 1).await;
    let (id, end) = run(&orchestra, None).await;
    assert_eq!(end, Status::Compensated);
    let events = names(&orchestra, id).await;
    assert_eq!(
        events
            .iter()
            .filter(|name| **name == "step_scheduled")
            .count(),
        1,
        "{events:?}"
    );
    assert!(
        !events.contains(&"compensation_scheduled"),
        "there was no effect: {events:?}"
    );
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    serving.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_failure_after_the_request_is_unknown_repeated_under_one_key_and_undone() {
    let orchestra = platform(charge(2)).await;
    let seen = Arc::new(Mutex::new(Vec::<(String, String)>::new()));
    let log = Arc::clone(&seen);
    let (endpoint, serving) = server(Arc::new(move |request| {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let op = header("x-saga-op");
        log.lock().push((op.clone(), header("idempotency-key")));
        let undo = op == "compensation";
        status(if undo {
            StatusCode::OK
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        })
    }))
    .await;
    let _lease = register(&orchestra, "payment", "payment-1", endpoint).await;
    known(&orchestra, "payment", 1).await;

    let (id, end) = run(&orchestra, None).await;
    assert_eq!(end, Status::Compensated);
    let seen = seen.lock().clone();
    let ops: Vec<_> = seen.iter().map(|(op, _)| op.as_str()).collect();
    assert_eq!(ops, ["action", "action", "action", "compensation"]);
    assert!(
        seen[..3].iter().all(|(_, key)| *key == seen[0].1),
        "{seen:?}"
    );
    assert_ne!(
        seen[0].1, seen[3].1,
        "an action and its compensation are two operations"
    );
    let history = orchestra.sagas().unwrap().history(id).await.unwrap();
    let unknown = history
        .iter()
        .filter(|r| matches!(r.event, Event::StepUnknown { .. }));
    assert_eq!(unknown.count(), 3);
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    serving.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn the_services_of_a_definition_are_followed_from_the_start() {
    let orchestra = platform(charge(0)).await;
    let _lease = register(
        &orchestra,
        "payment",
        "payment-1",
        "127.0.0.1:9".parse().unwrap(),
    )
    .await;
    let labels = [("service", "payment")];
    let members = || {
        orchestra
            .metrics()
            .snapshot()
            .value("orchestra_discovery_members", &labels)
            .cloned()
    };
    while members() != Some(Metric::Gauge(1.0)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// Answers each request itself.
#[derive(Debug)]
struct Own;

#[async_trait]
impl Caller for Own {
    async fn call(&self, request: StepRequest) -> StepOutcome {
        StepOutcome::Done(json!({ "by": "own", "path": request.path }).into())
    }
}

#[tokio::test]
async fn requests_are_sent_by_the_caller_that_was_given() {
    let builder = Orchestra::builder().saga_store(MemoryStore::default());
    let builder = builder.definition(charge(0));
    let builder = builder.executor(|executor| executor.caller(Own));
    let orchestra = builder.build().await.unwrap();
    let (id, end) = run(&orchestra, None).await;
    assert_eq!(end, Status::Completed);
    let view = orchestra.sagas().unwrap().status(id).await.unwrap();
    let answer = json!({ "by": "own", "path": "/charge/o-7" });
    assert_eq!(view.output("charge"), Some(&answer.into()));
}

/// Takes each action and hangs up without an answer; answers compensations.
async fn hangs_up(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = Vec::new();
        while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            if stream.read_buf(&mut request).await.unwrap() == 0 {
                break;
            }
        }
        if !String::from_utf8_lossy(&request).contains("x-saga-op: action") {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_leaves_the_outcome_unknown() {
    let orchestra = platform(charge(1)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(hangs_up(listener));
    let _lease = register(&orchestra, "payment", "payment-1", endpoint).await;
    known(&orchestra, "payment", 1).await;

    let (id, end) = run(&orchestra, None).await;
    assert_eq!(end, Status::Compensated);
    let events = names(&orchestra, id).await;
    let count = |wanted: &str| events.iter().filter(|name| **name == wanted).count();
    assert_eq!(count("step_unknown"), 2, "{events:?}");
    assert_eq!(
        count("compensation_completed"),
        1,
        "it may have had its effect: {events:?}"
    );
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    server.shutdown().await;
}
