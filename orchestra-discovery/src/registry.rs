//! Registering instances under leases.

#[cfg(feature = "etcd")]
#[cfg_attr(docsrs, doc(cfg(feature = "etcd")))]
pub mod etcd;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;
pub mod memory;
#[cfg(feature = "nats")]
#[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
pub mod nats;
#[cfg(any(feature = "nats", feature = "redis"))]
mod record;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redis;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{InstanceId, ServiceName};

use crate::error::Result;
use crate::instance::{Incarnation, Override, Registration, Status};
use crate::source::Source;

/// The right to be listed under an id until the ttl has passed since the last renewal.
///
/// It is a plain value: dropping it does nothing, the registration lapses by itself, and
/// [`Heartbeat`](crate::Heartbeat) is what keeps one alive.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::{MemoryRegistry, Registration, Registry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::default();
/// let lease = registry.register(Registration::new(
///     "orders".parse()?, "orders-1".parse()?, "10.0.0.1:80".parse()?, Duration::from_secs(10),
/// )).await?;
/// registry.renew(&lease).await?;
/// registry.deregister(&lease).await?;
/// assert!(registry.renew(&lease).await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Lease {
    /// The service.
    pub service: ServiceName,
    /// The id that is held.
    pub id: InstanceId,
    /// The fencing number: greater than that of every registration of this id before.
    pub incarnation: Incarnation,
    /// How long it lasts without being renewed.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "ttl_ms", with = "crate::instance::millis")
    )]
    pub ttl: Duration,
}

impl Lease {
    /// A lease as a backend grants it.
    pub fn new(
        service: ServiceName,
        id: InstanceId,
        incarnation: Incarnation,
        ttl: Duration,
    ) -> Self {
        Self {
            service,
            id,
            incarnation,
            ttl,
        }
    }
}

/// A [`Source`] that instances are registered in.
///
/// Laws, beside those of [`Source`]:
/// 1. `register` grants a lease whose incarnation is greater than that of any registration of the id before,
///    and the instance is in every snapshot taken after it returned.
/// 2. Registering an id that is held replaces the holder: the old lease is refused from then on
///    ([`Replaced`](crate::ErrorKind::Replaced)), and nothing done with it touches the new one.
/// 3. A lease that is not renewed is held for its ttl and gone at most a backend's slack later, with the
///    reason [`Expired`](crate::RemovalReason::Expired); it is refused from then on
///    ([`LeaseLost`](crate::ErrorKind::LeaseLost)) and does not come back.
/// 4. `renew` extends the lease to its ttl from now and changes nothing that a watch shows.
/// 5. `deregister` removes at once, with the reason [`Deregistered`](crate::RemovalReason::Deregistered);
///    giving back a lease that is gone succeeds and does nothing.
/// 6. `set_status` keeps incarnation and lease.
/// 7. A ttl of zero is [`Invalid`](crate::ErrorKind::Invalid).
/// 8. `set_override` shows in every snapshot and watch from then on, on the present and on every later
///    registration of the id, until it is set to `None`; the id need not be registered. It touches no lease.
/// 9. A dropped future may or may not have had its effect; each call may simply be repeated.
///
/// Under the feature `test-util`, `registry_suite!` tests them.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::{MemoryRegistry, Registration, Registry, Scope, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::default();
/// let asked = Registration::new(
///     "payments".parse()?, "payments-1".parse()?, "10.0.0.7:80".parse()?, Duration::from_secs(10),
/// );
/// let lease = registry.register(asked).await?;
/// registry.renew(&lease).await?;
/// assert_eq!(registry.snapshot(&Scope::All).await?.instances().len(), 1);
/// registry.deregister(&lease).await?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Registry: Source {
    /// Lists an instance for its ttl.
    async fn register(&self, registration: Registration) -> Result<Lease>;

    /// Extends a lease to its ttl from now.
    async fn renew(&self, lease: &Lease) -> Result<()>;

    /// Changes what the instance says of itself.
    async fn set_status(&self, lease: &Lease, status: Status) -> Result<()>;

    /// Gives a lease back.
    async fn deregister(&self, lease: &Lease) -> Result<()>;

    /// Sets or takes back what an operator decided about an id.
    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()>;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: Registry + ?Sized> Registry for $pointer<T> {
            async fn register(&self, registration: Registration) -> Result<Lease> {
                (**self).register(registration).await
            }

            async fn renew(&self, lease: &Lease) -> Result<()> {
                (**self).renew(lease).await
            }

            async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
                (**self).set_status(lease, status).await
            }

            async fn deregister(&self, lease: &Lease) -> Result<()> {
                (**self).deregister(lease).await
            }

            async fn set_override(
                &self,
                service: &ServiceName,
                id: &InstanceId,
                forced: Option<Override>,
            ) -> Result<()> {
                (**self).set_override(service, id, forced).await
            }
        }
    )+};
}

forward!(Arc, Box);
