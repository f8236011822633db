//! What has become possible.

use orchestra_core::Timestamp;

use super::state::{Phase, Stage, State, StepState};
use super::unwind;
use crate::definition::{Definition, Kind, Shape, Source, Spec, Unwind};
use crate::event::Event;
use crate::id::SagaId;
use crate::payload::Payload;
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
    if state.front.unfinished == 0 {
        return vec![Event::SagaCompleted];
    }
    // With a cause, only the pivot in doubt is still asked.
    let asked = |spec: &Spec| cause.is_none() || spec.kind == Kind::Pivot;
    let open = state.front.open.iter();
    open.map(|&step| (definition.spec(step), state.step(step)))
        .filter(|(spec, step)| asked(spec) && is_due(step.action.stage, now))
        .map(|(spec, step)| attempt(saga, state, spec, step, now))
        .collect()
}

/// Whether the next attempt of an operation may begin.
fn is_due(stage: Stage, now: Timestamp) -> bool {
    match stage {
        Stage::Pending | Stage::Interrupted => true,
        Stage::Waiting(until) | Stage::Parked(until) => until <= now,
        Stage::Running | Stage::Done | Stage::Rejected | Stage::Unknown => false,
    }
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
        input: step.input.is_none().then(|| input(spec, state)),
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

fn input(spec: &Spec, state: &State) -> Payload {
    let null = Payload::default();
    let value = |source: &Source| match *source {
        Source::Input => state.input.clone(),
        Source::Step(index) => state.step(index).output.as_ref().unwrap_or(&null).clone(),
    };
    match &spec.shape {
        Shape::Nothing => null,
        Shape::One(source) => value(source),
        Shape::Tuple(_) => Payload::array(spec.shape.sources().iter().map(value)),
    }
}

fn back(definition: &Definition, saga: SagaId, state: &State, now: Timestamp) -> Vec<Event> {
    if state.front.dirty.is_empty() {
        return vec![Event::SagaCompensated];
    }
    let turn: &[u32] = match definition.unwind {
        Unwind::Parallel => &state.front.undoable,
        // Only the last step that is not settled: nothing that depends on it is left.
        Unwind::Sequential => state.front.dirty.last().map_or(&[], std::slice::from_ref),
    };
    let steps = turn.iter().rev();
    steps
        .map(|&step| (definition.spec(step), state.step(step)))
        .filter(|(_, step)| step.action.stage != Stage::Running && is_due(step.undo.stage, now))
        .map(|(spec, step)| undo(saga, spec, step, now))
        .collect()
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
            let open = state.front.open.iter();
            let waits = open.filter_map(|&step| until(state.step(step).action.stage));
            let settled = unwind::is_committed(state) || unwind::is_pivot_open(definition, state);
            waits.chain(state.deadline.filter(|_| !settled)).min()
        }
        Phase::Compensating => {
            let undoable = state.front.undoable.iter();
            let waits = undoable.filter_map(|&step| until(state.step(step).undo.stage));
            waits.min()
        }
        Phase::Unborn | Phase::Completed | Phase::Compensated => None,
    }
}
