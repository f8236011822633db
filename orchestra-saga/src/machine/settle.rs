//! What an input says by itself.

use std::time::Duration;

use orchestra_core::Timestamp;

use super::state::{Phase, Progress, Stage, State, StepState};
use super::{Input, unwind};
use crate::definition::{Definition, Kind, Spec};
use crate::event::Event;
use crate::step::{Operation, StepOutcome};

pub(super) fn settle(
    definition: &Definition,
    state: &State,
    input: &Input,
    now: Timestamp,
    draw: u64,
) -> Vec<Event> {
    if matches!(state.phase, Phase::Unborn) || state.phase.is_terminal() {
        return Vec::new();
    }
    match input {
        Input::Recovered if state.is_in_flight() => vec![Event::SagaRecovered],
        Input::Resume if state.is_parked() => vec![Event::SagaResumed],
        Input::Cancel { reason } if may_cancel(state) => {
            let reason = reason.clone();
            vec![Event::SagaCancelRequested { reason }]
        }
        Input::Wake | Input::Recovered | Input::Resume | Input::Cancel { .. } => Vec::new(),
        Input::Report {
            step,
            op,
            attempt,
            outcome,
        } => {
            let found = definition
                .index_of(step)
                .map(|index| (definition.spec(index), state.step(index)));
            let Some((spec, step)) = found else {
                return Vec::new();
            };
            let report = Report {
                definition,
                state,
                spec,
                step,
                attempt: *attempt,
                now,
                draw,
            };
            report.events(*op, outcome)
        }
    }
}

/// Whether asking to give up still changes anything.
fn may_cancel(state: &State) -> bool {
    state.phase == Phase::Running && state.cancel.is_none() && !unwind::is_committed(state)
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
    fn events(&self, op: Operation, outcome: &StepOutcome) -> Vec<Event> {
        let progress = match op {
            Operation::Action => &self.step.action,
            Operation::Compensation => &self.step.undo,
        };
        // A late answer of an attempt that is over is not news.
        if progress.stage != Stage::Running || progress.attempt != self.attempt {
            return Vec::new();
        }
        match op {
            Operation::Action => self.action(outcome),
            Operation::Compensation => self.compensation(outcome),
        }
    }

    fn action(&self, outcome: &StepOutcome) -> Vec<Event> {
        match outcome {
            StepOutcome::Done(output) => vec![Event::StepCompleted {
                step: self.spec.name.clone(),
                attempt: self.attempt,
                output: output.clone(),
            }],
            StepOutcome::Rejected(reason) if self.spec.kind == Kind::Retriable => {
                self.give_up(self.failed(reason, None), reason)
            }
            StepOutcome::Rejected(reason) => vec![self.failed(reason, None)],
            StepOutcome::Retryable { reason, after } => match self.next_action(*after, false) {
                Some(at) => vec![self.failed(reason, Some(at))],
                None => self.give_up(self.failed(reason, None), reason),
            },
            StepOutcome::Unknown(reason) => match self.next_action(None, true) {
                Some(at) => vec![self.unknown(reason, Some(at))],
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

    /// When the next attempt is due: not after the retries, nor the deadline of the step, nor when the
    /// saga goes back.
    fn next_action(&self, after: Option<Duration>, doubt: bool) -> Option<Timestamp> {
        let must = unwind::must_resolve(self.spec, self.step, doubt);
        if self.state.phase != Phase::Running || self.step.action.parked > 0 {
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
        let delay = retry.next(progress.tries, progress.delay, after, self.draw)?;
        Some(self.now + delay)
    }

    /// No fast attempt is left: the step is over, or parked if it may not be given up.
    fn give_up(&self, last: Event, reason: &str) -> Vec<Event> {
        let doubt = matches!(last, Event::StepUnknown { .. });
        let must =
            self.state.phase == Phase::Running && unwind::must_resolve(self.spec, self.step, doubt);
        if must {
            vec![
                last,
                self.park(Operation::Action, &self.step.action, reason),
            ]
        } else {
            vec![last]
        }
    }

    fn park(&self, op: Operation, progress: &Progress, reason: &str) -> Event {
        let round = progress.parked.saturating_add(1);
        let delay = self
            .definition
            .parking
            .delay(round, progress.delay, self.draw);
        Event::SagaParked {
            step: self.spec.name.clone(),
            op,
            reason: reason.to_owned(),
            retry: self.now + delay,
        }
    }

    fn compensation(&self, outcome: &StepOutcome) -> Vec<Event> {
        let (reason, at) = match outcome {
            StepOutcome::Done(_) => {
                return vec![Event::CompensationCompleted {
                    step: self.spec.name.clone(),
                    attempt: self.attempt,
                }];
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
        if at.is_some() {
            vec![failed]
        } else {
            vec![
                failed,
                self.park(Operation::Compensation, &self.step.undo, reason),
            ]
        }
    }

    fn next_undo(&self, after: Option<Duration>) -> Option<Timestamp> {
        if self.step.undo.parked > 0 {
            return None;
        }
        self.due(&self.step.undo, self.spec.undo.retry, after)
    }
}
