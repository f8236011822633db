//! A saga, its owner, its store, its participants and what is on the way between them.

mod choices;
mod moves;

use std::sync::Arc;

use orchestra_core::Timestamp;

use super::bounds::Budget;
use super::choice::Letter;
use super::law::{Law, Violation};
use super::mutant::Mutant;
use super::participant::Participants;
use super::service::Service;
use super::setup::Setup;
use super::tale::{Beat, Tale};
use crate::definition::{Body, Kind};
use crate::event::{Event, Recorded};
use crate::id::{Epoch, Version};
use crate::machine::{Input, Machine, Phase, Stage};
use crate::status::Status;
use crate::step::{Call, Operation};

/// Delays are not shortened.
pub(super) const DRAW: u64 = u64::MAX;
/// When everything begins.
const BEGIN: Timestamp = Timestamp::from_unix_nanos(1_700_000_000_000_000_000);
/// Attempts after the last that may go wrong, within which the saga must get on.
const PATIENCE: u32 = 3;

/// A call on its way.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// The step that the machine means.
    pub(super) step: u32,
    pub(super) call: Call,
}

impl Flight {
    pub(super) fn letter(&self) -> Letter {
        Letter {
            step: self.step,
            op: self.call.op,
            iteration: self.call.iteration,
            epoch: self.call.epoch,
        }
    }
}

/// Events whose append had failed.
#[derive(Debug, Clone)]
pub(super) struct Limbo {
    pub(super) expected: Version,
    pub(super) epoch: Epoch,
    pub(super) at: Timestamp,
    pub(super) events: Arc<[Event]>,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    /// The owner's.
    pub(super) machine: Arc<Machine>,
    pub(super) now: Timestamp,
    pub(super) epoch: Epoch,
    /// Calls whose answer the owner waits for, at most one for each step.
    pub(super) flying: Vec<Flight>,
    /// Calls that may arrive although nobody waits for them.
    pub(super) late: Vec<Flight>,
    /// What the store has, if that is more than the owner knows.
    pub(super) ahead: Option<Arc<Machine>>,
    pub(super) limbo: Option<Limbo>,
    /// The log before its last batch, where the store may lose that.
    pub(super) before: Option<Arc<Machine>>,
    pub(super) participants: Participants,
    pub(super) left: Budget,
}

impl World {
    /// The saga is started.
    pub(super) fn begin(setup: &Setup, left: Budget, tale: &mut Tale) -> Result<Self, Violation> {
        let mut machine = Machine::new(Arc::clone(&setup.definition), setup.saga);
        let unborn = Arc::new(machine.clone());
        let events = machine.start(&setup.start, BEGIN);
        let mut world = Self {
            machine: Arc::new(machine),
            now: BEGIN,
            epoch: Epoch(1),
            flying: Vec::new(),
            late: Vec::new(),
            ahead: None,
            limbo: None,
            before: None,
            participants: Participants::new(setup.definition.steps.len()),
            left,
        };
        world.append(setup, &unborn, &events, tale)?;
        world.rest()?;
        Ok(world)
    }

    pub(super) fn phase(&self) -> Phase {
        self.machine.state().phase()
    }

    pub(super) fn is_ended(&self) -> bool {
        self.phase().is_terminal()
    }

    /// The owner is told something.
    fn tell(&mut self, setup: &Setup, input: &Input, tale: &mut Tale) -> Result<(), Violation> {
        let mut machine = Machine::clone(&self.machine);
        let events = machine.advance(input, self.now, DRAW);
        let before = std::mem::replace(&mut self.machine, Arc::new(machine));
        self.append(setup, &before, &events, tale)
    }

    /// Decided events reach the log, and calls follow.
    fn append(
        &mut self,
        setup: &Setup,
        before: &Arc<Machine>,
        events: &[Event],
        tale: &mut Tale,
    ) -> Result<(), Violation> {
        if events.is_empty() {
            return Ok(());
        }
        if let Some(ahead) = self.ahead.take() {
            if !setup.has(Mutant::IgnoresTheVersion) {
                tale.tell(|| Beat::Refused(self.epoch));
                self.give_up_calls(setup);
                return self.read_again(setup, ahead, tale);
            }
            let log = fold(&ahead, events, (self.epoch, self.now))?;
            self.check_fold(&log)?;
            return self.issue(setup, events, tale);
        }
        if setup.has(Mutant::LosesTheLastBatch) {
            self.before = Some(Arc::clone(before));
        }
        tale.tell(|| Beat::Appended(self.epoch, names(events)));
        let log = fold(before, events, (self.epoch, self.now))?;
        self.check_fold(&log)?;
        self.issue(setup, events, tale)
    }

    fn check_fold(&self, log: &Machine) -> Result<(), Violation> {
        Law::FoldIsState.unless(log.state() == self.machine.state(), || {
            format!(
                "the owner has the state {:?}, its log {:?}",
                self.machine.state(),
                log.state()
            )
        })
    }

    /// Makes the calls of events that are durable.
    fn issue(&mut self, setup: &Setup, events: &[Event], tale: &mut Tale) -> Result<(), Violation> {
        for event in events {
            let Some(flight) = self.call(setup, &self.machine, event, self.epoch)? else {
                continue;
            };
            tale.tell(|| Beat::Called(flight.call.clone()));
            self.check_call(setup, &flight)?;
            self.flying.push(flight);
        }
        Ok(())
    }

    /// The call of an event, as the world lets it through.
    fn call(
        &self,
        setup: &Setup,
        machine: &Machine,
        event: &Event,
        epoch: Epoch,
    ) -> Result<Option<Flight>, Violation> {
        let Some(mut call) = machine.call(event, epoch, self.now) else {
            return Ok(None);
        };
        let Some(step) = setup.number(&call.step) else {
            return Err(Law::Truth.broken(format!("there is no step {}", call.step)));
        };
        if setup.mutant.is_some() {
            self.mutate(setup, step, &mut call);
        }
        Ok(Some(Flight { step, call }))
    }

    fn mutate(&self, setup: &Setup, step: u32, call: &mut Call) {
        let key = |call: &Call, op| Call::key_of(call.saga, &call.step, call.iteration, op);
        match setup.mutant {
            Some(Mutant::SharesTheKey) => call.edit().key = key(call, Operation::Action),
            Some(Mutant::NewKeyForEachAttempt) => {
                let fresh = call.iteration + 100 * call.attempt;
                call.edit().key = Call::key_of(call.saga, &call.step, fresh, call.op);
            }
            Some(Mutant::ForgetsTheIteration) => {
                call.edit().key = Call::key_of(call.saga, &call.step, 0, call.op);
            }
            Some(Mutant::UndoesForward) if call.op == Operation::Compensation => {
                let others = 0..step;
                let first = others.into_iter().find(|&other| {
                    setup.spec(other).kind == Kind::Compensatable
                        && self.participants.has_effect(other)
                        && self
                            .flying
                            .iter()
                            .all(|flight| flight.call.step != setup.spec(other).name)
                });
                if let Some(first) = first {
                    call.edit().step = setup.spec(first).name.clone();
                    call.edit().key = key(call, call.op);
                }
            }
            _ => {}
        }
    }

    fn check_call(&self, setup: &Setup, flight: &Flight) -> Result<(), Violation> {
        let Flight { step, call } = flight;
        let (name, op) = (&call.step, call.op);
        let doubled = self.flying.iter().any(|other| other.step == *step);
        Law::OneCall.unless(!doubled, || format!("two calls of {name} at a time"))?;
        Law::OneCall.unless(call.deadline > self.now, || {
            format!(
                "attempt {} of the {op} of {name} begins after its deadline",
                call.attempt
            )
        })?;
        let kind = setup.spec(*step).kind;
        Law::NoReturn.unless(
            op != Operation::Compensation || kind == Kind::Compensatable,
            || format!("{name} is {kind:?}, and is undone"),
        )?;
        let most = setup.bounds.attempts.saturating_add(PATIENCE);
        Law::Ends.unless(call.attempt <= most, || {
            format!("{name} has been tried {most} times, and its {op} still does not succeed")
        })?;
        self.check_key(setup, call)
    }

    /// No other operation has the key.
    fn check_key(&self, setup: &Setup, call: &Call) -> Result<(), Violation> {
        let op = match call.op {
            Operation::Probe => Operation::Action,
            op => op,
        };
        for (number, rows) in (0..).zip(self.participants.steps()) {
            let name = &setup.spec(number).name;
            for (iteration, row) in (0..).zip(rows) {
                let other = |record: &&super::participant::Record| {
                    let same = (name, iteration, record.op) == (&call.step, call.iteration, op);
                    record.key == call.key && !same
                };
                if let Some(record) = row.records.iter().find(other) {
                    let (step, of) = (&call.step, record.op);
                    let seen = format!("the {op} of {step} has the key of the {of} of {name}");
                    return Err(Law::OwnKeys.broken(seen));
                }
            }
        }
        Ok(())
    }

    /// The saga is read from this log by its owner.
    fn read_again(
        &mut self,
        setup: &Setup,
        log: Arc<Machine>,
        tale: &mut Tale,
    ) -> Result<(), Violation> {
        self.machine = log;
        if setup.has(Mutant::ForgetsWhatWasInFlight) {
            return Ok(());
        }
        self.tell(setup, &Input::Recovered, tale)
    }

    /// Nobody waits for what is in flight any more; some of it may arrive all the same.
    fn give_up_calls(&mut self, setup: &Setup) {
        for flight in std::mem::take(&mut self.flying) {
            self.let_fly(setup, flight);
        }
    }

    /// A call that nobody waits for may arrive late, if it matters and there is room.
    fn let_fly(&mut self, setup: &Setup, flight: Flight) {
        let matters = flight.call.op != Operation::Probe && setup.has_ledger(flight.step);
        let room = self.late.len() < setup.bounds.late;
        let letter = flight.letter();
        let known = self.late.iter().any(|late| late.letter() == letter);
        if matters && room && !known {
            self.late.push(flight);
        }
    }

    /// Late calls that can have no effect any more are not worth a state.
    fn forget_the_harmless(&mut self, setup: &Setup) {
        if setup.mutant.is_none() && setup.is_guarded {
            let participants = &self.participants;
            self.late
                .retain(|late| participants.lets_through(late.step, &late.call));
        }
    }

    /// Whether the saga gets on from here, or has a reason not to.
    fn rest(&self) -> Result<(), Violation> {
        let waits = !self.flying.is_empty() || self.machine.wake().is_some();
        if self.is_ended() || waits || self.machine.state().is_paused || self.listens() {
            return Ok(());
        }
        let seen = "no call is in flight, and nothing will wake the saga";
        Err(Law::NeverStandsStill.broken(seen))
    }

    /// Whether a step waits for a signal.
    fn listens(&self) -> bool {
        let definition = self.machine.definition();
        let mut steps = definition.steps.iter().zip(&self.machine.state().steps);
        steps.any(|(spec, step)| {
            matches!(spec.action, Body::Signal(..)) && step.action.stage == Stage::Listening
        })
    }

    /// At the end of the saga.
    fn check_end(&self, setup: &Setup, service: &mut Service<'_>) -> Result<(), Violation> {
        if !self.is_ended() {
            return Ok(());
        }
        let completed = self.phase() == Phase::Completed;
        let copied = |step: u32| self.machine.state().step(step).is_copied;
        self.participants.check_end(setup, completed, copied)?;
        service.check(Status::of(self.machine.state()))
    }
}

/// Folds a batch as a reader of the log does.
fn fold(
    log: &Machine,
    events: &[Event],
    (epoch, at): (Epoch, Timestamp),
) -> Result<Machine, Violation> {
    let mut log = log.clone();
    for event in events {
        let version = Version(log.version().0 + 1);
        let recorded = Recorded::new(version, epoch, at, event.clone());
        log.apply(&recorded).map_err(|error| {
            Law::FoldIsState.broken(format!("the log cannot be read any more: {error}"))
        })?;
    }
    Ok(log)
}

/// A snapshot holds the whole state.
pub(super) fn check_snapshot(setup: &Setup, machine: &Machine) -> Result<(), Violation> {
    let state = machine.state();
    let copy = serde_json::to_string(state)
        .and_then(|text| serde_json::from_str(&text))
        .map_err(|error| {
            Law::FoldIsState.broken(format!("the state cannot be kept in a snapshot: {error}"))
        })?;
    let revived = Machine::resume(Arc::clone(&setup.definition), setup.saga, copy);
    Law::FoldIsState.unless(revived.state() == state, || {
        let other = revived.state();
        format!("the state {state:?} is {other:?} after a snapshot")
    })
}

pub(super) fn names(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event.step() {
            Some(step) => format!("{} {step}", event.name()),
            None => event.name().to_owned(),
        })
        .collect()
}
