//! Participants as a barrier makes them, and the ledger of what happened there.

use super::law::{Law, Violation};
use super::mutant::Mutant;
use super::service::Service;
use super::setup::Setup;
use crate::definition::{Kind, Unwind};
use crate::id::Epoch;
use crate::payload::Payload;
use crate::step::{Applied, Call, Operation, StepOutcome};
use orchestra_core::IdempotencyKey;

/// All participants of a saga: one for each step.
#[derive(Debug, Clone)]
pub(super) struct Participants(Vec<Vec<Row>>);

/// What a participant keeps of one iteration of its step.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) records: Vec<Record>,
    /// The highest epoch that called.
    pub(super) seen: Epoch,
    /// It was compensated, or somebody saw to it: no action passes any more.
    pub(super) is_tombed: bool,
    pub(super) applied: u32,
    pub(super) undone: u32,
}

/// The answer to a key.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) key: IdempotencyKey,
    pub(super) op: Operation,
    /// Nothing for a refusal.
    pub(super) answer: Option<Payload>,
}

impl Row {
    fn record(&self, key: &IdempotencyKey) -> Option<&Record> {
        self.records.iter().find(|record| record.key == *key)
    }

    fn keep(&mut self, call: &Call, answer: Option<Payload>) {
        let (key, op) = (
            call.key.clone(),
            match call.op {
                Operation::Probe => Operation::Action,
                op => op,
            },
        );
        self.records.push(Record { key, op, answer });
    }

    pub(super) const fn has_effect(&self) -> bool {
        self.applied > self.undone
    }
}

fn refused(why: &str) -> StepOutcome {
    StepOutcome::Rejected(why.to_owned())
}

fn replayed(record: &Record) -> StepOutcome {
    match &record.answer {
        Some(answer) => StepOutcome::Done(answer.clone()),
        None => refused("refused before"),
    }
}

impl Participants {
    pub(super) fn new(steps: usize) -> Self {
        Self(vec![Vec::new(); steps])
    }

    pub(super) fn rows(&self, step: u32) -> &[Row] {
        self.0.get(step as usize).map_or(&[], Vec::as_slice)
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = &[Row]> {
        self.0.iter().map(Vec::as_slice)
    }

    fn row(&mut self, step: u32, iteration: u32) -> Option<&mut Row> {
        let rows = self.0.get_mut(step as usize)?;
        let place = iteration as usize;
        if rows.len() <= place {
            rows.resize_with(place + 1, Row::default);
        }
        rows.get_mut(place)
    }

    /// Whether the key of the call has a record, and whether that is of something done.
    pub(super) fn known(&self, step: u32, call: &Call) -> Option<bool> {
        let row = self.rows(step).get(call.iteration as usize)?;
        row.record(&call.key).map(|record| record.answer.is_some())
    }

    /// Whether the call may still have an effect; if not, it never will.
    pub(super) fn lets_through(&self, step: u32, call: &Call) -> bool {
        let row = self.rows(step).get(call.iteration as usize);
        row.is_none_or(|row| {
            let tombed = row.is_tombed && call.op == Operation::Action;
            call.epoch >= row.seen && !tombed && row.record(&call.key).is_none()
        })
    }

    /// Whether the step has an effect left.
    pub(super) fn has_effect(&self, step: u32) -> bool {
        self.rows(step).iter().any(Row::has_effect)
    }

    /// No action passes any more.
    pub(super) fn fence(&mut self, step: u32, iteration: u32) {
        if let Some(row) = self.row(step, iteration) {
            row.is_tombed = true;
        }
    }

    /// Refuses the call without asking the service.
    pub(super) fn refuse(&mut self, setup: &Setup, step: u32, call: &Call) -> StepOutcome {
        let keeps = setup.is_guarded
            && call.op == Operation::Action
            && setup.has_ledger(step)
            && setup.may_be_given_up(step);
        if keeps
            && let Some(row) = self.row(step, call.iteration)
            && !row.is_tombed
            && row.record(&call.key).is_none()
        {
            row.seen = row.seen.max(call.epoch);
            row.keep(call, None);
        }
        refused("refused")
    }

    /// The call arrives.
    pub(super) fn serve(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        step: u32,
        call: &Call,
    ) -> Result<StepOutcome, Violation> {
        if !setup.is_guarded || !setup.has_ledger(step) {
            return service.work(setup, step, call);
        }
        let Some(row) = self.row(step, call.iteration) else {
            return Ok(refused("no such step"));
        };
        if call.epoch < row.seen {
            return Ok(refused("a newer owner has called"));
        }
        row.seen = call.epoch;
        if let Some(record) = row.record(&call.key)
            && !(row.is_tombed && call.op == Operation::Action)
            && !setup.has(Mutant::ForgetsKeys)
        {
            return Ok(replayed(record));
        }
        match call.op {
            Operation::Action => self.act(setup, service, step, call),
            Operation::Compensation => self.undo(setup, service, step, call),
            Operation::Probe => self.ask(setup, service, step, call),
        }
    }

    fn act(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        step: u32,
        call: &Call,
    ) -> Result<StepOutcome, Violation> {
        let keeps = setup.may_be_given_up(step);
        let Some(row) = self.row(step, call.iteration) else {
            return Ok(refused("no such step"));
        };
        if row.is_tombed && !setup.has(Mutant::LosesTombstones) {
            return Ok(refused("after its compensation"));
        }
        let outcome = service.work(setup, step, call)?;
        match &outcome {
            StepOutcome::Done(output) => row.keep(call, Some(output.clone())),
            StepOutcome::Rejected(_) if keeps => row.keep(call, None),
            _ => {}
        }
        if let StepOutcome::Done(_) = outcome {
            row.applied += 1;
            let name = &call.step;
            Law::NoActionAfterCompensation.unless(!row.is_tombed, || {
                format!("{name} takes effect after its compensation")
            })?;
            Law::Once.unless(row.applied == 1, || {
                format!("{name} takes effect {} times", row.applied)
            })?;
        }
        Ok(outcome)
    }

    fn undo(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        step: u32,
        call: &Call,
    ) -> Result<StepOutcome, Violation> {
        let name = &call.step;
        let Some(row) = self.row(step, call.iteration) else {
            return Ok(refused("no such step"));
        };
        Law::Truth.unless(call.applied != Applied::Known || row.applied > 0, || {
            format!("{name} is compensated as known to have taken effect, and it has not")
        })?;
        if !row.has_effect() {
            row.is_tombed = true;
            row.keep(call, Some(Payload::default()));
            return Ok(StepOutcome::Done(Payload::default()));
        }
        let outcome = service.work(setup, step, call)?;
        if !matches!(outcome, StepOutcome::Done(_)) {
            return Ok(outcome);
        }
        row.undone += 1;
        row.is_tombed = true;
        row.keep(call, Some(Payload::default()));
        Law::Once.unless(row.undone <= 1, || format!("{name} is undone twice"))?;
        self.check_order(setup, step)?;
        Ok(outcome)
    }

    /// A step has been undone: was it its turn?
    fn check_order(&self, setup: &Setup, step: u32) -> Result<(), Violation> {
        let unwind = setup.definition.unwind;
        if unwind == Unwind::Unordered {
            return Ok(());
        }
        let is_later = |other: &u32| match unwind {
            Unwind::Sequential => *other > step,
            _ => setup.descendants(step).binary_search(other).is_ok(),
        };
        for other in setup.numbers().filter(is_later) {
            let undoable = setup.spec(other).kind == Kind::Compensatable;
            Law::ReverseOrder.unless(!(undoable && self.has_effect(other)), || {
                let (name, other) = (&setup.spec(step).name, &setup.spec(other).name);
                format!(
                    "{name} is undone while {other}, which comes after it, still has its effect"
                )
            })?;
        }
        Ok(())
    }

    /// Whether it took effect; if not, it never will.
    fn ask(
        &mut self,
        setup: &Setup,
        service: &mut Service<'_>,
        step: u32,
        call: &Call,
    ) -> Result<StepOutcome, Violation> {
        let outcome = if service.is_real() {
            service.work(setup, step, call)?
        } else {
            // A record would have been replayed.
            refused("it had no effect")
        };
        if let (StepOutcome::Rejected(_), Some(row)) = (&outcome, self.row(step, call.iteration)) {
            row.keep(call, None);
        }
        Ok(outcome)
    }

    /// What is there when the saga has ended.
    pub(super) fn check_end(
        &self,
        setup: &Setup,
        completed: bool,
        is_excepted: impl Fn(u32) -> bool,
    ) -> Result<(), Violation> {
        if !setup.is_guarded {
            return Ok(());
        }
        for step in setup.numbers() {
            if !setup.has_ledger(step) || is_excepted(step) {
                continue;
            }
            let rows = self.rows(step);
            let counts = || rows.iter().map(|row| row.applied - row.undone);
            let wanted = u32::from(completed);
            let name = &setup.spec(step).name;
            let now = counts().next_back().unwrap_or_default();
            Law::AllOrNothing.unless(now == wanted && counts().sum::<u32>() == wanted, || {
                let end = if completed {
                    "completed"
                } else {
                    "compensated"
                };
                if completed && now == 0 {
                    format!("the saga is {end}, and {name} has no effect")
                } else {
                    format!("the saga is {end}, and an effect of {name} is left behind")
                }
            })?;
        }
        Ok(())
    }
}
