//! A probe over HTTP.

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http::uri::PathAndQuery;
use http_body_util::Full;

use super::{Probe, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::{Body, exchange};
use crate::instance::Instance;

/// Passes when `GET path` on a fresh connection is answered by a 2xx status; the body is not read.
///
/// The path is the caller's, never the instance's: a registration must not be able to choose what is asked
/// of others.
///
/// ```
/// use orchestra_discovery::HttpProbe;
///
/// let probe = HttpProbe::new("/health")?;
/// assert!(HttpProbe::new("health").is_err());
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HttpProbe {
    path: PathAndQuery,
}

impl HttpProbe {
    /// A probe of this path.
    pub fn new(path: &str) -> Result<Self> {
        let invalid = || {
            let message = format!("probe path {path:?} is not an absolute path");
            Error::new(ErrorKind::Invalid, message)
        };
        if !path.starts_with('/') {
            return Err(invalid());
        }
        let path = path
            .parse()
            .map_err(|error: http::uri::InvalidUri| invalid().with_source(error))?;
        Ok(Self { path })
    }
}

#[async_trait]
impl Probe for HttpProbe {
    async fn probe(&self, instance: &Instance) -> Verdict {
        let mut request = Request::new(Full::<Bytes>::default());
        *request.uri_mut() = self.path.clone().into();
        match exchange(&instance.endpoint, request, Body::Ignored).await {
            Ok((status, _)) if status.is_success() => Verdict::Pass,
            Ok((status, _)) => Verdict::Fail(format!("status {}", status.as_u16())),
            Err(error) => Verdict::Fail(error.to_string()),
        }
    }
}
