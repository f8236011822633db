//! Registries with moods, and an ear for events.

use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{InstanceId, ServiceName};
use orchestra_discovery::{
    Capabilities, Error, ErrorKind, Event, Lease, MemoryRegistry, Override, Registration, Registry,
    Revision, Scope, Snapshot, Source, Status, Watch,
};
use parking_lot::Mutex;

/// A registry that can be made unreachable.
#[derive(Debug, Clone)]
pub(crate) struct Flaky {
    pub(crate) inner: MemoryRegistry,
    pub(crate) down: Arc<Mutex<bool>>,
    pub(crate) statuses_set: Arc<Mutex<u32>>,
}

impl Flaky {
    pub(crate) fn new() -> Self {
        Self {
            inner: MemoryRegistry::default(),
            down: Arc::default(),
            statuses_set: Arc::default(),
        }
    }

    pub(crate) fn set_down(&self, down: bool) {
        *self.down.lock() = down;
    }

    pub(crate) fn reachable(&self) -> Result<(), Error> {
        if *self.down.lock() {
            return Err(Error::new(ErrorKind::Unavailable, "registry is down"));
        }
        Ok(())
    }
}

#[async_trait]
impl Source for Flaky {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.reachable()?;
        self.inner.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        self.reachable()?;
        self.inner.watch(scope, after).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[async_trait]
impl Registry for Flaky {
    async fn register(&self, registration: Registration) -> Result<Lease, Error> {
        self.reachable()?;
        self.inner.register(registration).await
    }

    async fn renew(&self, lease: &Lease) -> Result<(), Error> {
        self.reachable()?;
        self.inner.renew(lease).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<(), Error> {
        self.reachable()?;
        *self.statuses_set.lock() += 1;
        self.inner.set_status(lease, status).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<(), Error> {
        self.reachable()?;
        self.inner.deregister(lease).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<(), Error> {
        self.reachable()?;
        self.inner.set_override(service, id, forced).await
    }
}

/// Has no room for new registrations while told so.
#[derive(Debug)]
pub(crate) struct Unwilling(pub(crate) Flaky, pub(crate) Arc<Mutex<bool>>);

#[async_trait]
impl Source for Unwilling {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.0.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        self.0.watch(scope, after).await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

#[async_trait]
impl Registry for Unwilling {
    async fn register(&self, registration: Registration) -> Result<Lease, Error> {
        if *self.1.lock() {
            return Err(Error::new(ErrorKind::Full, "no room"));
        }
        self.0.register(registration).await
    }

    async fn renew(&self, lease: &Lease) -> Result<(), Error> {
        self.0.renew(lease).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<(), Error> {
        self.0.set_status(lease, status).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<(), Error> {
        self.0.deregister(lease).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<(), Error> {
        self.0.set_override(service, id, forced).await
    }
}

/// Its first registration gets no answer, and arrives after the second.
#[derive(Debug, Default)]
pub(crate) struct Overtaken {
    pub(crate) inner: MemoryRegistry,
    late: Mutex<Option<Registration>>,
    calls: Mutex<u32>,
}

#[async_trait]
impl Source for Overtaken {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.inner.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        self.inner.watch(scope, after).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[async_trait]
impl Registry for Overtaken {
    async fn register(&self, registration: Registration) -> Result<Lease, Error> {
        *self.calls.lock() += 1;
        if *self.calls.lock() == 1 {
            *self.late.lock() = Some(registration);
            return std::future::pending().await;
        }
        let lease = self.inner.register(registration).await;
        let late = self.late.lock().take();
        if let Some(late) = late {
            self.inner.register(late).await?;
        }
        lease
    }

    async fn renew(&self, lease: &Lease) -> Result<(), Error> {
        self.inner.renew(lease).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<(), Error> {
        self.inner.set_status(lease, status).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<(), Error> {
        self.inner.deregister(lease).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<(), Error> {
        self.inner.set_override(service, id, forced).await
    }
}

pub(crate) type Heard = Arc<Mutex<Vec<Event>>>;

pub(crate) fn heard() -> (Heard, Arc<dyn orchestra_core::Listener<Event>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    (
        heard,
        Arc::new(move |event: &Event| sink.lock().push(event.clone())),
    )
}
