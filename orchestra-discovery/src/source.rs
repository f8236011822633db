//! Reading the membership of services: a snapshot, and what changed since.

#[cfg(feature = "dns")]
#[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
pub mod dns;
#[cfg(feature = "file")]
#[cfg_attr(docsrs, doc(cfg(feature = "file")))]
pub mod file;

#[cfg(any(feature = "dns", feature = "file"))]
mod derived;
#[cfg(any(feature = "dns", feature = "file"))]
mod ledger;
#[cfg(any(feature = "dns", feature = "file"))]
mod poll;
mod snapshot;
mod watch;

pub use snapshot::{Revision, Scope, Snapshot};
pub use watch::{Change, Removal, RemovalReason, Watch, WatchEvent, WatchStream};

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;

/// What a source can do beyond a snapshot and a watch of one service.
///
/// ```
/// use orchestra_discovery::{Capabilities, MemoryRegistry, Source};
///
/// assert_eq!(MemoryRegistry::default().capabilities(), Capabilities::full());
/// let simple = Capabilities::default().all_services();
/// assert!(simple.all_services && !simple.resume);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// [`Scope::All`] is understood; without this it is refused as
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    pub all_services: bool,
    /// A watch continues from a revision that is not the latest, as long as it is remembered; without this any
    /// but the latest may be answered by [`WatchEvent::Resync`].
    pub resume: bool,
}

impl Capabilities {
    /// Everything there is.
    pub const fn full() -> Self {
        Self {
            all_services: true,
            resume: true,
        }
    }

    /// All services at once too.
    #[must_use]
    pub const fn all_services(mut self) -> Self {
        self.all_services = true;
        self
    }

    /// Watches from an earlier revision too.
    #[must_use]
    pub const fn resume(mut self) -> Self {
        self.resume = true;
        self
    }
}

/// Where the members of services are read from.
///
/// Laws:
/// 1. A snapshot holds each id of a service once, in the order of service and id.
/// 2. Every change has a revision greater than all before; a snapshot has the revision of the last change
///    that it contains.
/// 3. A watch from a snapshot's revision delivers every later change of its scope, once and in order, or
///    says [`WatchEvent::Resync`]; it never skips silently. A revision that the source does not remember,
///    or has never given out, is answered by `Resync`.
/// 4. A failed call says nothing about the members: an empty answer means that there are none.
/// 5. An instance keeps its incarnation for as long as it is listed, and one that is gone comes back under a
///    greater one.
/// 6. Dropping the future of a call, or a watch, leaves no trace; a dropped [`Watch::next`] loses no change.
///
/// Under the feature `test-util`, `source_suite!` tests them.
///
/// ```
/// use orchestra_discovery::{MemoryRegistry, Scope, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source = MemoryRegistry::default();
/// let payments = Scope::Service("payments".parse()?);
/// let members = source.snapshot(&payments).await?;
/// assert!(members.instances().is_empty());
/// let _watch = source.watch(&payments, members.revision()).await?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Source: Send + Sync {
    /// The members as they are now.
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot>;

    /// The changes after `after`.
    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch>;

    /// What this source can do.
    fn capabilities(&self) -> Capabilities;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: Source + ?Sized> Source for $pointer<T> {
            async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
                (**self).snapshot(scope).await
            }

            async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
                (**self).watch(scope, after).await
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }
        }
    )+};
}

forward!(Arc, Box);
