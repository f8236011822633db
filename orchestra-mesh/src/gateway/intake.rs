//! What a request goes through before it is routed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::uri::Authority;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use http_body::Body as _;
use orchestra_core::{SpanId, TraceContext, TraceId};

use super::Shared;
use super::answer::Refusal;
use crate::request::headers::{self, REQUEST_ID};
use crate::route::has_dot_segment;
use crate::{Body, deadline};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const LONGEST_REQUEST_ID: usize = 128;

/// What the gateway knows of a request beside the request itself.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) id: HeaderText,
    pub(super) trace: TraceContext,
    pub(super) left: Option<Duration>,
    too_large: Arc<AtomicBool>,
}

/// A header value that is known to be plain text, safe inside JSON.
#[derive(Debug, Clone)]
pub(super) struct HeaderText(String);

impl std::ops::Deref for HeaderText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Admitted {
    pub(super) fn is_body_too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    /// What every response carries.
    pub(super) fn mark(&self, response: &mut Response<Body>) {
        if let Ok(value) = HeaderValue::try_from(&*self.id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        // The version is a matter of each hop.
        *response.version_mut() = Version::HTTP_11;
    }
}

/// A request that is not passed on, and the answer to it.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) request: Request<Body>,
}

impl Shared {
    pub(super) fn admit(
        &self,
        mut request: Request<Body>,
        peer: Option<SocketAddr>,
    ) -> (Admitted, Result<Request<Body>, Refused>) {
        let admitted = Admitted {
            id: self.request_id(request.headers()),
            trace: self.trace(request.headers()),
            left: deadline::from_headers(request.headers()),
            too_large: Arc::default(),
        };
        if let Err(refusal) = self.check(&request) {
            return (admitted, Err(Refused { refusal, request }));
        }
        self.rewrite(&mut request, &admitted, peer);
        let request = self.limit(request, &admitted);
        (admitted, Ok(request))
    }

    fn check(&self, request: &Request<Body>) -> Result<(), Refusal> {
        let headers = request.headers();
        if request.method() == Method::CONNECT {
            let status = StatusCode::NOT_IMPLEMENTED;
            return Err(Refusal::new(
                status,
                "no_tunnel",
                "CONNECT is not supported",
            ));
        }
        if headers.get_all(header::HOST).iter().count() > 1 {
            return Err(Refusal::bad_request("more than one host is given"));
        }
        let host = host(request);
        if request.version() == Version::HTTP_11 && host.is_empty() {
            return Err(Refusal::bad_request("no host is given"));
        }
        if !host.is_empty() && !is_host(host) {
            return Err(Refusal::bad_request("the host is none"));
        }
        if has_dot_segment(request.uri().path()) {
            return Err(Refusal::bad_request("the path has dot segments"));
        }
        if request.body().size_hint().lower() > self.limits.body as u64 {
            return Err(Refusal::body_too_large());
        }
        Ok(())
    }

    /// Takes away what outsiders may not say, and adds what the services may rely on.
    fn rewrite(&self, request: &mut Request<Body>, admitted: &Admitted, peer: Option<SocketAddr>) {
        let headers = request.headers_mut();
        // First of all: `connection` names headers to remove, and must not name those added below.
        headers::strip_hop_by_hop(headers);
        let is_internal = |name: &HeaderName| {
            self.strip
                .iter()
                .any(|prefix| name.as_str().starts_with(&**prefix))
        };
        let internal: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_internal(name))
            .cloned()
            .collect();
        for name in internal {
            headers.remove(name);
        }
        if let Ok(value) = HeaderValue::try_from(&*admitted.id) {
            headers.insert(REQUEST_ID, value);
        }
        headers::set_trace(headers, Some(&admitted.trace));
        if let Some(peer) = peer
            && let Ok(value) = HeaderValue::try_from(peer.ip().to_string())
        {
            headers.insert(FORWARDED_FOR, value);
        }
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }

    fn limit(&self, request: Request<Body>, admitted: &Admitted) -> Request<Body> {
        let limit = self.limits.body;
        let too_large = Arc::clone(&admitted.too_large);
        request.map(|body| body.limited(limit, move || too_large.store(true, Ordering::Relaxed)))
    }

    /// The caller's, if it is short and plain, or a random UUID.
    fn request_id(&self, headers: &HeaderMap) -> HeaderText {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let given = headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok());
        let valid =
            |id: &&str| (1..=LONGEST_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain);
        HeaderText(
            given
                .filter(valid)
                .map_or_else(|| self.new_id(), str::to_owned),
        )
    }

    /// A version 4 UUID.
    fn new_id(&self) -> String {
        let high = (self.draw() & !0xf000) | 0x4000;
        let low = (self.draw() >> 2) | (1 << 63);
        let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xffff);
        format!(
            "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}",
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }

    /// The span of the gateway: below the caller's, or the root of a new trace.
    fn trace(&self, headers: &HeaderMap) -> TraceContext {
        let span = SpanId::from_draw(self.draw());
        headers::trace(headers).map_or_else(
            || {
                let low = self.draw();
                let trace = (u128::from(self.draw()) << 64) | u128::from(low);
                // Sampled when the last 56 bits reach the threshold, as other consistent samplers do.
                let sampled = self.sampling.takes(!low << 8);
                TraceContext::root(TraceId::from_draw(trace), span, sampled)
            },
            |parent| parent.child(span),
        )
    }
}

/// A host and perhaps a port: with a user in front of it, routes would not know it by its name.
fn is_host(text: &str) -> bool {
    !text.contains(['@', ',']) && text.parse::<Authority>().is_ok()
}

/// The host that a request is for: of its URI, or of its header.
pub(super) fn host(request: &Request<Body>) -> &str {
    let header = || request.headers().get(header::HOST)?.to_str().ok();
    let authority = request.uri().authority().map(Authority::as_str);
    authority.or_else(header).unwrap_or_default()
}
