//! What has become possible.

use std::sync::Arc;

use orchestra_core::Timestamp;
use serde_json::Value;

use super::state::{Phase, Stage, State, StepState};
use super::unwind;
use crate::definition::{Definition, Kind, Shape, Source, Spec, Unwind};
use crate::event::Event;
use crate::id::SagaId;
use crate::step::{Applied, Call, Operation};

/// One round of decisions; the caller folds them and asks again until there are none.
pub(super) fn decide(
    definition: &Definition,
    saga: SagaId,
    state: &State,
    now: Timestamp,
) -> Vec<Event> {
    match state.phase {
        Phase::Running => forward(definition, saga, state, now),
        Phase::Compensating => back(definition, saga, state, now),
        Phase::Unborn | Phase::Completed | Phase::Compensated => Vec::new(),
    }
}

fn forward(definition: &Definition, saga: SagaId, state: &State, now: Timestamp) -> Vec<Event> {
    let cause = unwind::cause(definition, state, now);
    let pivot_open = unwind::is_pivot_open(definition, state);
    if let Some(cause) = cause.clone().filter(|_| !pivot_open) {
        return vec![Event::CompensationStarted { cause }];
    }
    if state
        .steps
        .iter()
        .all(|step| step.action.stage == Stage::Done)
    {
        return vec![Event::SagaCompleted];
    }
    // With a cause, only the pivot in doubt is still asked.
    let asked = |spec: &Spec| cause.is_none() || spec.kind == Kind::Pivot;
    definition
        .steps
        .iter()
        .zip(&state.steps)
        .filter(|(spec, step)| asked(spec) && is_due(spec, step, state, now))
        .map(|(spec, step)| attempt(saga, state, spec, step, now))
        .collect()
}

fn is_due(spec: &Spec, step: &StepState, state: &State, now: Timestamp) -> bool {
    match step.action.stage {
        Stage::Pending => spec.parents.iter().all(|&parent| is_done(state, parent)),
        Stage::Interrupted => true,
        Stage::Waiting(until) | Stage::Parked(until) => until <= now,
        Stage::Running | Stage::Done | Stage::Rejected | Stage::Unknown => false,
    }
}

fn is_done(state: &State, step: usize) -> bool {
    let step = state.steps.get(step);
    step.is_some_and(|step| step.action.stage == Stage::Done)
}

/// The intent of the next attempt, or the end of the step if its time is over.
fn attempt(saga: SagaId, state: &State, spec: &Spec, step: &StepState, now: Timestamp) -> Event {
    let must = unwind::must_resolve(spec, step, false);
    let limit = now + spec.effort.total;
    let fresh = match state.deadline {
        Some(saga_deadline) if !must => limit.min(saga_deadline),
        _ => limit,
    };
    let step_deadline = match step.deadline {
        // What may not be given up gets a new window when the old one is over.
        Some(deadline) if must && deadline <= now => fresh,
        Some(deadline) => deadline,
        None => fresh,
    };
    if step_deadline <= now && step.action.attempt > 0 {
        return out_of_time(spec, step);
    }
    Event::StepScheduled {
        step: spec.name.clone(),
        attempt: step.action.next_attempt(),
        key: Call::key_of(saga, &spec.name, Operation::Action),
        input: step.input.is_none().then(|| Arc::new(input(spec, state))),
        deadline: (now + spec.effort.attempt_timeout()).min(step_deadline),
        step_deadline,
    }
}

fn out_of_time(spec: &Spec, step: &StepState) -> Event {
    let name = spec.name.clone();
    let attempt = step.action.attempt;
    let last = step.reason.as_deref().unwrap_or("no answer");
    let reason = format!("out of time: {last}");
    if step.tainted {
        Event::StepUnknown {
            step: name,
            attempt,
            reason,
            retry: None,
        }
    } else {
        Event::StepFailed {
            step: name,
            attempt,
            reason,
            retry: None,
        }
    }
}

fn input(spec: &Spec, state: &State) -> Value {
    let value = |source: &Source| -> Value {
        let found = match *source {
            Source::Input => Some(&state.input),
            Source::Step(index) => state.steps.get(index).and_then(|step| step.output.as_ref()),
        };
        found.map(|value| (**value).clone()).unwrap_or_default()
    };
    match &spec.shape {
        Shape::Nothing => Value::Null,
        Shape::One(source) => value(source),
        Shape::Tuple(_) => spec.shape.sources().iter().map(value).collect(),
    }
}

fn back(definition: &Definition, saga: SagaId, state: &State, now: Timestamp) -> Vec<Event> {
    let clear = unwind::cleared(definition, state);
    if clear.iter().all(|&clear| clear) {
        return vec![Event::SagaCompensated];
    }
    let steps = definition.steps.iter().zip(&state.steps).rev();
    match definition.unwind {
        Unwind::Parallel => steps
            .filter(|(spec, step)| may_undo(spec, step, &clear, now))
            .map(|(spec, step)| undo(saga, spec, step, now))
            .collect(),
        // Only the last step that is not settled, and only when it is its turn.
        Unwind::Sequential => {
            let mut open = steps.filter(|(spec, step)| {
                step.action.stage == Stage::Running || unwind::needs_undo(spec, step)
            });
            open.next()
                .filter(|(spec, step)| may_undo(spec, step, &clear, now))
                .map(|(spec, step)| undo(saga, spec, step, now))
                .into_iter()
                .collect()
        }
    }
}

fn may_undo(spec: &Spec, step: &StepState, clear: &[bool], now: Timestamp) -> bool {
    let due = match step.undo.stage {
        Stage::Pending | Stage::Interrupted => true,
        Stage::Waiting(until) | Stage::Parked(until) => until <= now,
        Stage::Running | Stage::Done | Stage::Rejected | Stage::Unknown => false,
    };
    due && step.action.stage != Stage::Running
        && unwind::needs_undo(spec, step)
        && unwind::are_clear(clear, &spec.children)
}

fn undo(saga: SagaId, spec: &Spec, step: &StepState, now: Timestamp) -> Event {
    let known = step.action.stage == Stage::Done;
    Event::CompensationScheduled {
        step: spec.name.clone(),
        attempt: step.undo.next_attempt(),
        key: Call::key_of(saga, &spec.name, Operation::Compensation),
        applied: if known {
            Applied::Known
        } else {
            Applied::Unknown
        },
        deadline: now + spec.undo.attempt_timeout(),
    }
}

/// When time alone will change something.
pub(super) fn wake(definition: &Definition, state: &State) -> Option<Timestamp> {
    let until = |stage: Stage| match stage {
        Stage::Waiting(until) | Stage::Parked(until) => Some(until),
        _ => None,
    };
    match state.phase {
        Phase::Running => {
            let waits = state
                .steps
                .iter()
                .filter_map(|step| until(step.action.stage));
            let settled =
                unwind::is_committed(definition, state) || unwind::is_pivot_open(definition, state);
            waits.chain(state.deadline.filter(|_| !settled)).min()
        }
        Phase::Compensating => state
            .steps
            .iter()
            .filter_map(|step| until(step.undo.stage))
            .min(),
        Phase::Unborn | Phase::Completed | Phase::Compensated => None,
    }
}
