//! `POST /orders` and the questions about them.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use orchestra::core::IdempotencyKey;
use orchestra::observe::propagate;
use orchestra::saga::{
    Cause, Error, ErrorKind, Executor, Filter, SagaId, SagaView, Start, Status, Summary,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::catalogue::MAX_QUANTITY;
use crate::checkout::Order;

/// A customer waits this long for the end of the order; after that the answer is 202.
const PATIENCE: Duration = Duration::from_secs(12);

/// Orders in one answer at most.
const MOST_LISTED: usize = 100_000;

pub fn router(sagas: Executor) -> Router {
    Router::new()
        .route("/orders", post(place).get(list))
        .route("/orders/{id}", get(show))
        .with_state(sagas)
}

/// Answers only after the saga's start is durable: with its end if it comes soon, else with 202.
async fn place(State(sagas): State<Executor>, headers: HeaderMap, body: Bytes) -> Response {
    match start(&sagas, &headers, &body).await {
        Ok(id) => match tokio::time::timeout(PATIENCE, sagas.settled(id)).await {
            Ok(Ok(order)) => ended(&order),
            Ok(Err(_)) | Err(_) => answer(
                StatusCode::ACCEPTED,
                json!({ "order": id, "state": "started" }),
            ),
        },
        Err(refusal) => refusal,
    }
}

async fn start(sagas: &Executor, headers: &HeaderMap, body: &[u8]) -> Result<SagaId, Response> {
    let bad = |reason: String| refuse(StatusCode::BAD_REQUEST, "malformed", &reason);
    let order: Order = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    check(&order).map_err(|reason| refuse(StatusCode::UNPROCESSABLE_ENTITY, "invalid", &reason))?;
    let key = match headers.get("idempotency-key") {
        None => None,
        Some(key) => {
            let key = key
                .to_str()
                .map_err(|error| bad(format!("idempotency-key: {error}")))?;
            Some(IdempotencyKey::new(key).map_err(|error| bad(error.to_string()))?)
        }
    };
    let start = Start::of("checkout")
        .input(&order)
        .map_err(|error| bad(error.to_string()))?;
    let start = start.key(key).trace(propagate::extract(headers));
    sagas
        .start(start)
        .await
        .map_err(|error| not_started(&error))
}

fn not_started(error: &Error) -> Response {
    match error.kind() {
        ErrorKind::KeyReused => refuse(
            StatusCode::UNPROCESSABLE_ENTITY,
            "key_reused",
            &error.to_string(),
        ),
        ErrorKind::InvalidInput => refuse(StatusCode::BAD_REQUEST, "malformed", &error.to_string()),
        _ => unavailable(json!({ "error": error.to_string() })),
    }
}

fn check(order: &Order) -> Result<(), String> {
    if order.quantity == 0 || order.quantity > MAX_QUANTITY {
        return Err(format!("`quantity` is from 1 to {MAX_QUANTITY}"));
    }
    for (field, text) in [("user", &order.user), ("item", &order.item)] {
        if text.is_empty() || text.len() > 64 || text.chars().any(char::is_control) {
            return Err(format!(
                "`{field}` has 1 to 64 bytes and no control characters"
            ));
        }
    }
    Ok(())
}

/// What the end of the saga means for the customer.
fn ended(order: &SagaView) -> Response {
    let body = body(order);
    match order.status {
        Status::Completed => answer(StatusCode::CREATED, body),
        Status::Compensated => match refusal(order) {
            Some(status) => answer(status, body),
            None => unavailable(body),
        },
        _ => unavailable(body),
    }
}

/// The status of a refusal by a participant's rules; `None` if the order failed for want of a participant.
fn refusal(order: &SagaView) -> Option<StatusCode> {
    let Some(Cause::Rejected { reason, .. }) = &order.cause else {
        return None;
    };
    let codes = [
        ("unknown_user", StatusCode::NOT_FOUND),
        ("unknown_item", StatusCode::UNPROCESSABLE_ENTITY),
        ("out_of_stock", StatusCode::CONFLICT),
        ("payment_declined", StatusCode::PAYMENT_REQUIRED),
    ];
    let found = codes
        .iter()
        .find(|(code, _)| reason.contains(&format!("\"code\":\"{code}\"")));
    found.map(|(_, status)| *status)
}

fn body(order: &SagaView) -> Value {
    json!({
        "order": order.id,
        "state": order.status,
        "cause": order.cause,
        "request": order.input,
        "steps": order.steps.iter().map(|step| json!({
            "name": step.name, "state": step.status, "attempts": step.attempts, "reason": step.reason,
        })).collect::<Vec<_>>(),
    })
}

async fn show(State(sagas): State<Executor>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<SagaId>() else {
        return refuse(
            StatusCode::NOT_FOUND,
            "not_found",
            "that is not the id of an order",
        );
    };
    match sagas.status(id).await {
        Ok(order) => answer(StatusCode::OK, body(&order)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            refuse(StatusCode::NOT_FOUND, "not_found", &error.to_string())
        }
        Err(error) => unavailable(json!({ "error": error.to_string() })),
    }
}

#[derive(Debug, Deserialize)]
struct Wanted {
    state: Option<String>,
    limit: Option<usize>,
}

async fn list(State(sagas): State<Executor>, Query(wanted): Query<Wanted>) -> Response {
    let filters = match wanted.state.as_deref() {
        None => vec![Filter::default()],
        Some("running") => vec![
            Filter::of(Status::Started),
            Filter::of(Status::Compensating),
        ],
        Some(state) => match Status::ALL
            .into_iter()
            .find(|status| status.as_str() == state)
        {
            Some(status) => vec![Filter::of(status)],
            None => {
                return refuse(
                    StatusCode::BAD_REQUEST,
                    "malformed",
                    "there is no such state",
                );
            }
        },
    };
    let limit = wanted.limit.unwrap_or(100).min(MOST_LISTED);
    let mut orders = Vec::new();
    for filter in filters {
        match all(&sagas, filter, limit).await {
            Ok(found) => orders.extend(found.into_iter().map(|summary| summary.saga)),
            Err(error) => return unavailable(json!({ "error": error.to_string() })),
        }
    }
    answer(StatusCode::OK, json!({ "orders": orders }))
}

/// Page by page, at most `limit`.
pub async fn all(sagas: &Executor, filter: Filter, limit: usize) -> Result<Vec<Summary>, Error> {
    let mut found: Vec<Summary> = Vec::new();
    while found.len() < limit {
        let page = 1_000.min(limit - found.len());
        let after = found.last().map(|summary| summary.saga);
        let next = sagas.list(&filter.clone().after(after).limit(page)).await?;
        let last = next.len() < page;
        found.extend(next);
        if last {
            break;
        }
    }
    Ok(found)
}

fn refuse(status: StatusCode, code: &str, reason: &str) -> Response {
    answer(status, json!({ "code": code, "error": reason }))
}

fn unavailable(body: Value) -> Response {
    let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, body);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

fn answer(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}
