//! What has become possible.

use std::time::Duration;

use orchestra_core::Timestamp;

use super::state::{Phase, Progress, Stage, State, StepState};
use super::unwind;
use crate::definition::{Body, Definition, Kind, Shape, Source, Spec, Unwind};
use crate::event::{Cause, Event};
use crate::id::SagaId;
use crate::payload::Payload;
use crate::step::{Applied, Call, Operation};

/// Adds one round of decisions; the caller folds them and asks again until there are none.
pub(super) fn decide(
    definition: &Definition,
    saga: SagaId,
    state: &State,
    now: Timestamp,
    events: &mut Vec<Event>,
) {
    match state.phase {
        _ if state.is_paused => {}
        Phase::Running => forward(definition, saga, state, now, events),
        Phase::Compensating => back(definition, saga, state, now, events),
        Phase::Unborn | Phase::Completed | Phase::Compensated => {}
    }
}

fn forward(
    definition: &Definition,
    saga: SagaId,
    state: &State,
    now: Timestamp,
    events: &mut Vec<Event>,
) {
    let cause = unwind::cause(definition, state, now);
    let goes_on = cause.is_none();
    let pivot_open = unwind::is_pivot_open(definition, state);
    if let Some(cause) = cause.filter(|_| !pivot_open) {
        let to = unwind::save_point(definition, state);
        let to = to.map(|step| definition.spec(step).name.clone());
        return events.push(Event::CompensationStarted { cause, to });
    }
    if state.front.unfinished == 0 {
        return events.push(Event::SagaCompleted);
    }
    // With a cause, only the pivot in doubt is still asked.
    let asked = |spec: &Spec| goes_on || spec.kind == Kind::Pivot;
    let open = state.front.open.iter();
    let begun = open
        .map(|&step| (definition.spec(step), state.step(step)))
        .filter(|(spec, _)| asked(spec))
        .filter_map(|(spec, step)| match &spec.action {
            Body::Timer(length) => timer(spec, step, *length, now),
            Body::Signal(name, limit) => signal(state, spec, step, (name, *limit), now),
            _ if is_due(step.action.stage, now) => {
                Some(attempt(definition, saga, state, (spec, step), now))
            }
            _ => None,
        });
    events.extend(begun);
}

fn timer(spec: &Spec, step: &StepState, length: Duration, now: Timestamp) -> Option<Event> {
    let name = spec.name.clone();
    match step.action.stage {
        Stage::Pending => Some(Event::TimerSet {
            step: name,
            due: now + length,
        }),
        Stage::Waiting(due) if due <= now => Some(Event::TimerFired { step: name }),
        _ => None,
    }
}

fn signal(
    state: &State,
    spec: &Spec,
    step: &StepState,
    (signal, limit): (&str, Option<Duration>),
    now: Timestamp,
) -> Option<Event> {
    let name = spec.name.clone();
    match step.action.stage {
        Stage::Pending => Some(Event::SignalAwaited {
            step: name,
            until: limit.map(|limit| now + limit),
        }),
        Stage::Listening | Stage::Waiting(_) if state.signal(signal).is_some() => {
            Some(Event::SignalTaken { step: name })
        }
        Stage::Waiting(until) if until <= now => Some(Event::StepFailed {
            step: name,
            attempt: 0,
            reason: format!("no signal {signal}"),
            retry: None,
        }),
        _ => None,
    }
}

/// Whether the next attempt of an operation may begin.
fn is_due(stage: Stage, now: Timestamp) -> bool {
    match stage {
        Stage::Pending | Stage::Interrupted => true,
        Stage::Waiting(until) | Stage::Parked(until) => until <= now,
        Stage::Running | Stage::Listening | Stage::Done | Stage::Rejected | Stage::Unknown => false,
    }
}

/// The intent of the next attempt, or the end of the step if its time is over.
fn attempt(
    definition: &Definition,
    saga: SagaId,
    state: &State,
    (spec, step): (&Spec, &StepState),
    now: Timestamp,
) -> Event {
    let must = unwind::must_resolve(definition, spec, step, false);
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
        key: Call::key_of(saga, &spec.name, step.iteration, Operation::Action),
        input: step.input.is_none().then(|| input(spec, state)),
        deadline: (now + spec.effort.attempt_timeout()).min(step_deadline),
        step_deadline,
    }
}

fn out_of_time(spec: &Spec, step: &StepState) -> Event {
    let name = spec.name.clone();
    let attempt = step.action.attempt;
    let last = step.rest().reason.as_deref().unwrap_or("no answer");
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
    let value = |source: &Source| match *source {
        Source::Input => state.input.clone(),
        Source::Step(index) => state.step(index).output.clone().unwrap_or_default(),
    };
    match &spec.shape {
        Shape::Nothing => Payload::default(),
        Shape::One(source) => value(source),
        Shape::Tuple(sources) => Payload::array(sources.iter().map(value)),
        Shape::Named(sources) => Payload::object(
            sources
                .iter()
                .map(|(name, source)| (&**name, value(source))),
        ),
    }
}

fn back(
    definition: &Definition,
    saga: SagaId,
    state: &State,
    now: Timestamp,
    events: &mut Vec<Event>,
) {
    if let Some(to) = state.back_to {
        // Whoever gives the saga up does not want it to go forward again.
        let cause = state
            .cancel
            .clone()
            .map(|reason| Cause::Cancelled { reason });
        let late = state.deadline.is_some_and(|deadline| now >= deadline);
        if let Some(cause) = cause.or_else(|| late.then_some(Cause::TimedOut)) {
            return events.push(Event::CompensationStarted { cause, to: None });
        }
        if state.front.back().dirty.is_empty() {
            let step = definition.spec(to).name.clone();
            return events.push(Event::SagaRestarted { step });
        }
    } else if state.front.back().dirty.is_empty() {
        return events.push(Event::SagaCompensated);
    }
    let turn: &[u32] = match definition.unwind {
        Unwind::Parallel => &state.front.back().undoable,
        Unwind::Unordered | Unwind::Never => &state.front.back().dirty,
        // Only the last step that is not settled: nothing that depends on it is left.
        Unwind::Sequential => state
            .front
            .back()
            .dirty
            .last()
            .map_or(&[], std::slice::from_ref),
    };
    let steps = turn.iter().rev();
    let begun = steps
        .map(|&step| (definition.spec(step), state.step(step)))
        .filter(|(_, step)| step.action.stage != Stage::Running)
        .filter_map(|(spec, step)| match is_open(spec, step) {
            Some(stage) => is_due(stage, now).then(|| probe(spec, step, now)),
            None => is_due(step.undo().stage, now).then(|| undo(saga, spec, step, now)),
        });
    events.extend(begun);
}

/// How far the question has come whether the step took effect, as long as that can be found out.
fn is_open(spec: &Spec, step: &StepState) -> Option<Stage> {
    spec.probe.as_ref()?;
    let asked = step.undo().stage == Stage::Pending && step.action.stage != Stage::Done;
    let stage = step
        .rest()
        .probe
        .as_ref()
        .map_or(Stage::Pending, |probe| probe.stage);
    let settled = matches!(stage, Stage::Done | Stage::Unknown | Stage::Rejected);
    (asked && !settled).then_some(stage)
}

fn probe(spec: &Spec, step: &StepState, now: Timestamp) -> Event {
    let progress = step.rest().probe.as_ref().unwrap_or(&Progress::NOTHING);
    Event::ProbeScheduled {
        step: spec.name.clone(),
        attempt: progress.next_attempt(),
        deadline: now + spec.undo.attempt_timeout(),
    }
}

fn undo(saga: SagaId, spec: &Spec, step: &StepState, now: Timestamp) -> Event {
    let known = step.action.stage == Stage::Done;
    Event::CompensationScheduled {
        step: spec.name.clone(),
        attempt: step.undo().next_attempt(),
        key: Call::key_of(saga, &spec.name, step.iteration, Operation::Compensation),
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
        _ if state.is_paused => None,
        Phase::Running => {
            let pivot_open = unwind::is_pivot_open(definition, state);
            let given_up = state.cancel.is_some() || !state.front.given_up.is_empty();
            // With a cause to go back, only the pivot in doubt is still asked.
            let asked = |step: u32, at: Timestamp| {
                let in_time = !given_up && state.deadline.is_none_or(|deadline| at < deadline);
                !pivot_open || definition.pivot == Some(step) || in_time
            };
            let open = state.front.open.iter();
            let waits = open.filter_map(|&step| {
                until(state.step(step).action.stage).filter(|at| asked(step, *at))
            });
            let settled =
                definition.unwind == Unwind::Never || unwind::is_committed(state) || pivot_open;
            waits.chain(state.deadline.filter(|_| !settled)).min()
        }
        Phase::Compensating => {
            let dirty = state
                .front
                .back()
                .dirty
                .iter()
                .map(|&step| state.step(step));
            let waits = dirty.flat_map(|step| {
                let probe = step.rest().probe.as_ref();
                let probe = probe.and_then(|probe| until(probe.stage));
                [probe, until(step.undo().stage)]
            });
            // On the way to a save-point it may still run out of time.
            let deadline = state.deadline.filter(|_| state.back_to.is_some());
            waits.flatten().chain(deadline).min()
        }
        Phase::Unborn | Phase::Completed | Phase::Compensated => None,
    }
}
