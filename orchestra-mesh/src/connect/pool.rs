use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use orchestra_core::{Clock, Endpoint, Monotonic};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;

use super::{Config, Protocol, Stream};
use crate::Body;
use crate::error::BoxError;
use crate::retry::Failure;

/// The connections of one client.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    http1: Mutex<HashMap<Endpoint, Vec<Idle>>>,
    http2: Mutex<HashMap<Endpoint, Arc<OnceCell<http2::SendRequest<Body>>>>>,
}

struct Idle {
    sender: http1::SendRequest<Body>,
    since: Monotonic,
}

/// An attempt to use a connection that ended without a response.
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) source: Option<BoxError>,
    /// The request, if nothing of it was written.
    pub(crate) request: Option<Request<Body>>,
}

/// A connection for one request.
pub(crate) enum Lease {
    Http1 {
        sender: http1::SendRequest<Body>,
        pool: Pool,
        endpoint: Endpoint,
    },
    Http2 {
        sender: http2::SendRequest<Body>,
    },
}

impl Pool {
    pub(crate) fn new(config: Config, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                clock,
                tasks: TaskTracker::new(),
                http1: Mutex::default(),
                http2: Mutex::default(),
            }),
        }
    }

    /// A connection that is kept, or a new one. Cancelled, it leaves none behind.
    pub(crate) async fn lease(&self, endpoint: &Endpoint) -> Result<Lease, Failed> {
        match self.shared.config.protocol {
            Protocol::Http1 => self.lease_http1(endpoint).await,
            Protocol::Http2 => self.lease_http2(endpoint).await,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.tasks.is_closed()
    }

    /// Forgets what is kept and waits until every connection has ended; those in use end with their
    /// request.
    pub(crate) async fn shutdown(&self) {
        self.shared.tasks.close();
        self.shared.http1.lock().clear();
        self.shared.http2.lock().clear();
        self.shared.tasks.wait().await;
    }

    async fn lease_http1(&self, endpoint: &Endpoint) -> Result<Lease, Failed> {
        let kept = self.take_idle(endpoint);
        let sender = match kept {
            Some(sender) => sender,
            None => self.within_limit(self.connect_http1(endpoint)).await?,
        };
        Ok(Lease::Http1 {
            sender,
            pool: self.clone(),
            endpoint: endpoint.clone(),
        })
    }

    async fn connect_http1(
        &self,
        endpoint: &Endpoint,
    ) -> Result<http1::SendRequest<Body>, BoxError> {
        self.prune();
        let stream = Stream::connect(endpoint).await?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await?;
        // How a connection ends is seen by the request on it; an idle one may end as it likes.
        self.shared
            .tasks
            .spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn lease_http2(&self, endpoint: &Endpoint) -> Result<Lease, Failed> {
        let cell = self.http2_cell(endpoint);
        // The limit is that of each caller: behind a connection that fails they do not queue for the next.
        let sender = self.within_limit(async {
            let sender = cell.get_or_try_init(|| self.connect_http2(endpoint));
            sender.await.cloned()
        });
        Ok(Lease::Http2 {
            sender: sender.await?,
        })
    }

    /// The shared connection, or the place for a new one if that has ended.
    fn http2_cell(&self, endpoint: &Endpoint) -> Arc<OnceCell<http2::SendRequest<Body>>> {
        let mut cells = self.shared.http2.lock();
        if self.is_closed() {
            // For one last request; kept, it would never end.
            return Arc::default();
        }
        // A cell that holds nothing stays as long as somebody is connecting.
        cells.retain(|_, cell| match cell.get() {
            Some(sender) => !sender.is_closed(),
            None => Arc::strong_count(cell) > 1,
        });
        Arc::clone(cells.entry(endpoint.clone()).or_default())
    }

    async fn connect_http2(
        &self,
        endpoint: &Endpoint,
    ) -> Result<http2::SendRequest<Body>, BoxError> {
        let stream = Stream::connect(endpoint).await?;
        let (sender, connection) = http2::Builder::new(Tracked(self.shared.tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .handshake(TokioIo::new(stream))
            .await?;
        self.shared
            .tasks
            .spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn within_limit<T>(
        &self,
        connecting: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, Failed> {
        let fail = |source: BoxError| Failed {
            failure: Failure::Connect,
            source: Some(source),
            request: None,
        };
        match tokio::time::timeout(self.shared.config.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(fail),
            Err(elapsed) => Err(fail(elapsed.into())),
        }
    }

    /// The connection that was used last, so that those not needed grow old.
    fn take_idle(&self, endpoint: &Endpoint) -> Option<http1::SendRequest<Body>> {
        let now = self.shared.clock.now();
        let mut idle = self.shared.http1.lock();
        let stack = idle.get_mut(endpoint)?;
        while let Some(Idle { sender, since }) = stack.pop() {
            if sender.is_ready() && now.since(since) < self.shared.config.idle_timeout {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, endpoint: &Endpoint, sender: http1::SendRequest<Body>) {
        let since = self.shared.clock.now();
        let mut idle = self.shared.http1.lock();
        // Asked under the lock: a shutdown closes first and then clears what is kept.
        if self.is_closed() {
            return;
        }
        let stack = idle.entry(endpoint.clone()).or_default();
        if stack.len() < self.shared.config.max_idle {
            stack.push(Idle { sender, since });
        }
    }

    /// Drops what is too old or has ended, over all endpoints: instances that are gone leave nothing.
    fn prune(&self) {
        let now = self.shared.clock.now();
        let limit = self.shared.config.idle_timeout;
        self.shared.http1.lock().retain(|_, stack| {
            stack.retain(|idle| !idle.sender.is_closed() && now.since(idle.since) < limit);
            !stack.is_empty()
        });
    }
}

impl Lease {
    /// Sends the request. Cancelled, it closes an HTTP/1.1 connection and resets an HTTP/2 stream.
    pub(crate) async fn send(self, request: Request<Body>) -> Result<Response<Incoming>, Failed> {
        match self {
            Self::Http1 {
                mut sender,
                pool,
                endpoint,
            } => {
                let sent = sender.try_send_request(request).await;
                let response = sent.map_err(failed)?;
                pool.return_later(endpoint, sender);
                Ok(response)
            }
            Self::Http2 { mut sender } => {
                let sent = sender.try_send_request(request).await;
                sent.map_err(failed)
            }
        }
    }
}

impl Pool {
    /// Keeps the connection once the response body has been read to its end.
    fn return_later(self, endpoint: Endpoint, mut sender: http1::SendRequest<Body>) {
        if sender.is_ready() {
            self.keep(&endpoint, sender);
            return;
        }
        let tasks = self.shared.tasks.clone();
        tasks.spawn(async move {
            if sender.ready().await.is_ok() {
                self.keep(&endpoint, sender);
            }
        });
    }
}

fn failed(mut error: TrySendError<Request<Body>>) -> Failed {
    let request = error.take_message();
    let source = error.into_error();
    let failure = match &request {
        Some(_) => Failure::Unsent,
        None => failure_of(&source),
    };
    Failed {
        failure,
        source: Some(source.into()),
        request,
    }
}

fn failure_of(error: &hyper::Error) -> Failure {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if inner.is::<crate::Error>() {
            return Failure::RequestBody;
        }
        if let Some(failure) = inner.downcast_ref().and_then(refusal_of) {
            return failure;
        }
        source = inner.source();
    }
    Failure::Reset
}

/// What proves that the peer did not look at the stream: it says so, or it ended the connection with the
/// name of an earlier one (RFC 9113, 6.8). The streams up to that one are not told of its goodbye.
fn refusal_of(error: &h2::Error) -> Option<Failure> {
    let is_goodbye = error.is_go_away() && error.is_remote();
    match error.reason() {
        Some(h2::Reason::NO_ERROR) if is_goodbye => Some(Failure::GoneAway),
        Some(h2::Reason::REFUSED_STREAM) => Some(Failure::RefusedStream),
        _ if is_goodbye => Some(Failure::RefusedStream),
        _ => None,
    }
}

/// Runs the streams of an HTTP/2 connection as tasks of the pool.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn(future));
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("config", &self.shared.config)
            .field("tasks", &self.shared.tasks.len())
            .finish_non_exhaustive()
    }
}
