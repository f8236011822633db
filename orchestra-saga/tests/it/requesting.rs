//! Declarative steps: templates, headers, answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use orchestra_core::{ServiceName, TraceContext};
use orchestra_saga::{
    BarrierCall, Call, Caller, Definition, ErrorKind, Executor, Failure, MemoryStore, Operation,
    SagaId, Start, Status, StepCall, StepOutcome, StepRequest,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Keeps what it was asked and answers the same to everything.
#[derive(Debug, Clone)]
struct Recording {
    answer: StepOutcome,
    seen: Arc<Mutex<Vec<StepRequest>>>,
}

impl Recording {
    fn new(answer: StepOutcome) -> Self {
        let seen = Arc::default();
        Self { answer, seen }
    }
}

#[async_trait]
impl Caller for Recording {
    async fn call(&self, request: StepRequest) -> StepOutcome {
        let refuse = request.path.starts_with("/pay");
        self.seen.lock().push(request);
        if refuse {
            StepOutcome::Rejected("declined".to_owned())
        } else {
            self.answer.clone()
        }
    }
}

fn definition() -> Definition {
    let stock = ServiceName::new("stock").expect("valid");
    let bank = ServiceName::new("bank").expect("valid");
    let mut d = Definition::builder("declared", "1");
    let order = d.input::<Value>();
    let hold = StepCall::new(stock.clone(), Method::POST, "/items/${input.item}/holds")
        .body(json!({ "count": "${input.count}", "note": "for ${input.item} $$ {}" }));
    let release = StepCall::new(stock, Method::DELETE, "/holds/${output.hold}").no_body();
    let held: orchestra_saga::Handle<Value> = d.call("hold", order, hold).compensate_with(release);
    let pay = StepCall::new(bank, Method::POST, "/pay");
    let _: orchestra_saga::Handle<Value> = d.call("pay", (order, held), pay).pivot();
    d.build().expect("valid")
}

#[tokio::test(start_paused = true)]
async fn requests_are_resolved_from_inputs_and_outputs() {
    let caller = Recording::new(StepOutcome::Done(json!({ "hold": "h/1" }).into()));
    let builder = Executor::builder(MemoryStore::default()).definition(definition());
    let executor = builder.caller(caller.clone()).build().await.expect("built");
    let trace: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        .parse()
        .expect("valid");
    let order = json!({ "item": "a b/c", "count": 2 });
    let start = Start::of("declared")
        .input(&order)
        .expect("json")
        .trace(trace);
    let saga = executor.start(start).await.expect("started");
    assert_eq!(
        executor.wait(saga).await.expect("ended").status,
        Status::Compensated
    );

    let seen = caller.seen.lock();
    let paths: Vec<_> = seen.iter().map(|request| &*request.path).collect();
    assert_eq!(paths, ["/items/a%20b%2Fc/holds", "/pay", "/holds/h%2F1"]);
    let body: Value = serde_json::from_slice(seen[0].body.as_ref().expect("a body")).expect("json");
    assert_eq!(body, json!({ "count": 2, "note": "for a b/c $ {}" }));
    let body: Value = serde_json::from_slice(seen[1].body.as_ref().expect("a body")).expect("json");
    assert_eq!(body, json!([order, { "hold": "h/1" }]));
    assert_eq!(seen[2].body, None);

    let headers = seen[0].call.headers();
    assert_eq!(headers["x-saga-id"], saga.to_string());
    assert_eq!(headers["x-saga-op"], "action");
    assert_eq!(headers["x-saga-attempt"], "1");
    assert_eq!(headers["x-saga-epoch"], "1");
    assert_eq!(headers["x-saga-deadline"], "7500");
    assert_eq!(
        headers["traceparent"],
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    );
    assert_eq!(seen[2].call.headers()["x-saga-op"], "compensation");
    assert_ne!(seen[0].call.key, seen[2].call.key);
    let received = BarrierCall::from_headers(&headers).expect("complete");
    assert_eq!(received, BarrierCall::from(&seen[0].call));
}

#[tokio::test(start_paused = true)]
async fn a_missing_member_or_a_dot_segment_sends_nothing() {
    for item in [json!({ "count": 1 }), json!({ "item": "..", "count": 1 })] {
        let caller = Recording::new(StepOutcome::Done(Value::Null.into()));
        let builder = Executor::builder(MemoryStore::default()).definition(definition());
        let executor = builder.caller(caller.clone()).build().await.expect("built");
        let start = Start::of("declared").input(&item).expect("json");
        let saga = executor.start(start).await.expect("started");
        assert_eq!(
            executor.wait(saga).await.expect("ended").status,
            Status::Compensated
        );
        assert_eq!(caller.seen.lock().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_needs_an_output_that_nobody_heard_is_parked_and_says_why() {
    let caller = Recording::new(StepOutcome::Unknown("no answer".to_owned()));
    let builder = Executor::builder(MemoryStore::default()).definition(definition());
    let executor = builder.caller(caller.clone()).build().await.expect("built");
    let start = Start::of("declared").input(&json!({ "item": "a", "count": 1 }));
    let saga = executor.start(start.expect("json")).await.expect("started");
    let view = executor.settled(saga).await.expect("parked");
    assert_eq!(view.status, Status::Parked);
    let said = view.steps.first().and_then(|step| step.reason.clone());
    let wanted = "`output.hold` is missing: what the action returned is not known";
    assert!(said.is_some_and(|said| said.ends_with(wanted)));
    assert!(
        caller
            .seen
            .lock()
            .iter()
            .all(|sent| sent.method == Method::POST)
    );
}

#[test]
fn a_document_that_is_wrong_says_what_it_needs() {
    let step = json!({ "name": "pay", "service": "bank", "method": "POST", "endpoint": "/pay" });
    for (member, value, wanted) in [
        (
            "kind",
            Value::Null,
            "neither a compensation nor a kind: pivot, retriable or read_only",
        ),
        (
            "backoff",
            json!("exponential"),
            "a growth (fixed, linear, exponential or decorrelated)",
        ),
        (
            "probe",
            json!({ "service": "bank", "method": "GET", "endpoint": "/pay", "retries": 2 }),
            "its probe has a timeout, retries or backoff",
        ),
    ] {
        let mut step = step.clone();
        step[member] = value;
        let document = json!({ "id": "d", "version": "1", "steps": [step] });
        let error = Definition::from_json(&document.to_string()).expect_err(wanted);
        assert_eq!(error.kind(), ErrorKind::InvalidDefinition);
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
fn an_outcome_is_the_result_of_a_typed_step() {
    let http = |status, body: &[u8]| StepOutcome::from_http(status, None, body);
    let done = http(StatusCode::OK, b"[7]").into_result::<Vec<u32>>();
    assert_eq!(done, Ok(vec![7]));
    let nothing = http(StatusCode::NO_CONTENT, b"").into_result::<()>();
    assert_eq!(nothing, Ok(()));
    let refused = http(StatusCode::CONFLICT, b"late").into_result::<u32>();
    assert!(matches!(refused, Err(Failure::Rejected(_))));
    let lost = http(StatusCode::BAD_GATEWAY, b"").into_result::<u32>();
    assert!(matches!(lost, Err(Failure::Unknown(_))));
    // It took effect: an answer that cannot be read is no refusal.
    let unread = http(StatusCode::OK, b"[7]").into_result::<u32>();
    assert!(matches!(unread, Err(Failure::Unknown(_))));
}

#[tokio::test]
async fn requests_need_a_caller() {
    let builder = Executor::builder(MemoryStore::default()).definition(definition());
    let error = builder.build().await.expect_err("no caller");
    assert_eq!(error.kind(), ErrorKind::InvalidDefinition);
}

#[test]
fn answers_say_what_is_known_of_the_effect() {
    let second = Some(Duration::from_secs(1));
    for (status, after, name) in [
        (200, None, "done"),
        (204, None, "done"),
        (307, None, "rejected"),
        (400, None, "rejected"),
        (404, None, "rejected"),
        (408, None, "unknown"),
        (409, None, "rejected"),
        (422, None, "rejected"),
        (425, None, "retryable"),
        (429, None, "retryable"),
        (500, None, "unknown"),
        (502, None, "unknown"),
        (503, None, "unknown"),
        (503, second, "retryable"),
        (504, second, "unknown"),
    ] {
        let code = StatusCode::from_u16(status).expect("valid");
        let outcome = StepOutcome::from_http(code, after, b"");
        assert_eq!(outcome.name(), name, "{status}");
    }
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let reused = br#"{"detail":"x","type":"urn:orchestra-saga:key-reused"}"#;
    let outcome = StepOutcome::from_http(status, None, reused);
    assert_eq!(
        outcome.name(),
        "unknown",
        "what was done for another body is done"
    );
    let other = br#"{"type":"about:blank"}"#;
    let outcome = StepOutcome::from_http(status, None, other);
    assert_eq!(outcome.name(), "rejected");
    let long = vec![b'x'; 10_000];
    let StepOutcome::Rejected(reason) = StepOutcome::from_http(StatusCode::GONE, None, &long)
    else {
        panic!("410 is a refusal");
    };
    assert!(reason.len() < 300);
}

#[test]
fn a_definition_knows_whom_it_calls() {
    let mut d = Definition::builder("pay", "1");
    let order = d.input::<Value>();
    let call =
        |service: &str| StepCall::new(service.parse().unwrap(), Method::POST, "/step").no_body();
    let paid = d
        .call::<(), _>("charge", order, call("payment"))
        .compensate_with(call("refund"));
    d.step("count", paid, |_: Call, (): ()| async { Ok(1) })
        .read_only();
    d.call::<(), _>("again", order, call("payment")).read_only();
    let definition = d.build().unwrap();
    let services: Vec<_> = definition
        .services()
        .into_iter()
        .map(|s| s.as_str().to_owned())
        .collect();
    assert_eq!(services, ["payment", "refund"]);
}

/// Sagas in flight outlive the program: who derives other keys calls participants twice.
#[test]
fn keys_are_what_they_always_were() {
    let saga = SagaId::from_bytes([7; 16]);
    let step = "charge".parse().expect("a name");
    let keys = [
        (0, Operation::Action, "7cb358e3f11d4f2b7970ec4b841fe6bb"),
        (
            0,
            Operation::Compensation,
            "ef44590cafddebd099499c6941b34fa2",
        ),
        (2, Operation::Action, "5dc6d18d1b9b353231c2bf0874c850c4"),
    ];
    for (iteration, op, expected) in keys {
        let key = Call::key_of(saga, &step, iteration, op);
        assert_eq!(key.as_str(), expected);
    }
}
