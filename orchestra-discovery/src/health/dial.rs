//! Connecting to an instance, where the reach allows it.

use std::net::SocketAddr;

use orchestra_core::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::reach::port;
use super::{Reach, Verdict};
use crate::instance::{Instance, ProbeTarget};

/// How many addresses of one host name are tried.
const MAX_ADDRESSES: usize = 8;

pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

pub(super) type Stream = Box<dyn Socket>;

/// What the registration says of its probe.
pub(super) fn target(instance: &Instance) -> &ProbeTarget {
    static SILENT: ProbeTarget = ProbeTarget {
        path: None,
        port: None,
    };
    instance.probe.as_deref().unwrap_or(&SILENT)
}

/// The port that is probed; `None` for a Unix socket. Whatever the reach forbids ends here.
pub(super) fn admitted(reach: &Reach, instance: &Instance) -> Result<Option<u16>, Verdict> {
    let (endpoint, probe) = (&instance.endpoint, target(instance));
    let checked = reach.check(endpoint, probe);
    let port = checked.and_then(|()| port(endpoint, probe));
    port.map_err(|error| Verdict::Forbidden(error.to_string()))
}

/// Connects to the instance's own host, and to no address that was not judged.
pub(super) async fn dial(reach: &Reach, instance: &Instance) -> Result<Stream, Verdict> {
    let (endpoint, port) = (&instance.endpoint, admitted(reach, instance)?);
    let refused =
        |error: std::io::Error| Verdict::Fail(format!("cannot connect to {endpoint}: {error}"));
    match (endpoint, port) {
        (Endpoint::Tcp(address), Some(port)) => tcp(&[SocketAddr::new(address.ip(), port)])
            .await
            .map_err(refused),
        (Endpoint::Host { name, .. }, Some(port)) => {
            let found = lookup_host((&**name, port)).await.map_err(refused)?;
            let found = found.take(MAX_ADDRESSES);
            let admitted: Vec<_> = found.filter(|it| reach.admits(it.ip())).collect();
            if admitted.is_empty() {
                let message = format!("no address of {name} is in the networks of probes");
                return Err(Verdict::Forbidden(message));
            }
            tcp(&admitted).await.map_err(refused)
        }
        (Endpoint::Unix(path), _) => {
            let stream = UnixStream::connect(path).await.map_err(refused)?;
            Ok(Box::new(stream))
        }
        (other, _) => Err(Verdict::Forbidden(format!(
            "endpoint {other} is of a kind that cannot be probed"
        ))),
    }
}

async fn tcp(addresses: &[SocketAddr]) -> std::io::Result<Stream> {
    let stream = TcpStream::connect(addresses).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}
