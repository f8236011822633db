use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use orchestra_core::Timestamp;
use tracing::Instrument;

use super::calls::Running;
use super::children;
use super::shared::Shared;
use crate::definition::{Body, Definition};
use crate::error::Result;
use crate::machine::Input;
use crate::payload::Payload;
use crate::step::{Beat, Call, Operation, Step, StepCall, StepOutcome};

/// Begins a call.
pub(super) fn begin(
    shared: &Arc<Shared>,
    definition: &Arc<Definition>,
    call: Call,
    now: Timestamp,
) -> Running {
    if call.budget.is_zero() {
        let reason = "not sent: the deadline of the attempt has passed".to_owned();
        let after = None;
        let outcome = StepOutcome::Retryable { reason, after };
        return Running::new(call, now, None, ready(outcome).boxed());
    }
    let silence = definition.spec(call.number).heartbeat;
    let span = tracing::info_span!(
        "saga_call",
        saga = %call.saga,
        step = %call.step,
        op = %call.op,
        attempt = call.attempt,
    );
    let answer = answer(shared, definition, call.clone());
    let answer = if span.is_disabled() {
        answer
    } else {
        answer.instrument(span).boxed()
    };
    Running::new(call, now, silence, answer)
}

fn answer(
    shared: &Arc<Shared>,
    definition: &Arc<Definition>,
    call: Call,
) -> BoxFuture<'static, StepOutcome> {
    let spec = definition.spec(call.number);
    let body = match call.op {
        Operation::Action => Some(&spec.action),
        Operation::Compensation => spec.compensation.as_ref(),
        Operation::Probe => spec.probe.as_ref(),
    };
    match body {
        Some(Body::Code(step)) => ask(Arc::clone(step), call).boxed(),
        Some(Body::Request(request)) => send(shared, request, &call),
        Some(Body::Children(starts)) => {
            let (shared, starts) = (Arc::clone(shared), Arc::clone(starts));
            async move {
                match call.op {
                    Operation::Compensation => children::revoke(&shared, &*starts, &call).await,
                    _ => children::run(&shared, &*starts, &call).await,
                }
            }
            .boxed()
        }
        Some(Body::Timer(_) | Body::Signal(..)) | None => {
            refused(format!("step {} has no {}", call.step, call.op))
        }
    }
}

async fn ask(step: Arc<dyn Step>, call: Call) -> StepOutcome {
    let answer = match call.op {
        Operation::Action => step.act(&call),
        Operation::Compensation => step.compensate(&call),
        Operation::Probe => step.probe(&call),
    };
    answer.await
}

fn send(shared: &Shared, request: &StepCall, call: &Call) -> BoxFuture<'static, StepOutcome> {
    match (request.resolve(call), &shared.caller) {
        (Ok(request), Some(caller)) => {
            let caller = Arc::clone(caller);
            async move { caller.call(request).await }.boxed()
        }
        (Ok(_), None) => refused("the executor has no caller".to_owned()),
        (Err(reason), _) => refused(format!("request cannot be made: {reason}")),
    }
}

fn refused(reason: String) -> BoxFuture<'static, StepOutcome> {
    ready(StepOutcome::Rejected(reason)).boxed()
}

#[async_trait]
impl Beat for Shared {
    async fn beat(self: Arc<Self>, call: &Call, details: Payload) -> Result<()> {
        self.limits.check_input(&details)?;
        let input = Input::Heartbeat {
            step: call.step.clone(),
            attempt: call.attempt,
            details,
        };
        self.ask(call.saga, input).await.map(drop)
    }
}
