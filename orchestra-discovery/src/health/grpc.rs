//! A probe by the gRPC health checking protocol, `grpc.health.v1.Health/Check`.

mod connection;
mod message;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};

use self::connection::{Answer, Connection};
use self::message::Said;
use super::dial::{admitted, dial, target};
use super::http::{DEGRADED, authority, reason};
use super::idle::Idle;
use super::reach::check_path;
use super::{Probe, Reach, Verdict};
use crate::error::Result;
use crate::instance::Instance;

/// The codes of gRPC that mean something of their own here.
mod code {
    pub(super) const OK: u32 = 0;
    pub(super) const UNKNOWN: u32 = 2;
    pub(super) const NOT_FOUND: u32 = 5;
    pub(super) const PERMISSION_DENIED: u32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(super) const UNIMPLEMENTED: u32 = 12;
    pub(super) const INTERNAL: u32 = 13;
    pub(super) const UNAVAILABLE: u32 = 14;
    pub(super) const UNAUTHENTICATED: u32 = 16;
}

/// Passes when the health service of the instance says `SERVING`; HTTP/2 without TLS.
///
/// | the answer | verdict |
/// |---|---|
/// | `SERVING` | [`Pass`](Verdict::Pass) |
/// | the same under the header `x-envoy-degraded`, or status `RESOURCE_EXHAUSTED` | [`Degraded`](Verdict::Degraded) |
/// | `NOT_SERVING` | [`Critical`](Verdict::Critical) |
/// | `SERVICE_UNKNOWN`, or status `NOT_FOUND`: the server does not know the service | [`Critical`](Verdict::Critical) |
/// | status `UNIMPLEMENTED`: the server has no health service | [`Critical`](Verdict::Critical), or as told |
/// | `UNKNOWN`, any other status, or none | [`Fail`](Verdict::Fail) |
///
/// Envoy takes `UNIMPLEMENTED` for a failure, as here; clients of gRPC take it for health, as by
/// [`pass_unimplemented`](Self::pass_unimplemented). A registration may set the name of the service as its path,
/// and the port ([`ProbeTarget`](crate::ProbeTarget)). Connections are kept as those of
/// [`HttpProbe`](crate::HttpProbe) are.
///
/// ```
/// use orchestra_discovery::GrpcProbe;
///
/// let server = GrpcProbe::new("")?;
/// let payments = GrpcProbe::new("shop.v1.Payments")?.pass_unimplemented();
/// # _ = (server, payments);
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GrpcProbe {
    service: Arc<str>,
    unimplemented_passes: bool,
    reach: Reach,
    idle: Option<Arc<Idle<Connection>>>,
}

impl GrpcProbe {
    /// Asks for this service, unless a registration names another; an empty name is the whole server.
    pub fn new(service: &str) -> Result<Self> {
        check_path(service)?;
        Ok(Self {
            service: Arc::from(service),
            unimplemented_passes: false,
            reach: Reach::default(),
            idle: Some(Arc::default()),
        })
    }

    /// Takes a server without a health service for a healthy one.
    #[must_use]
    pub fn pass_unimplemented(mut self) -> Self {
        self.unimplemented_passes = true;
        self
    }

    /// Goes no further than this.
    #[must_use]
    pub fn reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// Opens a connection for each probe.
    #[must_use]
    pub fn without_reuse(mut self) -> Self {
        self.idle = None;
        self
    }

    fn request(&self, instance: &Instance) -> Result<(Request<()>, Bytes), Verdict> {
        let port = admitted(&self.reach, instance)?;
        let service = target(instance).path.as_ref().unwrap_or(&self.service);
        let authority = authority(&instance.endpoint, port);
        let uri = format!("http://{authority}/grpc.health.v1.Health/Check");
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(());
        let request = request.map_err(|error| Verdict::Forbidden(error.to_string()))?;
        Ok((request, message::request(service)))
    }

    async fn ask(&self, instance: &Instance) -> Result<Answer, Verdict> {
        let (request, message) = self.request(instance)?;
        let kept = self.idle.as_ref().and_then(|idle| idle.take(instance));
        if let Some(mut connection) = kept {
            // It may have been closed meanwhile, which says nothing about the instance.
            if let Ok(answer) = connection.ask(request.clone(), message.clone()).await {
                self.keep(instance, connection);
                return Ok(answer);
            }
        }
        let broken = |error: h2::Error| Verdict::Fail(reason(&error));
        let stream = dial(&self.reach, instance).await?;
        let mut connection = Connection::open(stream).await.map_err(broken)?;
        let answer = connection.ask(request, message).await.map_err(broken)?;
        self.keep(instance, connection);
        Ok(answer)
    }

    fn keep(&self, instance: &Instance, connection: Connection) {
        if let Some(idle) = self.idle.as_ref().filter(|_| connection.is_reusable()) {
            idle.put(instance, connection);
        }
    }

    fn judge(&self, answer: &Answer) -> Verdict {
        match code_of(answer) {
            code::OK => {}
            code::NOT_FOUND => return Verdict::Critical("service unknown".to_owned()),
            code::UNIMPLEMENTED if self.unimplemented_passes => return Verdict::Pass,
            code::UNIMPLEMENTED => return Verdict::Critical("no health service".to_owned()),
            code::RESOURCE_EXHAUSTED => return Verdict::Degraded("resource exhausted".to_owned()),
            code => return Verdict::Fail(format!("grpc status {code}")),
        }
        match message::serving(&answer.body) {
            Some(Said::Serves) if answer.head.headers.contains_key(DEGRADED) => {
                Verdict::Degraded(format!("header {DEGRADED}"))
            }
            Some(Said::Serves) => Verdict::Pass,
            Some(Said::ServesNot) => Verdict::Critical("not serving".to_owned()),
            Some(Said::ServiceUnknown) => Verdict::Critical("service unknown".to_owned()),
            Some(Said::Other) => Verdict::Fail("serving status unknown".to_owned()),
            None => Verdict::Fail("the answer is no health check response".to_owned()),
        }
    }
}

#[async_trait]
impl Probe for GrpcProbe {
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

/// The status that a client of gRPC would report: from the trailers, from the head if there are none, or else
/// from the HTTP status as the protocol maps it.
fn code_of(answer: &Answer) -> u32 {
    let from = |headers: &HeaderMap<HeaderValue>| {
        let value = headers.get("grpc-status")?;
        Some(value.to_str().ok()?.parse().unwrap_or(code::UNKNOWN))
    };
    let said = answer.trailers.as_ref().and_then(from);
    let said = said.or_else(|| from(&answer.head.headers));
    match (answer.head.status.as_u16(), said) {
        (200, said) => said.unwrap_or(code::UNKNOWN),
        (400, _) => code::INTERNAL,
        (401, _) => code::UNAUTHENTICATED,
        (403, _) => code::PERMISSION_DENIED,
        (404, _) => code::UNIMPLEMENTED,
        (429 | 502..=504, _) => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}
