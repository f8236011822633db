//! Whether and how far a saga goes back.

use std::collections::HashSet;

use orchestra_core::Timestamp;

use super::state::{Phase, Stage, State, StepState};
use crate::definition::{Definition, Kind, Spec, Unwind};
use crate::event::Cause;

/// Past the point of no return: everything that can fail is done.
pub(super) fn is_committed(state: &State) -> bool {
    state.front.uncommitted == 0
}

/// Whether the step may not be given up: a retriable one, a pivot that may have taken effect, or any if
/// the saga never goes back.
pub(super) fn must_resolve(
    definition: &Definition,
    spec: &Spec,
    step: &StepState,
    doubt: bool,
) -> bool {
    let in_doubt = spec.kind == Kind::Pivot && (step.tainted || doubt);
    in_doubt || is_never_given_up(definition, spec)
}

/// Whether not even a refusal is the end of the step.
pub(super) fn is_never_given_up(definition: &Definition, spec: &Spec) -> bool {
    spec.kind == Kind::Retriable || definition.unwind == Unwind::Never
}

/// Whether a pivot may have taken effect without anyone knowing.
pub(super) fn is_pivot_open(definition: &Definition, state: &State) -> bool {
    let Some(pivot) = definition.pivot else {
        return false;
    };
    let step = state.step(pivot);
    match step.action.stage {
        Stage::Running | Stage::Interrupted => true,
        Stage::Waiting(_) | Stage::Parked(_) => step.tainted,
        Stage::Pending | Stage::Listening | Stage::Done | Stage::Rejected | Stage::Unknown => false,
    }
}

/// Why a running saga goes back, if it does.
pub(super) fn cause(definition: &Definition, state: &State, now: Timestamp) -> Option<Cause> {
    if state.phase != Phase::Running || is_committed(state) || definition.unwind == Unwind::Never {
        return None;
    }
    let first = state.front.given_up.first();
    let given_up = first.and_then(|&step| failure(definition.spec(step), state.step(step)));
    if given_up.is_some() {
        return given_up;
    }
    if let Some(reason) = &state.cancel {
        let reason = reason.clone();
        return Some(Cause::Cancelled { reason });
    }
    state
        .deadline
        .is_some_and(|deadline| now >= deadline)
        .then_some(Cause::TimedOut)
}

fn failure(spec: &Spec, step: &StepState) -> Option<Cause> {
    let name = || spec.name.clone();
    let reason = || step.rest().reason.clone().unwrap_or_default();
    match step.action.stage {
        Stage::Rejected => Some(Cause::Rejected {
            step: name(),
            reason: reason(),
        }),
        Stage::Unknown => Some(Cause::Unknown {
            step: name(),
            reason: reason(),
        }),
        _ => None,
    }
}

/// Whether there is an effect of its own, or perhaps one.
pub(super) fn has_effect(step: &StepState) -> bool {
    let applied = step.tainted || matches!(step.action.stage, Stage::Done | Stage::Unknown);
    applied && !step.is_copied && step.undo().stage != Stage::Done
}

/// The last save-point before a step that was given up, if the saga may go back to one.
pub(super) fn save_point(definition: &Definition, state: &State) -> Option<u32> {
    let &failed = state.front.given_up.first()?;
    // Somebody who gives the saga up wants it undone.
    if state.cancel.is_some() {
        return None;
    }
    let ready = |&step: &u32| {
        let point = state.step(step);
        point.restarts < definition.spec(step).save_point && point.action.stage == Stage::Done
    };
    let mut seen = HashSet::new();
    let mut open = vec![failed];
    while let Some(next) = open.pop() {
        let parents = definition.spec(next).parents.iter();
        open.extend(parents.filter(|&&parent| seen.insert(parent)));
    }
    seen.into_iter().filter(ready).max()
}
