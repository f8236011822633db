//! What each choice does.

use std::sync::Arc;

use orchestra_core::IdempotencyKey;

use super::{DRAW, Flight, Limbo, World, fold, names};
use crate::event::{Operator, Resolution};
use crate::explore::choice::{Choice, Landing, Letter, Reply};
use crate::explore::law::{Law, Violation};
use crate::explore::mutant::Mutant;
use crate::explore::service::Service;
use crate::explore::setup::Setup;
use crate::explore::tale::{Beat, Tale};
use crate::id::Epoch;
use crate::machine::{Input, Machine};
use crate::payload::Payload;
use crate::step::{Call, Operation, StepOutcome};

impl World {
    /// Makes a choice that was offered.
    pub(in crate::explore) fn choose(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        choice: Choice,
        tale: &mut Tale,
    ) -> Result<(), Violation> {
        let ended = self.is_ended();
        if choice.is_fault() {
            self.left.spend_fault();
        }
        match choice {
            Choice::Answer(step, reply) => self.answer(setup, service, (step, reply), tale)?,
            Choice::Pass => self.pass(setup, tale)?,
            Choice::Crash(served) => self.crash(setup, service, served, tale)?,
            Choice::Stumble(served, landing) => {
                self.stumble(setup, service, (served, landing), tale)?;
            }
            Choice::Land => self.land(setup, tale)?,
            Choice::Arrive(letter) => self.arrive(setup, service, letter, tale)?,
            asked => self.ask(setup, asked, tale)?,
        }
        self.forget_the_harmless(setup);
        self.rest()?;
        if !ended || matches!(choice, Choice::Arrive(_)) {
            self.check_end(setup, service)?;
        }
        Ok(())
    }

    fn take_flight(&mut self, step: u32) -> Option<Flight> {
        let place = self.flying.iter().position(|flight| flight.step == step)?;
        Some(self.flying.remove(place))
    }

    /// The call of the step is served; what its owner hears.
    fn serve(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        (step, reply): (u32, Reply),
        tale: &mut Tale,
    ) -> Result<Option<Input>, Violation> {
        let Some(flight) = self.take_flight(step) else {
            return Ok(None);
        };
        let call = flight.call.clone();
        let unknown = || StepOutcome::Unknown("no answer".to_owned());
        tale.tell(|| Beat::Reached(call.clone(), reply));
        let outcome = match reply {
            Reply::Done => self.reach(setup, service, &call)?,
            Reply::LostAfter => {
                drop(self.reach(setup, service, &call)?);
                unknown()
            }
            Reply::Rejected => {
                let number = setup.number(&call.step).unwrap_or(step);
                self.participants.refuse(setup, number, &call)
            }
            Reply::Retryable => StepOutcome::Retryable {
                reason: "busy".to_owned(),
                after: None,
            },
            Reply::LostBefore => {
                self.let_fly(setup, flight);
                unknown()
            }
            Reply::Silence => {
                self.now = self.now.max(call.deadline);
                self.let_fly(setup, flight);
                unknown()
            }
        };
        if reply == Reply::Done {
            tale.tell(|| Beat::Answered(call.clone(), outcome.clone()));
        }
        Ok(Some(report(setup, step, &call, outcome)))
    }

    fn reach(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        call: &Call,
    ) -> Result<StepOutcome, Violation> {
        let number = setup.number(&call.step).unwrap_or_default();
        self.participants.serve(setup, service, number, call)
    }

    fn answer(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        served: (u32, Reply),
        tale: &mut Tale,
    ) -> Result<(), Violation> {
        match self.serve(setup, service, served, tale)? {
            Some(input) => self.tell(setup, &input, tale),
            None => Ok(()),
        }
    }

    fn pass(&mut self, setup: &Setup, tale: &mut Tale) -> Result<(), Violation> {
        let Some(wake) = self.machine.wake() else {
            return Ok(());
        };
        let passed = wake.since(self.now);
        tale.tell(|| Beat::Passed(passed));
        self.now = self.now.max(wake);
        let version = self.machine.version();
        self.tell(setup, &Input::Wake, tale)?;
        Law::NeverStandsStill.unless(self.machine.version() != version, || {
            "the saga wants to be woken, and then does nothing".to_owned()
        })
    }

    /// What the store has.
    fn take_log(&mut self) -> Arc<Machine> {
        let ahead = self.ahead.take();
        ahead.unwrap_or_else(|| Arc::clone(&self.machine))
    }

    /// The owner dies, and another takes over what the log says.
    fn crash(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        served: Option<(u32, Reply)>,
        tale: &mut Tale,
    ) -> Result<(), Violation> {
        self.left.crashes = self.left.crashes.saturating_sub(1);
        let heard = match served {
            Some(served) => self.serve(setup, service, served, tale)?,
            None => None,
        };
        match heard {
            Some(input) if setup.has(Mutant::CallsBeforeTheAppend) => {
                self.call_ahead(setup, &input)?;
            }
            Some(input) if setup.has(Mutant::IgnoresTheEpoch) => self.haunt(setup, &input, tale)?,
            _ => {}
        }
        tale.tell(|| Beat::Died(self.epoch));
        self.give_up_calls(setup);
        self.epoch = Epoch(self.epoch.0 + 1);
        tale.tell(|| Beat::TookOver(self.epoch));
        let known = self.machine.version();
        let mut log = self.take_log();
        if let Some(before) = self.before.take() {
            log = before;
        }
        Law::NothingLost.unless(log.version() >= known, || {
            let found = log.version();
            format!("{known} events were acknowledged, and the log has {found}")
        })?;
        self.read_again(setup, log, tale)
    }

    /// An owner that was frozen while another one took over hears an answer, and goes on if the store lets it. A
    /// store that heeds epochs does not, and then this is a crash like any other.
    fn haunt(&self, setup: &Setup, input: &Input, tale: &mut Tale) -> Result<(), Violation> {
        let owner = Epoch(self.epoch.0 + 1);
        tale.tell(|| Beat::TookOver(owner));
        let mut machine = Machine::clone(&self.machine);
        let events = machine.advance(input, self.now, DRAW);
        tale.tell(|| Beat::Appended(self.epoch, names(&events)));
        for event in &events {
            if let Some(flight) = self.call(setup, &machine, event, self.epoch)? {
                let (epoch, name) = (self.epoch, &flight.call.step);
                tale.tell(|| Beat::Called(flight.call.clone()));
                let seen = format!("owner {epoch} calls {name} after owner {owner} took over");
                return Err(Law::OneOwner.broken(seen));
            }
        }
        Ok(())
    }

    /// Where calls do not wait for their intents, they are on their way before the log knows.
    fn call_ahead(&mut self, setup: &Setup, input: &Input) -> Result<(), Violation> {
        let mut machine = Machine::clone(&self.machine);
        for event in machine.advance(input, self.now, DRAW) {
            if let Some(flight) = self.call(setup, &machine, &event, self.epoch)? {
                self.let_fly(setup, flight);
            }
        }
        Ok(())
    }

    /// The append of an answer fails, and the owner reads the log again.
    fn stumble(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        (served, landing): ((u32, Reply), Landing),
        tale: &mut Tale,
    ) -> Result<(), Violation> {
        self.left.stumbles = self.left.stumbles.saturating_sub(1);
        let Some(input) = self.serve(setup, service, served, tale)? else {
            return Ok(());
        };
        let mut log = self.take_log();
        let mut decided = Machine::clone(&self.machine);
        let events = decided.advance(&input, self.now, DRAW);
        tale.tell(|| Beat::Stumbled(self.epoch, names(&events), landing));
        match landing {
            Landing::Landed if log.version() == self.machine.version() => {
                log = Arc::new(fold(&log, &events, (self.epoch, self.now))?);
            }
            Landing::Landed | Landing::Never => {}
            Landing::Later => {
                self.limbo = Some(Limbo {
                    expected: self.machine.version(),
                    epoch: self.epoch,
                    at: self.now,
                    events: events.into(),
                });
            }
        }
        self.give_up_calls(setup);
        self.read_again(setup, log, tale)
    }

    /// A batch lands late: the store takes it if nothing else came between.
    fn land(&mut self, setup: &Setup, tale: &mut Tale) -> Result<(), Violation> {
        let Some(limbo) = self.limbo.take() else {
            return Ok(());
        };
        let log = self.ahead.as_deref().unwrap_or(&self.machine);
        let owned = limbo.epoch == self.epoch || setup.has(Mutant::IgnoresTheEpoch);
        let fits = limbo.expected == log.version() || setup.has(Mutant::IgnoresTheVersion);
        let taken = owned && fits;
        tale.tell(|| Beat::Landed(names(&limbo.events), taken));
        if taken {
            let log = fold(log, &limbo.events, (limbo.epoch, limbo.at))?;
            self.ahead = Some(Arc::new(log));
        }
        Ok(())
    }

    fn arrive(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        letter: Letter,
        tale: &mut Tale,
    ) -> Result<(), Violation> {
        let place = self.late.iter().position(|late| late.letter() == letter);
        let Some(flight) = place.map(|place| self.late.remove(place)) else {
            return Ok(());
        };
        tale.tell(|| Beat::Arrived(flight.call.clone()));
        let outcome = self.reach(setup, service, &flight.call)?;
        tale.tell(|| Beat::Unheard(flight.call.clone(), outcome));
        Ok(())
    }

    fn ask(&mut self, setup: &Setup, choice: Choice, tale: &mut Tale) -> Result<(), Violation> {
        let by = || Operator::new("explorer", "to see what happens");
        let left = &mut self.left;
        match choice {
            Choice::Signal(..) => left.signals = left.signals.saturating_sub(1),
            Choice::Heartbeat(_) => left.heartbeats = left.heartbeats.saturating_sub(1),
            Choice::Resume => {}
            _ => left.interventions = left.interventions.saturating_sub(1),
        }
        let input = match choice {
            Choice::Signal(number, again) => self.signal(setup, number, again),
            Choice::Heartbeat(step) => self.heartbeat(setup, step),
            Choice::Resume => Some(Input::Resume { by: by() }),
            Choice::Pause => Some(Input::Pause { by: by() }),
            Choice::Retry => Some(Input::Retry { by: by() }),
            Choice::Cancel => Some(Input::Cancel {
                reason: "cancelled".to_owned(),
            }),
            Choice::Resolve(step, op, applied) => Some(self.resolve(setup, (step, op), applied)),
            Choice::Revoke => Some(Input::Revoke {
                reason: "revoked".to_owned(),
            }),
            _ => None,
        };
        let Some(input) = input else {
            return Ok(());
        };
        tale.tell(|| Beat::Asked(input.clone()));
        self.tell(setup, &input, tale)
    }

    /// Whoever says that there is no effect sees to it that there never is.
    fn resolve(&mut self, setup: &Setup, (step, op): (u32, Operation), applied: bool) -> Input {
        let name = setup.spec(step).name.clone();
        let resolution = match op {
            Operation::Action if applied => Resolution::Done(setup.output(&name)),
            Operation::Action => Resolution::NotApplied,
            _ => Resolution::Done(Payload::default()),
        };
        if !(applied && op == Operation::Action) {
            let iteration = self.machine.state().step(step).iteration;
            self.participants.fence(step, iteration);
        }
        let by = Operator::new("explorer", "looked at the participant");
        Input::Resolve {
            step: name,
            op,
            resolution,
            by,
        }
    }

    fn heartbeat(&self, setup: &Setup, step: u32) -> Option<Input> {
        let flight = self.flying.iter().find(|flight| flight.step == step)?;
        Some(Input::Heartbeat {
            step: setup.spec(step).name.clone(),
            attempt: flight.call.attempt,
            details: Payload::from(serde_json::json!(self.left.heartbeats)),
        })
    }

    /// A signal with an id of its own, or the last one again.
    fn signal(&self, setup: &Setup, number: u8, again: bool) -> Option<Input> {
        let (name, payload) = setup.signals.get(usize::from(number))?;
        let sent = self.machine.state().signals.iter();
        let count = sent.filter(|signal| signal.name == *name).count();
        let id = if again { count } else { count + 1 };
        Some(Input::Signal {
            name: Arc::clone(name),
            id: IdempotencyKey::new(format!("{name}.{id}")).ok(),
            payload: payload.clone(),
        })
    }
}

/// What the owner hears.
fn report(setup: &Setup, step: u32, call: &Call, outcome: StepOutcome) -> Input {
    let outcome = match outcome {
        StepOutcome::Unknown(reason) if setup.has(Mutant::UnknownIsRejected) => {
            StepOutcome::Rejected(reason)
        }
        outcome => outcome,
    };
    Input::Report {
        step: setup.spec(step).name.clone(),
        op: call.op,
        attempt: call.attempt,
        outcome,
    }
}
