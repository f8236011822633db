use std::sync::Arc;

use orchestra_core::Timestamp;

use super::Append;
use crate::id::{Partition, SagaId, Version};
use crate::status::Status;

/// Which sagas to list: those for which all of it holds.
///
/// ```
/// use orchestra_saga::{Filter, Status};
///
/// let stuck = Filter::of(Status::Parked).definition("checkout").limit(10);
/// assert_eq!(stuck.definition.as_deref(), Some("checkout"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// Only those that are not terminal.
    pub open: Open,
    /// Only those of this status.
    pub status: Option<Status>,
    /// Only those of the definition with this id, in any version.
    pub definition: Option<Arc<str>>,
    /// Only those of this partition.
    pub partition: Option<Partition>,
    /// Only those with a greater id, for the next page.
    pub after: Option<SagaId>,
    /// At most this many.
    pub limit: usize,
}

/// Whether terminal sagas are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Open {
    /// All sagas.
    #[default]
    Any,
    /// Only those that have not ended.
    Only,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            open: Open::Any,
            status: None,
            definition: None,
            partition: None,
            after: None,
            limit: 100,
        }
    }
}

impl Filter {
    /// Those that have not ended.
    pub fn open() -> Self {
        Self {
            open: Open::Only,
            ..Self::default()
        }
    }

    /// Those of this status.
    pub fn of(status: Status) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }

    /// Those of the definition with this id, in any version.
    #[must_use]
    pub fn definition(mut self, id: impl AsRef<str>) -> Self {
        self.definition = Some(Arc::from(id.as_ref()));
        self
    }

    /// Those of this partition.
    #[must_use]
    pub fn partition(mut self, partition: Partition) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Those with a greater id.
    #[must_use]
    pub fn after(mut self, saga: Option<SagaId>) -> Self {
        self.after = saga;
        self
    }

    /// At most this many.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The saga.
    pub saga: SagaId,
    /// The partition that started it.
    pub partition: Partition,
    /// Its definition.
    pub definition: Arc<str>,
    /// Its status.
    pub status: Status,
    /// The number of its events.
    pub version: Version,
    /// When it wants to be woken.
    pub wake: Option<Timestamp>,
    /// The time of its last event.
    pub updated: Timestamp,
}

impl Summary {
    /// The line of a saga after this batch.
    pub fn of(append: &Append, partition: Partition, definition: Arc<str>) -> Self {
        Self {
            saga: append.saga,
            partition,
            definition,
            status: append.status,
            version: append.version(),
            wake: append.wake,
            updated: append.at,
        }
    }
}
