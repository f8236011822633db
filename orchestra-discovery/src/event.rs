//! What happened, for whoever counts or logs it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Listener, ServiceName, Silent};

use crate::error::ErrorKind;
use crate::health::Health;
use crate::instance::{Incarnation, Instance};
use crate::outlier;
use crate::resolver::NoCandidate;
use crate::source::{Removal, Revision};

/// Something that a registry or a driver of this crate did or noticed.
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
