//! The call of a request, read before the handler runs, and the answer made of what the barrier did.
//!
//! [`CallLayer`] reads the body and puts the [`BarrierCall`] with its hash into the extensions of the request, so
//! that a key is not answered twice to different questions. One whose headers are missing or malformed is
//! answered `400` with a body that names the header, so a coordinator knows that nothing happened. [`respond`]
//! makes the answer that the coordinator understands ([`StepOutcome::from_http`](crate::StepOutcome::from_http)):
//!
//! | the barrier | answer | the coordinator |
//! |---|---|---|
//! | `Applied`, `Replayed` | `200`, the value as JSON | done |
//! | `NullCompensation` | `200`, `null` | done |
//! | `Rejected` | `422`, the reason | goes back |
//! | `KeyReused` | `422`, a problem of type `urn:orchestra-saga:key-reused` | does not know: what was done under the key, was for another body |
//! | `Tombstoned`, `Stale` | `409` | somebody else has gone further |
//! | [`ErrorKind::Busy`], [`Abort::Retryable`](super::Abort::Retryable): rolled back, nothing happened | `503` with `Retry-After: 1` | tries again |
//! | [`ErrorKind::InvalidCall`] | `400` | goes back |
//! | another transient error | `503` | asks again under the same key, since it does not know |
//! | any other | `500` | the same |
//!
//! The layer itself answers `413` to a body that is longer than it [may be](CallLayer::max_body), and `503` with
//! `Retry-After` if the connection broke within it: in both cases nothing happened.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tower_layer::Layer;
use tower_service::Service;

use super::{BarrierCall, Barriered, KEY_REUSED, OTHER_BODY, TOO_LATE, stale};
use crate::error::{Error, ErrorKind};

/// Reads the [`BarrierCall`] of each request; see [`layer`](self).
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use orchestra_saga::BarrierCall;
/// use orchestra_saga::barrier::layer::CallLayer;
/// use tower_layer::Layer;
/// use tower_service::Service;
/// # #[derive(Clone)]
/// # struct Handler;
/// # impl Service<Request<Full<Bytes>>> for Handler {
/// #     type Response = Response<String>;
/// #     type Error = std::convert::Infallible;
/// #     type Future = std::future::Ready<Result<Response<String>, Self::Error>>;
/// #     fn poll_ready(
/// #         &mut self,
/// #         _: &mut std::task::Context<'_>,
/// #     ) -> std::task::Poll<Result<(), Self::Error>> {
/// #         std::task::Poll::Ready(Ok(()))
/// #     }
/// #     fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
/// #         let call = request.extensions().get::<BarrierCall>();
/// #         let step = call.filter(|call| call.body.is_some());
/// #         let step = step.map(|call| call.step.to_string()).unwrap_or_default();
/// #         std::future::ready(Ok(Response::new(step)))
/// #     }
/// # }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut service = CallLayer::new().layer(Handler); // answers with the name of the step
/// let request = Request::post("/charge")
///     .header("x-saga-id", "01890000-0000-7000-8000-000000000001")
///     .header("x-step-name", "charge")
///     .header("x-saga-op", "action")
///     .header("x-saga-epoch", "3")
///     .header("idempotency-key", "k-1");
/// let request = request.body(Full::new(Bytes::from_static(b"30")))?;
/// assert_eq!(service.call(request).await?.body(), "charge");
///
/// let answer = service.call(Request::post("/charge").body(Full::default())?).await?;
/// assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
/// assert!(answer.body().contains("x-step-name"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CallLayer {
    max_body: usize,
}

/// What an executor sends at most by default, and room for what is around it.
const MAX_BODY: usize = 4 << 20;

impl CallLayer {
    /// The layer.
    pub const fn new() -> Self {
        Self { max_body: MAX_BODY }
    }

    /// The longest body in bytes, four mebibytes by default; it is in memory until the handler has it.
    #[must_use]
    pub const fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }
}

impl Default for CallLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService {
            inner,
            max_body: self.max_body,
        }
    }
}

/// The service of [`CallLayer`].
#[derive(Debug, Clone)]
pub struct CallService<S> {
    inner: S,
    max_body: usize,
}

/// Cancel: a request whose body was not read yet did nothing.
impl<S, B, R> Service<Request<B>> for CallService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + From<Bytes> + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let max_body = self.max_body;
        // The one that said that it is ready is the one to call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        async move {
            match read(request, max_body).await {
                Ok(request) => inner.call(request).await,
                Err(refusal) => Ok(refusal.map(R::from)),
            }
        }
        .boxed()
    }
}

/// The request with its call, or the answer to one that is none.
async fn read<B>(request: Request<B>, max_body: usize) -> Result<Request<B>, Response<String>>
where
    B: Body + From<Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let call = BarrierCall::from_headers(request.headers()).map_err(|error| refusal(&error))?;
    let (mut head, body) = request.into_parts();
    let body = match Limited::new(body, max_body).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let reason = format!("a body has at most {max_body} bytes");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(said(status, "text/plain", reason));
        }
        Err(error) => {
            let reason = format!("the body of the request: {error}");
            let error = Error::new(ErrorKind::Busy, reason).of(call.saga);
            return Err(refusal(&error));
        }
    };
    head.extensions.insert(call.with_body(&body));
    Ok(Request::from_parts(head, B::from(body)))
}

/// The answer to what the barrier did; see [`layer`](self) for which.
///
/// Give it what [`run`](super::sqlite::Barrier::run) returned only once the transaction is committed,
/// or rolled back where it returned an error; [`transact`](super::sqlite::Barrier::transact) does that, in
/// PostgreSQL as well. An error of the *commit* is never `Busy` to the coordinator, since nobody knows whether it
/// took place: answer it as [`undecided`].
///
/// ```
/// use orchestra_saga::barrier::Barriered;
/// use orchestra_saga::barrier::layer::respond;
/// use orchestra_saga::{Error, ErrorKind};
///
/// let answer = respond(&Ok(Barriered::Applied(70)));
/// assert_eq!((answer.status().as_u16(), answer.body().as_str()), (200, "70"));
///
/// let busy = respond::<()>(&Err(Error::new(ErrorKind::Busy, "the file is locked")));
/// assert_eq!(busy.status(), 503);
/// assert_eq!(busy.headers()["retry-after"], "1");
/// ```
pub fn respond<T: Serialize>(answer: &crate::Result<Barriered<T>>) -> Response<String> {
    let barriered = match answer {
        Ok(barriered) => barriered,
        Err(error) => return refusal(error),
    };
    let status = barriered.status();
    match barriered {
        Barriered::Applied(value) | Barriered::Replayed(value) => {
            match serde_json::to_string(value) {
                Ok(json) => said(status, "application/json", json),
                Err(error) => said(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "text/plain",
                    error.to_string(),
                ),
            }
        }
        Barriered::NullCompensation => said(status, "application/json", "null".to_owned()),
        Barriered::Rejected(reason) => said(status, "text/plain", reason.clone()),
        Barriered::Tombstoned => said(status, "text/plain", TOO_LATE.to_owned()),
        Barriered::KeyReused => {
            let problem = serde_json::json!({
                "type": KEY_REUSED,
                "title": "Idempotency-Key is already used",
                "detail": OTHER_BODY,
            });
            said(status, "application/problem+json", problem.to_string())
        }
        Barriered::Stale(epoch) => said(status, "text/plain", stale(*epoch)),
    }
}

/// The answer when nobody knows whether the transaction was committed: `500`, and the coordinator asks
/// again under the same key.
pub fn undecided(error: &(dyn std::error::Error + 'static)) -> Response<String> {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    said(status, "text/plain", format!("in doubt: {error}"))
}

fn refusal(error: &Error) -> Response<String> {
    let status = match error.kind() {
        ErrorKind::InvalidCall => StatusCode::BAD_REQUEST,
        _ if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut text = error.to_string();
    // What a database says is not for others to read; what is wrong with their headers is.
    if error.kind() == ErrorKind::InvalidCall
        && let Some(source) = std::error::Error::source(error)
    {
        text = format!("{text}: {source}");
    }
    let mut response = said(status, "text/plain", text);
    if error.kind() == ErrorKind::Busy {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn said(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
