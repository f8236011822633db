//! Registries with moods, and an ear for events.

use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{InstanceId, ServiceName};
use orchestra_discovery::{
    Capabilities, Error, ErrorKind, Event, Lease, MemoryRegistry, Override, Registration, Registry,
    Revision, Scope, Snapshot, Source, Status, Watch, WatchEvent, WatchStream,
};
use parking_lot::Mutex;

/// A registry that can be made unreachable.
#[derive(Debug, Clone)]
pub(crate) struct Flaky {
    pub(crate) inner: MemoryRegistry,
    pub(crate) down: Arc<Mutex<bool>>,
    pub(crate) statuses_set: Arc<Mutex<u32>>,
    /// So many more changes of status take effect and get no answer.
    pub(crate) silent_statuses: Arc<Mutex<u32>>,
}

impl Flaky {
    pub(crate) fn new() -> Self {
        Self {
            inner: MemoryRegistry::default(),
            down: Arc::default(),
            statuses_set: Arc::default(),
            silent_statuses: Arc::default(),
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
        self.inner.set_status(lease, status).await?;
        let silent = self.silent_statuses.lock().checked_sub(1);
        if let Some(left) = silent {
            *self.silent_statuses.lock() = left;
            return std::future::pending().await;
        }
        Ok(())
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

/// What a [`Moody`] source is like at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Up,
    /// Every call fails, and every watch.
    Refusing,
    /// Nothing ever comes back.
    Hanging,
    /// Says that there is nobody, and its watches are silent.
    Blank,
}

/// A registry whose read side has moods, loses its memory when told so, and counts what it is asked.
#[derive(Debug, Clone)]
pub(crate) struct Moody {
    inner: Arc<Mutex<MemoryRegistry>>,
    mood: tokio::sync::watch::Sender<(Mood, u32)>,
    pub(crate) snapshots: Arc<Mutex<u32>>,
    pub(crate) watches: Arc<Mutex<u32>>,
}

impl Moody {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::default(),
            mood: tokio::sync::watch::Sender::new((Mood::Up, 0)),
            snapshots: Arc::default(),
            watches: Arc::default(),
        }
    }

    pub(crate) fn registry(&self) -> MemoryRegistry {
        self.inner.lock().clone()
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_modify(|now| now.0 = mood);
    }

    pub(crate) fn mood(&self) -> Mood {
        self.mood.borrow().0
    }

    /// Another registry is there in its place; watches of the old one fail.
    pub(crate) fn replace(&self, registry: MemoryRegistry) {
        *self.inner.lock() = registry;
        self.mood.send_modify(|now| now.1 += 1);
    }

    pub(crate) fn asked(&self) -> u32 {
        *self.snapshots.lock()
    }

    async fn yielding(&self) -> Result<(), Error> {
        let mood = self.mood.borrow().0;
        match mood {
            Mood::Up | Mood::Blank => Ok(()),
            Mood::Refusing => Err(Error::new(ErrorKind::Unavailable, "refused")),
            Mood::Hanging => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Source for Moody {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        *self.snapshots.lock() += 1;
        self.yielding().await?;
        let snapshot = self.registry().snapshot(scope).await?;
        if self.mood.borrow().0 == Mood::Blank {
            return Ok(Snapshot::new(scope.clone(), snapshot.revision(), vec![]));
        }
        Ok(snapshot)
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        *self.watches.lock() += 1;
        self.yielding().await?;
        let life = self.mood.borrow().1;
        Ok(Watch::new(MoodyWatch {
            inner: self.registry().watch(scope, after).await?,
            mood: self.mood.subscribe(),
            life,
        }))
    }

    fn capabilities(&self) -> Capabilities {
        self.registry().capabilities()
    }
}

struct MoodyWatch {
    inner: Watch,
    mood: tokio::sync::watch::Receiver<(Mood, u32)>,
    life: u32,
}

#[async_trait]
impl WatchStream for MoodyWatch {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            let (mood, life) = *self.mood.borrow_and_update();
            if mood == Mood::Refusing || life != self.life {
                return Err(Error::new(ErrorKind::Unavailable, "cut off"));
            }
            tokio::select! {
                event = self.inner.next(), if mood == Mood::Up => return event,
                changed = self.mood.changed() => if changed.is_err() {
                    return Err(Error::new(ErrorKind::Closed, "gone"));
                }
            }
        }
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }
}
