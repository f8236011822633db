//! The registry over HTTP: an axum router that serves any [`Registry`](crate::Registry), and a client that is one.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/register`, a [`Registration`](crate::Registration) | the [`Lease`](crate::Lease) |
//! | `POST /v1/renew`, the lease | 204 |
//! | `POST /v1/status`, `{"lease": .., "status": ..}` | 204 |
//! | `POST /v1/deregister`, the lease | 204 |
//! | `GET /v1/snapshot[?service=..]` | the [`Snapshot`](crate::Snapshot) |
//! | `GET /v1/watch?after=..&wait_ms=..[&service=..]` | `{"changes": ..}`, `"resync"` or `{"idle": ..}` |
//!
//! A watch is a long poll: the server answers with the first change after `after`, or with `idle` and the
//! revision to go on from once `wait_ms` have passed. The server keeps nothing between two polls, so an
//! answer that got lost is simply asked for again. An error is `{"kind": .., "message": ..}` under a fitting
//! status, and has the same kind on the other side. Bodies are bounded in both directions.

mod client;
mod server;
mod wire;

pub use client::HttpRegistry;
pub use server::router;

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use http::HeaderValue;

use crate::error::{Error, ErrorKind, Result};

/// The shared secret of a registry and its clients, sent as `Authorization: Bearer ..`.
///
/// ```
/// use orchestra_discovery::registry::http::BearerToken;
///
/// let token = BearerToken::new("correct-horse-battery")?;
/// assert_eq!(format!("{token:?}"), "BearerToken(..)");
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Clone)]
pub struct BearerToken(Arc<str>);

impl BearerToken {
    /// Accepts 1 to 4096 visible ASCII characters.
    pub fn new(secret: &str) -> Result<Self> {
        let visible = secret.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=4096).contains(&secret.len()) {
            let message = "a bearer token has 1 to 4096 visible ascii characters";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(Self(Arc::from(secret)))
    }

    fn header(&self) -> Result<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).map_err(|error| {
            Error::new(ErrorKind::Invalid, "the bearer token is no header").with_source(error)
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Compares in a time that depends on the lengths alone.
    fn is_in(&self, header: &HeaderValue) -> bool {
        let Some((scheme, given)) = header.as_bytes().split_at_checked("bearer ".len()) else {
            return false;
        };
        let own = self.0.as_bytes();
        let pairs = own.iter().zip(given);
        let differing = pairs.fold(0_u8, |seen, (a, b)| black_box(seen | (a ^ b)));
        scheme.eq_ignore_ascii_case(b"bearer ") && own.len() == given.len() && differing == 0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}
