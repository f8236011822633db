//! What of the steps matters now, so that a decision looks at the width of a graph and not at its length.
//!
//! Everything here follows from the steps. It is kept up to date event by event, and made anew where an
//! event touches all of them.

use super::state::{Phase, Stage, State, StepState};
use super::unwind;
use crate::definition::{Definition, Kind, Spec, count};

/// In place of a number of children: the step and all that depends on it have nothing left to undo.
const CLEAR: u32 = u32::MAX;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Front {
    /// Operations whose call is in flight.
    pub(super) in_flight: u32,
    /// Operations that are parked.
    pub(super) parked: u32,
    /// Steps whose action is not done.
    pub(super) unfinished: u32,
    /// Those of them that may still fail for good.
    pub(super) uncommitted: u32,
    /// Steps that are not done although all that they depend on is, in order.
    pub(super) open: Vec<u32>,
    /// Steps that were given up, in order.
    pub(super) given_up: Vec<u32>,
    /// For each step how many that it depends on are not done.
    parents_left: Box<[u32]>,
    /// What matters going back.
    back: Option<Box<Back>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Back {
    /// Steps with an effect to undo or a call in flight, in order.
    pub(super) dirty: Vec<u32>,
    /// Those of them of which nothing else depends any more, in order.
    pub(super) undoable: Vec<u32>,
    /// For each step how many that depend on it are not clear.
    children_left: Vec<u32>,
}

/// What of a step the front depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aspect {
    action: Stage,
    undo: Stage,
    probe: Stage,
    has_effect: bool,
}

impl Aspect {
    pub(super) fn of(step: &StepState) -> Self {
        let probe = step.rest().probe.as_ref();
        Self {
            action: step.action.stage,
            undo: step.undo().stage,
            probe: probe.map_or(Stage::Pending, |probe| probe.stage),
            has_effect: unwind::has_effect(step),
        }
    }

    fn count(self, is: impl Fn(Stage) -> bool) -> u32 {
        u32::from(is(self.action)) + u32::from(is(self.undo)) + u32::from(is(self.probe))
    }

    fn is_dirty(self, spec: &Spec) -> bool {
        let undone = spec.kind == Kind::Compensatable && self.has_effect;
        self.action == Stage::Running || undone
    }
}

fn is_running(stage: Stage) -> bool {
    stage == Stage::Running
}

fn is_parked(stage: Stage) -> bool {
    matches!(stage, Stage::Parked(_))
}

fn is_given_up(stage: Stage) -> bool {
    matches!(stage, Stage::Rejected | Stage::Unknown)
}

impl Front {
    pub(super) fn of(definition: &Definition, state: &State) -> Self {
        let mut front = Self::default();
        let mut parents_left = Vec::with_capacity(definition.steps.len());
        let done = |step: u32| state.step(step).action.stage == Stage::Done;
        for (number, (spec, step)) in (0..).zip(definition.steps.iter().zip(&state.steps)) {
            let now = Aspect::of(step);
            front.in_flight += now.count(is_running);
            front.parked += now.count(is_parked);
            let left = spec.parents.iter().filter(|&&parent| !done(parent));
            let left = count(left.count());
            parents_left.push(left);
            if now.action == Stage::Done {
                continue;
            }
            front.unfinished += 1;
            front.uncommitted += u32::from(spec.is_fallible());
            if left == 0 {
                front.open.push(number);
            }
            if is_given_up(now.action) {
                front.given_up.push(number);
            }
        }
        front.parents_left = parents_left.into();
        if matches!(state.phase, Phase::Compensating | Phase::Compensated) {
            front.turn_back(definition, state);
        }
        front
    }

    /// What matters going back; nothing on the way forward.
    pub(super) fn back(&self) -> &Back {
        static NOTHING: Back = Back {
            dirty: Vec::new(),
            undoable: Vec::new(),
            children_left: Vec::new(),
        };
        self.back.as_deref().unwrap_or(&NOTHING)
    }

    /// The saga goes back from here.
    pub(super) fn turn_back(&mut self, definition: &Definition, state: &State) {
        self.back = Some(Box::new(Back::of(definition, state)));
    }

    /// A step has changed.
    pub(super) fn change(
        &mut self,
        definition: &Definition,
        number: u32,
        (before, after): (Aspect, Aspect),
        phase: Phase,
    ) {
        let spec = definition.spec(number);
        let shift = |sum: u32, is: fn(Stage) -> bool| sum + after.count(is) - before.count(is);
        self.in_flight = shift(self.in_flight, is_running);
        self.parked = shift(self.parked, is_parked);
        match (is_given_up(before.action), is_given_up(after.action)) {
            (false, true) => insert(&mut self.given_up, number),
            (true, false) => {
                remove(&mut self.given_up, number);
            }
            _ => {}
        }
        if before.action != Stage::Done && after.action == Stage::Done {
            self.finish(number, spec);
        }
        if let Some(back) = &mut self.back
            && phase == Phase::Compensating
            && !after.is_dirty(spec)
            && remove(&mut back.dirty, number)
        {
            back.clear(definition, number);
        }
    }

    fn finish(&mut self, number: u32, spec: &Spec) {
        self.unfinished -= 1;
        self.uncommitted -= u32::from(spec.is_fallible());
        remove(&mut self.open, number);
        for &child in &spec.children {
            let Some(left) = self.parents_left.get_mut(child as usize) else {
                continue;
            };
            *left -= 1;
            if *left == 0 {
                insert(&mut self.open, child);
            }
        }
    }
}

impl Back {
    /// Of a saga that goes back from here.
    fn of(definition: &Definition, state: &State) -> Self {
        let mut back = Self::default();
        let goes_back = state.back_to.map(|to| definition.descendants(to));
        for (number, (spec, step)) in (0..).zip(definition.steps.iter().zip(&state.steps)) {
            back.children_left.push(count(spec.children.len()));
            let goes_back = goes_back
                .as_ref()
                .is_none_or(|steps| steps.contains(&number));
            if goes_back && Aspect::of(step).is_dirty(spec) {
                back.dirty.push(number);
            }
        }
        for number in (0..count(definition.steps.len())).rev() {
            back.clear(definition, number);
        }
        back
    }

    /// Passes on that a step has nothing left to undo, if that is so, and notes whose turn it is.
    fn clear(&mut self, definition: &Definition, number: u32) {
        let mut next = vec![number];
        while let Some(number) = next.pop() {
            if self.children_left.get(number as usize) != Some(&0) {
                continue;
            }
            if self.dirty.binary_search(&number).is_ok() {
                insert(&mut self.undoable, number);
                continue;
            }
            remove(&mut self.undoable, number);
            if let Some(left) = self.children_left.get_mut(number as usize) {
                *left = CLEAR;
            }
            for &parent in &definition.spec(number).parents {
                if let Some(left) = self.children_left.get_mut(parent as usize) {
                    *left = left.saturating_sub(1);
                }
                next.push(parent);
            }
        }
    }
}

fn insert(sorted: &mut Vec<u32>, number: u32) {
    if let Err(at) = sorted.binary_search(&number) {
        sorted.insert(at, number);
    }
}

/// Whether it was there.
fn remove(sorted: &mut Vec<u32>, number: u32) -> bool {
    let found = sorted.binary_search(&number);
    if let Ok(at) = found {
        sorted.remove(at);
    }
    found.is_ok()
}
