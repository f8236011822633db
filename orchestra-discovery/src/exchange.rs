//! One HTTP request on a connection of its own, driven by the caller's own future.
//!
//! No pool and no task: a registry is asked every few seconds. Dropping the future closes the connection.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use orchestra_core::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::error::{Error, ErrorKind, Result};

/// Sends a request whose URI is a path, and reads an answer of this length at most; the limits of time are the
/// caller's.
pub(crate) async fn exchange(
    endpoint: &Endpoint,
    mut request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<(StatusCode, Bytes)> {
    let headers = request.headers_mut();
    headers.insert(header::HOST, host(endpoint)?);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let refused = |error| {
        let message = format!("cannot connect to {endpoint}");
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    };
    match endpoint {
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(refused)?;
            over(stream, endpoint, request, limit).await
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(refused)?;
            over(stream, endpoint, request, limit).await
        }
        Endpoint::Host { name, port } => {
            let stream = TcpStream::connect((&**name, *port))
                .await
                .map_err(refused)?;
            over(stream, endpoint, request, limit).await
        }
        other => {
            let message = format!("endpoint {other} is of a kind that cannot be called");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

fn host(endpoint: &Endpoint) -> Result<HeaderValue> {
    match endpoint {
        Endpoint::Unix(_) => Ok(HeaderValue::from_static("localhost")),
        other => HeaderValue::try_from(other.to_string()).map_err(|error| {
            let message = format!("endpoint {other} is no host header");
            Error::new(ErrorKind::Invalid, message).with_source(error)
        }),
    }
}

async fn over<S>(
    stream: S,
    endpoint: &Endpoint,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| {
        let message = format!("the connection to {endpoint} broke");
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    };
    let handshake = http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(broken)?;
    let mut call = pin!(async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        Ok((status, read(endpoint, response.into_body(), limit).await?))
    });
    let mut connection = pin!(connection);
    // The connection ends with the answer, which may then still have to be read.
    tokio::select! {
        answer = &mut call => return answer,
        _ended = &mut connection => {}
    }
    call.await
}

async fn read(endpoint: &Endpoint, incoming: Incoming, limit: usize) -> Result<Bytes> {
    match Limited::new(incoming, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => {
            let kind = if error.is::<hyper::Error>() {
                ErrorKind::Unavailable
            } else {
                ErrorKind::Protocol
            };
            let message = format!("the answer of {endpoint} broke off, or is over {limit} bytes");
            Err(Error::new(kind, message).with_source(error))
        }
    }
}
