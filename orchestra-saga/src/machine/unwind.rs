//! Whether and how far a saga goes back.

use orchestra_core::Timestamp;

use super::state::{Phase, Stage, State, StepState};
use crate::definition::{Definition, Kind, Spec};
use crate::event::Cause;

/// Past the point of no return: everything that can fail is done.
pub(super) fn is_committed(definition: &Definition, state: &State) -> bool {
    definition
        .steps
        .iter()
        .zip(&state.steps)
        .all(|(spec, step)| spec.kind == Kind::Retriable || step.action.stage == Stage::Done)
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
    let open = |(spec, step): (&Spec, &StepState)| {
        spec.kind == Kind::Pivot
            && match step.action.stage {
                Stage::Running | Stage::Interrupted => true,
                Stage::Waiting(_) | Stage::Parked(_) => step.tainted,
                Stage::Pending | Stage::Done | Stage::Rejected | Stage::Unknown => false,
            }
    };
    definition.steps.iter().zip(&state.steps).any(open)
}

/// Why a running saga goes back, if it does.
pub(super) fn cause(definition: &Definition, state: &State, now: Timestamp) -> Option<Cause> {
    if state.phase != Phase::Running || is_committed(definition, state) {
        return None;
    }
    let given_up = definition.steps.iter().zip(&state.steps).find_map(failure);
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

fn failure((spec, step): (&Spec, &StepState)) -> Option<Cause> {
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
pub(super) fn needs_undo(spec: &Spec, step: &StepState) -> bool {
    spec.kind == Kind::Compensatable
        && step.undo.stage != Stage::Done
        && (step.tainted || matches!(step.action.stage, Stage::Done | Stage::Unknown))
}

/// For each step, whether neither it nor anything that depends on it has an effect left.
pub(super) fn cleared(definition: &Definition, state: &State) -> Vec<bool> {
    let mut clear = vec![true; definition.steps.len()];
    for (index, (spec, step)) in definition.steps.iter().zip(&state.steps).enumerate().rev() {
        let own = step.action.stage != Stage::Running && !needs_undo(spec, step);
        let all = own && are_clear(&clear, &spec.children);
        if let Some(slot) = clear.get_mut(index) {
            *slot = all;
        }
    }
    clear
}

/// Whether all steps of these numbers are clear.
pub(super) fn are_clear(clear: &[bool], steps: &[usize]) -> bool {
    steps
        .iter()
        .all(|&step| clear.get(step).copied().unwrap_or(true))
}
