use std::time::Duration;

use orchestra_core::{Timestamp, TraceContext};

use crate::error::Error;
use crate::event::Event;
use crate::id::{SagaId, StepName};
use crate::status::Status;
use crate::step::Operation;

/// What an executor tells its listener.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// A batch is durable.
    Appended {
        /// The saga.
        saga: SagaId,
        /// Its definition.
        definition: &'a str,
        /// The status after the batch.
        status: Status,
        /// When the saga was started.
        started: Timestamp,
        /// When the batch was decided.
        at: Timestamp,
        /// What happened.
        events: &'a [Event],
    },
    /// An attempt ended; its result is not durable yet.
    Attempted {
        /// The saga.
        saga: SagaId,
        /// Its definition.
        definition: &'a str,
        /// The step.
        step: &'a StepName,
        /// Doing or undoing.
        op: Operation,
        /// The number of the attempt.
        attempt: u32,
        /// `done`, `rejected`, `retryable` or `unknown`.
        outcome: &'static str,
        /// How long it took.
        took: Duration,
        /// The trace of the saga.
        trace: Option<&'a TraceContext>,
    },
    /// The store failed; the saga is read again and goes on.
    StoreFailed {
        /// The saga.
        saga: SagaId,
        /// What the store said.
        error: &'a Error,
    },
    /// A saga that this executor cannot continue: its definition is missing or changed, or its log
    /// makes no sense. It stays in the store as it is.
    Unrecoverable {
        /// The saga.
        saga: SagaId,
        /// Why.
        error: &'a Error,
    },
    /// Another executor owns the partition: this one has stopped.
    Fenced {
        /// What the store said.
        error: &'a Error,
    },
}
