use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use orchestra_core::{Clock, Listener, ServiceName, Silent, TokioClock};
use parking_lot::Mutex;
use tower_service::Service;

use super::mount::Mounted;
use super::{Destination, Gateway, Shared};
use crate::error::BoxError;
use crate::event::Event;
use crate::route::{Route, Table};
use crate::{Body, Client, Error, Ratio};

/// How much of a peer's demands a gateway meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub(super) body: usize,
    pub(super) headers: usize,
    pub(super) header_bytes: usize,
    pub(super) header_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) connections: usize,
    pub(super) streams: u32,
}

impl Default for Limits {
    /// Bodies of 10 MiB; 100 headers, 60 KiB, 10 s for them; 30 s without reading; 4,096 connections with 256
    /// streams each.
    fn default() -> Self {
        Self {
            body: 10 * 1024 * 1024,
            headers: 100,
            header_bytes: 60 * 1024,
            header_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            connections: 4096,
            streams: 256,
        }
    }
}

impl Limits {
    /// The longest request body in bytes; a longer one is answered with 413.
    #[must_use]
    pub const fn body(mut self, bytes: usize) -> Self {
        self.body = bytes;
        self
    }

    /// The most request headers in HTTP/1.1; more are answered with 431.
    #[must_use]
    pub const fn headers(mut self, count: usize) -> Self {
        self.headers = count;
        self
    }

    /// The longest head of a request in bytes, at least 8 KiB; a longer one is answered with 431.
    #[must_use]
    pub const fn header_bytes(mut self, bytes: usize) -> Self {
        self.header_bytes = bytes;
        self
    }

    /// How long a peer may take over the head of a request, or over its first bytes.
    #[must_use]
    pub const fn header_timeout(mut self, limit: Duration) -> Self {
        self.header_timeout = limit;
        self
    }

    /// How long a peer may take nothing at all of what is sent to it, before its connection is cut. A response
    /// that pauses by itself is none of this. An HTTP/2 peer that keeps a window shut is not cut by it.
    #[must_use]
    pub const fn stall_timeout(mut self, limit: Duration) -> Self {
        self.stall_timeout = limit;
        self
    }

    /// The most connections at once; further ones wait to be accepted.
    #[must_use]
    pub const fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// The most HTTP/2 streams at once on a connection.
    #[must_use]
    pub const fn streams(mut self, count: u32) -> Self {
        self.streams = count;
        self
    }

    fn check(&self) -> Result<(), Error> {
        if self.header_bytes < 8192 || self.header_bytes > 1024 * 1024 {
            return Err(Error::config(
                "the head of a request is limited to 8 KiB up to 1 MiB",
            ));
        }
        let is_zero = self.header_timeout.is_zero() || self.stall_timeout.is_zero();
        if self.connections == 0 || self.streams == 0 || is_zero {
            return Err(Error::config("a limit of zero lets no request pass"));
        }
        Ok(())
    }
}

/// The settings of a [`Gateway`].
#[must_use]
pub struct Builder {
    routes: Vec<Route>,
    destinations: Vec<(ServiceName, Destination)>,
    limits: Limits,
    strip: Vec<Box<str>>,
    sampling: Ratio,
    clock: Option<Arc<dyn Clock>>,
    listener: Arc<dyn Listener<Event>>,
    seed: Option<u64>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            routes: Vec::new(),
            destinations: Vec::new(),
            limits: Limits::default(),
            strip: vec!["x-saga-".into(), "x-envoy-".into()],
            sampling: Ratio::ALL,
            clock: None,
            listener: Arc::new(Silent),
            seed: None,
        }
    }

    /// Adds a route.
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Makes the client's service a destination.
    pub fn client(mut self, client: Client) -> Self {
        let name = client.service().clone();
        self.destinations.push((name, Destination::Client(client)));
        self
    }

    /// Makes a service of this process a destination, such as an axum `Router`.
    pub fn mount<S, B>(mut self, name: ServiceName, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.destinations
            .push((name, Destination::Mounted(Mounted::new(service))));
        self
    }

    /// What peers may demand.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Removes request headers whose names begin so, in place of `x-saga-` and `x-envoy-`.
    pub fn strip<P: AsRef<str>>(mut self, prefixes: impl IntoIterator<Item = P>) -> Self {
        let lower = |prefix: P| prefix.as_ref().to_ascii_lowercase().into();
        self.strip = prefixes.into_iter().map(lower).collect();
        self
    }

    /// The share of new traces that are marked as sampled; all by default. A caller's own mark is kept.
    pub fn sampling(mut self, share: Ratio) -> Self {
        self.sampling = share;
        self
    }

    /// The clock; that of tokio by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Who hears of requests.
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.listener = listener;
        self
    }

    /// The seed of ids and of the draws of splits; random by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks that every route leads somewhere.
    pub fn build(self) -> Result<Gateway, Error> {
        self.limits.check()?;
        let mut destinations = HashMap::new();
        for (name, destination) in self.destinations {
            if destinations.insert(name.clone(), destination).is_some() {
                return Err(Error::config(format!("destination {name} is given twice")));
            }
        }
        let table = Table::new(self.routes)?;
        for route in table.routes() {
            let mut wanted = route.destinations().destinations();
            if let Some(missing) = wanted.find(|name| !destinations.contains_key(*name)) {
                let name = route.name();
                let message = format!("route {name:?} leads to {missing}, which is no destination");
                return Err(Error::config(message));
            }
        }
        let rng = self
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Ok(Gateway {
            shared: Arc::new(Shared {
                table,
                destinations,
                limits: self.limits,
                strip: self.strip,
                sampling: self.sampling,
                clock: self.clock.unwrap_or_else(|| Arc::new(TokioClock::new())),
                listener: self.listener,
                rng: Mutex::new(rng),
            }),
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("routes", &self.routes)
            .field("destinations", &self.destinations)
            .field("limits", &self.limits)
            .field("strip", &self.strip)
            .finish_non_exhaustive()
    }
}
