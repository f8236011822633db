use orchestra_core::{IdempotencyKey, Timestamp};

use crate::event::{Event, Recorded};
use crate::id::{Epoch, SagaId, Version};
use crate::status::Status;

/// A batch of events of one saga, appended whole or not at all.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Append {
    /// The saga.
    pub saga: SagaId,
    /// The version that it must have; zero starts it.
    pub expected: Version,
    /// When this was decided.
    pub at: Timestamp,
    /// The events, at least one.
    pub events: Vec<Event>,
    /// The status after them.
    pub status: Status,
    /// When the saga wants to be woken, in place of what it wanted before.
    pub wake: Option<Timestamp>,
    /// For a start: the key that no other saga may have.
    pub start_key: Option<IdempotencyKey>,
}

impl Append {
    /// A batch without a timer or start key.
    pub fn new(saga: SagaId, expected: Version, at: Timestamp, events: Vec<Event>) -> Self {
        Self {
            saga,
            expected,
            at,
            events,
            status: Status::Started,
            wake: None,
            start_key: None,
        }
    }

    /// The status after the events.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// When the saga wants to be woken.
    #[must_use]
    pub fn wake(mut self, wake: Option<Timestamp>) -> Self {
        self.wake = wake;
        self
    }

    /// The start key.
    #[must_use]
    pub fn start_key(mut self, key: Option<IdempotencyKey>) -> Self {
        self.start_key = key;
        self
    }

    /// The events with their places.
    pub fn recorded(&self, epoch: Epoch) -> impl Iterator<Item = Recorded> + '_ {
        let first = self.expected.0 + 1;
        (first..).zip(&self.events).map(move |(number, event)| {
            Recorded::new(Version(number), epoch, self.at, event.clone())
        })
    }

    /// The version after the batch.
    pub fn version(&self) -> Version {
        Version(self.expected.0 + self.events.len() as u64)
    }
}
