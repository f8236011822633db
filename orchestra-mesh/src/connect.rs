//! Connections to instances, over TCP and Unix sockets, kept for the next request.
//!
//! HTTP/1.1 connections carry one request at a time and wait in a bounded stack per endpoint between
//! requests. HTTP/2 is spoken with prior knowledge over one shared connection per endpoint; callers that
//! come while it is being made wait for that one. Each connection is driven by a task that the pool owns.

mod pool;
mod stream;

use std::time::Duration;

pub(crate) use pool::{Failed, Lease, Pool};
pub(crate) use stream::Stream;

/// What is spoken with the instances of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without asking first (h2c with prior knowledge), as gRPC does.
    Http2,
}

/// How connections are made and kept.
///
/// ```
/// use std::time::Duration;
/// use orchestra_mesh::connect::{Config, Protocol};
///
/// let config = Config::default()
///     .protocol(Protocol::Http2)
///     .connect_timeout(Duration::from_millis(250));
/// assert_ne!(config, Config::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    protocol: Protocol,
    connect_timeout: Duration,
    idle_timeout: Duration,
    max_idle: usize,
}

impl Default for Config {
    /// HTTP/1.1, 1 s to connect, 64 idle connections per endpoint for 60 s.
    fn default() -> Self {
        Self {
            protocol: Protocol::Http1,
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(60),
            max_idle: 64,
        }
    }
}

impl Config {
    /// What is spoken.
    #[must_use]
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// The most time for a connection, name resolution and handshake included.
    #[must_use]
    pub const fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long an unused connection is kept.
    #[must_use]
    pub const fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = limit;
        self
    }

    /// How many unused HTTP/1.1 connections are kept per endpoint.
    #[must_use]
    pub const fn max_idle(mut self, connections: usize) -> Self {
        self.max_idle = connections;
        self
    }
}
