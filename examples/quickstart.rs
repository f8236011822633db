//! An axum service that registers itself, and a client that finds, balances and retries its calls.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::Request;
use orchestra::Orchestra;
use orchestra::discovery::{Heartbeat, Registration, heartbeat};
use orchestra::mesh::Body;
use orchestra::observe::export::http::router as metrics_router;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let orchestra = Orchestra::builder().build().await?;

    // Two instances of a service, each under a lease of its own; they also serve the metrics.
    let mut heartbeats = Vec::new();
    let mut servers = tokio::task::JoinSet::new();
    for name in ["greeter-1", "greeter-2"] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = listener.local_addr()?.into();
        let app = Router::new()
            .route(
                "/hello",
                get(move || async move { format!("hello from {name}") }),
            )
            .merge(metrics_router(orchestra.metrics().clone()));
        servers.spawn(async move { axum::serve(listener, app).await });
        let registration = Registration::new(
            "greeter".parse()?,
            name.parse()?,
            endpoint,
            Duration::from_secs(5),
        );
        let registry = Arc::clone(orchestra.registry());
        let beat = Heartbeat::start(registry, registration, heartbeat::Config::default());
        beat.registered().await?;
        heartbeats.push(beat);
    }

    // A client by name: a `tower::Service` that may be cloned and shared.
    let greeter = orchestra.client("greeter")?;
    orchestra.resolved("greeter").await?;
    let mut heard = std::collections::BTreeSet::new();
    for _ in 0..32 {
        let response = greeter
            .send(Request::get("/hello").body(Body::empty())?)
            .await?;
        let text = response.into_body().collect(1024).await?;
        heard.insert(String::from_utf8(text.to_vec())?);
    }
    println!("{heard:?}");
    assert_eq!(heard.len(), 2, "both instances answered");

    let page = greeter
        .send(Request::get("/metrics").body(Body::empty())?)
        .await?;
    let page = page.into_body().collect(1 << 20).await?;
    let attempts = "orchestra_mesh_attempts_total{service=\"greeter\",outcome=\"success\"} 32";
    assert!(
        String::from_utf8_lossy(&page).contains(attempts),
        "each attempt was counted"
    );

    for heartbeat in heartbeats {
        heartbeat.shutdown().await?;
    }
    orchestra.shutdown(Duration::from_secs(5)).await?;
    servers.shutdown().await;
    Ok(())
}
