//! The call of a request, read before the handler runs, and the answer made of what the barrier did.
//!
//! [`CallLayer`] puts the [`BarrierCall`] into the extensions of the request; one whose headers are
//! missing or malformed is answered `400` with a body that names the header, so a coordinator knows that
//! nothing happened. [`respond`] makes the answer that the coordinator understands
//! ([`StepOutcome::from_http`](crate::StepOutcome::from_http)):
//!
//! | the barrier | answer | the coordinator |
//! |---|---|---|
//! | `Applied`, `Replayed` | `200`, the value as JSON | done |
//! | `NullCompensation` | `200`, `null` | done |
//! | `Rejected` | `422`, the reason | goes back |
//! | `Tombstoned`, `Stale` | `409` | somebody else has gone further |
//! | [`ErrorKind::Busy`], [`Abort::Retryable`](super::Abort::Retryable): rolled back, nothing happened | `503` with `Retry-After: 1` | tries again |
//! | [`ErrorKind::InvalidCall`] | `400` | goes back |
//! | another transient error | `503` | asks again under the same key, since it does not know |
//! | any other | `500` | the same |

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use serde::Serialize;
use tower_layer::Layer;
use tower_service::Service;

use super::{BarrierCall, Barriered};
use crate::error::{Error, ErrorKind, Result};

/// Reads the [`BarrierCall`] of each request; see [`layer`](self).
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use orchestra_saga::BarrierCall;
/// use orchestra_saga::barrier::layer::CallLayer;
/// use tower_layer::Layer;
/// use tower_service::Service;
/// # #[derive(Clone)]
/// # struct Handler;
/// # impl Service<Request<()>> for Handler {
/// #     type Response = Response<String>;
/// #     type Error = std::convert::Infallible;
/// #     type Future = std::future::Ready<Result<Response<String>, Self::Error>>;
/// #     fn poll_ready(
/// #         &mut self,
/// #         _: &mut std::task::Context<'_>,
/// #     ) -> std::task::Poll<Result<(), Self::Error>> {
/// #         std::task::Poll::Ready(Ok(()))
/// #     }
/// #     fn call(&mut self, request: Request<()>) -> Self::Future {
/// #         let call = request.extensions().get::<BarrierCall>();
/// #         let step = call.map(|call| call.step.to_string()).unwrap_or_default();
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
/// assert_eq!(service.call(request.body(())?).await?.body(), "charge");
///
/// let answer = service.call(Request::post("/charge").body(())?).await?;
/// assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
/// assert!(answer.body().contains("x-step-name"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct CallLayer;

impl CallLayer {
    /// The layer.
    pub const fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService { inner }
    }
}

/// The service of [`CallLayer`].
#[derive(Debug, Clone)]
pub struct CallService<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for CallService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match BarrierCall::from_headers(request.headers()) {
            Ok(call) => {
                request.extensions_mut().insert(call);
                Either::Left(self.inner.call(request))
            }
            Err(error) => Either::Right(ready(Ok(refusal(&error).map(R::from)))),
        }
    }
}

/// The answer to what the barrier did; see [`layer`](self) for which.
///
/// Give it what [`run`](super::sqlite::Barrier::run) returned only once the transaction is committed,
/// or rolled back where it returned an error; [`transact`](super::sqlite::Barrier::transact) does that. An error of the *commit* is never `Busy` to the
/// coordinator, since nobody knows whether it took place: answer it as [`undecided`].
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
pub fn respond<T: Serialize>(answer: &Result<Barriered<T>>) -> Response<String> {
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
        Barriered::Tombstoned => {
            let reason = "its compensation was here before: it has no effect, and never will";
            said(status, "text/plain", reason.to_owned())
        }
        Barriered::Stale(epoch) => {
            let reason = format!("a coordinator of epoch {epoch} has been here");
            said(status, "text/plain", reason)
        }
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
