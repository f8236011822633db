//! What a barrier does, said plainly: a model for every adapter.

use std::collections::HashMap;

use orchestra_core::Timestamp;
use orchestra_saga::barrier::Barriered;
use orchestra_saga::{BarrierCall, Epoch, Operation, SagaId};
use proptest::prelude::*;

/// What the participant's own work does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    Succeeds,
    Refuses,
    Fails,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) saga: u8,
    pub(crate) step: u8,
    pub(crate) op: Operation,
    pub(crate) epoch: u64,
    pub(crate) work: Work,
    /// What is asked for, of two.
    pub(crate) body: u8,
    /// Whether the participant dies before it commits.
    pub(crate) lost: bool,
}

pub(crate) fn arrival() -> impl Strategy<Value = Arrival> {
    let op = prop_oneof![
        3 => Just(Operation::Action),
        3 => Just(Operation::Compensation),
        1 => Just(Operation::Probe),
    ];
    let work = prop_oneof![
        3 => Just(Work::Succeeds),
        1 => Just(Work::Refuses),
        1 => Just(Work::Fails),
    ];
    (
        0..2u8,
        0..2u8,
        op,
        1..4u64,
        work,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(saga, step, op, epoch, work, lost, body)| Arrival {
            saga,
            step,
            op,
            epoch,
            work,
            body: u8::from(body),
            lost,
        })
}

pub(crate) fn call(arrival: Arrival) -> BarrierCall {
    let saga = SagaId::from_parts(Timestamp::UNIX_EPOCH, u128::from(arrival.saga));
    let mut headers = http::HeaderMap::new();
    let mut put = |name: &'static str, value: String| {
        headers.insert(name, value.parse().expect("visible"));
    };
    put("x-saga-id", saga.to_string());
    // Two iterations of a step are two steps to the barrier.
    put("x-step-name", format!("step-{}", arrival.step / 2));
    put("x-saga-iteration", (arrival.step % 2).to_string());
    put("x-saga-op", arrival.op.to_string());
    put("x-saga-epoch", Epoch(arrival.epoch).to_string());
    put("idempotency-key", "key".to_owned());
    let call = BarrierCall::from_headers(&headers).expect("complete");
    call.with_body([arrival.body])
}

/// What has been recorded, said plainly.
#[derive(Debug, Default, Clone)]
pub(crate) struct Model {
    pub(crate) epochs: HashMap<u8, u64>,
    pub(crate) records: HashMap<(u8, u8, Operation), Kept>,
    pub(crate) bodies: HashMap<(u8, u8, Operation), u8>,
    pub(crate) effects: HashMap<(u8, u8), i64>,
    pub(crate) serial: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kept {
    Done(i64),
    Refused,
    Nothing,
}

impl Model {
    pub(crate) fn answer(&mut self, arrival: Arrival) -> Option<Barriered<i64>> {
        let Arrival { saga, step, op, .. } = arrival;
        let seen = self.epochs.get(&saga).copied().unwrap_or_default();
        if arrival.epoch < seen {
            return Some(Barriered::Stale(Epoch(seen)));
        }
        let has = |op| self.records.contains_key(&(saga, step, op));
        let is_over = match op {
            Operation::Action => has(Operation::Compensation) || has(Operation::Probe),
            Operation::Probe => has(Operation::Compensation),
            _ => false,
        };
        if is_over {
            self.epochs.insert(saga, arrival.epoch);
            return Some(Barriered::Tombstoned);
        }
        let known = self.bodies.get(&(saga, step, op));
        if known.is_some_and(|known| *known != arrival.body) {
            self.epochs.insert(saga, arrival.epoch);
            return Some(Barriered::KeyReused);
        }
        let done = self.records.get(&(saga, step, Operation::Action)).cloned();
        if op == Operation::Probe {
            self.epochs.insert(saga, arrival.epoch);
            if let Some(Kept::Done(value)) = done {
                return Some(Barriered::Replayed(value));
            }
            self.records.insert((saga, step, op), Kept::Nothing);
            return Some(Barriered::Rejected("it had no effect".to_owned()));
        }
        let answer = match self.records.get(&(saga, step, op)) {
            Some(Kept::Done(value)) => Barriered::Replayed(*value),
            Some(Kept::Refused) => Barriered::Rejected("no".to_owned()),
            Some(Kept::Nothing) => Barriered::NullCompensation,
            None if op == Operation::Compensation && !matches!(done, Some(Kept::Done(_))) => {
                self.records.insert((saga, step, op), Kept::Nothing);
                Barriered::NullCompensation
            }
            None => match arrival.work {
                Work::Fails => {
                    self.epochs.insert(saga, arrival.epoch);
                    return None;
                }
                Work::Refuses if op == Operation::Action => {
                    self.records.insert((saga, step, op), Kept::Refused);
                    Barriered::Rejected("no".to_owned())
                }
                // A refused compensation leaves no record, so it can succeed later.
                Work::Refuses => Barriered::Rejected("no".to_owned()),
                Work::Succeeds => {
                    self.serial += 1;
                    self.records
                        .insert((saga, step, op), Kept::Done(self.serial));
                    let change = if op == Operation::Action { 1 } else { -1 };
                    *self.effects.entry((saga, step)).or_default() += change;
                    Barriered::Applied(self.serial)
                }
            },
        };
        self.epochs.insert(saga, arrival.epoch);
        if let Some(Kept::Done(_) | Kept::Refused) = self.records.get(&(saga, step, op)) {
            self.bodies.insert((saga, step, op), arrival.body);
        }
        Some(answer)
    }
}
