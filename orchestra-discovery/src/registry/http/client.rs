use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use orchestra_core::{Endpoint, InstanceId, ServiceName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BearerToken;
use super::wire::{self, Failure, OverrideChange, Polled, StatusChange};
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::exchange;
use crate::instance::{Override, Registration, Status};
use crate::registry::{Lease, Registry};
use crate::source::{
    Capabilities, Revision, Scope, Snapshot, Source, Watch, WatchEvent, WatchStream,
};

/// The largest answer: some two hundred thousand instances of the usual size.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// A registry that is served elsewhere by [`router`](super::router); a clone is one reference count.
///
/// Every call opens a connection of its own, is bounded by the timeout (5 seconds unless told otherwise),
/// and fails with the kind that the serving registry gave, or with `Unavailable`, `Timeout` or `Protocol`
/// when there was no answer, a late one, or a strange one. Nothing is retried in here.
///
/// ```
/// use orchestra_discovery::HttpRegistry;
/// use orchestra_discovery::registry::http::BearerToken;
///
/// let token = BearerToken::new("correct-horse-battery")?;
/// let registry = HttpRegistry::new("unix:/run/registry.sock".parse()?, Some(token));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct HttpRegistry(Arc<Client>);

#[derive(Debug, Clone)]
struct Client {
    endpoint: Endpoint,
    token: Option<BearerToken>,
    timeout: Duration,
    hold: Duration,
}

impl HttpRegistry {
    /// The registry at this endpoint.
    pub fn new(endpoint: Endpoint, token: Option<BearerToken>) -> Self {
        Self(Arc::new(Client {
            endpoint,
            token,
            timeout: Duration::from_secs(5),
            hold: Duration::from_secs(20),
        }))
    }

    /// Bounds every call by this; a poll of a watch may take as much longer as it asked to be held.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        Arc::make_mut(&mut self.0).timeout = timeout;
        self
    }

    /// Asks the server to hold each poll of a watch for this long (20 seconds unless told otherwise, and the
    /// server holds none longer than 30), so that nothing between the two gives up on a silent connection.
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        Arc::make_mut(&mut self.0).hold = hold;
        self
    }
}

impl fmt::Debug for HttpRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRegistry")
            .field("endpoint", &self.0.endpoint)
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}

impl Client {
    async fn post<T: Serialize + Sync>(&self, path: &str, value: &T) -> Result<Bytes> {
        let body = serde_json::to_vec(value).map_err(|error| {
            let message = format!("the request for {path} cannot be written as json");
            Error::new(ErrorKind::Invalid, message).with_source(error)
        })?;
        let mut request = self.request(Method::POST, path, Bytes::from(body))?;
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        self.send(request, self.timeout).await
    }

    async fn load<T: DeserializeOwned>(&self, path: &str, held: Duration) -> Result<T> {
        let request = self.request(Method::GET, path, Bytes::new())?;
        let answer = self
            .send(request, self.timeout.saturating_add(held))
            .await?;
        self.parse(&answer)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let path: PathAndQuery = path.parse().map_err(|error: http::uri::InvalidUri| {
            Error::new(ErrorKind::Invalid, format!("{path:?} is no path")).with_source(error)
        })?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.into();
        if let Some(token) = &self.token {
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, token.header()?);
        }
        Ok(request)
    }

    async fn send(&self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Bytes> {
        let call = exchange(&self.endpoint, request, MAX_ANSWER);
        let (status, body) = match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer?,
            Err(elapsed) => {
                let message = format!("no answer from registry {} in {limit:?}", self.endpoint);
                return Err(Error::new(ErrorKind::Timeout, message).with_source(elapsed));
            }
        };
        if status.is_success() {
            Ok(body)
        } else {
            Err(self.failure(status, &body))
        }
    }

    fn failure(&self, status: StatusCode, body: &[u8]) -> Error {
        match serde_json::from_slice::<Failure>(body) {
            Ok(failure) => failure.into_error(status),
            Err(_not_ours) => {
                let message = format!("registry {} answered {status}", self.endpoint);
                Error::new(wire::kind_of(status), message)
            }
        }
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T> {
        serde_json::from_slice(body).map_err(|error| {
            let message = format!("the answer of registry {} makes no sense", self.endpoint);
            Error::new(ErrorKind::Protocol, message).with_source(error)
        })
    }
}

#[async_trait]
impl Source for HttpRegistry {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        let path = wire::query(wire::SNAPSHOT, scope, "");
        self.0.load(&path, Duration::ZERO).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        Ok(Watch::new(HttpWatch {
            client: Arc::clone(&self.0),
            scope: scope.clone(),
            after,
            lost: false,
        }))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

#[async_trait]
impl Registry for HttpRegistry {
    async fn register(&self, registration: Registration) -> Result<Lease> {
        let answer = self.0.post(wire::REGISTER, &registration).await?;
        self.0.parse(&answer)
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.0.post(wire::RENEW, lease).await.map(drop)
    }

    async fn set_status(&self, lease: &Lease, status: Status) -> Result<()> {
        let lease = lease.clone();
        let change = StatusChange { lease, status };
        self.0.post(wire::STATUS, &change).await.map(drop)
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.0.post(wire::DEREGISTER, lease).await.map(drop)
    }

    async fn set_override(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        let change = OverrideChange {
            service: service.clone(),
            id: id.clone(),
            forced,
        };
        self.0.post(wire::OVERRIDE, &change).await.map(drop)
    }
}

struct HttpWatch {
    client: Arc<Client>,
    scope: Scope,
    after: Revision,
    lost: bool,
}

#[async_trait]
impl WatchStream for HttpWatch {
    async fn next(&mut self) -> Result<WatchEvent> {
        while !self.lost {
            let hold = self.client.hold;
            let rest = format!("&after={}&wait_ms={}", self.after, hold.as_millis());
            let path = wire::query(wire::WATCH, &self.scope, &rest);
            match self.client.load(&path, hold).await? {
                Polled::Changes { revision, changes } => {
                    self.after = revision;
                    return Ok(WatchEvent::Changes { revision, changes });
                }
                Polled::Idle { revision } => self.after = revision,
                Polled::Resync => self.lost = true,
            }
        }
        Ok(WatchEvent::Resync)
    }

    fn revision(&self) -> Revision {
        self.after
    }
}
