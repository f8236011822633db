use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::Notify;

use super::shared::Shared;
use super::{Notice, children};
use crate::definition::{Body, Definition, Spec};
use crate::error::Result;
use crate::machine::Input;
use crate::payload::Payload;
use crate::step::{Beat, Call, Heart, Operation, StepOutcome};

/// The most characters of a panic's message that are kept.
const MAX_PANIC: usize = 256;

/// Makes one call and reports how it ended.
pub(super) async fn attempt(
    shared: Arc<Shared>,
    definition: Arc<Definition>,
    mut call: Call,
) -> Input {
    let begun = shared.now();
    let outcome = if call.budget.is_zero() {
        StepOutcome::Retryable {
            reason: "not sent: the deadline of the attempt has passed".to_owned(),
            after: None,
        }
    } else {
        let number = definition.index_of(&call.step);
        match number.map(|number| definition.spec(number)) {
            Some(spec) => watched(&shared, spec, &mut call).await,
            None => StepOutcome::Rejected(format!("there is no step {}", call.step)),
        }
    };
    let outcome = shared.limits.check_outcome(&call, outcome);
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

/// Runs it within its limits; a panic is an answer that nobody heard.
async fn watched(shared: &Arc<Shared>, spec: &Spec, call: &mut Call) -> StepOutcome {
    let pulse = Arc::new(Pulse {
        shared: Arc::clone(shared),
        call: call.clone(),
        beat: Notify::new(),
    });
    call.heart = Heart::new(Arc::clone(&pulse) as Arc<dyn Beat>);
    let silence = spec.heartbeat.filter(|_| call.op == Operation::Action);
    let answer = AssertUnwindSafe(run(shared, spec, call)).catch_unwind();
    let answer = async {
        match silence {
            Some(limit) => pulse.while_it_beats(limit, answer).await,
            None => answer.await,
        }
    };
    match tokio::time::timeout(call.budget, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => StepOutcome::Unknown(panicked(&*panic)),
        Err(_elapsed) => StepOutcome::Unknown(format!("no answer within {:?}", call.budget)),
    }
}

/// What a panic said, the beginning of it.
fn panicked(panic: &(dyn Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().copied();
    match literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)) {
        Some(text) => {
            let text: String = text.chars().take(MAX_PANIC).collect();
            format!("the step panicked: {text}")
        }
        None => "the step panicked".to_owned(),
    }
}

async fn run(shared: &Arc<Shared>, spec: &Spec, call: &Call) -> StepOutcome {
    let body = match call.op {
        Operation::Action => Some(&spec.action),
        Operation::Compensation => spec.compensation.as_ref(),
        Operation::Probe => spec.probe.as_ref(),
    };
    match (body, call.op) {
        (Some(Body::Code(step)), Operation::Action) => step.act(call).await,
        (Some(Body::Code(step)), Operation::Compensation) => step.compensate(call).await,
        (Some(Body::Code(step)), Operation::Probe) => step.probe(call).await,
        (Some(Body::Request(request)), _) => match (request.resolve(call), &shared.caller) {
            (Ok(request), Some(caller)) => caller.call(request).await,
            (Ok(_), None) => StepOutcome::Rejected("the executor has no caller".to_owned()),
            (Err(reason), _) => StepOutcome::Rejected(format!("request cannot be made: {reason}")),
        },
        (Some(Body::Children(starts)), Operation::Compensation) => {
            children::revoke(shared, &**starts, call).await
        }
        (Some(Body::Children(starts)), _) => children::run(shared, &**starts, call).await,
        (Some(Body::Timer(_) | Body::Signal(..)) | None, op) => {
            StepOutcome::Rejected(format!("step {} has no {op}", call.step))
        }
    }
}

/// Hears the heartbeats of an attempt.
struct Pulse {
    shared: Arc<Shared>,
    call: Call,
    beat: Notify,
}

impl Pulse {
    /// The answer, unless it is silent for longer than the limit.
    async fn while_it_beats<E>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<StepOutcome, E>>,
    ) -> Result<StepOutcome, E> {
        let mut answer = pin!(answer);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = self.beat.notified() => {}
                () = tokio::time::sleep(limit) => {
                    let reason = format!("no heartbeat within {limit:?}");
                    return Ok(StepOutcome::Unknown(reason));
                }
            }
        }
    }
}

#[async_trait]
impl Beat for Pulse {
    async fn beat(&self, details: Payload) -> Result<()> {
        self.shared.limits.check_input(&details)?;
        let input = Input::Heartbeat {
            step: self.call.step.clone(),
            attempt: self.call.attempt,
            details,
        };
        let known = self.shared.ask(self.call.saga, input).await?;
        if known {
            self.beat.notify_one();
        }
        Ok(())
    }
}
