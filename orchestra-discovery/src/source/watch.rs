use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{InstanceId, ServiceName};

use super::Revision;
use crate::error::Result;
use crate::instance::{Incarnation, Instance};

/// Why an instance is gone.
///
/// ```
/// use orchestra_discovery::RemovalReason;
///
/// fn is_worrying(reason: RemovalReason) -> bool {
///     reason == RemovalReason::Expired
/// }
/// assert!(!is_worrying(RemovalReason::Deregistered));
/// ```
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
///
/// ```
/// use orchestra_discovery::{Incarnation, Removal, RemovalReason};
///
/// let gone = Removal {
///     service: "orders".parse()?,
///     id: "orders-1".parse()?,
///     incarnation: Incarnation::new(7),
///     reason: RemovalReason::Expired,
/// };
/// assert_eq!(gone.id.as_str(), "orders-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
///
/// ```
/// use orchestra_discovery::{Change, Incarnation, Instance, Revision, Scope, Snapshot};
///
/// let orders = Instance::new(
///     "orders".parse()?, "orders-1".parse()?, Incarnation::new(1), "10.0.0.1:80".parse()?,
/// );
/// let mut members = Snapshot::new(Scope::All, Revision::new(1), Vec::new());
/// members.advance(Revision::new(2), &[Change::Upserted(orders.into())]);
/// assert_eq!(members.instances().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::{MemoryRegistry, Registration, Registry, Scope, Source, WatchEvent};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::default();
/// let mut members = registry.snapshot(&Scope::All).await?;
/// let mut watch = registry.watch(&Scope::All, members.revision()).await?;
/// registry.register(Registration::new(
///     "orders".parse()?, "orders-1".parse()?, "10.0.0.1:80".parse()?, Duration::from_secs(10),
/// )).await?;
/// match watch.next().await? {
///     WatchEvent::Changes { revision, changes } => members.advance(revision, &changes),
///     _ => members = registry.snapshot(&Scope::All).await?,
/// }
/// assert_eq!(members.instances().len(), 1);
/// # Ok(())
/// # }
/// ```
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
///
/// ```
/// use async_trait::async_trait;
/// use orchestra_discovery::source::WatchStream;
/// use orchestra_discovery::{Result, Revision, Watch, WatchEvent};
///
/// /// Of members that never change.
/// struct Still(Revision);
///
/// #[async_trait]
/// impl WatchStream for Still {
///     async fn next(&mut self) -> Result<WatchEvent> {
///         std::future::pending().await
///     }
///
///     fn revision(&self) -> Revision {
///         self.0
///     }
/// }
///
/// assert_eq!(Watch::new(Still(Revision::new(3))).revision(), Revision::new(3));
/// ```
#[async_trait]
pub trait WatchStream: Send {
    /// The next event; a dropped future loses nothing.
    async fn next(&mut self) -> Result<WatchEvent>;

    /// Up to which revision everything in scope has been delivered: a new watch may go on from here.
    fn revision(&self) -> Revision;
}

/// A running watch; dropping it ends it.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::{MemoryRegistry, Registration, Registry, Scope, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::default();
/// let orders = Scope::Service("orders".parse()?);
/// let revision = registry.snapshot(&orders).await?.revision();
/// let mut watch = registry.watch(&orders, revision).await?;
/// registry.register(Registration::new(
///     "orders".parse()?, "orders-1".parse()?, "10.0.0.1:80".parse()?, Duration::from_secs(10),
/// )).await?;
/// watch.next().await?;
/// assert!(watch.revision() > revision);
/// # Ok(())
/// # }
/// ```
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
