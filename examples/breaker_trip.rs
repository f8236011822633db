//! One of two instances fails every call: its circuit opens, and calls go to the other one alone, until a
//! probe finds the first one repaired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use http::Request;
use orchestra::Orchestra;
use orchestra::core::Backoff;
use orchestra::discovery::{Registration, RoundRobin};
use orchestra::mesh::{Body, Policy, breaker, retry};

#[derive(Default)]
struct Instance {
    broken: AtomicBool,
    calls: AtomicU32,
}

impl Instance {
    fn answer(&self) -> StatusCode {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let broken = self.broken.load(Ordering::SeqCst);
        if broken {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::OK
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wait = Duration::from_millis(300);
    let breaker = breaker::Config::default()
        .consecutive_failures(3)
        .open_wait(Backoff::fixed(wait))
        .probes(1);
    let policy = Policy::default().retry(retry::Policy::default().retry_on("5xx".parse()?));
    let orchestra = Orchestra::builder()
        // The usual balancer avoids an instance from its first failure on, and the circuit would never open.
        .resolver(|_, config| config.balancer(Arc::new(RoundRobin::default())))
        .breaker(breaker)
        .policy(policy)
        .build()
        .await?;

    let instances = [Arc::new(Instance::default()), Arc::new(Instance::default())];
    instances[0].broken.store(true, Ordering::SeqCst);
    let mut servers = tokio::task::JoinSet::new();
    for (number, instance) in instances.iter().enumerate() {
        let instance = Arc::clone(instance);
        let app = Router::new().route("/", get(move || async move { instance.answer() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let (id, endpoint) = (
            format!("api-{number}").parse()?,
            listener.local_addr()?.into(),
        );
        let registration = Registration::new("api".parse()?, id, endpoint, Duration::from_secs(60));
        orchestra.registry().register(registration).await?;
        servers.spawn(async move { axum::serve(listener, app).await });
    }
    let client = orchestra.client("api")?;
    orchestra.resolved("api").await?;

    let get = || async {
        client
            .send(Request::get("/").body(Body::empty())?)
            .await
            .map_err(anyhow::Error::from)
    };
    for _ in 0..50 {
        // A failed attempt is repeated on the other instance, so the caller sees none of this.
        assert_eq!(get().await?.status(), StatusCode::OK);
    }
    let tripped = instances[0].calls.load(Ordering::SeqCst);
    println!("{tripped} calls reached the broken instance before its circuit opened");
    assert_eq!(tripped, 3);

    instances[0].broken.store(false, Ordering::SeqCst);
    tokio::time::sleep(wait).await;
    for _ in 0..50 {
        assert_eq!(get().await?.status(), StatusCode::OK);
    }
    let after = instances[0].calls.load(Ordering::SeqCst);
    println!(
        "{} calls reached it after a probe found it repaired",
        after - tripped
    );
    assert!(after > tripped + 10, "it takes its share again");

    orchestra.shutdown(Duration::from_secs(5)).await?;
    servers.shutdown().await;
    Ok(())
}
