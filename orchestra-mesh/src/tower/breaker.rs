use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use orchestra_core::{Clock, Outcome, TokioClock};
use tower_layer::Layer;
use tower_service::Service;

use super::LayerFuture;
use crate::breaker::{CircuitBreaker, Permit};
use crate::error::{BoxError, Error, Kind};
use crate::request::outcome;

/// Says what a result means for the breaker.
///
/// A closure over `&Result<Response, Error>` is one. Laws: 1. it decides by the result alone; 2. it does
/// not block.
pub trait Classify<T, E>: Send + Sync {
    /// What became of the call.
    fn outcome(&self, result: &Result<T, E>) -> Outcome;
}

impl<T, E, F: Fn(&Result<T, E>) -> Outcome + Send + Sync> Classify<T, E> for F {
    fn outcome(&self, result: &Result<T, E>) -> Outcome {
        self(result)
    }
}

/// By the status of an HTTP response: 5xx failed, 429 is overloaded; an error failed.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByStatus;

impl<B, E> Classify<Response<B>, E> for ByStatus {
    fn outcome(&self, result: &Result<Response<B>, E>) -> Outcome {
        result.as_ref().map_or(Outcome::Failure, |response| {
            outcome::of_response(response.status(), response.headers())
        })
    }
}

/// Lets calls pass while a circuit is closed.
///
/// The permit is taken when the service is called, not when it is ready: a service that is ready and
/// never called would hold a probe. A call whose future is dropped is [`Outcome::Neutral`]. A rejected
/// call is an error of kind [`CircuitOpen`](Kind::CircuitOpen).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::sync::Arc;
/// use http::{Request, Response};
/// use orchestra_mesh::breaker::{Breaker, Config};
/// use orchestra_mesh::tower::BreakerLayer;
/// use tower::{ServiceBuilder, ServiceExt};
///
/// let breaker = Breaker::new(Config::default())?;
/// let service = ServiceBuilder::new()
///     .layer(BreakerLayer::new(Arc::new(breaker)))
///     .service_fn(async |_: Request<()>| Ok::<_, std::io::Error>(Response::new("hello")));
/// assert_eq!(service.oneshot(Request::new(())).await?.into_body(), "hello");
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(()) }).map_err(|e| e.to_string())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct BreakerLayer<C = ByStatus> {
    breaker: Arc<dyn CircuitBreaker>,
    clock: Arc<dyn Clock>,
    classify: Arc<C>,
}

impl BreakerLayer {
    /// Guards a service of HTTP responses.
    pub fn new(breaker: Arc<dyn CircuitBreaker>) -> Self {
        Self {
            breaker,
            clock: Arc::new(TokioClock::new()),
            classify: Arc::new(ByStatus),
        }
    }
}

impl<C> BreakerLayer<C> {
    /// Guards a service of whatever responses, with another reading of the results.
    pub fn classify<D>(self, classify: D) -> BreakerLayer<D> {
        BreakerLayer {
            breaker: self.breaker,
            clock: self.clock,
            classify: Arc::new(classify),
        }
    }

    /// Reads another clock than tokio's; the one that others use the breaker with.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

impl<S, C> Layer<S> for BreakerLayer<C> {
    type Service = BreakerService<S, C>;

    fn layer(&self, inner: S) -> BreakerService<S, C> {
        BreakerService {
            inner,
            breaker: Arc::clone(&self.breaker),
            clock: Arc::clone(&self.clock),
            classify: Arc::clone(&self.classify),
        }
    }
}

/// A service with a [`BreakerLayer`].
#[derive(Debug)]
pub struct BreakerService<S, C = ByStatus> {
    inner: S,
    breaker: Arc<dyn CircuitBreaker>,
    clock: Arc<dyn Clock>,
    classify: Arc<C>,
}

impl<S: Clone, C> Clone for BreakerService<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            breaker: Arc::clone(&self.breaker),
            clock: Arc::clone(&self.clock),
            classify: Arc::clone(&self.classify),
        }
    }
}

impl<S, C, R> Service<R> for BreakerService<S, C>
where
    S: Service<R, Error: Into<BoxError>, Future: Send + 'static>,
    C: Classify<S::Response, S::Error> + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = LayerFuture<S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let permit = match self.breaker.try_acquire(self.clock.now()) {
            Ok(permit) => permit,
            Err(rejected) => {
                let open = Error::new(Kind::CircuitOpen, "the circuit is open");
                let open = open.with_retry_after(rejected.retry_after);
                return LayerFuture::new(async move { Err(open.into()) });
            }
        };
        let held = Held {
            breaker: Arc::clone(&self.breaker),
            clock: Arc::clone(&self.clock),
            permit: permit.into_raw(),
            outcome: Outcome::Neutral,
        };
        let classify = Arc::clone(&self.classify);
        let calling = self.inner.call(request);
        LayerFuture::new(async move {
            // The whole of it moves in here; otherwise only its outcome would, and it would be released now.
            let mut held = held;
            let result = calling.await;
            held.outcome = classify.outcome(&result);
            result.map_err(Into::into)
        })
    }
}

/// Releases a permit exactly once.
#[derive(Debug)]
struct Held {
    breaker: Arc<dyn CircuitBreaker>,
    clock: Arc<dyn Clock>,
    permit: u64,
    outcome: Outcome,
}

impl Drop for Held {
    fn drop(&mut self) {
        let now = self.clock.now();
        self.breaker
            .release(Permit::from_raw(self.permit), self.outcome, now);
    }
}
