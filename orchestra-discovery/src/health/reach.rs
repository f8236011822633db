//! Where probes may go.

use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use orchestra_core::Endpoint;

use super::Networks;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ProbeTarget;

/// The longest path or service name of a probe, in bytes.
const MAX_PATH: usize = 1_024;

/// Where probes may go, whatever registrations ask for.
///
/// A registration names an endpoint, and the path and port of its probe. So whoever may register decides what a
/// checker connects to from where it stands, and that must not be more than the checker's owner means it to be:
/// TCP addresses must lie in the [`Networks`], Unix sockets in a directory that is listed, and a path is a path
/// and nothing else. A registry refuses at once by [`Reach::check`]; the probes of this crate apply the same
/// rules to the very address that they connect to, after a host name has been resolved.
///
/// ```
/// use orchestra_discovery::ProbeTarget;
/// use orchestra_discovery::health::Reach;
///
/// let reach = Reach::default();
/// reach.check(&"10.0.0.7:80".parse()?, &ProbeTarget::default().path("/ready").port(81))?;
/// assert!(reach.check(&"169.254.169.254:80".parse()?, &ProbeTarget::default()).is_err());
/// assert!(reach.check(&"10.0.0.7:80".parse()?, &ProbeTarget::default().path("http://a/")).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    networks: Networks,
    directories: Vec<PathBuf>,
}

impl Reach {
    /// Reaches these networks.
    #[must_use]
    pub fn networks(mut self, networks: Networks) -> Self {
        self.networks = networks;
        self
    }

    /// Reaches the Unix sockets in this directory and below, as paths read: symbolic links are not followed up,
    /// so nobody else may be able to write there. `/` is all of them; without a call it is none.
    #[must_use]
    pub fn unix_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directories.push(directory.into());
        self
    }

    /// Whether an instance with this endpoint may be probed there.
    ///
    /// [`Invalid`](ErrorKind::Invalid) if not. The addresses of a host name are not known here: they are judged
    /// when a probe connects.
    pub fn check(&self, endpoint: &Endpoint, probe: &ProbeTarget) -> Result<()> {
        if let Some(path) = &probe.path {
            check_path(path)?;
        }
        match endpoint {
            Endpoint::Tcp(address) => self.check_address(*address),
            Endpoint::Unix(path) => self.check_socket(path),
            _ => Ok(()),
        }?;
        port(endpoint, probe).map(drop)
    }

    fn check_address(&self, address: SocketAddr) -> Result<()> {
        if self.admits(address.ip()) {
            return Ok(());
        }
        let address = address.ip();
        refuse(format!("{address} is not in the networks of probes"))
    }

    pub(super) fn admits(&self, address: IpAddr) -> bool {
        self.networks.contain(address)
    }

    pub(super) fn check_socket(&self, path: &Path) -> Result<()> {
        // `starts_with` compares components and would let `..` lead out again.
        let straight = path
            .components()
            .all(|part| !matches!(part, Component::ParentDir));
        if straight && self.directories.iter().any(|it| path.starts_with(it)) {
            return Ok(());
        }
        let path = path.display();
        refuse(format!("{path} is not in the directories of probes"))
    }
}

/// The port to connect to; `None` for a Unix socket.
pub(super) fn port(endpoint: &Endpoint, probe: &ProbeTarget) -> Result<Option<u16>> {
    let own = match endpoint {
        Endpoint::Tcp(address) => Some(address.port()),
        Endpoint::Host { port, .. } => Some(*port),
        _ => None,
    };
    match (own, probe.port) {
        (None, Some(_)) => refuse(format!("{endpoint} has no port to be probed at")),
        (Some(_), Some(0)) | (Some(0), None) => {
            refuse(format!("{endpoint} cannot be probed at port 0"))
        }
        (own, other) => Ok(other.or(own)),
    }
}

fn refuse<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::Invalid, message))
}

/// Accepts the path and query of an HTTP request, or the name of a gRPC service: nothing that could be taken for
/// a host, end the request line or exceed a header.
pub(super) fn check_path(path: &str) -> Result<()> {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    let elsewhere = path.starts_with("//") || path.contains("://") || path.contains(['\\', '#']);
    if !plain || elsewhere || path.len() > MAX_PATH {
        let shown: String = path.chars().take(64).collect();
        return refuse(format!("probe path {shown:?} is not a plain path or name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(reach: &Reach, endpoint: &str, probe: &ProbeTarget) -> bool {
        match reach.check(&endpoint.parse().unwrap(), probe) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid);
                false
            }
        }
    }

    fn at(path: &str) -> ProbeTarget {
        ProbeTarget::default().path(path)
    }

    #[test]
    fn a_path_is_a_path_and_never_another_host() {
        let reach = Reach::default();
        for path in ["/", "/ready?deep=1", "/a/../b", "grpc.health.v1.Health", ""] {
            assert!(check(&reach, "10.0.0.7:80", &at(path)), "{path:?}");
        }
        let long = format!("/{}", "a".repeat(1_024));
        for path in [
            "//evil/",
            "http://evil/",
            "/a\r\nhost: evil",
            "/a b",
            "/a\0",
            "/\u{e4}",
            "/a#b",
            "\\\\evil\\",
            &long,
        ] {
            assert!(!check(&reach, "10.0.0.7:80", &at(path)), "{path:?}");
        }
    }

    #[test]
    fn a_port_must_be_one() {
        let reach = Reach::default().unix_directory("/run");
        let port = |port| ProbeTarget::default().port(port);
        assert!(check(&reach, "10.0.0.7:80", &port(1)));
        assert!(check(&reach, "10.0.0.7:0", &port(1)));
        assert!(check(&reach, "payments.internal:80", &port(81)));
        assert!(!check(&reach, "10.0.0.7:80", &port(0)));
        assert!(!check(&reach, "10.0.0.7:0", &ProbeTarget::default()));
        assert!(!check(&reach, "unix:/run/a.sock", &port(81)));
    }

    #[test]
    fn unix_sockets_are_reached_where_allowed_only() {
        let (none, run) = (
            Reach::default(),
            Reach::default().unix_directory("/run/app"),
        );
        let plain = ProbeTarget::default();
        assert!(!check(&none, "unix:/run/app/a.sock", &plain));
        assert!(check(&run, "unix:/run/app/a.sock", &plain));
        assert!(!check(&run, "unix:/run/application.sock", &plain));
        assert!(!check(&run, "unix:/run/app/../docker.sock", &plain));
        let all = Reach::default().unix_directory("/");
        assert!(check(&all, "unix:/run/docker.sock", &plain));
    }

    proptest! {
        #[test]
        fn a_path_that_is_accepted_holds_no_byte_that_ends_a_line(path in any::<String>()) {
            if check_path(&path).is_ok() {
                prop_assert!(path.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
                prop_assert!(path.len() <= 1_024);
            }
        }
    }
}
