//! What may happen next. The first choice is what happens when nothing goes wrong.

use super::{Flight, World};
use crate::definition::Kind;
use crate::explore::choice::{Choice, Landing, Reply};
use crate::explore::setup::Setup;
use crate::machine::{Phase, Stage};
use crate::step::Operation;

impl World {
    pub(in crate::explore) fn choices(&self, setup: &Setup) -> Vec<Choice> {
        let mut choices = Vec::new();
        for flight in &self.flying {
            choices.push(Choice::Answer(flight.step, Reply::Done));
        }
        if self.may_pass() {
            choices.push(Choice::Pass);
        }
        if self.machine.state().is_paused {
            choices.push(Choice::Resume);
        }
        self.signals(setup, &mut choices);
        let late = self.late.iter().map(Flight::letter);
        choices.extend(late.map(Choice::Arrive));
        if self.limbo.is_some() {
            choices.push(Choice::Land);
        }
        if self.left.heartbeats > 0 {
            let beats = |flight: &&Flight| {
                flight.call.op == Operation::Action && setup.spec(flight.step).heartbeat.is_some()
            };
            let flying = self.flying.iter().filter(beats);
            choices.extend(flying.map(|flight| Choice::Heartbeat(flight.step)));
        }
        if self.left.may_fault() {
            self.faults(setup, &mut choices);
        }
        choices
    }

    /// Time may pass up to the next moment that matters; attempts in flight end before their deadlines.
    fn may_pass(&self) -> bool {
        let first = self.first_deadline();
        let wake = self.machine.wake();
        !self.is_ended() && wake.is_some_and(|wake| first.is_none_or(|first| wake <= first))
    }

    fn first_deadline(&self) -> Option<orchestra_core::Timestamp> {
        self.flying.iter().map(|flight| flight.call.deadline).min()
    }

    fn signals(&self, setup: &Setup, choices: &mut Vec<Choice>) {
        if self.left.signals == 0 || self.is_ended() {
            return;
        }
        for (number, (name, _)) in (0..).zip(&setup.signals) {
            choices.push(Choice::Signal(number, false));
            let mut sent = self.machine.state().signals.iter();
            if sent.any(|signal| signal.name == *name) {
                choices.push(Choice::Signal(number, true));
            }
        }
    }

    fn faults(&self, setup: &Setup, choices: &mut Vec<Choice>) {
        for flight in &self.flying {
            let replies = self.replies(setup, flight);
            let bad = replies.iter().filter(|reply| **reply != Reply::Done);
            choices.extend(bad.map(|&reply| Choice::Answer(flight.step, reply)));
        }
        if self.is_ended() {
            let revocable = self.phase() == Phase::Completed && setup.definition.is_reversible();
            if revocable && self.left.interventions > 0 {
                choices.push(Choice::Revoke);
            }
            return;
        }
        self.crashes(setup, choices);
        if self.left.interventions > 0 {
            let state = self.machine.state();
            let asked = [
                (state.cancel.is_none(), Choice::Cancel),
                (!state.is_paused, Choice::Pause),
                (state.is_parked(), Choice::Retry),
            ];
            let possible = asked.iter().filter(|(possible, _)| *possible);
            choices.extend(possible.map(|(_, choice)| *choice));
            self.resolutions(setup, choices);
        }
    }

    /// What somebody may truthfully say of operations that wait. What nobody can look at, nobody resolves.
    fn resolutions(&self, setup: &Setup, choices: &mut Vec<Choice>) {
        if !setup.is_guarded {
            return;
        }
        let waits = |stage| matches!(stage, Stage::Waiting(_) | Stage::Parked(_));
        for number in setup.numbers().filter(|&number| setup.has_ledger(number)) {
            let step = self.machine.state().step(number);
            let has_effect = self.participants.has_effect(number);
            if waits(step.action.stage) && (has_effect || setup.may_be_given_up(number)) {
                choices.push(Choice::Resolve(number, Operation::Action, has_effect));
            }
            if waits(step.undo().stage) && !has_effect {
                choices.push(Choice::Resolve(number, Operation::Compensation, true));
            }
        }
    }

    /// A crash before the append of an answer differs from one at rest by what its participant has done.
    fn crashes(&self, setup: &Setup, choices: &mut Vec<Choice>) {
        let mut served = Vec::new();
        if self.left.crashes > 0 || self.left.stumbles > 0 {
            for flight in &self.flying {
                let refused = self.replies(setup, flight).contains(&Reply::Rejected);
                served.push((flight.step, Reply::Done));
                served.extend(refused.then_some((flight.step, Reply::Rejected)));
            }
        }
        if self.left.crashes > 0 {
            choices.push(Choice::Crash(None));
            let served = served.iter().map(|&served| Choice::Crash(Some(served)));
            choices.extend(served);
        }
        if self.left.stumbles > 0 && self.limbo.is_none() {
            for &served in &served {
                for landing in [Landing::Never, Landing::Landed, Landing::Later] {
                    choices.push(Choice::Stumble(served, landing));
                }
            }
        }
    }

    /// What may become of a call.
    fn replies(&self, setup: &Setup, flight: &Flight) -> Vec<Reply> {
        let Flight { step, call } = flight;
        let spec = setup.spec(*step);
        if call.attempt > setup.bounds.attempts {
            return vec![Reply::Done];
        }
        let mut replies = vec![Reply::Done, Reply::Retryable, Reply::LostBefore];
        if spec.kind != Kind::ReadOnly && call.op != Operation::Probe {
            replies.push(Reply::LostAfter);
        }
        let known = self.participants.known(*step, call) == Some(true);
        let refusable = match call.op {
            // A pivot answers a repeated key from its record.
            Operation::Action => !(known && spec.kind == Kind::Pivot),
            Operation::Compensation => !known,
            Operation::Probe => false,
        };
        if refusable {
            replies.push(Reply::Rejected);
        }
        let is_first = self.first_deadline() == Some(call.deadline);
        let wakes = self.machine.wake().is_some_and(|wake| wake < call.deadline);
        if setup.bounds.timeouts && is_first && !wakes {
            replies.push(Reply::Silence);
        }
        replies
    }
}
