//! The platform: registry, scheduler, sagas, mesh and metrics around six services.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderName, HeaderValue};
use orchestra::Orchestra;
use orchestra::core::{Endpoint, NodeId, ServiceName};
use orchestra::discovery::registry::http::{self as registry_http, BearerToken};
use orchestra::mesh::gateway::Limits;
use orchestra::mesh::route::{PathPattern, Route};
use orchestra::mesh::{Gateway, Policy};
use orchestra::observe::export;
use orchestra::saga::{Executor, Notice, SqliteStore};
use orchestra::scheduler::reconciler::Placed;
use orchestra::scheduler::runtime::process::ProcessRuntime;
use orchestra::scheduler::{
    Bytes, Command, ContainerSpec, Handle, Node, Resources, Template, Workload,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::watch::Watched;
use crate::{api, checkout};

pub const SERVICES: [&str; 6] = [
    "user",
    "order",
    "payment",
    "inventory",
    "notification",
    "recommendation",
];
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// A service that does not renew for this long is taken for dead.
pub const LEASE: Duration = Duration::from_millis(1_500);
/// An order is small.
const MAX_BODY: usize = 64 * 1024;
const GRACE: Duration = Duration::from_secs(5);

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct Plan {
    pub data: PathBuf,
    pub port: u16,
    pub seed: u64,
    pub replicas: BTreeMap<String, u32>,
}

pub struct Platform {
    pub orchestra: Orchestra,
    pub gateway: SocketAddr,
    pub watched: Arc<Watched>,
    plan: Plan,
    /// The parts whose errors are reported at the end of a run.
    store: SqliteStore,
    /// Serves the registry to the services.
    registry: JoinSet<std::io::Result<()>>,
    /// Sockets live here, short enough for the kernel and closed to other users.
    sockets: TempDir,
    token: String,
}

impl Platform {
    /// Opens the directory and binds the port before anything is started; then starts what is wanted.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let data = &plan.data;
        std::fs::create_dir_all(data)
            .with_context(|| format!("the directory {} cannot be used", data.display()))?;
        let runtime = ProcessRuntime::open(data.join("processes"))
            .await
            .with_context(|| format!("the directory {} cannot be used", data.display()))?;
        let store = SqliteStore::open(data.join("sagas.db"))
            .await
            .with_context(|| format!("the directory {} cannot be used", data.display()))?;
        let sockets = sockets(data)?;
        let token = token()?;
        let watched = Arc::new(Watched::default());

        let launch = launch(&plan, sockets.path(), &token);
        let events = Arc::clone(&watched);
        let mut builder = Orchestra::builder()
            .seed(plan.seed)
            .header(HeaderName::from_static("authorization"), bearer(&token)?)
            .policy(Policy::default().timeout(Duration::from_secs(5)))
            .runtime(runtime)
            .reconciler(|reconciler| reconciler.launch(launch))
            .on_scheduler(Arc::clone(&watched) as _)
            .saga_store(store.clone())
            .definition(checkout::definition()?)
            .on_saga(move |notice: &Notice<'_>| events.notice(notice));
        for node in NODES {
            let capacity = Resources::new().cpu(4_000).memory(Bytes::gib(4));
            builder = builder.node(Node::new(NodeId::new(node)?, capacity));
        }
        let orchestra = builder.build().await?;

        let mut platform = Self {
            orchestra,
            gateway: SocketAddr::from(([127, 0, 0, 1], plan.port)),
            watched,
            plan,
            store,
            registry: JoinSet::new(),
            sockets,
            token,
        };
        let started = platform.open().await;
        if let Err(error) = started {
            platform.shutdown().await?;
            return Err(error);
        }
        Ok(platform)
    }

    async fn open(&mut self) -> anyhow::Result<()> {
        self.serve_customers().await?;
        self.serve_services().await?;
        let scheduler = self.scheduler()?;
        for service in SERVICES {
            let replicas = self.plan.replicas.get(service).copied().unwrap_or(2);
            scheduler.set_workload(workload(service)?.replicas(replicas));
        }
        Ok(())
    }

    /// What customers reach: orders, recommendations, metrics.
    async fn serve_customers(&mut self) -> anyhow::Result<()> {
        let (orders, metrics) = (ServiceName::new("orders")?, ServiceName::new("metrics")?);
        let recommendation = ServiceName::new("recommendation")?;
        let gateway = self
            .orchestra
            .gateway()
            .limits(Limits::default().body(MAX_BODY))
            .mount(orders.clone(), api::router(self.sagas()?.clone()))
            .mount(
                metrics.clone(),
                export::http::router(self.orchestra.metrics().clone()),
            )
            .client(self.orchestra.client("recommendation")?)
            .route(Route::to("orders", orders).path(PathPattern::prefix("/orders")?))
            .route(Route::to("metrics", metrics).path(PathPattern::exact("/metrics")?))
            .route(recommendations(recommendation)?)
            .build()?;
        self.gateway = self.bind(&gateway, Endpoint::Tcp(self.gateway)).await?;
        Ok(())
    }

    async fn bind(&self, gateway: &Gateway, endpoint: Endpoint) -> anyhow::Result<SocketAddr> {
        match self.orchestra.serve(gateway, [endpoint]).await?.first() {
            Some(Endpoint::Tcp(address)) => Ok(*address),
            other => anyhow::bail!("the gateway listens at {other:?}"),
        }
    }

    /// What services reach: the registry, and each other through a gateway of their own.
    async fn serve_services(&mut self) -> anyhow::Result<()> {
        let listener = UnixListener::bind(self.sockets.path().join("registry"))?;
        let registry = Arc::clone(self.orchestra.registry());
        let router = registry_http::router(registry, Some(BearerToken::new(&self.token)?));
        self.registry
            .spawn(async { axum::serve(listener, router).await });

        let order = ServiceName::new("order")?;
        let inner = self
            .orchestra
            .gateway()
            .client(self.orchestra.client("order")?)
            .route(Route::to("bought-by", order).path(PathPattern::prefix("/bought-by")?))
            .build()?;
        self.orchestra
            .serve(
                &inner,
                [Endpoint::unix(self.sockets.path().join("gateway"))?],
            )
            .await?;
        Ok(())
    }

    pub fn scheduler(&self) -> anyhow::Result<&Handle> {
        self.orchestra
            .scheduler()
            .context("the platform has no scheduler")
    }

    pub fn sagas(&self) -> anyhow::Result<&Executor> {
        self.orchestra.sagas().context("the platform has no sagas")
    }

    pub fn data(&self) -> &Path {
        &self.plan.data
    }

    /// Replicas that serve, and that should.
    pub fn ready(&self) -> anyhow::Result<(usize, usize)> {
        let status = self.scheduler()?.status();
        let wanted = status
            .workloads
            .iter()
            .map(|workload| workload.replicas as usize)
            .sum();
        Ok((
            status
                .workloads
                .iter()
                .map(|workload| workload.ready())
                .sum(),
            wanted,
        ))
    }

    /// Ends everything in order; no process is left.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.orchestra.shutdown(GRACE).await?;
        self.registry.shutdown().await;
        self.store.close().await?;
        Ok(())
    }
}

/// Only the recommendations of a user: nothing else of that service is for customers.
fn recommendations(service: ServiceName) -> anyhow::Result<Route> {
    Ok(Route::to("recommendations", service).path(PathPattern::prefix("/users")?))
}

fn workload(service: &str) -> anyhow::Result<Workload> {
    let program = std::env::current_exe()?;
    let program = program
        .to_str()
        .context("the path of this program is not UTF-8")?;
    let template = Template::new(Command::new(program).arg("--service"))
        .resources(Resources::new().cpu(500).memory(Bytes::mib(64)))
        .stop_grace(Duration::from_secs(3))
        .start_grace(Duration::from_secs(10));
    Ok(Workload::new(ServiceName::new(service)?, template))
}

/// Gives each instance its own socket, and all of them what they have in common.
fn launch(
    plan: &Plan,
    sockets: &Path,
    token: &str,
) -> impl Fn(&Placed, ContainerSpec) -> ContainerSpec + Send + Sync + 'static {
    let (sockets, data) = (sockets.to_owned(), plan.data.clone());
    let token = token.to_owned();
    move |placed, mut spec| {
        let path = |name: &str| sockets.join(name).display().to_string();
        spec.env.set("SHOP_SERVICE", placed.service.as_str());
        spec.env.set("SHOP_INSTANCE", placed.instance.as_str());
        spec.env.set("SHOP_SOCKET", path(placed.instance.as_str()));
        spec.env
            .set("SHOP_REGISTRY", format!("unix:{}", path("registry")));
        spec.env
            .set("SHOP_GATEWAY", format!("unix:{}", path("gateway")));
        spec.env.set("SHOP_DATA", data.display().to_string());
        spec.env.set("SHOP_TOKEN", token.as_str());
        spec.env.set("SHOP_LEASE_MS", LEASE.as_millis().to_string());
        spec
    }
}

const SOCKETS: &str = "shop-";

/// A private directory for the sockets of this run; that of a run that was killed is removed.
fn sockets(data: &Path) -> anyhow::Result<TempDir> {
    let note = data.join("sockets");
    if let Ok(left) = std::fs::read_to_string(&note)
        && holds_sockets(Path::new(&left))
    {
        let _gone = std::fs::remove_dir_all(left);
    }
    let sockets = tempfile::Builder::new().prefix(SOCKETS).tempdir()?;
    std::fs::write(note, sockets.path().display().to_string())?;
    Ok(sockets)
}

/// Whether a run may have made this directory for its sockets: a note can be torn or forged.
fn holds_sockets(directory: &Path) -> bool {
    let name = directory.file_name().and_then(std::ffi::OsStr::to_str);
    name.is_some_and(|name| name.starts_with(SOCKETS) && !name.starts_with("shop-data-"))
        && directory.parent() == Some(&std::env::temp_dir())
}

/// What a caller must know to be let in by a service: 128 bits that nobody can guess.
fn token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
}
