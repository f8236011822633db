use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{InstanceId, ServiceName};

use super::Revision;
use crate::error::Result;
use crate::instance::{Incarnation, Instance};

/// Why an instance is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum RemovalReason {
    /// Its lease was given back.
    Deregistered,
    /// Its lease was not renewed in time.
    Expired,
    /// Its id was registered anew.
    Replaced,
}

/// An instance that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Removal {
    /// The service it was a copy of.
    pub service: ServiceName,
    /// Its id.
    pub id: InstanceId,
    /// Its incarnation; a newer one is not meant.
    pub incarnation: Incarnation,
    /// Why it is gone.
    pub reason: RemovalReason,
}

/// One change of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Change {
    /// It is new, or something about it changed.
    Upserted(Arc<Instance>),
    /// It is gone.
    Removed(Removal),
}

/// What a watch says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WatchEvent {
    /// The next changes, in order.
    Changes {
        /// The revision of the last one.
        revision: Revision,
        /// At least one.
        changes: Vec<Change>,
    },
    /// Changes were lost: take a snapshot and watch from its revision. The watch says nothing else again.
    Resync,
}

/// What a backend implements for a [`Watch`].
#[async_trait]
pub trait WatchStream: Send {
    /// The next event; a dropped future loses nothing.
    async fn next(&mut self) -> Result<WatchEvent>;

    /// Up to which revision everything in scope has been delivered: a new watch may go on from here.
    fn revision(&self) -> Revision;
}

/// A running watch; dropping it ends it.
pub struct Watch(Box<dyn WatchStream>);

impl Watch {
    /// Wraps a backend's stream.
    pub fn new(stream: impl WatchStream + 'static) -> Self {
        Self(Box::new(stream))
    }

    /// Waits for the next event; a dropped future loses nothing.
    ///
    /// After an error the watch may be asked again: it goes on where it was, or says
    /// [`WatchEvent::Resync`].
    pub async fn next(&mut self) -> Result<WatchEvent> {
        self.0.next().await
    }

    /// Up to which revision everything in scope has been delivered: a new watch may go on from here.
    ///
    /// It moves on when changes outside the scope pass by, so a quiet service does not fall behind what
    /// its source remembers.
    pub fn revision(&self) -> Revision {
        self.0.revision()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}
