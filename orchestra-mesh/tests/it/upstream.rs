//! Small real servers to call.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use orchestra_core::{Endpoint, InstanceId, ServiceName};
use orchestra_mesh::gateway::Serving;
use orchestra_mesh::pick::{RoundRobin, Target};
use orchestra_mesh::route::Route;
use orchestra_mesh::{Body, Gateway};
use parking_lot::Mutex;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Checked = Result<(), Failure>;

/// What an upstream does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Status(u16),
    StatusWith(u16, &'static str, &'static str),
    Hang,
}

/// A server that follows a script, answers 200 when it is at its end, and remembers the requests.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    name: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Act>,
    seen: Vec<Seen>,
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: Arc<http::request::Parts>,
    pub(crate) body: bytes::Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }
}

impl Upstream {
    pub(crate) fn new(name: &'static str, script: impl IntoIterator<Item = Act>) -> Self {
        let state = State {
            script: script.into_iter().collect(),
            seen: Vec::new(),
        };
        Self {
            name,
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().seen.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().seen.len()
    }

    pub(crate) async fn serve(&self, endpoint: Endpoint) -> Result<Serving, Failure> {
        let this = self.clone();
        let service = tower::service_fn(move |request| {
            let this = this.clone();
            async move { this.answer(request).await }
        });
        let name = ServiceName::new("upstream")?;
        let gateway = Gateway::builder()
            .route(Route::to("all", name.clone()))
            .mount(name, service)
            .strip::<&str>([])
            .build()?;
        Ok(gateway.serve([endpoint]).await?)
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect(1 << 20).await.unwrap_or_default();
        let seen = Seen {
            head: Arc::new(head),
            body: body.clone(),
        };
        let act = {
            let mut state = self.state.lock();
            state.seen.push(seen);
            state.script.pop_front()
        };
        let (status, header) = match act {
            None => (200, None),
            Some(Act::Status(status)) => (status, None),
            Some(Act::StatusWith(status, name, value)) => (status, Some((name, value))),
            Some(Act::Hang) => std::future::pending().await,
        };
        let mut response = Response::new(Body::from(format!("{}:{}", self.name, body.len())));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        if let Some((name, value)) = header {
            response
                .headers_mut()
                .insert(name, http::HeaderValue::from_static(value));
        }
        Ok(response)
    }
}

pub(crate) fn any_port() -> Endpoint {
    Endpoint::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))
}

pub(crate) fn first(serving: &Serving) -> Endpoint {
    serving.endpoints()[0].clone()
}

pub(crate) fn targets(endpoints: &[Endpoint]) -> Result<Vec<Target>, Failure> {
    let numbered = endpoints.iter().enumerate();
    numbered
        .map(|(number, endpoint)| {
            Ok(Target::new(
                InstanceId::new(format!("i-{number}"))?,
                endpoint.clone(),
            ))
        })
        .collect()
}

pub(crate) fn round_robin(endpoints: &[Endpoint]) -> Result<Arc<RoundRobin>, Failure> {
    Ok(Arc::new(RoundRobin::new(targets(endpoints)?)))
}

pub(crate) const GRACE: Duration = Duration::from_secs(5);

pub(crate) fn get(path: &str) -> Result<Request<Body>, Failure> {
    Ok(Request::get(path).body(Body::empty())?)
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Result<Request<Body>, Failure> {
    Ok(Request::post(path).body(body.into())?)
}

pub(crate) async fn text(response: Response<Body>) -> Result<String, Failure> {
    let bytes = response.into_body().collect(1 << 20).await?;
    Ok(String::from_utf8(bytes.to_vec())?)
}
