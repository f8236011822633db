//! How a proxy is set up.

use std::net::{Ipv4Addr, SocketAddr};

use orchestra_core::Endpoint;

/// Where a proxy listens and forwards to.
///
/// ```
/// use orchestra_core::Endpoint;
/// use orchestra_testkit::proxy::Config;
///
/// let upstream: Endpoint = "127.0.0.1:5432".parse()?;
/// let config = Config::new(upstream).listen(Endpoint::unix("/tmp/db.sock")?).seed(7);
/// # let _ = config;
/// # Ok::<(), orchestra_core::InvalidEndpoint>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    pub(super) listen: Endpoint,
    pub(super) upstream: Endpoint,
    pub(super) seed: u64,
}

impl Config {
    /// Forwards to `upstream` from a free port of 127.0.0.1.
    pub const fn new(upstream: Endpoint) -> Self {
        let any = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self {
            listen: Endpoint::Tcp(any),
            upstream,
            seed: 0,
        }
    }

    /// Where to listen; port 0 is any free one. A Unix socket must not exist yet, and is removed again.
    #[must_use]
    pub fn listen(mut self, listen: Endpoint) -> Self {
        self.listen = listen;
        self
    }

    /// The seed of the jitter; the n-th connection draws the same delays with the same seed.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

impl From<Endpoint> for Config {
    fn from(upstream: Endpoint) -> Self {
        Self::new(upstream)
    }
}
