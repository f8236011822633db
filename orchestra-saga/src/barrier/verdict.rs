//! What a barrier does with a call, decided from the rows that are there.
//!
//! The adapters read [`Seen`] under the lock of the saga, ask [`decide`], and do as they are told.

use serde::de::DeserializeOwned;

use super::{BarrierCall, Barriered};
use crate::error::{Error, Result};
use crate::id::Epoch;
use crate::step::Operation;

/// What a row says of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// The work was done; the JSON that it returned.
    Done(String),
    /// The participant's rules refused it.
    Rejected(String),
    /// There was nothing to undo, and what would be undone must not happen any more.
    Tombstone,
}

impl Record {
    pub(super) fn read(call: &BarrierCall, state: &str, result: String) -> Result<Self> {
        match state {
            "done" => Ok(Self::Done(result)),
            "rejected" => Ok(Self::Rejected(result)),
            "tombstone" => Ok(Self::Tombstone),
            _ => Err(unreadable(call)),
        }
    }

    pub(super) const fn state(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Rejected(_) => "rejected",
            Self::Tombstone => "tombstone",
        }
    }

    pub(super) fn result(&self) -> &str {
        match self {
            Self::Done(text) | Self::Rejected(text) => text,
            Self::Tombstone => "null",
        }
    }
}

/// The rows that matter to a call.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The highest epoch of any call of the saga, this one's included.
    pub(super) epoch: Epoch,
    /// What is kept of the step.
    pub(super) kept: Vec<Kept>,
}

/// A row of an operation.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// The name of the operation.
    pub(super) op: String,
    pub(super) record: Record,
    /// The hash of the body that it came with, if that was known.
    pub(super) body: Option<[u8; 32]>,
}

impl Kept {
    pub(super) fn read(
        call: &BarrierCall,
        (op, state, result): (String, &str, String),
        body: Option<Vec<u8>>,
    ) -> Result<Self> {
        let hash = |body: Vec<u8>| <[u8; 32]>::try_from(body).map_err(|_other| unreadable(call));
        Ok(Self {
            op,
            record: Record::read(call, state, result)?,
            body: body.map(hash).transpose()?,
        })
    }
}

impl Seen {
    fn of(&self, op: Operation) -> Option<&Record> {
        self.kept(op).map(|kept| &kept.record)
    }

    fn kept(&self, op: Operation) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.op == op.as_str())
    }

    /// Whether the work of this operation was done or refused for another body.
    fn is_reused(&self, call: &BarrierCall) -> bool {
        self.kept(call.op).is_some_and(|kept| {
            let differs = matches!((kept.body, call.body), (Some(old), Some(new)) if old != new);
            // Where there was nothing to do, the body did not matter.
            differs && kept.record != Record::Tombstone
        })
    }
}

/// What to do with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The work is to be done, and its result recorded.
    Work,
    /// There is nothing to undo, which is to be recorded.
    Bury,
    /// Nothing is to be done.
    Answer(Answer),
}

/// An answer without any work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Replayed(String),
    Rejected(String),
    NullCompensation,
    Tombstoned,
    Stale(Epoch),
    KeyReused,
}

impl Answer {
    pub(super) fn read<T: DeserializeOwned>(self, call: &BarrierCall) -> Result<Barriered<T>> {
        Ok(match self {
            Self::Replayed(result) => {
                let value = serde_json::from_str(&result);
                Barriered::Replayed(value.map_err(|source| unreadable(call).caused_by(source))?)
            }
            Self::Rejected(reason) => Barriered::Rejected(reason),
            Self::NullCompensation => Barriered::NullCompensation,
            Self::Tombstoned => Barriered::Tombstoned,
            Self::Stale(epoch) => Barriered::Stale(epoch),
            Self::KeyReused => Barriered::KeyReused,
        })
    }
}

/// Which way an operation goes, and which ones go the other way.
enum Way {
    Forth {
        ended_by: &'static [Operation],
    },
    Back {
        undoes: Operation,
    },
    /// Neither: it asks.
    Ask {
        about: Operation,
        ended_by: Operation,
    },
}

const fn way(op: Operation) -> Way {
    match op {
        Operation::Action => Way::Forth {
            ended_by: &[Operation::Compensation, Operation::Probe],
        },
        Operation::Compensation => Way::Back {
            undoes: Operation::Action,
        },
        Operation::Probe => Way::Ask {
            about: Operation::Action,
            ended_by: Operation::Compensation,
        },
    }
}

/// What to do with this call, where these rows are.
pub(super) fn decide(call: &BarrierCall, seen: &Seen) -> Verdict {
    if seen.epoch > call.epoch {
        return Verdict::Answer(Answer::Stale(seen.epoch));
    }
    let own = seen.of(call.op);
    match way(call.op) {
        Way::Forth { ended_by } if ended_by.iter().any(|&op| seen.of(op).is_some()) => {
            Verdict::Answer(Answer::Tombstoned)
        }
        _ if seen.is_reused(call) => Verdict::Answer(Answer::KeyReused),
        Way::Ask { ended_by, .. } if seen.of(ended_by).is_some() => {
            Verdict::Answer(Answer::Tombstoned)
        }
        Way::Ask { about, .. } => match (seen.of(about), own) {
            (Some(Record::Done(result)), _) => Verdict::Answer(Answer::Replayed(result.clone())),
            (_, Some(_)) => Verdict::Answer(Answer::Rejected(NO_EFFECT.to_owned())),
            // What was said of it must stay true.
            (_, None) => Verdict::Bury,
        },
        Way::Forth { .. } => match own {
            Some(Record::Done(result)) => Verdict::Answer(Answer::Replayed(result.clone())),
            Some(Record::Rejected(reason)) => Verdict::Answer(Answer::Rejected(reason.clone())),
            Some(Record::Tombstone) => Verdict::Answer(Answer::Tombstoned),
            None => Verdict::Work,
        },
        Way::Back { undoes } => match (own, seen.of(undoes)) {
            (Some(Record::Done(result)), _) => Verdict::Answer(Answer::Replayed(result.clone())),
            (Some(_), _) => Verdict::Answer(Answer::NullCompensation),
            (None, Some(Record::Done(_))) => Verdict::Work,
            (None, _) => Verdict::Bury,
        },
    }
}

/// What is recorded when the participant's rules refuse the work: nothing on the way back, so that it
/// can succeed later.
pub(super) fn refusal(op: Operation, reason: &str) -> Option<Record> {
    match way(op) {
        Way::Forth { .. } => Some(Record::Rejected(reason.to_owned())),
        Way::Back { .. } | Way::Ask { .. } => None,
    }
}

/// The answer when something was buried.
pub(super) fn buried<T>(op: Operation) -> Barriered<T> {
    match way(op) {
        Way::Ask { .. } => Barriered::Rejected(NO_EFFECT.to_owned()),
        Way::Forth { .. } | Way::Back { .. } => Barriered::NullCompensation,
    }
}

/// What a probe hears of an action that never was, and never will be.
const NO_EFFECT: &str = "it had no effect";

/// What is recorded of work that returned this.
pub(super) fn done<T: serde::Serialize>(call: &BarrierCall, value: &T) -> Result<Record> {
    let result = serde_json::to_string(value).map_err(|source| {
        let message = format!("barrier: the result of step {} is not JSON", call.step);
        Error::corrupt(message).of(call.saga).caused_by(source)
    })?;
    Ok(Record::Done(result))
}

fn unreadable(call: &BarrierCall) -> Error {
    let message = format!("barrier: the record of step {} cannot be read", call.step);
    Error::corrupt(message).of(call.saga)
}

#[cfg(test)]
mod tests;
