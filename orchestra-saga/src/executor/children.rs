//! Sagas that are a step of another.

use std::sync::Arc;

use orchestra_core::IdempotencyKey;

use super::shared::Shared;
use super::starting::Seat;
use crate::definition::Children;
use crate::error::{Error, ErrorKind};
use crate::machine::Input;
use crate::payload::Payload;
use crate::status::{SagaView, Status};
use crate::step::{Call, StepOutcome};

/// The most sagas of one step.
const MOST: usize = 1024;

/// Starts all, waits for all.
pub(super) async fn run(shared: &Arc<Shared>, children: &dyn Children, call: &Call) -> StepOutcome {
    let starts = match children.starts(call) {
        Ok(starts) if starts.len() <= MOST => starts,
        Ok(starts) => {
            let many = starts.len();
            return StepOutcome::Rejected(format!("{many} sagas in one step, more than {MOST}"));
        }
        Err(outcome) => return outcome,
    };
    let mut sagas = Vec::with_capacity(starts.len());
    let mut parts = Vec::with_capacity(starts.len());
    for (number, mut start) in starts.into_iter().enumerate() {
        start.key = Some(key(call, number));
        start.parent = Some(call.saga);
        start.trace = call.trace.as_deref().cloned();
        match shared.begin(start, None, Seat::OfParent).await {
            Ok(saga) => {
                // One that was started before a crash may wait for room that its parent holds.
                parts.push(shared.rouse(saga));
                sagas.push(saga);
            }
            Err(error) => return failed(&error),
        }
    }
    let mut outputs = Vec::with_capacity(sagas.len());
    let mut went_back = None;
    for saga in sagas {
        match shared.until(saga, Status::is_terminal).await {
            Ok(view) if view.status == Status::Completed => outputs.push(output(&view)),
            Ok(_) => went_back = Some(saga),
            Err(error) => return StepOutcome::Unknown(error.to_string()),
        }
    }
    if let Some(saga) = went_back {
        // The step has an effect with all of them or with none.
        let reason = format!("saga {saga} went back");
        return match revoke(shared, children, call).await {
            StepOutcome::Done(_) => StepOutcome::Rejected(reason),
            _ => StepOutcome::Unknown(reason),
        };
    }
    Payload::of(&outputs).map_or_else(
        |source| StepOutcome::Unknown(format!("outputs cannot be written: {source}")),
        StepOutcome::Done,
    )
}

/// Takes all back that were started.
pub(super) async fn revoke(
    shared: &Arc<Shared>,
    children: &dyn Children,
    call: &Call,
) -> StepOutcome {
    let starts = match children.starts(call) {
        Ok(starts) => starts.len(),
        Err(outcome) => return outcome,
    };
    for number in 0..starts.min(MOST) {
        let key = key_of_action(call, number);
        let saga = match shared.store.find_start(&key).await {
            Ok(Some(saga)) => saga,
            Ok(None) => continue,
            Err(error) => return StepOutcome::Unknown(error.to_string()),
        };
        let reason = format!("saga {} goes back", call.saga);
        let _part = shared.rouse(saga);
        for input in [
            Input::Cancel {
                reason: reason.clone(),
            },
            Input::Revoke { reason },
        ] {
            if let Err(error) = shared.ask(saga, input).await
                && error.kind() != ErrorKind::NotFound
            {
                return StepOutcome::Unknown(error.to_string());
            }
        }
        match shared.until(saga, Status::is_terminal).await {
            Ok(view) if view.status == Status::Compensated => {}
            Ok(view) if view.status == Status::Completed => {
                // It completed between the two; or it is past its point of no return.
                let reason = format!("saga {saga} has completed");
                return StepOutcome::Retryable {
                    reason,
                    after: None,
                };
            }
            Ok(_) => return StepOutcome::Unknown(format!("saga {saga} has not gone back")),
            Err(error) => return StepOutcome::Unknown(error.to_string()),
        }
    }
    StepOutcome::Done(Payload::default())
}

fn failed(error: &Error) -> StepOutcome {
    let reason = error.to_string();
    if error.is_retryable() {
        StepOutcome::Unknown(reason)
    } else {
        StepOutcome::Rejected(reason)
    }
}

/// The outputs of the steps by their names.
fn output(view: &SagaView) -> serde_json::Map<String, serde_json::Value> {
    let outputs = view.steps.iter().filter_map(|step| {
        let output = step.output.as_ref()?;
        Some((step.name.to_string(), output.value()))
    });
    outputs.collect()
}

fn key(call: &Call, number: usize) -> IdempotencyKey {
    derived(&call.key, number)
}

fn key_of_action(call: &Call, number: usize) -> IdempotencyKey {
    let action = Call::key_of(
        call.saga,
        &call.step,
        call.iteration,
        crate::step::Operation::Action,
    );
    derived(&action, number)
}

#[expect(clippy::expect_used, reason = "a key and a number are a key")]
fn derived(key: &IdempotencyKey, number: usize) -> IdempotencyKey {
    IdempotencyKey::new(format!("{key}.{number}")).expect("visible and short")
}
