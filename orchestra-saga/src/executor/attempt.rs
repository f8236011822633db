use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::Notice;
use super::shared::Shared;
use crate::definition::{Body, Definition};
use crate::machine::Input;
use crate::step::{Call, Operation, StepOutcome};

/// Makes one call and reports how it ended.
pub(super) async fn attempt(shared: Arc<Shared>, definition: Arc<Definition>, call: Call) -> Input {
    let begun = shared.now();
    let outcome = if call.budget.is_zero() {
        StepOutcome::Retryable {
            reason: "not sent: the deadline of the attempt has passed".to_owned(),
            after: None,
        }
    } else {
        let answer = AssertUnwindSafe(run(&shared, &definition, &call)).catch_unwind();
        let limit = tokio::time::timeout(call.budget, answer).await;
        match limit {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_panic)) => StepOutcome::Unknown("the step panicked".to_owned()),
            Err(_elapsed) => StepOutcome::Unknown(format!("no answer within {:?}", call.budget)),
        }
    };
    shared.tell(&Notice::Attempted {
        saga: call.saga,
        definition: &call.definition,
        step: &call.step,
        op: call.op,
        attempt: call.attempt,
        outcome: outcome.name(),
        took: shared.now().since(begun),
        trace: call.trace.as_ref(),
    });
    Input::Report {
        step: call.step.clone(),
        op: call.op,
        attempt: call.attempt,
        outcome,
    }
}

async fn run(shared: &Shared, definition: &Definition, call: &Call) -> StepOutcome {
    let number = definition.index_of(&call.step);
    let spec = number.map(|number| definition.spec(number));
    let body = spec.and_then(|spec| match call.op {
        Operation::Action => Some(&spec.action),
        Operation::Compensation => spec.compensation.as_ref(),
    });
    match (body, call.op) {
        (Some(Body::Code(step)), Operation::Action) => step.act(call).await,
        (Some(Body::Code(step)), Operation::Compensation) => step.compensate(call).await,
        (Some(Body::Request(request)), _) => match (request.resolve(call), &shared.caller) {
            (Ok(request), Some(caller)) => caller.call(request).await,
            (Ok(_), None) => StepOutcome::Rejected("the executor has no caller".to_owned()),
            (Err(reason), _) => StepOutcome::Rejected(format!("request cannot be made: {reason}")),
        },
        (None, op) => StepOutcome::Rejected(format!("step {} has no {op}", call.step)),
    }
}
