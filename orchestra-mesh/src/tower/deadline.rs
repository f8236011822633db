use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::LayerFuture;
use crate::deadline;
use crate::error::{BoxError, Error, Kind};

/// Ends calls that take longer than a limit, or than the caller's headers allow if that is shorter.
///
/// What is left is written into the headers for the services behind. The limit covers the response
/// headers, not its body; dropping the future gives the call up.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::time::Duration;
/// use http::{Request, Response};
/// use orchestra_mesh::{error::Kind, tower::DeadlineLayer};
/// use tower::{ServiceBuilder, ServiceExt};
///
/// let service = ServiceBuilder::new()
///     .layer(DeadlineLayer::new(Duration::from_millis(5)))
///     .service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, std::io::Error>>());
/// let error = service.oneshot(Request::new(())).await.err().ok_or("answered")?;
/// let error = error.downcast::<orchestra_mesh::Error>()?;
/// assert_eq!(error.kind(), Kind::DeadlineExceeded);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(()) }).map_err(|e| e.to_string())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer {
    limit: Duration,
}

impl DeadlineLayer {
    /// The most time for a call.
    pub const fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService {
            inner,
            limit: self.limit,
        }
    }
}

/// A service with a [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct DeadlineService<S> {
    inner: S,
    limit: Duration,
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>, Error: Into<BoxError>, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = LayerFuture<S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let asked = deadline::from_headers(request.headers());
        let left = asked.map_or(self.limit, |asked| asked.min(self.limit));
        deadline::to_headers(request.headers_mut(), Some(left));
        let calling = self.inner.call(request);
        LayerFuture::new(async move {
            match tokio::time::timeout(left, calling).await {
                Ok(result) => result.map_err(Into::into),
                Err(elapsed) => {
                    let late = Error::new(Kind::DeadlineExceeded, "the deadline has passed");
                    Err(late.with_source(elapsed).into())
                }
            }
        })
    }
}
