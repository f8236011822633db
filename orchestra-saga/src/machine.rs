//! The decisions of a saga, without clock, store or network.
//!
//! [`State`] is the fold of the log. [`Machine::advance`] answers an [`Input`] with the events to append
//! as one batch, and folds them: what the input settles, and every intent that has become possible by it,
//! so the result of one step and the intent of the next are durable together. Once they are, each
//! `…_scheduled` event among them is a call to make ([`Machine::call`]). A machine whose events could not
//! be appended is ahead of its log and is thrown away; another one folds the log with [`Machine::apply`].
//!
//! A decision costs the steps that can move at the time, not the length of the graph.
//!
//! Moments are wall-clock [`Timestamp`]s because deadlines outlive the process; a driver makes them from
//! one reading of the wall clock and a monotonic clock, so a step of the former moves no running
//! deadline.
//!
//! Going back follows the graph (Garcia-Molina and Salem, "Sagas", 1987, generalised from a list): a
//! step is compensated when all that depends on it has nothing left to undo. A step in flight is let
//! finish. A step that was ever in doubt is compensated *if applied*, even when a later attempt was
//! refused.

mod decide;
mod fold;
mod front;
mod settle;
mod state;
mod unwind;

use front::Front;
#[cfg(feature = "test-util")]
pub(crate) use state::Rest;
pub use state::{Phase, State};
pub(crate) use state::{Progress, Stage, StepState};

use std::sync::Arc;

use orchestra_core::{IdempotencyKey, Timestamp, TraceContext};

use crate::definition::Definition;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Operator, Recorded, Resolution, Started};
use crate::executor::Start;
use crate::id::{Epoch, SagaId, StepName, Version};
use crate::payload::Payload;
use crate::step::call::Attempt;
use crate::step::{Applied, Call, Heart, Operation, StepOutcome};
use crate::two_phase::Decision;

/// What the machine is told.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Input {
    /// Time has passed.
    Wake,
    /// This process took the saga over from its log: no call is in flight.
    Recovered,
    /// An attempt has ended.
    Report {
        /// The step.
        step: StepName,
        /// Doing or undoing.
        op: Operation,
        /// The attempt.
        attempt: u32,
        /// How it ended.
        outcome: StepOutcome,
    },
    /// Someone asks to give the saga up. Nothing happens past the point of no return.
    Cancel {
        /// What they say.
        reason: String,
    },
    /// A long attempt says how far it has come.
    Heartbeat {
        /// The step.
        step: StepName,
        /// The attempt.
        attempt: u32,
        /// How far, in its own words.
        details: Payload,
    },
    /// Someone sends a signal.
    Signal {
        /// Its name.
        name: Arc<str>,
        /// What tells it from others of that name: the same is heard once.
        id: Option<IdempotencyKey>,
        /// What it says.
        payload: Payload,
    },
    /// An operator asks to try parked steps again at once.
    Retry {
        /// Who.
        by: Operator,
    },
    /// An operator asks to begin nothing until further notice. Time goes on, also that of the saga.
    Pause {
        /// Who.
        by: Operator,
    },
    /// An operator asks to go on after a pause.
    Resume {
        /// Who.
        by: Operator,
    },
    /// An operator says what became of an operation that is not in flight.
    Resolve {
        /// The step.
        step: StepName,
        /// Which of its operations.
        op: Operation,
        /// What they found out.
        resolution: Resolution,
        /// Who.
        by: Operator,
    },
    /// The saga had completed as a part of another, which goes back.
    Revoke {
        /// What is said.
        reason: String,
    },
}

/// The state of one saga and the rules that move it.
///
/// Laws: 1. `advance` leaves the state that folding its events gives; 2. folding the same log gives the same
/// state, whoever wrote it;
/// 3. every attempt follows its intent, attempts of one operation follow each other; 4. no compensation
/// precedes one that depends on it, and no action follows its compensation; 5. a saga ends completed,
/// or compensated, or stays parked with a time to try again: it never stops silently.
///
/// ```
/// use orchestra_core::Timestamp;
/// use orchestra_saga::machine::{Input, Machine};
/// use orchestra_saga::{Call, Definition, Epoch, Event, Recorded, SagaId, Start, Version};
///
/// let mut d = Definition::builder("one", "1");
/// let input = d.input::<u32>();
/// d.step("double", input, |_: Call, n: u32| async move { Ok(n * 2) }).read_only();
/// let definition = std::sync::Arc::new(d.build()?);
/// let saga = SagaId::from_bytes([7; 16]);
/// let mut machine = Machine::new(definition.clone(), saga);
///
/// let now = Timestamp::UNIX_EPOCH;
/// let events = machine.start(&Start::of("one").input(&21)?, now);
/// let names: Vec<_> = events.iter().map(Event::name).collect();
/// assert_eq!(names, ["saga_started", "step_scheduled"]);
/// assert_eq!(machine.advance(&Input::Wake, now, 0), []);
///
/// let mut recovered = Machine::new(definition, saga);
/// for (number, event) in (1..).zip(events) {
///     recovered.apply(&Recorded::new(Version(number), Epoch(1), now, event))?;
/// }
/// assert_eq!(recovered, machine);
/// # Ok::<(), orchestra_saga::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Machine {
    definition: Arc<Definition>,
    saga: SagaId,
    state: State,
}

impl Machine {
    /// A saga whose log is empty.
    pub fn new(definition: Arc<Definition>, saga: SagaId) -> Self {
        let mut state = State::new(definition.steps.len());
        state.front = Front::of(&definition, &state);
        Self {
            definition,
            saga,
            state,
        }
    }

    /// A saga whose log was folded up to a snapshot.
    pub(crate) fn resume(definition: Arc<Definition>, saga: SagaId, mut state: State) -> Self {
        state.front = Front::of(&definition, &state);
        Self {
            definition,
            saga,
            state,
        }
    }

    /// The definition.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The saga.
    pub fn saga(&self) -> SagaId {
        self.saga
    }

    /// The state so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The first batch: the start and the first intents.
    pub fn start(&mut self, start: &Start, now: Timestamp) -> Vec<Event> {
        let mut started = self.started(start.input.clone(), now);
        let trace = start.trace.as_ref();
        started.trace = trace.map(|trace| Arc::from(trace.to_string()));
        started.attributes.clone_from(&start.attributes);
        started.parent = start.parent;
        let mut events = vec![Event::SagaStarted(Arc::new(started))];
        self.fold(&events, now);
        self.follow(now, &mut events);
        events
    }

    fn started(&self, input: Payload, now: Timestamp) -> Started {
        let Definition {
            id, version, hash, ..
        } = &*self.definition;
        let mut started =
            Started::new(Arc::clone(id), Arc::clone(version), Arc::clone(hash), input);
        started.deadline = self.definition.timeout.map(|limit| now + limit);
        started
    }

    /// The first batch of a saga that repeats a completed one from a step on.
    pub(crate) fn fork(
        &mut self,
        of: &Self,
        from: &StepName,
        by: &Operator,
        now: Timestamp,
    ) -> Result<Vec<Event>> {
        let refused = |reason: String| {
            let message = format!("saga cannot be forked: {reason}");
            Error::new(ErrorKind::InvalidInput, message).of(of.saga)
        };
        if of.state.phase != Phase::Completed {
            return Err(refused("it has not completed".to_owned()));
        }
        let number = self.definition.index_of(from);
        let number = number.ok_or_else(|| refused(format!("it has no step {from}")))?;
        let mut again = self.definition.descendants(number);
        again.insert(number);
        if let Some((confirmation, tried)) = self.definition.unprepared(&again) {
            return Err(refused(format!(
                "{confirmation} would run again, but {tried}, which it makes final, would not: \
                 begin where everything that is confirmed is tried again"
            )));
        }
        let mut started = self.started(of.state.input.clone(), now);
        started.trace.clone_from(&of.state.trace);
        started.attributes = [("fork_by".to_owned(), by.to_string())].into();
        started.fork_of = Some(of.saga);
        let mut events = vec![Event::SagaStarted(Arc::new(started))];
        let numbered = (0..).zip(self.definition.steps.iter().zip(&of.state.steps));
        let kept = numbered.filter(|(number, _)| !again.contains(number));
        events.extend(kept.map(|(_, (spec, step))| Event::StepCopied {
            step: spec.name.clone(),
            output: step.output.clone().unwrap_or_default(),
        }));
        self.fold(&events, now);
        self.follow(now, &mut events);
        Ok(events)
    }

    /// Answers `input` at `now`: the events to append as one batch, which are folded already; none if
    /// nothing changes.
    ///
    /// `draw` is uniform over `u64` and shortens delays. A report of an attempt that is not in flight
    /// changes nothing.
    pub fn advance(&mut self, input: &Input, now: Timestamp, draw: u64) -> Vec<Event> {
        let mut events = self.settle(input, now, draw);
        self.follow(now, &mut events);
        events
    }

    /// As [`Machine::advance`] without new intents: for an executor that shuts down.
    pub fn settle(&mut self, input: &Input, now: Timestamp, draw: u64) -> Vec<Event> {
        let mut events = Vec::new();
        settle::settle(
            &self.definition,
            &self.state,
            input,
            (now, draw),
            &mut events,
        );
        self.fold(&events, now);
        events
    }

    /// Adds what has become possible.
    pub(crate) fn follow(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        loop {
            let known = events.len();
            decide::decide(&self.definition, self.saga, &self.state, now, events);
            let Some(more @ [_, ..]) = events.get(known..) else {
                return;
            };
            self.fold(more, now);
        }
    }

    fn fold(&mut self, decided: &[Event], now: Timestamp) {
        for event in decided {
            let folded = self.state.fold(&self.definition, now, event);
            debug_assert!(
                folded.is_ok(),
                "what this state decides folds into it: {folded:?}"
            );
        }
    }

    /// Folds an event of the log. One that does not fit is [`Corrupt`](crate::ErrorKind::Corrupt), and
    /// the machine is of no more use then.
    pub fn apply(&mut self, recorded: &Recorded) -> Result<()> {
        self.state
            .apply(&self.definition, recorded)
            .map_err(|error| error.of(self.saga))
    }

    /// The call of a `…_scheduled` event that has been applied.
    pub fn call(&self, event: &Event, epoch: Epoch, now: Timestamp) -> Option<Call> {
        let attempt = self.attempt(event, epoch, now, Heart::default())?;
        Some(Call::new(attempt))
    }

    /// As [`Machine::call`], with somebody who hears heartbeats.
    pub(crate) fn attempt(
        &self,
        event: &Event,
        epoch: Epoch,
        now: Timestamp,
        heart: Heart,
    ) -> Option<Attempt> {
        let (op, attempt, key, deadline, applied) = match event {
            Event::StepScheduled {
                attempt,
                key,
                deadline,
                ..
            } => (
                Operation::Action,
                attempt,
                key.clone(),
                deadline,
                Applied::Unknown,
            ),
            Event::CompensationScheduled {
                attempt,
                key,
                deadline,
                applied,
                ..
            } => (
                Operation::Compensation,
                attempt,
                key.clone(),
                deadline,
                *applied,
            ),
            Event::ProbeScheduled {
                attempt, deadline, ..
            } => {
                let key = self.key_of(event.step()?, Operation::Action)?;
                (Operation::Probe, attempt, key, deadline, Applied::Unknown)
            }
            _ => return None,
        };
        let step = event.step()?;
        let number = self.state.number_of(&self.definition, step)?;
        let state = self.state.step(number);
        let output = match op {
            Operation::Action | Operation::Probe => None,
            Operation::Compensation => state.output.clone(),
        };
        Some(Attempt {
            saga: self.saga,
            definition: Arc::clone(&self.definition.id),
            step: step.clone(),
            op,
            attempt: *attempt,
            key,
            number,
            iteration: state.iteration,
            details: state.rest().details.clone(),
            heart,
            epoch,
            deadline: *deadline,
            budget: deadline.since(now),
            trace: self.trace(),
            input: state.input.clone().unwrap_or_default(),
            output,
            applied,
        })
    }

    fn trace(&self) -> Option<Arc<TraceContext>> {
        let trace = self.state.trace.as_deref()?;
        trace.parse().ok().map(Arc::new)
    }

    fn key_of(&self, step: &StepName, op: Operation) -> Option<IdempotencyKey> {
        let state = self.state.step(self.definition.index_of(step)?);
        Some(Call::key_of(self.saga, step, state.iteration, op))
    }

    /// Whether what its participants prepared is to be committed.
    pub fn decision(&self) -> Decision {
        match self.state.phase {
            Phase::Completed => Decision::Commit,
            Phase::Running if unwind::is_committed(&self.state) => Decision::Commit,
            Phase::Compensating if self.state.back_to.is_none() => Decision::Abort,
            Phase::Compensated => Decision::Abort,
            Phase::Unborn | Phase::Running | Phase::Compensating => Decision::Undecided,
        }
    }

    /// When [`Input::Wake`] will change something, if ever; attempts in flight are not counted.
    pub fn wake(&self) -> Option<Timestamp> {
        decide::wake(&self.definition, &self.state)
    }

    /// The number of events, those included that are still to be appended.
    pub fn version(&self) -> Version {
        self.state.version
    }
}

/// By saga, definition and state.
impl PartialEq for Machine {
    fn eq(&self, other: &Self) -> bool {
        self.saga == other.saga
            && self.definition.hash == other.definition.hash
            && self.state == other.state
    }
}
