//! Against real servers: nginx behind us; curl, h2load and haproxy in front of us.
//!
//! `.ci/live` starts them and names them in variables. A test whose variable is missing fails: it does not
//! pass by not running.

mod client;
mod gateway;
mod haproxy;
mod outage;
mod site;
mod tools;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use orchestra_core::{Backoff, Endpoint, InstanceId};
use orchestra_mesh::connect::{Config, Protocol};
use orchestra_mesh::pick::{RoundRobin, Target};
use orchestra_mesh::{Body, Client, Policy, retry};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Checked = Result<(), Failure>;

const GRACE: Duration = Duration::from_secs(5);

/// What the variable says.
fn variable(name: &str) -> Result<String, Failure> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    let missing = || format!("{name} must name what to test against; see .ci/live");
    Ok(value.ok_or_else(missing)?)
}

fn address(name: &str) -> Result<SocketAddr, Failure> {
    Ok(variable(name)?.parse()?)
}

fn nginx() -> Result<Endpoint, Failure> {
    Ok(Endpoint::Tcp(address("ORCH_TEST_NGINX")?))
}

fn nginx_http2() -> Result<Endpoint, Failure> {
    Ok(Endpoint::Tcp(address("ORCH_TEST_NGINX_H2")?))
}

fn nginx_socket() -> Result<Endpoint, Failure> {
    let path = variable("ORCH_TEST_NGINX_SOCKET")?;
    Ok(Endpoint::Unix(Path::new(&path).into()))
}

fn targets(endpoints: impl IntoIterator<Item = Endpoint>) -> Result<RoundRobin, Failure> {
    let mut targets = Vec::new();
    for (number, endpoint) in endpoints.into_iter().enumerate() {
        let id = InstanceId::new(format!("nginx-{number}"))?;
        targets.push(Target::new(id, endpoint));
    }
    Ok(RoundRobin::new(targets))
}

/// Retries at once, so that a test does not wait.
fn quick() -> Policy {
    let backoff = Backoff::fixed(Duration::from_millis(1));
    Policy::default().retry(retry::Policy::default().backoff(backoff))
}

fn client(endpoint: Endpoint, protocol: Protocol) -> Result<Client, Failure> {
    Ok(
        Client::builder("nginx".parse()?, Arc::new(targets([endpoint])?))
            .policy(quick())
            .connect(Config::default().protocol(protocol))
            .build()?,
    )
}

fn get(path: &str) -> Result<Request<Body>, Failure> {
    Ok(Request::get(path).body(Body::empty())?)
}

async fn text(response: Response<Body>) -> Result<String, Failure> {
    let bytes = response.into_body().collect(1 << 20).await?;
    Ok(String::from_utf8(bytes.to_vec())?)
}

/// A request as nginx saw it, a line for each thing.
#[derive(Debug)]
struct Seen(String);

impl Seen {
    fn of(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.lines().filter_map(|line| line.split_once(": "));
        pairs
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    }
}

async fn seen(client: &Client, request: Request<Body>) -> Result<Seen, Failure> {
    let response = client.send(request).await?;
    assert_eq!(response.status(), 200);
    Ok(Seen(text(response).await?))
}
