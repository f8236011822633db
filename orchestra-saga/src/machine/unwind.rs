//! Whether and how far a saga goes back.

use orchestra_core::Timestamp;

use super::state::{Phase, Stage, State, StepState};
use crate::definition::{Definition, Kind, Spec};
use crate::event::Cause;

/// Past the point of no return: everything that can fail is done.
pub(super) fn is_committed(state: &State) -> bool {
    state.front.uncommitted == 0
}

/// Whether the step may not be given up: a retriable one, or a pivot that may have taken effect.
pub(super) fn must_resolve(spec: &Spec, step: &StepState, doubt: bool) -> bool {
    match spec.kind {
        Kind::Retriable => true,
        Kind::Pivot => step.tainted || doubt,
        Kind::Compensatable | Kind::ReadOnly => false,
    }
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
        Stage::Pending | Stage::Done | Stage::Rejected | Stage::Unknown => false,
    }
}

/// Why a running saga goes back, if it does.
pub(super) fn cause(definition: &Definition, state: &State, now: Timestamp) -> Option<Cause> {
    if state.phase != Phase::Running || is_committed(state) {
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
    let reason = || step.reason.clone().unwrap_or_default();
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

/// Whether there is an effect to undo, or perhaps one.
pub(super) fn needs_undo(kind: Kind, action: Stage, undo: Stage, tainted: bool) -> bool {
    kind == Kind::Compensatable
        && undo != Stage::Done
        && (tainted || matches!(action, Stage::Done | Stage::Unknown))
}
