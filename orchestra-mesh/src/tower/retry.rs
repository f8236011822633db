use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request};
use orchestra_core::{Clock, Deadline, TokioClock};
use parking_lot::Mutex;
use tower_layer::Layer;
use tower_service::Service;

use super::LayerFuture;
use crate::budget::Budget;
use crate::error::{BoxError, Error, Kind};
use crate::request::headers;
use crate::request::replay::Replay;
use crate::retry::{Course, Failure, Policy, Stop};
use crate::{Body, deadline};

/// Calls again what failed, within a policy, a budget and the caller's deadline.
///
/// It takes requests of any body and hands [`Body`] on, which it can send again up to the policy's limit.
/// A response that is given up on is dropped unread. An error of the inner service that is not one of
/// this crate counts as a reset: the request may have been processed.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU16, Ordering};
/// use http::{Request, Response};
/// use orchestra_mesh::{Body, budget::{self, Budget}, retry, tower::RetryLayer};
/// use tower::{ServiceBuilder, ServiceExt};
///
/// let statuses = Arc::new(AtomicU16::new(502));
/// let budget = Arc::new(Budget::new(budget::Config::default())?);
/// let service = ServiceBuilder::new()
///     .layer(RetryLayer::new(retry::Policy::default(), budget))
///     .service_fn(move |_: Request<Body>| {
///         let status = statuses.swap(200, Ordering::Relaxed);
///         async move { Response::builder().status(status).body(Body::empty()) }
///     });
/// let response = service.oneshot(Request::new(Body::empty())).await?;
/// assert_eq!(response.status(), 200);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(()) }).map_err(|e| e.to_string())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct RetryLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    policy: Policy,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
    rng: Mutex<fastrand::Rng>,
}

impl RetryLayer {
    /// Retries by this policy and from this budget.
    pub fn new(policy: Policy, budget: Arc<Budget>) -> Self {
        let rng = Mutex::new(fastrand::Rng::new());
        let clock = Arc::new(TokioClock::new());
        Self::build(policy, budget, clock, rng)
    }

    /// Reads another clock than tokio's, and draws the jitter from a seed.
    pub fn with_clock(
        policy: Policy,
        budget: Arc<Budget>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Self {
        let rng = Mutex::new(fastrand::Rng::with_seed(seed));
        Self::build(policy, budget, clock, rng)
    }

    fn build(
        policy: Policy,
        budget: Arc<Budget>,
        clock: Arc<dyn Clock>,
        rng: Mutex<fastrand::Rng>,
    ) -> Self {
        let shared = Shared {
            policy,
            budget,
            clock,
            rng,
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = RetryService<S>;

    fn layer(&self, inner: S) -> RetryService<S> {
        RetryService {
            inner,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// A service with a [`RetryLayer`].
#[derive(Debug, Clone)]
pub struct RetryService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B, R> Service<Request<B>> for RetryService<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = LayerFuture<Response<R>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let clone = self.inner.clone();
        // The one that said it is ready must be the one that is called.
        let ready = std::mem::replace(&mut self.inner, clone);
        let shared = Arc::clone(&self.shared);
        LayerFuture::new(async move { shared.call(ready, request.map(Body::wrap)).await })
    }
}

impl Shared {
    async fn call<S, R>(
        &self,
        mut ready: S,
        request: Request<Body>,
    ) -> Result<Response<R>, BoxError>
    where
        S: Service<Request<Body>, Response = Response<R>, Error: Into<BoxError>>,
    {
        let (mut head, body) = request.into_parts();
        let now = self.clock.now();
        let left = deadline::from_headers(&head.headers);
        let deadline = left.map_or(Deadline::NEVER, |left| Deadline::after(now, left));
        if !headers::is_retry(&head.headers) {
            self.budget.deposit(now);
        }
        let policy = &self.policy;
        let mut course = Course::new(policy, &head, deadline);
        let mut replay = Replay::new(body, policy.replay_limit());
        let mut number = 1;
        loop {
            let body = replay.next().unwrap_or_default();
            let request = self.attempt(&mut head, body, number, deadline);
            let result = ready.call(request).await.map_err(Into::into);
            let Some((failure, answer)) = failure_of(&result) else {
                return result;
            };
            match self.next(&mut course, &replay, failure, answer) {
                Ok(delay) => {
                    drop(result);
                    tokio::time::sleep(delay).await;
                }
                Err(Stop::Budget) => return result.map_err(over_budget),
                Err(_) => return result,
            }
            poll_fn(|context| ready.poll_ready(context))
                .await
                .map_err(Into::into)?;
            number += 1;
        }
    }

    fn attempt(
        &self,
        head: &mut request::Parts,
        body: Body,
        number: u32,
        deadline: Deadline,
    ) -> Request<Body> {
        head.headers
            .insert(headers::ATTEMPT_COUNT, HeaderValue::from(number));
        if let Some(left) = deadline.remaining(self.clock.now()) {
            deadline::to_headers(&mut head.headers, Some(left));
        }
        Request::from_parts(head.clone(), body)
    }

    fn next(
        &self,
        course: &mut Course<'_>,
        replay: &Replay,
        failure: Failure,
        answer: Option<&HeaderMap>,
    ) -> Result<std::time::Duration, Stop> {
        let now = self.clock.now();
        let draw = self.rng.lock().u64(..);
        let delay = course.next(failure, answer, now, draw)?;
        if !replay.is_left() {
            return Err(Stop::BodyNotReplayable);
        }
        self.budget
            .try_withdraw(now)
            .then_some(delay)
            .ok_or(Stop::Budget)
    }
}

/// How the attempt failed; `None` if it did not, or if asking again is of no use.
fn failure_of<R>(result: &Result<Response<R>, BoxError>) -> Option<(Failure, Option<&HeaderMap>)> {
    let error = match result {
        Ok(response) => {
            let status = response.status();
            return is_error(status).then(|| (Failure::Status(status), Some(response.headers())));
        }
        Err(error) => error,
    };
    let failure = match error.downcast_ref::<Error>().map(Error::kind) {
        None | Some(Kind::Reset | Kind::Service) => Failure::Reset,
        Some(Kind::Connect) => Failure::Connect,
        Some(Kind::RefusedStream) => Failure::RefusedStream,
        Some(Kind::AttemptTimeout) => Failure::Timeout,
        Some(_) => return None,
    };
    Some((failure, None))
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

fn over_budget(last: BoxError) -> BoxError {
    let message = "an attempt failed and the retry budget is used up";
    let second = Some(std::time::Duration::from_secs(1));
    Error::new(Kind::BudgetExhausted, message)
        .with_retry_after(second)
        .with_source(last)
        .into()
}
