//! The process around a participant: its socket, its lease, its one writer, its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use orchestra::core::{Endpoint, InstanceId, ServiceName};
use orchestra::discovery::registry::http::{BearerToken, HttpRegistry};
use orchestra::discovery::{Heartbeat, Registration, heartbeat};
use orchestra::mesh::pick::{RoundRobin, Target};
use orchestra::mesh::{Body, Client};
use orchestra::saga::BarrierCall;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::Notify;

use crate::catalogue::ITEMS;

use super::by_name;
use super::writer::{Answer, Writer};

/// What the platform tells a service when it starts it.
#[derive(Debug, Clone)]
pub struct Environment {
    pub service: ServiceName,
    pub instance: InstanceId,
    pub socket: PathBuf,
    pub registry: Endpoint,
    pub gateway: Endpoint,
    pub data: PathBuf,
    pub token: String,
    pub lease: Duration,
}

impl Environment {
    pub fn read() -> anyhow::Result<Self> {
        let read =
            |name: &str| std::env::var(name).map_err(|_| anyhow::anyhow!("{name} is not set"));
        Ok(Self {
            service: read("SHOP_SERVICE")?.parse()?,
            instance: read("SHOP_INSTANCE")?.parse()?,
            socket: read("SHOP_SOCKET")?.into(),
            registry: read("SHOP_REGISTRY")?.parse()?,
            gateway: read("SHOP_GATEWAY")?.parse()?,
            data: read("SHOP_DATA")?.into(),
            token: read("SHOP_TOKEN")?,
            lease: Duration::from_millis(read("SHOP_LEASE_MS")?.parse()?),
        })
    }
}

struct Shared {
    writer: Writer,
    token: String,
    /// How this service calls another one: through the gateway.
    gateway: Client,
}

/// Serves until the platform dies or asks it to stop.
pub async fn run(environment: Environment) -> anyhow::Result<()> {
    let Environment {
        service,
        instance,
        socket,
        registry,
        gateway,
        data,
        token,
        lease,
    } = environment;
    let participant = by_name(service.as_str())
        .ok_or_else(|| anyhow::anyhow!("there is no service {service}"))?;
    let writer = Writer::open(&data.join(format!("{service}.db")), participant)?;
    let listener = bind(&socket)?;
    let way = RoundRobin::new([Target::new("gateway".parse()?, gateway)]);
    let gateway = Client::builder("order".parse()?, Arc::new(way)).build()?;
    let shared = Arc::new(Shared {
        writer,
        token: token.clone(),
        gateway,
    });
    let app = Router::new()
        .route("/steps/{step}", post(step))
        .route("/users/{user}/recommendations", get(recommend))
        .route("/{*path}", get(read))
        .layer(from_fn_with_state(Arc::clone(&shared), authenticate))
        .with_state(Arc::clone(&shared));

    let registry = Arc::new(HttpRegistry::new(registry, Some(BearerToken::new(&token)?)));
    let registration = Registration::new(service, instance, Endpoint::unix(&socket)?, lease);
    let heartbeat = Heartbeat::start(registry, registration, heartbeat::Config::default());

    let stop = Arc::new(Notify::new());
    let stopping = Arc::clone(&stop);
    let server =
        axum::serve(listener, app).with_graceful_shutdown(async move { stopping.notified().await });
    let server = async { server.await };
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return Ok(result?),
        () = platform_is_gone() => return Ok(()),
        error = heartbeat.ended() => return Err(error.into()),
        () = asked_to_stop() => {}
    }
    // First nobody is sent here any more, then what is under way ends.
    heartbeat.shutdown().await?;
    stop.notify_one();
    let _late = tokio::time::timeout(Duration::from_secs(2), server).await;
    drop(shared);
    let _gone = std::fs::remove_file(&socket);
    Ok(())
}

fn bind(socket: &Path) -> anyhow::Result<UnixListener> {
    let _stale = std::fs::remove_file(socket);
    Ok(UnixListener::bind(socket)?)
}

/// Ends when the platform's end of the pipe on standard input is gone, and so the platform.
async fn platform_is_gone() {
    let mut byte = [0];
    while matches!(tokio::io::stdin().read(&mut byte).await, Ok(1..)) {}
}

async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

async fn authenticate(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let sent = request
        .headers()
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes());
    if sent == Some(format!("Bearer {}", shared.token).as_bytes()) {
        return next.run(request).await;
    }
    answer(
        StatusCode::UNAUTHORIZED,
        json!({ "error": "this service is reached through the gateway" }),
    )
}

async fn step(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let call = match BarrierCall::from_headers(&headers) {
        Ok(call) => call,
        Err(error) => {
            return answer(
                StatusCode::BAD_REQUEST,
                json!({ "error": error.to_string() }),
            );
        }
    };
    let input = match serde_json::from_slice(&body) {
        Ok(input) => input,
        Err(error) => {
            return answer(
                StatusCode::BAD_REQUEST,
                json!({ "error": error.to_string() }),
            );
        }
    };
    match shared.writer.step(call, input).await {
        Answer::Now(status, value) => answer(status, value),
        Answer::Busy(reason) => unavailable(&reason),
    }
}

async fn read(State(shared): State<Arc<Shared>>, UrlPath(path): UrlPath<String>) -> Response {
    match shared.writer.read(path).await {
        Ok(Some(value)) => answer(StatusCode::OK, value),
        Ok(None) => answer(StatusCode::NOT_FOUND, json!({ "error": "not found" })),
        Err(reason) => unavailable(&reason),
    }
}

/// What else the user might buy: what the order service has not seen them buy yet.
async fn recommend(State(shared): State<Arc<Shared>>, UrlPath(user): UrlPath<String>) -> Response {
    let Ok(request) = axum::http::Request::get(format!("/bought-by/{user}")).body(Body::empty())
    else {
        return answer(StatusCode::NOT_FOUND, json!({ "error": "no such user" }));
    };
    let bought: Vec<String> = match bought(&shared.gateway, request).await {
        Ok(bought) => bought,
        Err(error) => return unavailable(&error.to_string()),
    };
    let items = ITEMS.iter().map(|(sku, _)| *sku);
    let items: Vec<_> = items
        .filter(|sku| !bought.iter().any(|had| had == sku))
        .collect();
    answer(StatusCode::OK, json!({ "user": user, "items": items }))
}

async fn bought(
    gateway: &Client,
    request: axum::http::Request<Body>,
) -> anyhow::Result<Vec<String>> {
    let response = gateway.send(request).await?;
    anyhow::ensure!(
        response.status().is_success(),
        "the order service answers {}",
        response.status()
    );
    Ok(serde_json::from_slice(
        &response.into_body().collect(1 << 20).await?,
    )?)
}

fn unavailable(reason: &str) -> Response {
    let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, json!({ "error": reason }));
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}

fn answer(status: StatusCode, body: Value) -> Response {
    (status, axum::Json(body)).into_response()
}
