//! The layer in front of a participant in SQLite.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, State};
use axum::response::Response;
use axum::{Router, routing};
use http::{Request, StatusCode};
use orchestra_saga::barrier::layer::{CallLayer, respond};
use orchestra_saga::barrier::sqlite::Barrier;
use orchestra_saga::{BarrierCall, Operation, StepOutcome};
use parking_lot::Mutex;
use rusqlite::Connection;
use tower_service::Service;

use super::participant;

type Db = Arc<Mutex<Connection>>;

async fn serve(
    State(db): State<Db>,
    Extension(call): Extension<BarrierCall>,
    body: String,
) -> Response {
    let mut db = db.lock();
    let answer = Barrier::transact(&mut db, &call, |tx| {
        tx.execute("INSERT INTO effect VALUES (0, 0, 1)", [])?;
        Ok(format!("{} {body}", call.op))
    });
    respond(&answer).map(Into::into)
}

async fn ask(service: &mut Router, op: Operation, body: &'static str) -> (StatusCode, String) {
    let answer = send(service, op, Body::from(body)).await;
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 1_000).await.expect("read");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

async fn send(service: &mut Router, op: Operation, body: Body) -> Response {
    let request = Request::post("/")
        .header("x-saga-id", "01890000-0000-7000-8000-000000000001")
        .header("x-step-name", "charge")
        .header("x-saga-op", op.as_str())
        .header("x-saga-epoch", "3")
        .header("idempotency-key", "k-1");
    let request = request.body(body).expect("a request");
    service.call(request).await.expect("served")
}

#[tokio::test]
async fn a_key_is_answered_for_the_body_that_it_came_with_and_for_no_other() {
    let mut service = Router::new()
        .route("/", routing::post(serve))
        .layer(CallLayer::new().max_body(3))
        .with_state(Arc::new(Mutex::new(participant())));
    let mut asked = async |op, body| ask(&mut service, op, body).await;
    for _ in 0..2 {
        let (status, answer) = asked(Operation::Action, "30").await;
        assert_eq!(
            (status, &*answer),
            (StatusCode::OK, "\"action 30\""),
            "the handler has the body"
        );
    }
    let (status, answer) = asked(Operation::Action, "31").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer.contains("\"type\":\"urn:orchestra-saga:key-reused\""),
        "{answer}"
    );
    let outcome = StepOutcome::from_http(status, None, answer.as_bytes());
    assert_eq!(outcome.name(), "unknown");
    let (status, _) = asked(Operation::Action, "3000").await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = asked(Operation::Compensation, "31").await;
    assert_eq!(
        status,
        StatusCode::OK,
        "a compensation has a key of its own"
    );
    for late in [Operation::Action, Operation::Probe] {
        let (status, answer) = asked(late, "30").await;
        assert_eq!((status, late), (StatusCode::CONFLICT, late), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_asked_for_again_and_nothing_happened() {
    let db = Arc::new(Mutex::new(participant()));
    let mut service = Router::new()
        .route("/", routing::post(serve))
        .layer(CallLayer::new())
        .with_state(Arc::clone(&db));
    let parts = [Ok("3"), Err(std::io::Error::other("reset"))];
    let body = Body::from_stream(futures_util::stream::iter(parts));
    let answer = send(&mut service, Operation::Action, body).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "1");
    let outcome = StepOutcome::from_http(answer.status(), Some(Duration::from_secs(1)), b"");
    assert_eq!(outcome.name(), "retryable");
    assert!(super::effects(&db.lock()).is_empty());
    let (status, _) = ask(&mut service, Operation::Action, "30").await;
    assert_eq!(status, StatusCode::OK);
}
