//! Calls to one service, over whichever of its instances answers.

mod answer;
mod attempt;
mod builder;
mod call;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use orchestra_core::{Clock, Listener, Monotonic, ServiceName};
use parking_lot::Mutex;

pub use builder::Builder;

use self::call::Call;
use crate::budget::Budget;
use crate::connect::Pool;
use crate::error::Kind;
use crate::event::Event;
use crate::pick::Pick;
use crate::{Body, Error, Policy};

/// A client of one service: picks an instance per attempt, retries within a budget, keeps a deadline.
///
/// A clone is one reference count. It is a [`tower_service::Service`], and [`send`](Self::send) needs
/// only `&self`. From the request's extensions it reads an [`orchestra_core::Deadline`] (by the same
/// clock), an [`orchestra_core::TraceContext`] and an [`orchestra_core::Selector`] that limits the
/// instances; headers tell deadline and trace of a caller further away. Which of the instances it should be, a
/// [`HashKey`](crate::pick::HashKey) or a [`Sticky`](crate::pick::Sticky) says there.
///
/// A response is returned whatever its status; an error means that there is none. Dropping the future of
/// a call gives the attempt up and tells [`Pick::complete`] nothing but [`Outcome::Neutral`]. The
/// instance counts as busy until the response body is read to its end or dropped.
///
/// ```no_run
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use std::sync::Arc;
/// use orchestra_mesh::pick::{RoundRobin, Target};
/// use orchestra_mesh::{Body, Client};
///
/// let carts = RoundRobin::new([Target::new("cart-1".parse()?, "127.0.0.1:8081".parse()?)]);
/// let client = Client::builder("cart".parse()?, Arc::new(carts)).build()?;
/// let response = client.send(http::Request::get("/carts/7").body(Body::empty())?).await?;
/// println!("{}", response.status());
/// client.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`Outcome::Neutral`]: orchestra_core::Outcome::Neutral
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    service: ServiceName,
    pick: Arc<dyn Pick>,
    policy: Policy,
    headers: HeaderMap,
    budget: Arc<Budget>,
    pool: Pool,
    clock: Arc<dyn Clock>,
    listener: Arc<dyn Listener<Event>>,
    rng: Mutex<fastrand::Rng>,
}

impl Client {
    /// A client of `service`, whose instances `pick` knows.
    pub fn builder(service: ServiceName, pick: Arc<dyn Pick>) -> Builder {
        Builder::new(service, pick)
    }

    /// The service that it calls.
    pub fn service(&self) -> &ServiceName {
        &self.shared.service
    }

    /// Sends a request and returns the response of the last attempt.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let shared = &*self.shared;
        if shared.pool.is_closed() {
            let error = Error::new(Kind::ShutDown, "the client has been shut down");
            return Err(error.with_service(&shared.service));
        }
        let started = shared.clock.now();
        let mut watched = Watched {
            call: Call::new(shared, request, started),
            shared,
            started,
            is_over: false,
        };
        // The state of a call is large; a box keeps the futures of its callers small.
        let result = Box::pin(watched.call.run()).await;
        watched.is_over = true;
        shared.listener.on_event(&Event::Call {
            service: shared.service.clone(),
            attempts: watched.call.attempts(),
            result: result.as_ref().map(Response::status).map_err(Error::kind),
            duration: shared.clock.now().since(started),
        });
        result
    }

    /// Refuses further calls and waits until the connections have ended: unused ones at once, the others
    /// when their response has been read. Cancelled, it may be called again.
    pub async fn shutdown(&self) {
        self.shared.pool.shutdown().await;
    }
}

/// Reports a call that is dropped before its end.
struct Watched<'a> {
    call: Call<'a>,
    shared: &'a Shared,
    started: Monotonic,
    is_over: bool,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.shared.listener.on_event(&Event::CallAbandoned {
            service: self.shared.service.clone(),
            attempts: self.call.attempts(),
            duration: self.shared.clock.now().since(self.started),
        });
    }
}

impl Shared {
    fn draw(&self) -> u64 {
        self.rng.lock().u64(..)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("service", &self.shared.service)
            .field("pick", &self.shared.pick)
            .field("policy", &self.shared.policy)
            .field("pool", &self.shared.pool)
            .finish_non_exhaustive()
    }
}

/// The future of a call through [`tower_service::Service`].
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>);

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

/// Always ready: what limits a call is found when an instance is picked.
impl tower_service::Service<Request<Body>> for Client {
    type Response = Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let client = self.clone();
        ResponseFuture(Box::pin(async move { client.send(request).await }))
    }
}
