//! Sagas by status, definition, time and attribute.

#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::View;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Recorded};
use crate::id::{SagaId, StepName, Version};
use crate::status::Status;
use crate::step::Operation;
use crate::store::{Entry, Position};

/// What to look for; everything that is said must hold.
///
/// ```
/// use orchestra_saga::Status;
/// use orchestra_saga::projection::search::Query;
///
/// let stuck = Query::default().status(Status::Parked).definition("checkout").limit(20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Query {
    /// The status.
    pub status: Option<Status>,
    /// The definition's id.
    pub definition: Option<String>,
    /// Started at or after this.
    pub since: Option<Timestamp>,
    /// Started before this.
    pub until: Option<Timestamp>,
    /// Attributes that were given to the start.
    pub attributes: BTreeMap<String, String>,
    /// Sagas with a greater id, for the next page.
    pub after: Option<SagaId>,
    /// At most so many.
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            status: None,
            definition: None,
            since: None,
            until: None,
            attributes: BTreeMap::new(),
            after: None,
            limit: 100,
        }
    }
}

impl Query {
    /// Of this status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Of this definition.
    #[must_use]
    pub fn definition(mut self, id: impl Into<String>) -> Self {
        self.definition = Some(id.into());
        self
    }

    /// Started within this time, the end excluded.
    #[must_use]
    pub fn started(mut self, since: Timestamp, until: Timestamp) -> Self {
        (self.since, self.until) = (Some(since), Some(until));
        self
    }

    /// With this attribute.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// The page after this saga.
    #[must_use]
    pub fn after(mut self, saga: impl Into<Option<SagaId>>) -> Self {
        self.after = saga.into();
        self
    }

    /// At most so many.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    fn holds(&self, found: &Found) -> bool {
        let given = |(name, value): (&String, &String)| found.attributes.get(name) == Some(value);
        self.status.is_none_or(|status| status == found.status)
            && self
                .definition
                .as_ref()
                .is_none_or(|id| **id == *found.definition)
            && self.since.is_none_or(|since| found.started >= since)
            && self.until.is_none_or(|until| found.started < until)
            && self.attributes.iter().all(given)
    }
}

/// A saga as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The saga.
    pub saga: SagaId,
    /// Its definition.
    pub definition: Arc<str>,
    /// Its definition's version.
    pub definition_version: Arc<str>,
    /// Its status.
    pub status: Status,
    /// The number of its events.
    pub version: Version,
    /// When it was started.
    pub started: Timestamp,
    /// The time of its last event.
    pub updated: Timestamp,
    /// What it can be searched by.
    pub attributes: BTreeMap<String, String>,
}

/// An index of sagas.
#[async_trait]
pub trait Search: fmt::Debug + Send + Sync {
    /// A page of what was found, in the order of ids.
    async fn search(&self, query: &Query) -> Result<Vec<Found>>;
}

#[async_trait]
impl<T: Search + ?Sized> Search for Arc<T> {
    async fn search(&self, query: &Query) -> Result<Vec<Found>> {
        (**self).search(query).await
    }
}

/// A saga as the index keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    definition: Arc<str>,
    definition_version: Arc<str>,
    way: Status,
    #[serde(default)]
    is_paused: bool,
    /// Which operations of which steps are parked.
    #[serde(default)]
    parked: BTreeSet<(StepName, Operation)>,
    version: Version,
    started: Timestamp,
    updated: Timestamp,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

impl Line {
    /// The line that begins with this event.
    fn begin(recorded: &Recorded) -> Option<Self> {
        let Event::SagaStarted(begun) = &recorded.event else {
            return None;
        };
        Some(Self {
            definition: Arc::clone(&begun.definition),
            definition_version: Arc::clone(&begun.version),
            way: Status::Started,
            is_paused: false,
            parked: BTreeSet::new(),
            version: recorded.version,
            started: recorded.at,
            updated: recorded.at,
            attributes: begun.attributes.clone(),
        })
    }

    fn apply(&mut self, recorded: &Recorded) {
        self.version = recorded.version;
        self.updated = recorded.at;
        match &recorded.event {
            Event::CompensationStarted { .. } | Event::SagaRevoked { .. } => {
                self.way = Status::Compensating;
            }
            Event::SagaCompleted => self.way = Status::Completed,
            Event::SagaCompensated => self.way = Status::Compensated,
            Event::SagaPaused { .. } => self.is_paused = true,
            Event::SagaResumed { .. } => self.is_paused = false,
            Event::SagaParked { step, op, .. } => {
                self.parked.insert((step.clone(), *op));
            }
            Event::SagaRetried { .. } => self.parked.clear(),
            Event::SagaRestarted { .. } => {
                self.way = Status::Started;
                self.parked.clear();
            }
            Event::StepScheduled { step, .. } => self.unpark(step, Operation::Action),
            Event::CompensationScheduled { step, .. } => self.unpark(step, Operation::Compensation),
            Event::StepResolved { step, op, .. } => self.unpark(step, *op),
            _ => {}
        }
    }

    fn unpark(&mut self, step: &StepName, op: Operation) {
        if !self.parked.is_empty() {
            self.parked.remove(&(step.clone(), op));
        }
    }

    fn status(&self) -> Status {
        match self.way {
            ended if ended.is_terminal() => ended,
            _ if self.is_paused => Status::Paused,
            _ if !self.parked.is_empty() => Status::Parked,
            way => way,
        }
    }

    fn found(&self, saga: SagaId) -> Found {
        Found {
            saga,
            definition: Arc::clone(&self.definition),
            definition_version: Arc::clone(&self.definition_version),
            status: self.status(),
            version: self.version,
            started: self.started,
            updated: self.updated,
            attributes: self.attributes.clone(),
        }
    }
}

/// A bounded index in memory. When it is full it forgets the oldest saga that has ended; if none has, it says
/// so as [`ErrorKind::Full`] and stays behind.
#[derive(Debug)]
pub struct MemoryIndex {
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    position: Position,
    lines: BTreeMap<SagaId, Line>,
}

impl MemoryIndex {
    /// An index of at most so many sagas.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            inner: Mutex::default(),
        }
    }
}

impl Inner {
    fn make_room(&mut self, capacity: usize) -> Result<()> {
        if self.lines.len() < capacity {
            return Ok(());
        }
        let ended = |(saga, line): (&SagaId, &Line)| line.way.is_terminal().then_some(*saga);
        let Some(oldest) = self.lines.iter().find_map(ended) else {
            let message = format!("the index holds {capacity} sagas and none has ended");
            return Err(Error::new(ErrorKind::Full, message));
        };
        self.lines.remove(&oldest);
        Ok(())
    }
}

#[async_trait]
impl View for MemoryIndex {
    async fn checkpoint(&self) -> Result<Position> {
        Ok(self.inner.lock().position)
    }

    async fn apply(&self, entries: &[Entry]) -> Result<()> {
        let mut inner = self.inner.lock();
        for entry in entries {
            if entry.position <= inner.position {
                continue;
            }
            if let Some(line) = Line::begin(&entry.recorded) {
                inner.make_room(self.capacity)?;
                inner.lines.insert(entry.saga, line);
            } else if let Some(line) = inner.lines.get_mut(&entry.saga) {
                line.apply(&entry.recorded);
            }
            inner.position = entry.position;
        }
        Ok(())
    }

    async fn reset(&self) -> Result<()> {
        *self.inner.lock() = Inner::default();
        Ok(())
    }
}

#[async_trait]
impl Search for MemoryIndex {
    async fn search(&self, query: &Query) -> Result<Vec<Found>> {
        let inner = self.inner.lock();
        let after = |saga: &SagaId| query.after.is_none_or(|after| *saga > after);
        let lines = inner.lines.iter().filter(|(saga, _)| after(saga));
        let found = lines.map(|(saga, line)| line.found(*saga));
        let holds = |found: &Found| query.holds(found);
        Ok(found.filter(holds).take(query.limit).collect())
    }
}
