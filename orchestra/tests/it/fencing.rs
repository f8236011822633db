//! Leases decide who lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra::Orchestra;
use orchestra::core::{InstanceId, NodeId, ServiceName};
use orchestra::discovery::{
    Capabilities, Error, ErrorKind, Lease, MemoryRegistry, Override, Registration, Registry,
    Result, Revision, Scope, Snapshot, Source, Status, Watch, WatchEvent, WatchStream,
};
use orchestra::scheduler::runtime::memory::{Behavior, MemoryRuntime};
use orchestra::scheduler::{Command, Node, Resources, Template, Workload};
use parking_lot::Mutex;
use tokio::sync::Notify;

const TTL: Duration = Duration::from_secs(2);
/// A killed container takes this long to be gone.
const SLOW_DEATH: Duration = Duration::from_secs(3);

fn cart() -> ServiceName {
    ServiceName::new("cart").unwrap()
}

/// Registers each container as it starts, as its process would; the test renews or does not.
struct World {
    orchestra: Orchestra,
    leases: Arc<Mutex<Vec<Lease>>>,
    _registering: tokio::task::JoinSet<()>,
}

async fn world(registry: impl Registry + 'static) -> World {
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel::<InstanceId>();
    let runtime = MemoryRuntime::scripted(move |spec| {
        started.send(spec.instance.clone()).unwrap();
        Behavior::new().die_slowly(SLOW_DEATH)
    });
    let orchestra = Orchestra::builder()
        .registry(registry)
        .runtime(runtime)
        .node(Node::new(
            NodeId::new("node-1").unwrap(),
            Resources::new().cpu(1_000),
        ))
        .workload(Workload::new(cart(), Template::new(Command::new("cart"))).replicas(1))
        .build()
        .await
        .unwrap();
    let leases = Arc::new(Mutex::new(Vec::new()));
    let mut registering = tokio::task::JoinSet::new();
    let (registry, kept) = (Arc::clone(orchestra.registry()), Arc::clone(&leases));
    registering.spawn(async move {
        while let Some(id) = starts.recv().await {
            let endpoint = "127.0.0.1:9".parse().unwrap();
            let lease = registry
                .register(Registration::new(cart(), id, endpoint, TTL))
                .await;
            kept.lock().push(lease.unwrap());
        }
    });
    World {
        orchestra,
        leases,
        _registering: registering,
    }
}

impl World {
    async fn ready(&self) -> InstanceId {
        let handle = self.orchestra.scheduler().unwrap();
        let status = handle
            .until(|status| status.ready(&cart()) == 1)
            .await
            .unwrap();
        status.instances().next().unwrap().0.clone()
    }

    async fn renew(&self) {
        let lease = self.leases.lock().last().unwrap().clone();
        self.orchestra.registry().renew(&lease).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_lease_fences_and_the_replacement_waits_for_the_end() {
    let world = world(MemoryRegistry::default()).await;
    let first = world.ready().await;
    let begin = tokio::time::Instant::now();
    let handle = world.orchestra.scheduler().unwrap();
    let replaced = handle.until(|status| {
        status.instances().all(|(id, _)| *id != first) && status.ready(&cart()) == 1
    });
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, replaced)
        .await
        .unwrap()
        .unwrap();
    assert!(begin.elapsed() >= TTL + SLOW_DEATH, "{:?}", begin.elapsed());
    assert_ne!(world.ready().await, first);
}

#[tokio::test(start_paused = true)]
async fn a_renewed_lease_is_left_alone() {
    let world = world(MemoryRegistry::default()).await;
    let first = world.ready().await;
    for _ in 0..20 {
        tokio::time::sleep(TTL / 2).await;
        world.renew().await;
    }
    assert_eq!(world.ready().await, first);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_gives_its_lease_back_and_stays_is_replaced() {
    let world = world(MemoryRegistry::default()).await;
    let first = world.ready().await;
    let lease = world.leases.lock().last().unwrap().clone();
    let begin = tokio::time::Instant::now();
    world.orchestra.registry().deregister(&lease).await.unwrap();
    let handle = world.orchestra.scheduler().unwrap();
    let replaced = handle.until(|status| {
        status.instances().all(|(id, _)| *id != first) && status.ready(&cart()) == 1
    });
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, replaced)
        .await
        .unwrap()
        .unwrap();
    // It had time to end by itself.
    assert!(begin.elapsed() >= Duration::from_secs(10) + SLOW_DEATH);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_was_asked_to_end_keeps_its_grace_without_a_lease() {
    let grace = Duration::from_secs(40);
    let template = Template::new(Command::new("cart")).stop_grace(grace);
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel::<InstanceId>();
    let runtime = MemoryRuntime::scripted(move |spec| {
        started.send(spec.instance.clone()).unwrap();
        Behavior::new().ignore_stop()
    });
    let orchestra = Orchestra::builder()
        .runtime(runtime)
        .node(Node::new(
            NodeId::new("node-1").unwrap(),
            Resources::new().cpu(1_000),
        ))
        .workload(Workload::new(cart(), template).replicas(1))
        .build()
        .await
        .unwrap();
    let id = starts.recv().await.unwrap();
    let registration = Registration::new(cart(), id, "127.0.0.1:9".parse().unwrap(), TTL * 100);
    let lease = orchestra.registry().register(registration).await.unwrap();
    let handle = orchestra.scheduler().unwrap();
    handle
        .until(|status| status.ready(&cart()) == 1)
        .await
        .unwrap();
    let begin = tokio::time::Instant::now();
    handle.remove_workload(&cart());
    orchestra.registry().deregister(&lease).await.unwrap();
    handle
        .until(|status| status.instances().next().is_none())
        .await
        .unwrap();
    assert!(begin.elapsed() >= grace, "{:?}", begin.elapsed());
}

/// A registry that can be away.
struct Away {
    registry: MemoryRegistry,
    away: Arc<AtomicBool>,
}

impl Away {
    fn check(&self) -> Result<()> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "the registry is away"));
        }
        Ok(())
    }
}

#[async_trait]
impl Source for Away {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        self.check()?;
        self.registry.snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        self.check()?;
        self.registry.watch(scope, after).await
    }

    fn capabilities(&self) -> Capabilities {
        self.registry.capabilities()
    }
}

#[async_trait]
impl Registry for Away {
    async fn register(&self, registration: Registration) -> Result<Lease> {
        self.registry.register(registration).await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.registry.renew(lease).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        self.registry.set_status(lease, status).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.registry.deregister(lease).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        self.registry.set_override(service, id, forced).await
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_ready_while_the_registry_is_away_and_all_are_once_it_is_back() {
    let away = Arc::new(AtomicBool::new(true));
    let world = world(Away {
        registry: MemoryRegistry::default(),
        away: Arc::clone(&away),
    })
    .await;
    let handle = world.orchestra.scheduler().unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.renew().await;
        assert_eq!(handle.status().ready(&cart()), 0);
    }
    away.store(false, Ordering::SeqCst);
    world.renew().await;
    world.ready().await;
    assert_eq!(world.leases.lock().len(), 1, "the instance was replaced");
}

/// A registry that can lose its memory, as one does whose process starts again.
#[derive(Default)]
struct Forgetful {
    registry: Mutex<Arc<MemoryRegistry>>,
    cut: Arc<Notify>,
}

impl Forgetful {
    fn forget(&self) {
        *self.registry.lock() = Arc::default();
        self.cut.notify_waiters();
    }

    fn now(&self) -> Arc<MemoryRegistry> {
        Arc::clone(&self.registry.lock())
    }
}

/// A watch that fails when the registry goes.
struct Cut(Watch, Arc<Notify>);

#[async_trait]
impl WatchStream for Cut {
    async fn next(&mut self) -> Result<WatchEvent> {
        tokio::select! {
            event = self.0.next() => event,
            () = self.1.notified() => Err(Error::new(ErrorKind::Unavailable, "the registry is gone")),
        }
    }

    fn revision(&self) -> Revision {
        self.0.revision()
    }
}

#[async_trait]
impl Source for Forgetful {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        self.now().snapshot(scope).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let watch = self.now().watch(scope, after).await?;
        Ok(Watch::new(Cut(watch, Arc::clone(&self.cut))))
    }

    fn capabilities(&self) -> Capabilities {
        self.now().capabilities()
    }
}

#[async_trait]
impl Registry for Forgetful {
    async fn register(&self, registration: Registration) -> Result<Lease> {
        self.now().register(registration).await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.now().renew(lease).await
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        self.now().set_status(lease, status).await
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.now().deregister(lease).await
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        self.now().set_override(service, id, forced).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_starts_empty_kills_nobody_who_registers_again() {
    let registry = Arc::new(Forgetful::default());
    let world = world(Arc::clone(&registry)).await;
    let first = world.ready().await;
    registry.forget();
    // Their next renewal fails, and then they register again.
    tokio::time::sleep(TTL / 3).await;
    let endpoint = "127.0.0.1:9".parse().unwrap();
    let registration = Registration::new(cart(), first.clone(), endpoint, TTL);
    let lease = registry.register(registration).await.unwrap();
    for _ in 0..30 {
        tokio::time::sleep(TTL / 2).await;
        registry.renew(&lease).await.unwrap();
    }
    assert_eq!(world.ready().await, first);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_was_lost_with_the_memory_of_a_registry_is_replaced() {
    let registry = Arc::new(Forgetful::default());
    let world = world(Arc::clone(&registry)).await;
    let first = world.ready().await;
    registry.forget();
    let handle = world.orchestra.scheduler().unwrap();
    let replaced = handle.until(|status| status.instances().all(|(id, _)| *id != first));
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, replaced)
        .await
        .unwrap()
        .unwrap();
}
