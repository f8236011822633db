//! Where an instance listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// The longest path of a Unix socket in bytes: `sun_path` holds 108 with its closing zero on Linux.
pub const MAX_UNIX_PATH: usize = 107;

/// An address to connect to; a clone allocates nothing.
///
/// The text forms are `127.0.0.1:80`, `[::1]:80`, `unix:/run/app.sock` and `payments.internal:80`.
///
/// ```
/// use orchestra_core::Endpoint;
///
/// let socket: Endpoint = "unix:/run/payments.sock".parse()?;
/// assert!(matches!(&socket, Endpoint::Unix(path) if path.ends_with("payments.sock")));
/// assert_eq!(socket.to_string(), "unix:/run/payments.sock");
/// # Ok::<(), orchestra_core::InvalidEndpoint>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(Arc<Path>),
    /// A host name that is resolved when connecting, and a port.
    Host {
        /// The name, in lower case.
        name: Arc<str>,
        /// The port.
        port: u16,
    },
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidEndpoint {
    text: String,
    reason: &'static str,
}

impl fmt::Display for InvalidEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid endpoint {:?}: {}", self.text, self.reason)
    }
}

impl std::error::Error for InvalidEndpoint {}

impl Endpoint {
    /// A Unix socket.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, InvalidEndpoint> {
        let path = path.as_ref();
        let fail = |reason| Err(invalid(&path.display().to_string(), reason));
        if !path.is_absolute() {
            return fail("the path of a Unix socket must be absolute");
        }
        let length = path.as_os_str().len();
        if length > MAX_UNIX_PATH {
            return fail("the path of a Unix socket is longer than 107 bytes");
        }
        Ok(Self::Unix(Arc::from(path)))
    }

    fn host(text: &str) -> Result<Self, InvalidEndpoint> {
        let fail = |reason| Err(invalid(text, reason));
        let Some((name, port)) = text.rsplit_once(':') else {
            return fail("expected `host:port`, `ip:port` or `unix:/path`");
        };
        let Ok(port) = port.parse() else {
            return fail("the port is not a number from 0 to 65535");
        };
        if !is_host_name(name) {
            return fail("the host is neither an IP address nor a DNS name");
        }
        Ok(Self::Host {
            name: Arc::from(name.to_ascii_lowercase()),
            port,
        })
    }
}

fn invalid(text: &str, reason: &'static str) -> InvalidEndpoint {
    InvalidEndpoint {
        text: text.chars().take(128).collect(),
        reason,
    }
}

/// RFC 1123 labels; a name whose last label is a number would be an IPv4 address, not a host.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(path);
        }
        text.parse()
            .map_or_else(|_| Self::host(text), |address| Ok(Self::Tcp(address)))
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}
