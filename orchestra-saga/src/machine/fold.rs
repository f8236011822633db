//! What each event does to the state. Refuses what the rules could not have produced.

use std::sync::Arc;

use orchestra_core::Timestamp;

use super::front::{Aspect, Front};
use super::state::{Phase, Progress, Signalled, Stage, State, StepState};
use crate::definition::{Body, Definition, Spec};
use crate::error::{Error, Result};
use crate::event::{Cause, Event, Recorded, Resolution};
use crate::id::{StepName, Version};
use crate::payload::Payload;
use crate::step::Operation;

impl State {
    pub(super) fn apply(&mut self, definition: &Definition, recorded: &Recorded) -> Result<()> {
        let expected = Version(self.version.0 + 1);
        if recorded.version != expected {
            let found = recorded.version;
            return Err(Error::corrupt(format!(
                "event {found} where {expected} was expected"
            )));
        }
        self.fold(definition, recorded.at, &recorded.event)
    }

    pub(super) fn fold(
        &mut self,
        definition: &Definition,
        at: Timestamp,
        event: &Event,
    ) -> Result<()> {
        let fits = match self.phase {
            Phase::Unborn => matches!(event, Event::SagaStarted(_)),
            Phase::Running | Phase::Compensating => !matches!(event, Event::SagaStarted(_)),
            Phase::Completed => matches!(event, Event::SagaRevoked { .. }),
            Phase::Compensated => false,
        };
        if !fits {
            return Err(self.unfit(event));
        }
        match event.step() {
            Some(step) => self.fold_step(definition, at, event, step)?,
            None => self.fold_saga(definition, at, event)?,
        }
        self.version.0 += 1;
        self.updated = at;
        debug_assert!(
            self.steps.len() > 16 || self.front == Front::of(definition, self),
            "the front follows from the steps"
        );
        Ok(())
    }

    fn unfit(&self, event: &Event) -> Error {
        let (name, phase, version) = (event.name(), self.phase, self.version);
        let step = event.step().map(|step| format!(" of step {step}"));
        let step = step.unwrap_or_default();
        Error::corrupt(format!(
            "{name}{step} after event {version} does not fit a {phase:?} saga"
        ))
    }

    fn fold_saga(&mut self, definition: &Definition, at: Timestamp, event: &Event) -> Result<()> {
        match event {
            Event::SagaStarted(begun) => {
                if begun.hash != definition.hash {
                    let (id, version) = (&definition.id, &definition.version);
                    return Err(Error::new(
                        crate::ErrorKind::DefinitionChanged,
                        format!("saga definition {id} {version} has changed since the start"),
                    ));
                }
                self.phase = Phase::Running;
                self.input = begun.input.clone();
                self.deadline = begun.deadline;
                self.trace.clone_from(&begun.trace);
                self.started = at;
            }
            Event::CompensationStarted { cause, to }
                if self.phase == Phase::Running || self.back_to.is_some() =>
            {
                self.phase = Phase::Compensating;
                self.cause = Some(Box::new(cause.clone()));
                self.back_to = match to {
                    Some(step) => Some(definition.index_of(step).ok_or_else(|| self.unfit(event))?),
                    None => None,
                };
                let mut front = std::mem::take(&mut self.front);
                front.turn_back(definition, self);
                self.front = front;
            }
            Event::SagaRecovered => self.each_step(definition, StepState::interrupt),
            Event::SagaRetried { .. } => self.each_step(definition, |step| step.retry(at)),
            Event::SagaPaused { .. } if !self.is_paused => self.is_paused = true,
            Event::SagaResumed { .. } if self.is_paused => self.is_paused = false,
            Event::SagaRestarted { step } if self.phase == Phase::Compensating => {
                let to = definition
                    .index_of(step)
                    .filter(|to| self.back_to == Some(*to));
                self.restart(definition, to.ok_or_else(|| self.unfit(event))?);
            }
            Event::SagaRevoked { reason } if self.phase == Phase::Completed => {
                let reason = reason.clone();
                self.phase = Phase::Compensating;
                self.cause = Some(Box::new(Cause::Revoked { reason }));
                self.front = Front::of(definition, self);
            }
            Event::SignalReceived { name, id, payload } => self.signals.push(Signalled {
                name: Arc::clone(name),
                id: id.clone(),
                payload: Some(payload.clone()),
            }),
            Event::SagaCancelRequested { reason } => self.cancel = Some(reason.clone()),
            Event::SagaCompleted if self.phase == Phase::Running => {
                self.phase = Phase::Completed;
            }
            Event::SagaCompensated if self.phase == Phase::Compensating => {
                self.phase = Phase::Compensated;
            }
            _ => return Err(self.unfit(event)),
        }
        Ok(())
    }

    /// Back at a save-point: what depends on it has never been.
    fn restart(&mut self, definition: &Definition, to: u32) {
        for number in definition.descendants(to) {
            if let Some(step) = self.steps.get_mut(number as usize) {
                let iteration = step.iteration + 1;
                *step = StepState {
                    iteration,
                    ..StepState::default()
                };
            }
        }
        if let Some(point) = self.steps.get_mut(to as usize) {
            point.restarts += 1;
        }
        self.phase = Phase::Running;
        self.back_to = None;
        self.cause = None;
        self.front = Front::of(definition, self);
    }

    fn each_step(&mut self, definition: &Definition, change: impl FnMut(&mut StepState)) {
        self.steps.iter_mut().for_each(change);
        self.front = Front::of(definition, self);
    }

    fn fold_step(
        &mut self,
        definition: &Definition,
        at: Timestamp,
        event: &Event,
        name: &StepName,
    ) -> Result<()> {
        let number = self.number_of(definition, name);
        let found = number.and_then(|number| Some((number, self.steps.get_mut(number as usize)?)));
        let Some((number, step)) = found else {
            return Err(Error::corrupt(format!(
                "{} of unknown step {name}",
                event.name()
            )));
        };
        let before = Aspect::of(step);
        let fits = match event {
            Event::SignalTaken { .. } => {
                let spec = definition.spec(number);
                step.take_signal(spec, &mut self.signals)
            }
            _ => step.fold(at, event),
        };
        if !fits {
            return Err(self.unfit(event));
        }
        if let Event::StepResolved { .. } = event {
            // It may have an effect after all.
            self.front = Front::of(definition, self);
            return Ok(());
        }
        let change = (before, Aspect::of(step));
        self.front.change(definition, number, change, self.phase);
        Ok(())
    }
}

impl StepState {
    /// Whether the event fits.
    fn fold(&mut self, at: Timestamp, event: &Event) -> bool {
        match event {
            Event::StepScheduled {
                attempt,
                input,
                step_deadline,
                ..
            } => {
                self.input = input.clone().or_else(|| self.input.take());
                self.deadline = Some(*step_deadline);
                self.undo().stage == Stage::Pending && self.action.begin(*attempt)
            }
            Event::StepCompleted {
                attempt, output, ..
            } => {
                self.output = Some(output.clone());
                self.action.end(*attempt, Stage::Done)
            }
            Event::StepFailed {
                attempt,
                reason,
                retry,
                ..
            } => {
                self.rest_mut().reason = Some(reason.clone());
                self.action.fail(*attempt, at, *retry, Stage::Rejected)
            }
            Event::StepUnknown {
                attempt,
                reason,
                retry,
                ..
            } => {
                self.rest_mut().reason = Some(reason.clone());
                self.tainted = true;
                self.action.fail(*attempt, at, *retry, Stage::Unknown)
            }
            Event::CompensationScheduled { attempt, .. } => {
                self.action.stage != Stage::Running && self.rest_mut().undo.begin(*attempt)
            }
            Event::CompensationCompleted { attempt, .. } => {
                self.rest_mut().undo.end(*attempt, Stage::Done)
            }
            Event::CompensationFailed {
                attempt,
                reason,
                retry,
                ..
            } => {
                let rest = self.rest_mut();
                rest.reason = Some(reason.clone());
                rest.undo.fail(*attempt, at, *retry, Stage::Rejected)
            }
            Event::SagaParked {
                op, retry, reason, ..
            } => {
                self.rest_mut().reason = Some(reason.clone());
                match op {
                    Operation::Action => self.action.park(*retry),
                    Operation::Compensation => self.rest_mut().undo.park(*retry),
                    Operation::Probe => false,
                }
            }
            Event::StepCopied { output, .. } => {
                self.output = Some(output.clone());
                self.is_copied = true;
                std::mem::replace(&mut self.action.stage, Stage::Done) == Stage::Pending
            }
            Event::StepHeartbeat {
                attempt, details, ..
            } => {
                self.rest_mut().details = Some(details.clone());
                self.action.stage == Stage::Running && self.action.attempt == *attempt
            }
            Event::TimerSet { due, .. } => self.action.wait(Stage::Waiting(*due)),
            Event::TimerFired { .. } => self.action.wait(Stage::Done),
            Event::SignalAwaited { until, .. } => self
                .action
                .wait(until.map_or(Stage::Listening, Stage::Waiting)),
            Event::ProbeScheduled { attempt, .. } => {
                let rest = self.rest_mut();
                let probe = rest.probe.get_or_insert_default();
                rest.undo.stage == Stage::Pending && probe.begin(*attempt)
            }
            Event::ProbeCompleted {
                attempt, applied, ..
            } => self.find_out(*attempt, applied.as_ref()),
            Event::ProbeFailed {
                attempt,
                reason,
                retry,
                ..
            } => {
                let rest = self.rest_mut();
                rest.reason = Some(reason.clone());
                let probe = rest.probe.get_or_insert_default();
                probe.fail(*attempt, at, *retry, Stage::Unknown)
            }
            Event::StepResolved { op, resolution, .. } => self.resolve(*op, resolution),
            _ => false,
        }
    }

    /// A question is answered.
    fn find_out(&mut self, attempt: u32, applied: Option<&Payload>) -> bool {
        self.tainted = false;
        match applied {
            Some(output) => {
                self.output = Some(output.clone());
                self.action.stage = Stage::Done;
            }
            None => self.action.stage = Stage::Rejected,
        }
        let probe = self.rest_mut().probe.get_or_insert_default();
        probe.end(attempt, Stage::Done)
    }

    /// An operator knows what became of an operation that is not in flight.
    fn resolve(&mut self, op: Operation, resolution: &Resolution) -> bool {
        let progress = match op {
            Operation::Action => &mut self.action,
            Operation::Compensation => &mut self.rest_mut().undo,
            Operation::Probe => return false,
        };
        let fits = !matches!(progress.stage, Stage::Running | Stage::Done);
        match (op, resolution) {
            (Operation::Action, Resolution::Done(output)) => {
                progress.stage = Stage::Done;
                self.output = Some(output.clone());
                self.tainted = false;
            }
            (Operation::Action, Resolution::NotApplied) => {
                progress.stage = Stage::Rejected;
                self.tainted = false;
            }
            (_, Resolution::Done(_)) => progress.stage = Stage::Done,
            (_, Resolution::NotApplied) => return false,
        }
        fits
    }

    /// Takes the oldest signal that the step waits for.
    fn take_signal(&mut self, spec: &Spec, signals: &mut [Signalled]) -> bool {
        let Body::Signal(name, _) = &spec.action else {
            return false;
        };
        let of_name = |signal: &&mut Signalled| signal.name == *name && signal.payload.is_some();
        let signal = signals.iter_mut().find(of_name);
        self.output = signal.and_then(|signal| signal.payload.take());
        self.output.is_some() && self.action.wait(Stage::Done)
    }

    fn interrupt(&mut self) {
        if self.action.stage == Stage::Running {
            self.action.stage = Stage::Interrupted;
            self.tainted = true;
        }
        if self.undo().stage == Stage::Running {
            self.rest_mut().undo.stage = Stage::Interrupted;
        }
        let probe = self.rest().probe.as_ref();
        if probe.is_some_and(|probe| probe.stage == Stage::Running) {
            self.rest_mut().probe.get_or_insert_default().stage = Stage::Interrupted;
        }
    }

    fn retry(&mut self, at: Timestamp) {
        self.action.retry(at);
        if let Stage::Parked(_) = self.undo().stage {
            self.rest_mut().undo.retry(at);
        }
    }
}

impl Progress {
    fn retry(&mut self, at: Timestamp) {
        if let Stage::Parked(_) = self.stage {
            self.stage = Stage::Waiting(at);
            self.parked = 0;
            self.tries = 0;
        }
    }

    /// The number that the next attempt has: a new one, or that of the interrupted attempt.
    pub(super) fn next_attempt(&self) -> u32 {
        match self.stage {
            Stage::Interrupted => self.attempt,
            _ => self.attempt.saturating_add(1),
        }
    }

    fn begin(&mut self, attempt: u32) -> bool {
        let ready = matches!(
            self.stage,
            Stage::Pending | Stage::Interrupted | Stage::Waiting(_) | Stage::Parked(_)
        );
        if !ready || attempt != self.next_attempt() {
            return false;
        }
        if self.stage != Stage::Interrupted {
            self.tries = self.tries.saturating_add(1);
        }
        self.attempt = attempt;
        self.stage = Stage::Running;
        true
    }

    /// A step without calls moves on.
    fn wait(&mut self, stage: Stage) -> bool {
        let before = std::mem::replace(&mut self.stage, stage);
        matches!(
            before,
            Stage::Pending | Stage::Listening | Stage::Waiting(_)
        )
    }

    fn end(&mut self, attempt: u32, stage: Stage) -> bool {
        let fits = self.stage == Stage::Running && self.attempt == attempt;
        self.stage = stage;
        fits
    }

    /// An attempt ended, or one that was due will not be made.
    fn fail(&mut self, attempt: u32, at: Timestamp, retry: Option<Timestamp>, end: Stage) -> bool {
        let open = matches!(
            self.stage,
            Stage::Running | Stage::Interrupted | Stage::Waiting(_)
        );
        let fits = open && self.attempt == attempt;
        let nanos = |retry: Timestamp| retry.as_unix_nanos().saturating_sub(at.as_unix_nanos());
        self.delay = retry.map(nanos).unwrap_or_default();
        self.stage = retry.map_or(end, Stage::Waiting);
        fits
    }

    fn park(&mut self, until: Timestamp) -> bool {
        let fits = matches!(self.stage, Stage::Rejected | Stage::Unknown);
        self.parked = self.parked.saturating_add(1);
        self.stage = Stage::Parked(until);
        fits
    }
}
