//! The way in: listens, routes, and answers for services that cannot.

mod answer;
mod builder;
mod intake;
mod linger;
mod mount;
mod serve;
mod sniff;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use orchestra_core::{Clock, Endpoint, Listener, Monotonic, ServiceName};
use parking_lot::Mutex;

pub use builder::{Builder, Limits};
pub use serve::{Drained, Serving};

use self::answer::{Refusal, refusal_of, without_body};
use self::intake::{Admitted, Refused};
use self::mount::Mounted;
use crate::deadline::Patience;
use crate::event::{self, Event};
use crate::route::{Query, Route, Table};
use crate::{Body, Client, Error, Ratio, deadline};

/// Routes requests to clients of services, or to services mounted in this process.
///
/// A clone is one reference count. It serves connections with [`serve`](Self::serve), and is itself a
/// [`tower_service::Service`] for whoever has a request at hand.
///
/// What it cannot route or deliver it answers itself, with a JSON body such as
/// `{"error":"no_route","message":"no route matches","request_id":"…"}` that names no address.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use orchestra_mesh::pick::{RoundRobin, Target};
/// use orchestra_mesh::route::{PathPattern, Route};
/// use orchestra_mesh::{Client, Gateway};
///
/// let carts = RoundRobin::new([Target::new("cart-1".parse()?, "127.0.0.1:8081".parse()?)]);
/// let carts = Client::builder("cart".parse()?, Arc::new(carts)).build()?;
/// let gateway = Gateway::builder()
///     .route(Route::to("carts", "cart".parse()?).path(PathPattern::prefix("/carts")?))
///     .client(carts)
///     .build()?;
/// let serving = gateway.serve(["127.0.0.1:0".parse()?]).await?;
/// println!("listening on {}", serving.endpoints()[0]);
/// let drained = serving.shutdown(Duration::from_secs(5)).await;
/// assert_eq!(drained.cut, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

struct Shared {
    table: Table,
    destinations: HashMap<ServiceName, Destination>,
    limits: Limits,
    strip: Vec<Box<str>>,
    sampling: Ratio,
    clock: Arc<dyn Clock>,
    listener: Arc<dyn Listener<Event>>,
    rng: Mutex<fastrand::Rng>,
}

#[derive(Debug)]
enum Destination {
    Client(Client),
    Mounted(Mounted),
}

impl Gateway {
    /// A gateway without routes.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Listens on these endpoints; all are bound before the first connection is accepted.
    ///
    /// A Unix socket left behind by a process that died is replaced; one in use is an error, as is a port
    /// in use, of kind [`Bind`](crate::error::Kind::Bind) with the address in its message.
    pub async fn serve(
        &self,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Serving, Error> {
        Serving::start(self, endpoints).await
    }

    /// Answers one request.
    async fn answer(&self, request: Request<Body>, peer: Option<SocketAddr>) -> Response<Body> {
        let started = self.shared.clock.now();
        let method = request.method().clone();
        let (admitted, request) = self.shared.admit(request, peer);
        let mut visit = Visit {
            shared: &self.shared,
            started,
            report: event::Request {
                route: None,
                service: None,
                method,
                status: None,
                reason: None,
                duration: Duration::ZERO,
                trace: admitted.trace.clone(),
            },
        };
        let result = match request {
            Ok(request) => {
                self.shared
                    .dispatch(request, &admitted, &mut visit.report)
                    .await
            }
            Err(Refused { refusal, request }) => {
                linger::read_on(request).await;
                Err(refusal)
            }
        };
        visit.report.reason = result.as_ref().err().map(|refusal| refusal.reason);
        let mut response = result.unwrap_or_else(|refusal| refusal.into_response(&admitted.id));
        if visit.report.method == Method::HEAD {
            response = without_body(response);
        }
        admitted.mark(&mut response);
        visit.report.status = Some(response.status());
        response
    }
}

/// Reports a request exactly once, also when the peer goes away and the rest is never run.
struct Visit<'a> {
    shared: &'a Shared,
    started: Monotonic,
    report: event::Request,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let Self { shared, report, .. } = self;
        report.duration = shared.clock.now().since(self.started);
        shared.listener.on_event(&Event::Request(report.clone()));
    }
}

impl Shared {
    async fn dispatch(
        &self,
        mut request: Request<Body>,
        admitted: &Admitted,
        report: &mut event::Request,
    ) -> Result<Response<Body>, Refusal> {
        let route = self.route(&request).ok_or_else(Refusal::no_route)?;
        report.route = Some(route.shared_name());
        let service = route.destinations().choose(request.headers(), self.draw());
        report.service = Some(service.clone());
        let left = shortest(route.limit(), admitted.left);
        deadline::to_headers(request.headers_mut(), left);
        if let Some(patience) = admitted.left {
            request.extensions_mut().insert(Patience(patience));
        }
        let destination = self
            .destinations
            .get(service)
            .ok_or_else(Refusal::no_route)?;
        let result = match destination {
            Destination::Client(client) => client.send(request).await,
            Destination::Mounted(mounted) => mounted.call(service, request, left).await,
        };
        result.map_err(|error| {
            tracing::debug!(%error, %service, "the gateway answers for a service");
            if admitted.is_body_too_large() {
                return Refusal::body_too_large();
            }
            refusal_of(&error)
        })
    }

    fn route(&self, request: &Request<Body>) -> Option<&Route> {
        let host = intake::host(request);
        let query = Query::new(request.uri().path(), request.method(), request.headers());
        self.table.find(&query.host(host))
    }

    fn draw(&self) -> u64 {
        self.rng.lock().u64(..)
    }
}

fn shortest(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    [one, other].into_iter().flatten().min()
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("table", &self.shared.table)
            .field("destinations", &self.shared.destinations)
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

/// The future of an answer through [`tower_service::Service`].
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>);

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}

/// Always ready, and never fails: what goes wrong is a response.
impl tower_service::Service<Request<Body>> for Gateway {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let gateway = self.clone();
        ResponseFuture(Box::pin(
            async move { Ok(gateway.answer(request, None).await) },
        ))
    }
}
