//! A probe over HTTP/1.1.

mod connection;

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Empty;
use orchestra_core::Endpoint;

use self::connection::{Answer, Connection};
use super::dial::{admitted, dial, target};
use super::idle::Idle;
use super::reach::check_path;
use super::{Probe, Reach, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::Instance;

/// By this header an instance asks to be spared; Envoy's.
pub(super) const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

/// Passes when a path is answered by an expected status.
///
/// | the answer | verdict |
/// |---|---|
/// | an expected status (2xx), with the expected body | [`Pass`](Verdict::Pass) |
/// | the same under the header `x-envoy-degraded`, or status 429 | [`Degraded`](Verdict::Degraded) |
/// | a status that may pass by itself (none unless told) | [`Fail`](Verdict::Fail) |
/// | any other status, a redirect too; a body without what is expected | [`Critical`](Verdict::Critical) |
/// | none | [`Fail`](Verdict::Fail) |
///
/// As in Envoy, what an instance answers needs no threshold to be believed. Redirects are not followed.
///
/// A registration may set path and port ([`ProbeTarget`](crate::ProbeTarget)), within the [`Reach`]; the host is
/// the endpoint's own. Heads up to 16 KiB and bodies up to 64 KiB are read. One connection per instance is kept
/// between probes, 512 in all, and is replaced within the same probe if it proves to be broken; nothing of it
/// runs meanwhile.
///
/// ```
/// use orchestra_discovery::HttpProbe;
///
/// let probe = HttpProbe::new("/health")?
///     .expect_statuses([200..=204])
///     .retry_statuses([502..=504])
///     .expect_body("\"status\":\"up\"");
/// assert!(HttpProbe::new("health").is_err());
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HttpProbe {
    path: PathAndQuery,
    method: Method,
    host: Option<HeaderValue>,
    expected: Vec<RangeInclusive<u16>>,
    retriable: Vec<RangeInclusive<u16>>,
    degraded: Vec<RangeInclusive<u16>>,
    degraded_header: Option<HeaderName>,
    body: Option<Arc<str>>,
    reach: Reach,
    idle: Option<Arc<Idle<Connection>>>,
}

impl HttpProbe {
    /// A `GET` of this path, unless a registration names another.
    pub fn new(path: &str) -> Result<Self> {
        Ok(Self {
            path: parse(path)?,
            method: Method::GET,
            host: None,
            expected: vec![200..=299],
            retriable: Vec::new(),
            degraded: vec![429..=429],
            degraded_header: Some(DEGRADED),
            body: None,
            reach: Reach::default(),
            idle: Some(Arc::default()),
        })
    }

    /// Asks by `HEAD`, so that there is no body.
    #[must_use]
    pub fn head(mut self) -> Self {
        self.method = Method::HEAD;
        self
    }

    /// Sends this as the `Host`, instead of the endpoint.
    pub fn host(mut self, host: &str) -> Result<Self> {
        self.host = Some(host_header(host)?);
        Ok(self)
    }

    /// Passes on these statuses instead of 200 to 299.
    #[must_use]
    pub fn expect_statuses(
        mut self,
        ranges: impl IntoIterator<Item = RangeInclusive<u16>>,
    ) -> Self {
        self.expected = ranges.into_iter().collect();
        self
    }

    /// Takes these statuses for failures that may pass: thresholds are waited for.
    #[must_use]
    pub fn retry_statuses(mut self, ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        self.retriable = ranges.into_iter().collect();
        self
    }

    /// Takes these statuses for [`Degraded`](Verdict::Degraded), instead of 429; they come before all others.
    #[must_use]
    pub fn degraded_statuses(
        mut self,
        ranges: impl IntoIterator<Item = RangeInclusive<u16>>,
    ) -> Self {
        self.degraded = ranges.into_iter().collect();
        self
    }

    /// Takes the presence of this header for [`Degraded`](Verdict::Degraded), instead of `x-envoy-degraded`;
    /// `None` for no header.
    #[must_use]
    pub fn degraded_header(mut self, name: Option<HeaderName>) -> Self {
        self.degraded_header = name;
        self
    }

    /// Passes only if this occurs in the first 64 KiB of the body.
    #[must_use]
    pub fn expect_body(mut self, text: impl Into<Arc<str>>) -> Self {
        self.body = Some(text.into()).filter(|text| !text.is_empty());
        self
    }

    /// Goes no further than this.
    #[must_use]
    pub fn reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// Opens a connection for each probe, and says so by `Connection: close`.
    #[must_use]
    pub fn without_reuse(mut self) -> Self {
        self.idle = None;
        self
    }

    fn request(&self, instance: &Instance) -> Result<Request<Empty<Bytes>>, Verdict> {
        let forbidden = |error: Error| Verdict::Forbidden(error.to_string());
        let port = admitted(&self.reach, instance)?;
        let path = match &target(instance).path {
            Some(path) => parse(path).map_err(forbidden)?,
            None => self.path.clone(),
        };
        let host = match &self.host {
            Some(host) => host.clone(),
            None => host_header(&authority(&instance.endpoint, port)).map_err(forbidden)?,
        };
        let mut request = Request::new(Empty::new());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = path.into();
        let headers = request.headers_mut();
        headers.insert(header::HOST, host);
        if self.idle.is_none() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(request)
    }

    async fn ask(&self, instance: &Instance) -> Result<Answer, Verdict> {
        let request = self.request(instance)?;
        let kept = self.idle.as_ref().and_then(|idle| idle.take(instance));
        if let Some(mut connection) = kept {
            // It may have been closed meanwhile, which says nothing about the instance.
            if let Ok(answer) = connection.ask(request.clone()).await {
                self.keep(instance, connection);
                return Ok(answer);
            }
        }
        let broken = |error: hyper::Error| Verdict::Fail(reason(&error));
        let stream = dial(&self.reach, instance).await?;
        let mut connection = Connection::open(stream).await.map_err(broken)?;
        let answer = connection.ask(request).await.map_err(broken)?;
        self.keep(instance, connection);
        Ok(answer)
    }

    fn keep(&self, instance: &Instance, connection: Connection) {
        if let Some(idle) = self.idle.as_ref().filter(|_| connection.is_reusable()) {
            idle.put(instance, connection);
        }
    }

    fn judge(&self, answer: &Answer) -> Verdict {
        let status = answer.head.status.as_u16();
        let within = |ranges: &[RangeInclusive<u16>]| ranges.iter().any(|it| it.contains(&status));
        if within(&self.degraded) {
            return Verdict::Degraded(format!("status {status}"));
        }
        if !within(&self.expected) {
            let reason = format!("status {status}");
            return if within(&self.retriable) {
                Verdict::Fail(reason)
            } else {
                Verdict::Critical(reason)
            };
        }
        if let Some(text) = self.body.as_deref() {
            let wanted = text.as_bytes();
            if !answer.body.windows(wanted.len()).any(|it| it == wanted) {
                return Verdict::Critical(format!("status {status} without the expected body"));
            }
        }
        match &self.degraded_header {
            Some(name) if answer.head.headers.contains_key(name) => {
                Verdict::Degraded(format!("header {name}"))
            }
            _ => Verdict::Pass,
        }
    }
}

#[async_trait]
impl Probe for HttpProbe {
    async fn probe(&self, instance: &Instance) -> Verdict {
        match self.ask(instance).await {
            Ok(answer) => self.judge(&answer),
            Err(verdict) => verdict,
        }
    }

    fn forget(&self, instance: &Instance) {
        if let Some(idle) = &self.idle {
            idle.forget(instance);
        }
    }
}

fn parse(path: &str) -> Result<PathAndQuery> {
    let invalid = || {
        let shown: String = path.chars().take(64).collect();
        let message = format!("probe path {shown:?} is not an absolute path");
        Error::new(ErrorKind::Invalid, message)
    };
    check_path(path)?;
    if !path.starts_with('/') {
        return Err(invalid());
    }
    path.parse()
        .map_err(|error: http::uri::InvalidUri| invalid().with_source(error))
}

fn host_header(host: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(host).map_err(|error| {
        let message = format!("{host:?} is no host header");
        Error::new(ErrorKind::Invalid, message).with_source(error)
    })
}

/// The host and port that are asked, as a client names them.
pub(super) fn authority(endpoint: &Endpoint, port: Option<u16>) -> String {
    match (endpoint, port) {
        (Endpoint::Tcp(address), Some(port)) => {
            std::net::SocketAddr::new(address.ip(), port).to_string()
        }
        (Endpoint::Host { name, .. }, Some(port)) => format!("{name}:{port}"),
        _ => "localhost".to_owned(),
    }
}

/// An error with its causes, that of a connection alone says too little; cut, since the peer may have a say.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text.chars().take(512).collect()
}
