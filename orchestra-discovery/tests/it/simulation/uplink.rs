//! The links of instances to the registry, which can be cut, or lose answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{InstanceId, ServiceName};
use orchestra_discovery::{
    Capabilities, Error, Lease, Override, Registration, Registry, Revision, Scope, Snapshot,
    Source, Status, Watch,
};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::link::{Channel, refused};

/// How an instance reaches the registry at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Up,
    Refusing,
    Hanging,
    /// Calls arrive, answers do not.
    Deaf,
    /// Calls arrive, every second answer does not.
    Lossy,
    /// Registrations arrive late, answers do not; the rest is lost.
    Late(Duration),
}

/// An instance's link to the registry.
#[derive(Debug)]
pub(super) struct Uplink {
    to: Channel,
    line: Mutex<Line>,
    calls: AtomicU32,
    late: Mutex<JoinSet<()>>,
}

impl Uplink {
    pub(super) fn new(to: &Channel, line: Line) -> Arc<Self> {
        Arc::new(Self {
            to: to.clone(),
            line: Mutex::new(line),
            calls: AtomicU32::default(),
            late: Mutex::default(),
        })
    }

    pub(super) fn set(&self, line: Line) {
        *self.line.lock() = line;
    }

    pub(super) fn line(&self) -> Line {
        *self.line.lock()
    }

    async fn through<T>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        match self.line() {
            Line::Up => call.await,
            Line::Refusing => Err(refused()),
            Line::Hanging | Line::Late(_) => std::future::pending().await,
            Line::Lossy if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) => {
                call.await
            }
            Line::Deaf | Line::Lossy => {
                drop(call.await);
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl Source for Uplink {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.to.backend().snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        self.to.backend().watch(scope, after).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

#[async_trait]
impl Registry for Uplink {
    async fn register(&self, asked: Registration) -> Result<Lease, Error> {
        let backend = self.to.backend();
        if let Line::Late(by) = self.line() {
            let (backend, asked) = (backend.clone(), asked.clone());
            self.late.lock().spawn(async move {
                sleep(by).await;
                drop(backend.register(asked).await);
            });
        }
        self.through(backend.register(asked)).await
    }

    async fn renew(&self, lease: &Lease) -> Result<(), Error> {
        self.through(self.to.backend().renew(lease)).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<(), Error> {
        let backend = self.to.backend();
        self.through(backend.set_status(lease, status)).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<(), Error> {
        self.through(self.to.backend().deregister(lease)).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<(), Error> {
        let backend = self.to.backend();
        self.through(backend.set_override(service, id, forced))
            .await
    }
}
