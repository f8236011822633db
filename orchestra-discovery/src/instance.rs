//! An instance of a service, and what is asked for when one is registered.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Endpoint, InstanceId, Labels, Locality, ServiceName};

/// The fencing number of a registration: it rises whenever an id is registered anew.
///
/// Of two holders of one id, the one with the greater incarnation is the living one.
///
/// ```
/// use orchestra_discovery::Incarnation;
///
/// assert!(Incarnation::new(8) > Incarnation::new(7));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Incarnation(u64);

impl Incarnation {
    /// The incarnation with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What an instance says of itself.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::{Registration, Status};
///
/// let warming_up = Registration::new(
///     "orders".parse()?, "orders-1".parse()?, "10.0.0.1:80".parse()?, Duration::from_secs(10),
/// )
/// .status(Status::Starting);
/// assert_ne!(warming_up.status, Status::default());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Status {
    /// It is up and not yet ready: no calls.
    Starting,
    /// It takes calls.
    #[default]
    Ready,
    /// It finishes what it has: no new calls.
    Draining,
}

/// What an operator decided about an instance, above what it says and what checks find.
///
/// It belongs to the id: it survives renewals, restarts and lapses until it is taken back.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::{MemoryRegistry, Override, Registration, Registry, Scope, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::default();
/// registry.register(Registration::new(
///     "orders".parse()?, "orders-1".parse()?, "10.0.0.1:80".parse()?, Duration::from_secs(10),
/// )).await?;
/// let (orders, id) = ("orders".parse()?, "orders-1".parse()?);
/// registry.set_override(&orders, &id, Some(Override::OutOfService)).await?;
/// let members = registry.snapshot(&Scope::Service(orders)).await?;
/// assert!(!members.instances()[0].takes_calls());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Override {
    /// It takes no calls, however well it is.
    OutOfService,
    /// It takes calls whatever health checks and outlier detection say. Draining and weight zero still hold.
    ForcedHealthy,
}

/// Where the health of an instance is asked, as far as it may say so itself: never on another host.
///
/// ```
/// use orchestra_discovery::ProbeTarget;
///
/// let target = ProbeTarget::default().path("/healthz").port(9_090);
/// assert_eq!((target.path.as_deref(), target.port), (Some("/healthz"), Some(9_090)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct ProbeTarget {
    /// The path of an HTTP probe, the service name of a gRPC probe; the checker's own when absent.
    pub path: Option<Arc<str>>,
    /// The port; that of the endpoint when absent.
    pub port: Option<u16>,
}

impl ProbeTarget {
    /// Asks at this path.
    #[must_use]
    pub fn path(mut self, path: impl Into<Arc<str>>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Asks at this port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
}

/// One running copy of a service.
///
/// ```
/// use orchestra_discovery::{Incarnation, Instance};
///
/// let mut instance = Instance::new(
///     "payments".parse()?,
///     "payments-1".parse()?,
///     Incarnation::new(7),
///     "127.0.0.1:8080".parse()?,
/// );
/// instance.weight = 3;
/// assert!(instance.takes_calls());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Instance {
    /// The service it is a copy of.
    pub service: ServiceName,
    /// Its id, unique within the service.
    pub id: InstanceId,
    /// The fencing number of its registration.
    pub incarnation: Incarnation,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its share of the calls relative to the others; 0 takes none.
    pub weight: u32,
    /// Its tier: those of a greater number are called when too few of the smaller ones are well.
    #[cfg_attr(feature = "serde", serde(default))]
    pub priority: u32,
    /// What it says of itself.
    pub status: Status,
    /// What an operator decided about it.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    pub forced: Option<Override>,
    /// Where it runs.
    pub locality: Locality,
    /// What else is known of it.
    pub labels: Labels,
    /// Where its health is asked; boxed, as most do not say.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    pub probe: Option<Arc<ProbeTarget>>,
}

impl Instance {
    /// A ready instance of weight 1 without locality and labels.
    pub fn new(
        service: ServiceName,
        id: InstanceId,
        incarnation: Incarnation,
        endpoint: Endpoint,
    ) -> Self {
        Self {
            service,
            id,
            incarnation,
            endpoint,
            weight: 1,
            priority: 0,
            status: Status::Ready,
            forced: None,
            locality: Locality::default(),
            labels: Labels::new(),
            probe: None,
        }
    }

    /// Whether it is to be given new calls, as far as it and its operator say.
    pub fn takes_calls(&self) -> bool {
        self.status == Status::Ready
            && self.weight > 0
            && self.forced != Some(Override::OutOfService)
    }
}

/// What is asked of a registry: an instance without incarnation, and for how long.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::Registration;
///
/// let asked = Registration::new(
///     "payments".parse()?,
///     "payments-1".parse()?,
///     "unix:/run/payments-1.sock".parse()?,
///     Duration::from_secs(10),
/// )
/// .weight(3);
/// assert_eq!(asked.ttl, Duration::from_secs(10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Registration {
    /// The service it is a copy of.
    pub service: ServiceName,
    /// Its id, unique within the service.
    pub id: InstanceId,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// How long it stays registered without being renewed.
    #[cfg_attr(feature = "serde", serde(rename = "ttl_ms", with = "millis"))]
    pub ttl: Duration,
    /// Its share of the calls relative to the others; 0 takes none.
    #[cfg_attr(feature = "serde", serde(default = "one"))]
    pub weight: u32,
    /// Its tier: those of a greater number are called when too few of the smaller ones are well.
    #[cfg_attr(feature = "serde", serde(default))]
    pub priority: u32,
    /// What it says of itself.
    #[cfg_attr(feature = "serde", serde(default))]
    pub status: Status,
    /// Where it runs.
    #[cfg_attr(feature = "serde", serde(default))]
    pub locality: Locality,
    /// What else is known of it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub labels: Labels,
    /// Where its health is asked.
    #[cfg_attr(feature = "serde", serde(default))]
    pub probe: ProbeTarget,
}

impl Registration {
    /// A ready instance of weight 1 without locality and labels.
    pub fn new(service: ServiceName, id: InstanceId, endpoint: Endpoint, ttl: Duration) -> Self {
        Self {
            service,
            id,
            endpoint,
            ttl,
            weight: 1,
            priority: 0,
            status: Status::Ready,
            locality: Locality::default(),
            labels: Labels::new(),
            probe: ProbeTarget::default(),
        }
    }

    /// In this tier.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// With its health asked here.
    #[must_use]
    pub fn probe(mut self, probe: ProbeTarget) -> Self {
        self.probe = probe;
        self
    }

    /// With this weight.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// With this status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// At this place.
    #[must_use]
    pub fn locality(mut self, locality: Locality) -> Self {
        self.locality = locality;
        self
    }

    /// With these labels.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// The instance that this registration makes under `incarnation`.
    pub fn instance(&self, incarnation: Incarnation) -> Instance {
        Instance {
            service: self.service.clone(),
            id: self.id.clone(),
            incarnation,
            endpoint: self.endpoint.clone(),
            weight: self.weight,
            priority: self.priority,
            status: self.status,
            forced: None,
            locality: self.locality.clone(),
            labels: self.labels.clone(),
            probe: (self.probe != ProbeTarget::default()).then(|| Arc::new(self.probe.clone())),
        }
    }
}

#[cfg(feature = "serde")]
fn one() -> u32 {
    1
}

/// Durations travel as whole milliseconds.
#[cfg(feature = "serde")]
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
