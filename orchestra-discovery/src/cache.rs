//! A source that keeps what other sources say, and survives them.
//!
//! Per service, on first use: each source is asked for a snapshot within its own deadline, then watched; what
//! it said last is kept while it fails. Their answers are merged ([`merge`](crate::merge)) and published under
//! revisions of the cache's own, so failures, resyncs and restarts of the sources never disturb who watches
//! the cache.
//!
//! What is believed:
//! * A failure says nothing about the members. What a source said before stays in use until it is too old
//!   ([`Limits`]).
//! * An empty answer where there were members is believed when the source gives it again after a grace.
//! * When very many leases lapse together, they are held for a while ([`preserve`](crate::preserve)).
//! * What was given back (deregistered) goes at once, and does not live on because another source, say a DNS
//!   cache, still lists it: that source is not heard about it until it lists it anew, or a while has passed.
//! * The members of a source that has become too old go, unless there is no other: then the last ones stay
//!   published, and a snapshot is an error.
//!
//! Memory is bounded by the number of services, of those without members, and of changes remembered; how many
//! members a service has is up to the sources. One lock guards all of it: merging the members of a service takes
//! time in proportion to their number, at most once per merge window and source.

mod answer;
mod builder;
mod config;
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub mod disk;
mod driver;
mod entry;
mod freshness;
mod keeper;
mod log;
mod shared;
mod table;
mod view;
mod watch;

pub use answer::{Answer, SourceReport};
pub use builder::Builder;
pub use config::{Config, SourceOptions};
pub use freshness::{Freshness, Limits, Origin};

use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{InstanceId, ServiceName};
use parking_lot::Mutex;

use self::answer::Origins;
use self::shared::{Pinned, Shared};
use self::watch::CacheWatch;
use crate::error::{Error, ErrorKind, Result};
use crate::merge::Provenance;
use crate::source::{Capabilities, Revision, Scope, Snapshot, Source, Watch};
use crate::task::Task;

/// Keeps the members of services; a clone is another handle to the same cache.
///
/// Its [`Source`] covers single services: [`Scope::All`] is `Unsupported`. A snapshot is served at once if
/// anything is known; otherwise it waits until a source has members or all have answered or failed, each within
/// its deadline. However many wait for a service, each source is asked once.
///
/// When the last handle is dropped the tasks are aborted, and what the file lacks is lost;
/// [`shutdown`](Self::shutdown) is what ends it in order.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use orchestra_discovery::cache::{Freshness, SourceOptions};
/// use orchestra_discovery::{Cache, MemoryRegistry, Registration, Registry, Scope, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::default();
/// registry.register(Registration::new(
///     "orders".parse()?, "orders-1".parse()?, "10.0.0.1:80".parse()?, Duration::from_secs(10),
/// )).await?;
/// let cache = Cache::builder()
///     .source("registry", Arc::new(registry), SourceOptions::default())
///     .build()?;
/// let orders = "orders".parse()?;
/// let answer = cache.lookup(&orders).await?;
/// assert_eq!((answer.snapshot.instances().len(), answer.freshness), (1, Freshness::Fresh));
/// let members = cache.snapshot(&Scope::Service(orders)).await?;
/// assert_eq!(members, *answer.snapshot);
/// cache.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cache(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    keeper: Mutex<Option<Task<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.shared.close());
    }
}

impl Cache {
    /// A cache without sources yet.
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn new(shared: Arc<Shared>, keeper: Task<()>) -> Self {
        let keeper = Mutex::new(Some(keeper));
        Self(Arc::new(Handle { shared, keeper }))
    }

    /// The members of a service and how good that is, as soon as anything is known.
    ///
    /// It fails with the reasons of each source if none has anything that may be served, and as
    /// [`Full`](ErrorKind::Full) if the cache has no room for the service.
    pub async fn lookup(&self, service: &ServiceName) -> Result<Answer> {
        self.0.shared.answer(service).await
    }

    /// Which source stated which field of an instance; `None` if it is not served.
    ///
    /// It merges the service anew: meant for questions of operators, not for each call.
    /// [`Explanation::with_sources`](crate::resolver::Explanation::with_sources) tells it of all members at once.
    pub fn provenance(&self, service: &ServiceName, id: &InstanceId) -> Option<Provenance> {
        let shared = &self.0.shared;
        shared.act(|table, now| table.provenance(service, id, now))
    }

    /// The same of all instances, and what the sources are like; `None` if the service is not held.
    pub(crate) fn origins(&self, service: &ServiceName) -> Option<Origins> {
        let shared = &self.0.shared;
        shared.act(|table, now| table.origins(service, now))
    }

    /// How many services are held, those without members included.
    pub fn services(&self) -> usize {
        self.0.shared.act(|table, _| table.len())
    }

    /// Ends all tasks, and writes what the file lacks. Who waits or watches is told that the cache is gone.
    ///
    /// If it is dropped before it returns, the tasks that are left are aborted. A second call does nothing.
    pub async fn shutdown(&self) -> Result<()> {
        let keeper = self.0.keeper.lock().take();
        let Some(keeper) = keeper else {
            return Ok(());
        };
        let tasks = self.0.shared.stop_feeding();
        for task in tasks {
            task.stop().await?;
        }
        keeper.stop().await?;
        drop(self.0.shared.close());
        Ok(())
    }
}

fn service_of(scope: &Scope) -> Result<&ServiceName> {
    match scope {
        Scope::Service(service) => Ok(service),
        Scope::All => {
            let message = "a cache holds the services that were asked for, not all";
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

#[async_trait]
impl Source for Cache {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        let answer = self.lookup(service_of(scope)?).await?;
        Ok(Arc::unwrap_or_clone(answer.snapshot))
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let pin = self.0.shared.pin(service_of(scope)?, Pinned::ByWatch)?;
        Ok(Watch::new(CacheWatch::new(pin, after)))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            all_services: false,
            resume: true,
        }
    }
}
