//! Listeners, connections, and the way they end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use orchestra_core::Endpoint;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gateway;
use super::sniff::{Sniffed, Version, sniff};
use crate::Body;
use crate::connect::Stream;
use crate::error::{Error, Kind};

/// After a failed accept, which is mostly a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A gateway that listens.
///
/// Dropped without [`shutdown`](Self::shutdown), it stops listening and cuts every connection.
#[derive(Debug)]
#[must_use = "a gateway that is dropped stops listening"]
pub struct Serving {
    endpoints: Vec<Endpoint>,
    /// No new connections and requests.
    stop: CancellationToken,
    /// No connections at all.
    cut: CancellationToken,
    tasks: TaskTracker,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Tasks, of connections or their streams, that had not ended in time and were cut.
    pub cut: usize,
}

impl Serving {
    pub(super) async fn start(
        gateway: &Gateway,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, Error> {
        let mut bound = Vec::new();
        for endpoint in endpoints {
            let listener = Listening::bind(&endpoint).await.map_err(|error| {
                Error::new(Kind::Bind, format!("cannot listen on {endpoint}")).with_source(error)
            })?;
            bound.push(listener);
        }
        let serving = Self {
            endpoints: bound
                .iter()
                .map(|listener| listener.endpoint.clone())
                .collect(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let slots = Arc::new(Semaphore::new(gateway.shared.limits.connections));
        for listener in bound {
            let context = Context {
                gateway: gateway.clone(),
                stop: serving.stop.clone(),
                cut: serving.cut.clone(),
                tasks: serving.tasks.clone(),
            };
            serving
                .tasks
                .spawn(context.accept(listener, Arc::clone(&slots)));
        }
        tracing::info!(endpoints = ?serving.endpoints, "the gateway listens");
        Ok(serving)
    }

    /// Where it listens, with the ports that were chosen for port 0.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Stops listening, lets requests under way end within `grace`, and cuts what is left.
    ///
    /// The clients behind the gateway stay as they are. Cancelled, it cuts at once.
    pub async fn shutdown(self, grace: Duration) -> Drained {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_ok() {
            return Drained { cut: 0 };
        }
        let cut = self.tasks.len();
        tracing::warn!(cut, "connections did not end in time and are cut");
        self.cut.cancel();
        self.tasks.wait().await;
        Drained { cut }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut.cancel();
    }
}

/// A bound listener; a Unix socket is unlinked when it is dropped.
#[derive(Debug)]
struct Listening {
    endpoint: Endpoint,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let tcp = |listener: TcpListener| {
            let endpoint = Endpoint::Tcp(listener.local_addr()?);
            let socket = Socket::Tcp(listener);
            Ok(Self { endpoint, socket })
        };
        match endpoint {
            Endpoint::Tcp(address) => tcp(TcpListener::bind(address).await?),
            Endpoint::Host { name, port } => tcp(TcpListener::bind((&**name, *port)).await?),
            Endpoint::Unix(path) => Ok(Self {
                endpoint: endpoint.clone(),
                socket: Socket::Unix(bind_unix(path).await?),
            }),
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), None))
            }
        }
    }
}

/// Replaces a socket that nobody listens on any more.
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        // A connection to a plain file is refused as well: that one is not ours to remove.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_socket(path) => {
            let probe = UnixStream::connect(path).await;
            match probe {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)
                }
                _ => Err(error),
            }
        }
        bound => bound,
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Endpoint::Unix(path) = &self.endpoint
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, path = %path.display(), "the socket could not be removed");
        }
    }
}

/// What the tasks of a gateway share.
#[derive(Debug, Clone)]
struct Context {
    gateway: Gateway,
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Context {
    async fn accept(self, listener: Listening, slots: Arc<Semaphore>) {
        let stop = self.stop.clone();
        let accepting = async {
            while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        self.tasks
                            .spawn(self.clone().connection(stream, peer, slot));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = accepting => {}
        }
    }

    async fn connection(
        self,
        stream: Stream,
        peer: Option<SocketAddr>,
        slot: OwnedSemaphorePermit,
    ) {
        let cut = self.cut.clone();
        tokio::select! {
            () = cut.cancelled() => {}
            () = self.converse(stream, peer) => {}
        }
        drop(slot);
    }

    async fn converse(self, stream: Stream, peer: Option<SocketAddr>) {
        let limits = self.gateway.shared.limits;
        let sniffing = sniff(stream, limits.stall_timeout);
        let sniffed = tokio::select! {
            () = self.stop.cancelled() => return,
            sniffed = tokio::time::timeout(limits.header_timeout, sniffing) => sniffed,
        };
        let Ok(Ok(Some((version, stream)))) = sniffed else {
            return;
        };
        let result = match version {
            Version::Http1 => self.http1(stream, peer).await,
            Version::Http2 => self.http2(stream, peer).await,
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn http1(self, stream: Sniffed, peer: Option<SocketAddr>) -> Result<(), hyper::Error> {
        let limits = self.gateway.shared.limits;
        let gateway = self.gateway.clone();
        let service = service_fn(move |request| answer(gateway.clone(), request, peer));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_headers(limits.headers)
            .max_buf_size(limits.header_bytes)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = &mut connection => return result,
            () = self.stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }

    async fn http2(self, stream: Sniffed, peer: Option<SocketAddr>) -> Result<(), hyper::Error> {
        let limits = self.gateway.shared.limits;
        let gateway = self.gateway.clone();
        let service = service_fn(move |request| answer(gateway.clone(), request, peer));
        let connection = http2::Builder::new(Streams {
            cut: self.cut.clone(),
            tasks: self.tasks.clone(),
        })
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = &mut connection => return result,
            () = self.stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

async fn answer(
    gateway: Gateway,
    request: Request<Incoming>,
    peer: Option<SocketAddr>,
) -> Result<http::Response<Body>, Infallible> {
    let request = request.map(|incoming| {
        if http_body::Body::is_end_stream(&incoming) {
            Body::empty()
        } else {
            Body::wrap(incoming)
        }
    });
    Ok(gateway.answer(request, peer).await)
}

/// Runs the streams of HTTP/2 connections as tasks of the gateway.
#[derive(Debug, Clone)]
struct Streams {
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                _ = future => {}
            }
        });
    }
}
