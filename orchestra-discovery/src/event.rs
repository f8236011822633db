//! What happened, for whoever counts or logs it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Listener, ServiceName, Silent};

use crate::cache::Freshness;
use crate::error::ErrorKind;
use crate::health::Health;
use crate::instance::{Incarnation, Instance};
use crate::outlier;
use crate::preserve::End;
use crate::resolver::NoCandidate;
use crate::source::{Removal, Revision};

/// Something that a registry or a driver of this crate did or noticed.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
/// use orchestra_discovery::registry::memory;
/// use orchestra_discovery::{Event, MemoryRegistry, Registration, Registry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registered = Arc::new(AtomicU64::new(0));
/// let counter = Arc::clone(&registered);
/// let config = memory::Config::default().listener(Arc::new(move |event: &Event| {
///     if matches!(event, Event::Registered(_)) {
///         counter.fetch_add(1, Ordering::Relaxed);
///     }
/// }));
/// let registry = MemoryRegistry::new(config);
/// registry.register(Registration::new(
///     "orders".parse()?, "orders-1".parse()?, "10.0.0.1:80".parse()?, Duration::from_secs(10),
/// )).await?;
/// assert_eq!(registered.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A registry lists a new registration.
    Registered(Arc<Instance>),
    /// A registry extended a lease.
    Renewed {
        /// The service.
        service: ServiceName,
        /// The id.
        id: InstanceId,
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// A registry changed the status of an instance.
    StatusChanged(Arc<Instance>),
    /// An operator's decision about an instance was set or taken back.
    Overridden(Arc<Instance>),
    /// A registry lists an instance no longer: deregistered, expired or replaced.
    Removed(Removal),
    /// A heartbeat holds a lease.
    LeaseHeld {
        /// The service.
        service: ServiceName,
        /// The id.
        id: InstanceId,
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// A heartbeat could not register or renew, and tries again unless the kind is `Replaced`.
    HeartbeatFailed {
        /// The service.
        service: ServiceName,
        /// The id.
        id: InstanceId,
        /// How the registry refused.
        kind: ErrorKind,
        /// The error as text.
        message: String,
    },
    /// A resolver got new members.
    MembersChanged {
        /// The service.
        service: ServiceName,
        /// The revision.
        revision: Revision,
        /// How many members there are now.
        members: usize,
    },
    /// A call was given to an instance; told only if the resolver was asked to.
    Picked {
        /// The service.
        service: ServiceName,
        /// The id.
        id: InstanceId,
        /// Whether the call is the trial of an ejected instance.
        trial: bool,
    },
    /// A call found nobody; told only if the resolver was asked to tell of picks.
    NotPicked(NoCandidate),
    /// Every gate refused, and a call went past one.
    GateBypassed {
        /// The service.
        service: ServiceName,
        /// The id.
        id: InstanceId,
    },
    /// The detection of outliers decided something about an instance.
    Outlier {
        /// The service.
        service: ServiceName,
        /// The id.
        id: InstanceId,
        /// The incarnation.
        incarnation: Incarnation,
        /// What, and why.
        change: outlier::Change,
    },
    /// So few members are fit that calls go to the others too, or no longer so few.
    Panic {
        /// The service.
        service: ServiceName,
        /// Whether it begins.
        entered: bool,
    },
    /// A source failed; the members known last stay in use.
    SourceFailed {
        /// The service.
        service: ServiceName,
        /// How it failed.
        kind: ErrorKind,
        /// The error as text.
        message: String,
        /// How many failures in a row.
        failures: u32,
    },
    /// A source that had failed answers again.
    SourceRecovered {
        /// The service.
        service: ServiceName,
    },
    /// A cache answered at once; told only if asked for.
    CacheHit {
        /// The service.
        service: ServiceName,
        /// How good the answer is.
        freshness: Freshness,
    },
    /// A cache was asked for a service that it does not know.
    CacheMiss {
        /// The service.
        service: ServiceName,
    },
    /// A cache serves something that is not fresh; told when that changes, not with every answer.
    StaleServed {
        /// The service.
        service: ServiceName,
        /// How good the answer is.
        freshness: Freshness,
        /// How old it is.
        age: Duration,
    },
    /// The labels of the members make more subsets than a resolver may hold, or do so no longer.
    SubsetsExceeded {
        /// The service.
        service: ServiceName,
        /// How many times a member found no room for a subset of its own labels: calls that ask for those
        /// labels take the fallback. Zero when there is room for all again.
        unindexed: u64,
    },
    /// One of the sources of a cache failed; what it said last stays in use.
    UpstreamFailed {
        /// The service.
        service: ServiceName,
        /// The name of the source.
        source: Arc<str>,
        /// How it failed.
        kind: ErrorKind,
        /// The error as text.
        message: String,
        /// How many failures in a row.
        failures: u32,
    },
    /// A source of a cache that had failed answers again.
    UpstreamRecovered {
        /// The service.
        service: ServiceName,
        /// The name of the source.
        source: Arc<str>,
    },
    /// Very many leases lapsed together and are held.
    PreservationEntered {
        /// The name of the source.
        source: Arc<str>,
        /// The service, or `None` if the leases of the whole source are meant.
        service: Option<ServiceName>,
        /// How many leases are held.
        held: usize,
    },
    /// Leases are held no longer.
    PreservationLeft {
        /// The name of the source.
        source: Arc<str>,
        /// The service, or `None` if the leases of the whole source are meant.
        service: Option<ServiceName>,
        /// Why.
        end: End,
        /// How many lapse now.
        released: usize,
    },
    /// A source says that a service with members has none; believed when it says so again.
    EmptyUnconfirmed {
        /// The service.
        service: ServiceName,
        /// The name of the source.
        source: Arc<str>,
    },
    /// A source answers with a revision before one that it told, as a replica that lags behind does, or a registry
    /// that came back with its clock behind; believed when it says so again.
    OlderUnconfirmed {
        /// The service.
        service: ServiceName,
        /// The name of the source.
        source: Arc<str>,
    },
    /// A cache will say for a while that a service has no members.
    NegativeCached {
        /// The service.
        service: ServiceName,
        /// For how long at most without a watch.
        ttl: Duration,
    },
    /// A cache starts with what its file says.
    DiskLoaded {
        /// How many services there are in it.
        services: usize,
    },
    /// A cache does not use its file, or a part of it.
    DiskIgnored {
        /// Why.
        reason: String,
    },
    /// A cache could not write its file.
    DiskFailed {
        /// Why.
        reason: String,
    },
    /// Health checks changed their verdict.
    HealthChanged {
        /// The service.
        service: ServiceName,
        /// The id.
        id: InstanceId,
        /// The incarnation.
        incarnation: Incarnation,
        /// The verdict.
        health: Health,
        /// What the last probe said.
        reason: String,
    },
    /// An instance keeps coming and going: it is held back, whatever its checks say.
    FlapSuppressed {
        /// The service.
        service: ServiceName,
        /// The id.
        id: InstanceId,
        /// For how long, should it not flap again.
        remaining: Duration,
    },
    /// An instance that flapped has been quiet for long enough.
    FlapReleased {
        /// The service.
        service: ServiceName,
        /// The id.
        id: InstanceId,
    },
    /// The probe of an instance would lead where none may go; it was not made.
    ProbeForbidden {
        /// The service.
        service: ServiceName,
        /// The id.
        id: InstanceId,
        /// The incarnation.
        incarnation: Incarnation,
        /// Which rule forbids it.
        reason: String,
    },
}

/// Where events go; a clone is one reference count.
#[derive(Clone)]
pub(crate) struct Events(Arc<dyn Listener<Event>>);

impl Events {
    pub(crate) fn new(listener: Arc<dyn Listener<Event>>) -> Self {
        Self(listener)
    }

    pub(crate) fn emit(&self, event: &Event) {
        self.0.on_event(event);
    }
}

impl Default for Events {
    fn default() -> Self {
        Self(Arc::new(Silent))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
