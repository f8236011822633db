//! Placing an order: check user, reserve inventory, charge payment, create order, notify.
//!
//! The charge is taken back if the order cannot be created. Once the order exists the notification
//! follows, however often it must be tried.

use std::time::Duration;

use http::Method;
use orchestra::core::{Backoff, ServiceName};
use orchestra::saga::{Definition, Retry, StepCall};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a customer asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub user: String,
    pub item: String,
    pub quantity: u32,
}

/// A call to a frozen replica costs this much before its outcome counts as unknown.
const ATTEMPT: Duration = Duration::from_millis(1_000);
/// Longer than the time in which a dead replica is fenced and replaced.
const STEP: Duration = Duration::from_secs(8);

pub fn definition() -> anyhow::Result<Definition> {
    let mut saga = Definition::builder("checkout", "1");
    let order = saga.input::<Order>();
    let retry = || {
        Retry::new(
            12,
            Backoff::exponential(Duration::from_millis(50), 2.0).cap(ATTEMPT),
        )
    };

    let user = saga
        .call::<Value, _>(
            "check_user",
            order,
            step("user", "check")?.body(json!({
                "user": "${input.user}",
            })),
        )
        .retry(retry())
        .attempt_timeout(ATTEMPT)
        .timeout(STEP)
        .read_only();
    let held = saga
        .call::<Value, _>(
            "reserve",
            (order, user),
            step("inventory", "reserve")?.body(json!({
                "order": "${saga}", "item": "${input.0.item}", "quantity": "${input.0.quantity}",
            })),
        )
        .retry(retry())
        .attempt_timeout(ATTEMPT)
        .timeout(STEP)
        .compensate_with(step("inventory", "reserve")?.body(json!({ "order": "${saga}" })));
    let paid = saga
        .call::<Value, _>(
            "charge",
            (order, held),
            step("payment", "charge")?.body(json!({
                "order": "${saga}", "user": "${input.0.user}", "amount": "${input.1.total}",
            })),
        )
        .retry(retry())
        .attempt_timeout(ATTEMPT)
        .timeout(STEP)
        .compensate_with(step("payment", "charge")?.body(json!({ "order": "${saga}" })));
    let placed = saga
        .call::<Value, _>(
            "create_order",
            (order, held, paid),
            step("order", "create")?.body(json!({
                "order": "${saga}", "user": "${input.0.user}", "item": "${input.1.item}",
                "quantity": "${input.1.quantity}", "total": "${input.2.charged}",
            })),
        )
        .retry(retry())
        .attempt_timeout(ATTEMPT)
        .timeout(STEP)
        .compensate_with(step("order", "create")?.body(json!({ "order": "${saga}" })));
    saga.call::<Value, _>(
        "notify",
        (order, placed),
        step("notification", "notify")?.body(json!({
            "order": "${saga}", "user": "${input.0.user}",
        })),
    )
    .attempt_timeout(ATTEMPT)
    .retriable();
    Ok(saga.build()?)
}

fn step(service: &str, name: &str) -> anyhow::Result<StepCall> {
    Ok(StepCall::new(
        ServiceName::new(service)?,
        Method::POST,
        format!("/steps/{name}"),
    ))
}
