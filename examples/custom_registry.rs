//! A registry of your own in one file: here one that refuses what is outside its allowed networks, before
//! a registry behind it. The conformance suite (`orchestra_discovery::registry_suite!`) tests such a file.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra::Orchestra;
use orchestra::core::{Endpoint, InstanceId, ServiceName};
use orchestra::discovery::{
    Capabilities, Error, ErrorKind, Lease, MemoryRegistry, Override, Registration, Registry,
    Result, Revision, Scope, Snapshot, Source, Status, Watch,
};

/// Lists loopback addresses and Unix sockets alone.
struct LoopbackOnly<R>(R);

fn check(endpoint: &Endpoint) -> Result<()> {
    let allowed = match endpoint {
        Endpoint::Tcp(address) => address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST),
        Endpoint::Unix(_) => true,
        _ => false,
    };
    if allowed {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!("endpoint {endpoint} is outside the allowed networks"),
    ))
}

#[async_trait]
impl<R: Registry> Source for LoopbackOnly<R> {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        self.0.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        self.0.watch(scope, after).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

#[async_trait]
impl<R: Registry> Registry for LoopbackOnly<R> {
    async fn register(&self, registration: Registration) -> Result<Lease> {
        check(&registration.endpoint)?;
        self.0.register(registration).await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.0.renew(lease).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        self.0.set_status(lease, status).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.0.deregister(lease).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        self.0.set_override(service, id, forced).await
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let checked = LoopbackOnly(MemoryRegistry::default());
    let orchestra = Orchestra::builder().registry(checked).build().await?;
    let registry = Arc::clone(orchestra.registry());

    let ttl = Duration::from_secs(5);
    let near = Registration::new(
        "cart".parse()?,
        "cart-1".parse()?,
        "127.0.0.1:8081".parse()?,
        ttl,
    );
    let far = Registration::new(
        "cart".parse()?,
        "cart-2".parse()?,
        "10.1.2.3:8081".parse()?,
        ttl,
    );
    let lease = registry.register(near).await?;
    let refused = registry
        .register(far)
        .await
        .expect_err("an address outside was listed");
    println!("{lease:?}\nrefused: {refused}");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(registry.snapshot(&Scope::All).await?.instances().len(), 1);

    orchestra.shutdown(Duration::from_secs(1)).await?;
    Ok(())
}
