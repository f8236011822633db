//! One attempt: an instance, a connection, a response.

use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Request, Response, header, request};
use http_body::Body as _;
use hyper::body::Incoming;
use orchestra_core::{Endpoint, ServiceName};

use crate::Body;
use crate::connect::{Failed, Lease, Pool};
use crate::error::{Error, Kind};
use crate::request::headers;
use crate::request::replay::Replay;
use crate::retry::Failure;

/// The parts of a request that all its attempts share.
#[derive(Debug, Clone)]
pub(super) struct Head {
    parts: request::Parts,
    authority: String,
}

impl Head {
    /// `always` stands in for what the request has under the same names.
    pub(super) fn new(
        mut parts: request::Parts,
        service: &ServiceName,
        always: &HeaderMap,
    ) -> Self {
        headers::strip_hop_by_hop(&mut parts.headers);
        for (name, value) in always {
            parts.headers.insert(name, value.clone());
        }
        let named = parts.uri.authority().map(Authority::as_str);
        let host = || {
            parts
                .headers
                .get(header::HOST)
                .and_then(|host| host.to_str().ok())
        };
        let authority = named.or_else(host).unwrap_or(service.as_str()).to_owned();
        Self { parts, authority }
    }

    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.parts.headers
    }

    /// HTTP/1.1 takes the path and a `Host`, HTTP/2 the whole URI and no `Host`.
    fn request(&self, body: Body, lease: &Lease) -> Result<Request<Body>, http::Error> {
        let mut parts = self.parts.clone();
        let root = || PathAndQuery::from_static("/");
        let path = parts.uri.path_and_query().cloned().unwrap_or_else(root);
        match lease {
            Lease::Http1 { .. } => {
                parts.version = http::Version::HTTP_11;
                parts.uri = Uri::from(path);
                let host = HeaderValue::try_from(self.authority.as_str())?;
                parts.headers.insert(header::HOST, host);
                // Unless it is told, hyper leaves the body of a GET out.
                let is_framed = parts.headers.contains_key(header::CONTENT_LENGTH)
                    || body.size_hint().exact().is_some();
                if !is_framed && !body.is_end_stream() {
                    let chunked = HeaderValue::from_static("chunked");
                    parts.headers.insert(header::TRANSFER_ENCODING, chunked);
                }
            }
            Lease::Http2 { .. } => {
                parts.version = http::Version::HTTP_2;
                parts.headers.remove(header::HOST);
                parts.uri = Uri::builder()
                    .scheme(Scheme::HTTP)
                    .authority(self.authority.as_str())
                    .path_and_query(path)
                    .build()?;
            }
        }
        Ok(Request::from_parts(parts, body))
    }
}

/// An attempt without a response: how it failed, and the error if no other follows.
pub(super) struct Broken {
    pub(super) failure: Failure,
    pub(super) error: Error,
}

/// Sends the request once, within `limit`.
pub(super) async fn attempt(
    pool: &Pool,
    endpoint: &Endpoint,
    head: &Head,
    replay: &mut Replay,
    limit: Option<Duration>,
) -> Result<Response<Incoming>, Broken> {
    let exchange = exchange(pool, endpoint, head, replay);
    let Some(limit) = limit else {
        return exchange.await;
    };
    tokio::time::timeout(limit, exchange)
        .await
        .unwrap_or_else(|elapsed| {
            let message = format!("no response within {} ms", limit.as_millis());
            Err(Broken {
                failure: Failure::Timeout,
                error: Error::new(Kind::AttemptTimeout, message).with_source(elapsed),
            })
        })
}

async fn exchange(
    pool: &Pool,
    endpoint: &Endpoint,
    head: &Head,
    replay: &mut Replay,
) -> Result<Response<Incoming>, Broken> {
    let lease = pool.lease(endpoint).await.map_err(broken)?;
    // Asked for only now: without a connection the body is still whole.
    let body = replay.next().ok_or_else(body_is_gone)?;
    let request = head.request(body, &lease).map_err(invalid)?;
    lease.send(request).await.map_err(|mut failed| {
        if let Some(request) = failed.request.take() {
            replay.restore(request.into_body());
        }
        broken(failed)
    })
}

fn broken(failed: Failed) -> Broken {
    let (kind, message) = match failed.failure {
        Failure::Connect => (Kind::Connect, "no connection could be made"),
        Failure::Unsent => (
            Kind::Connect,
            "the connection was gone before the request was sent",
        ),
        Failure::RefusedStream => (Kind::RefusedStream, "the stream was refused"),
        Failure::GoneAway => (
            Kind::RefusedStream,
            "the instance ended the connection before it looked at the request",
        ),
        Failure::RequestBody => (Kind::Body, "the request body could not be read"),
        _ => (Kind::Reset, "the connection broke before the response"),
    };
    let error = Error::new(kind, message);
    Broken {
        failure: failed.failure,
        error: match failed.source {
            Some(source) => error.with_source(source),
            None => error,
        },
    }
}

fn invalid(error: http::Error) -> Broken {
    let message = "the authority of the request cannot be sent";
    Broken {
        failure: Failure::RequestBody,
        error: Error::new(Kind::InvalidRequest, message).with_source(error),
    }
}

fn body_is_gone() -> Broken {
    Broken {
        failure: Failure::RequestBody,
        error: Error::new(Kind::Body, "the body was read once and is not kept"),
    }
}
