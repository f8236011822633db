use std::sync::Arc;

use orchestra_core::{IdempotencyKey, Timestamp};

use super::signed;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{SagaId, Version};
use crate::status::Status;
use crate::store::{Append, Claim};

/// What SQLite takes as one value.
const LONGEST: usize = 1_000_000_000 - 1_000;

/// An append as it is written: its events are text already, so the writer does not wait for that.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) claim: Claim,
    pub(super) saga: SagaId,
    pub(super) expected: Version,
    /// The version after it.
    pub(super) version: Version,
    pub(super) status: Status,
    pub(super) at: i64,
    pub(super) wake: Option<i64>,
    /// Of a batch that begins with `saga_started`.
    pub(super) definition: Option<Arc<str>>,
    pub(super) start_key: Option<IdempotencyKey>,
    /// The JSON array of the events.
    pub(super) body: String,
}

impl Batch {
    pub(super) fn of(claim: Claim, append: &Append) -> Result<Self> {
        let body = serde_json::to_string(&append.events).map_err(|source| {
            let names: Vec<_> = append.events.iter().map(Event::name).collect();
            let message = format!("{} cannot be written", names.join(", "));
            Error::corrupt(message).of(append.saga).caused_by(source)
        })?;
        if body.len() > LONGEST {
            let message = format!("a batch of {} bytes is too long to be written", body.len());
            return Err(Error::new(ErrorKind::Full, message).of(append.saga));
        }
        let definition = match append.events.first() {
            Some(Event::SagaStarted(started)) => Some(Arc::clone(&started.definition)),
            _ => None,
        };
        Ok(Self {
            claim,
            saga: append.saga,
            expected: append.expected,
            version: append.version(),
            status: append.status,
            at: nanos(append.at),
            wake: append.wake.map(nanos),
            definition,
            start_key: append.start_key.clone(),
            body,
        })
    }

    /// When the saga ended, if this ends it.
    pub(super) fn ended(&self) -> Option<i64> {
        self.status.is_terminal().then_some(self.at)
    }
}

pub(super) fn nanos(at: Timestamp) -> i64 {
    signed(at.as_unix_nanos())
}

/// The number of a status in the file.
pub(super) const fn code(status: Status) -> i64 {
    match status {
        Status::Started => 0,
        Status::Compensating => 1,
        Status::Parked => 2,
        Status::Completed => 3,
        Status::Compensated => 4,
        Status::Paused => 5,
    }
}

/// The status of that number.
pub(super) fn status(number: i64) -> Option<Status> {
    Status::ALL
        .into_iter()
        .find(|&status| code(status) == number)
}
