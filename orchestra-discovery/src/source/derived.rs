//! Ids for instances that are known by their address alone.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use orchestra_core::{Endpoint, InstanceId};

/// Address and port; a Unix socket has none.
///
/// Colons cannot begin an id, so an IPv6 address is written with all of its eight groups:
/// `fd00:0:0:0:0:0:0:7:80`.
pub(super) fn derived_id(endpoint: &Endpoint) -> Option<InstanceId> {
    match endpoint {
        Endpoint::Tcp(address) => of_address(*address),
        Endpoint::Host { name, port } => InstanceId::new(format!("{name}:{port}")).ok(),
        _ => None,
    }
}

fn of_address(address: SocketAddr) -> Option<InstanceId> {
    let mut text = String::new();
    match address.ip() {
        IpAddr::V4(ip) => write!(text, "{ip}:").ok()?,
        IpAddr::V6(ip) => {
            for group in ip.segments() {
                write!(text, "{group:x}:").ok()?;
            }
        }
    }
    write!(text, "{}", address.port()).ok()?;
    InstanceId::new(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(endpoint: &str) -> Option<String> {
        derived_id(&endpoint.parse().unwrap()).map(|id| id.to_string())
    }

    #[test]
    fn ids_are_address_and_port() {
        assert_eq!(id("10.0.0.7:80").as_deref(), Some("10.0.0.7:80"));
        assert_eq!(id("[::1]:80").as_deref(), Some("0:0:0:0:0:0:0:1:80"));
        assert_eq!(id("[fd00::7]:80").as_deref(), Some("fd00:0:0:0:0:0:0:7:80"));
        assert_eq!(id("db.internal:80").as_deref(), Some("db.internal:80"));
        assert_eq!(id("unix:/run/db.sock"), None);
    }
}
