//! What an input says by itself.

use std::time::Duration;

use orchestra_core::{IdempotencyKey, Timestamp};

use super::state::{Phase, Progress, Signalled, Stage, State, StepState};
use super::{Input, unwind};
use crate::definition::{Body, Definition, Spec, Unwind};
use crate::event::{Event, Resolution};
use crate::id::StepName;
use crate::step::{Operation, StepOutcome};

pub(super) fn settle(
    definition: &Definition,
    state: &State,
    input: &Input,
    (now, draw): (Timestamp, u64),
    events: &mut Vec<Event>,
) {
    if let Input::Revoke { reason } = input {
        let revoked = state.phase == Phase::Completed && definition.is_reversible();
        let reason = reason.clone();
        events.extend(revoked.then_some(Event::SagaRevoked { reason }));
    }
    if matches!(state.phase, Phase::Unborn) || state.phase.is_terminal() {
        return;
    }
    match input {
        Input::Wake | Input::Revoke { .. } => {}
        Input::Recovered => events.extend(state.is_in_flight().then_some(Event::SagaRecovered)),
        Input::Report {
            step,
            op,
            attempt,
            outcome,
        } => {
            let Some(number) = state.number_of(definition, step) else {
                return;
            };
            let report = Report {
                definition,
                state,
                spec: definition.spec(number),
                step: state.step(number),
                attempt: *attempt,
                now,
                draw,
            };
            report.settle(*op, outcome, events);
        }
        asked => events.extend(ask(definition, state, asked)),
    }
}

/// What somebody outside asks for.
fn ask(definition: &Definition, state: &State, input: &Input) -> Option<Event> {
    match input.clone() {
        Input::Retry { by } => state.is_parked().then_some(Event::SagaRetried { by }),
        Input::Pause { by } => (!state.is_paused).then_some(Event::SagaPaused { by }),
        Input::Resume { by } => state.is_paused.then_some(Event::SagaResumed { by }),
        Input::Cancel { reason } => {
            may_cancel(definition, state).then_some(Event::SagaCancelRequested { reason })
        }
        Input::Signal { name, id, payload } => {
            let awaited = is_awaited(definition, state, &name, id.as_ref());
            awaited.then_some(Event::SignalReceived { name, id, payload })
        }
        Input::Heartbeat {
            step,
            attempt,
            details,
        } => {
            let alive = is_in_flight(definition, state, &step, attempt);
            alive.then_some(Event::StepHeartbeat {
                step,
                attempt,
                details,
            })
        }
        Input::Resolve {
            step,
            op,
            resolution,
            by,
        } => {
            let fits = may_resolve(definition, state, (&step, op), &resolution);
            fits.then_some(Event::StepResolved {
                step,
                op,
                resolution,
                by,
            })
        }
        Input::Wake | Input::Recovered | Input::Report { .. } | Input::Revoke { .. } => None,
    }
}

/// Whether asking to give up still changes anything.
fn may_cancel(definition: &Definition, state: &State) -> bool {
    let forward = state.phase == Phase::Running || state.back_to.is_some();
    forward
        && state.cancel.is_none()
        && !unwind::is_committed(state)
        && definition.unwind != Unwind::Never
}

/// Whether a step may still take a signal of this name: each takes one, and the same is not heard twice.
fn is_awaited(
    definition: &Definition,
    state: &State,
    name: &str,
    id: Option<&IdempotencyKey>,
) -> bool {
    let known = id.is_some() && state.signals.iter().any(|signal| signal.id.as_ref() == id);
    let open = |stage| matches!(stage, Stage::Pending | Stage::Listening | Stage::Waiting(_));
    let takes = |(spec, step): &(&Spec, &StepState)| match &spec.action {
        Body::Signal(awaited, _) => **awaited == *name && open(step.action.stage),
        _ => false,
    };
    let takers = definition.steps.iter().zip(&state.steps).filter(takes);
    let waits = |signal: &&Signalled| *signal.name == *name && signal.payload.is_some();
    let waiting = state.signals.iter().filter(waits).count();
    !known && state.phase == Phase::Running && takers.count() > waiting
}

fn is_in_flight(definition: &Definition, state: &State, step: &StepName, attempt: u32) -> bool {
    let number = definition.index_of(step);
    let action = number.map(|number| &state.step(number).action);
    action.is_some_and(|action| action.stage == Stage::Running && action.attempt == attempt)
}

/// Whether an operator may say what became of an operation: of one that was tried and is not in flight.
fn may_resolve(
    definition: &Definition,
    state: &State,
    (step, op): (&StepName, Operation),
    resolution: &Resolution,
) -> bool {
    let Some(number) = definition.index_of(step) else {
        return false;
    };
    let (spec, step) = (definition.spec(number), state.step(number));
    let open = |stage| {
        matches!(
            stage,
            Stage::Interrupted | Stage::Waiting(_) | Stage::Parked(_)
        )
    };
    match (op, resolution) {
        (Operation::Action, _) => {
            let waits = matches!(spec.action, Body::Timer(_) | Body::Signal(..));
            // What is not applied is given up.
            let may = matches!(resolution, Resolution::Done(_))
                || !unwind::is_never_given_up(definition, spec);
            state.phase == Phase::Running && !waits && may && open(step.action.stage)
        }
        (Operation::Compensation, Resolution::Done(_)) => open(step.undo().stage),
        (Operation::Compensation, Resolution::NotApplied) | (Operation::Probe, _) => false,
    }
}

struct Report<'a> {
    definition: &'a Definition,
    state: &'a State,
    spec: &'a Spec,
    step: &'a StepState,
    attempt: u32,
    now: Timestamp,
    draw: u64,
}

impl Report<'_> {
    fn settle(&self, op: Operation, outcome: &StepOutcome, events: &mut Vec<Event>) {
        let progress = match op {
            Operation::Action => &self.step.action,
            Operation::Compensation => self.step.undo(),
            Operation::Probe => match self.step.rest().probe.as_ref() {
                Some(probe) => probe,
                None => return,
            },
        };
        // A late answer of an attempt that is over is not news.
        if progress.stage != Stage::Running || progress.attempt != self.attempt {
            return;
        }
        let (ended, parked) = match op {
            Operation::Action => self.action(outcome),
            Operation::Compensation => self.compensation(outcome),
            Operation::Probe => (self.probe(outcome, progress), None),
        };
        events.push(ended);
        events.extend(parked);
    }

    fn probe(&self, outcome: &StepOutcome, progress: &Progress) -> Event {
        let (step, attempt) = (self.spec.name.clone(), self.attempt);
        let (reason, after) = match outcome {
            StepOutcome::Done(output) => {
                let applied = Some(output.clone());
                return Event::ProbeCompleted {
                    step,
                    attempt,
                    applied,
                };
            }
            StepOutcome::Rejected(_) => {
                return Event::ProbeCompleted {
                    step,
                    attempt,
                    applied: None,
                };
            }
            StepOutcome::Retryable { reason, after } => (reason, *after),
            StepOutcome::Unknown(reason) => (reason, None),
        };
        Event::ProbeFailed {
            step,
            attempt,
            reason: reason.clone(),
            retry: self.due(progress, self.spec.undo.retry, after),
        }
    }

    /// Whether the saga goes, or will go, forward.
    fn is_forward(&self) -> bool {
        self.state.phase == Phase::Running || self.state.back_to.is_some()
    }

    fn must_resolve(&self, doubt: bool) -> bool {
        unwind::must_resolve(self.definition, self.spec, self.step, doubt)
    }

    /// How an attempt of the action ended, and that the step is parked if it is.
    fn action(&self, outcome: &StepOutcome) -> (Event, Option<Event>) {
        match outcome {
            StepOutcome::Done(output) => {
                let completed = Event::StepCompleted {
                    step: self.spec.name.clone(),
                    attempt: self.attempt,
                    output: output.clone(),
                };
                (completed, None)
            }
            StepOutcome::Rejected(reason)
                if unwind::is_never_given_up(self.definition, self.spec) =>
            {
                self.give_up(self.failed(reason, None), reason)
            }
            StepOutcome::Rejected(reason) => (self.failed(reason, None), None),
            StepOutcome::Retryable { reason, after } => match self.again(reason, *after) {
                Some(at) => (self.failed(reason, Some(at)), None),
                None => self.give_up(self.failed(reason, None), reason),
            },
            StepOutcome::Unknown(reason) => match self.next_action(None, true) {
                Some(at) => (self.unknown(reason, Some(at)), None),
                None => self.give_up(self.unknown(reason, None), reason),
            },
        }
    }

    fn failed(&self, reason: &str, retry: Option<Timestamp>) -> Event {
        Event::StepFailed {
            step: self.spec.name.clone(),
            attempt: self.attempt,
            reason: reason.to_owned(),
            retry,
        }
    }

    fn unknown(&self, reason: &str, retry: Option<Timestamp>) -> Event {
        Event::StepUnknown {
            step: self.spec.name.clone(),
            attempt: self.attempt,
            reason: reason.to_owned(),
            retry,
        }
    }

    /// When an attempt that had no effect is made again; not after some errors, unless the step must succeed.
    fn again(&self, reason: &str, after: Option<Duration>) -> Option<Timestamp> {
        let mut ends = self.spec.non_retryable.iter();
        let is_final = ends.any(|text| reason.contains(&**text));
        if is_final && !self.must_resolve(false) {
            return None;
        }
        self.next_action(after, false)
    }

    /// When the next attempt is due: not after the retries, nor the deadline of the step, nor when the
    /// saga goes back.
    fn next_action(&self, after: Option<Duration>, doubt: bool) -> Option<Timestamp> {
        let must = self.must_resolve(doubt);
        if !self.is_forward() || self.step.action.parked > 0 {
            return None;
        }
        if !must && unwind::cause(self.definition, self.state, self.now).is_some() {
            return None;
        }
        let at = self.due(&self.step.action, self.spec.effort.retry, after)?;
        let in_time = self.step.deadline.is_none_or(|deadline| at < deadline);
        in_time.then_some(at)
    }

    fn due(
        &self,
        progress: &Progress,
        retry: crate::Retry,
        after: Option<Duration>,
    ) -> Option<Timestamp> {
        let last = Duration::from_nanos(progress.delay);
        let delay = retry.next(progress.tries, last, after, self.draw)?;
        Some(self.now + delay)
    }

    /// No fast attempt is left: the step is over, or parked if it may not be given up.
    fn give_up(&self, last: Event, reason: &str) -> (Event, Option<Event>) {
        let doubt = matches!(last, Event::StepUnknown { .. });
        let parks = self.is_forward() && self.must_resolve(doubt);
        let park = || self.park(Operation::Action, &self.step.action, reason);
        (last, parks.then(park))
    }

    fn park(&self, op: Operation, progress: &Progress, reason: &str) -> Event {
        let round = progress.parked.saturating_add(1);
        let delay =
            self.definition
                .parking
                .delay(round, Duration::from_nanos(progress.delay), self.draw);
        Event::SagaParked {
            step: self.spec.name.clone(),
            op,
            reason: reason.to_owned(),
            retry: self.now + delay,
        }
    }

    /// As [`Self::action`], of the compensation.
    fn compensation(&self, outcome: &StepOutcome) -> (Event, Option<Event>) {
        let (reason, at) = match outcome {
            StepOutcome::Done(_) => {
                let completed = Event::CompensationCompleted {
                    step: self.spec.name.clone(),
                    attempt: self.attempt,
                };
                return (completed, None);
            }
            StepOutcome::Rejected(reason) => (reason, None),
            StepOutcome::Retryable { reason, after } => (reason, self.next_undo(*after)),
            StepOutcome::Unknown(reason) => (reason, self.next_undo(None)),
        };
        let failed = Event::CompensationFailed {
            step: self.spec.name.clone(),
            attempt: self.attempt,
            reason: reason.clone(),
            retry: at,
        };
        let park = || self.park(Operation::Compensation, self.step.undo(), reason);
        (failed, at.is_none().then(park))
    }

    fn next_undo(&self, after: Option<Duration>) -> Option<Timestamp> {
        if self.step.undo().parked > 0 {
            return None;
        }
        self.due(self.step.undo(), self.spec.undo.retry, after)
    }
}
