use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use orchestra_core::{Clock, TokioClock};
use orchestra_mesh::breaker::{Breaker, CircuitBreaker, Config, State};
use orchestra_mesh::budget::Budget;
use orchestra_mesh::error::Kind;
use orchestra_mesh::tower::{BreakerLayer, DeadlineLayer, RetryLayer};
use orchestra_mesh::{Body, Error, Ratio, budget};
use parking_lot::Mutex;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::client::quick;
use crate::upstream::{Checked, Failure};

fn breaker(failures: u32, clock: &Arc<dyn Clock>) -> Result<(Arc<Breaker>, BreakerLayer), Failure> {
    let config = Config::default().consecutive_failures(failures).probes(1);
    let breaker = Arc::new(Breaker::new(config)?);
    let layer = BreakerLayer::new(Arc::clone(&breaker) as _).clock(Arc::clone(clock));
    Ok((breaker, layer))
}

fn kind(error: Failure) -> Result<Kind, Failure> {
    Ok(error.downcast::<Error>()?.kind())
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_by_status_and_closes_by_a_probe() -> Checked {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let (breaker, layer) = breaker(2, &clock)?;
    let script = Arc::new(Mutex::new(VecDeque::from([500, 503])));
    let mut service = ServiceBuilder::new()
        .layer(layer)
        .service_fn(move |_: Request<()>| {
            let status = script.lock().pop_front().unwrap_or(200);
            async move { Response::builder().status(status).body(()) }
        });
    for status in [500, 503] {
        let response = service.ready().await?.call(Request::new(())).await?;
        assert_eq!(response.status(), status);
    }
    let error = service
        .ready()
        .await?
        .call(Request::new(()))
        .await
        .expect_err("it is open");
    assert_eq!(kind(error)?, Kind::CircuitOpen);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(breaker.state(clock.now()), State::HalfOpen);
    assert_eq!(
        service
            .ready()
            .await?
            .call(Request::new(()))
            .await?
            .status(),
        200
    );
    assert_eq!(breaker.state(clock.now()), State::Closed);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_is_given_back() -> Checked {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let (breaker, layer) = breaker(1, &clock)?;
    let permit = breaker
        .try_acquire(clock.now())
        .map_err(|_rejected| "open")?;
    breaker.release(permit, orchestra_core::Outcome::Failure, clock.now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut service = ServiceBuilder::new()
        .layer(layer)
        .service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, Failure>>());
    for _ in 0..3 {
        let calling = service.ready().await?.call(Request::new(()));
        assert!(
            breaker.try_acquire(clock.now()).is_err(),
            "the one probe is taken"
        );
        drop(calling);
        assert_eq!(breaker.state(clock.now()), State::HalfOpen);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn another_reading_of_results_can_be_given() -> Checked {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let (breaker, layer) = breaker(1, &clock)?;
    let layer = layer.classify(|result: &Result<u8, Failure>| match result {
        Ok(7) => orchestra_core::Outcome::Failure,
        _ => orchestra_core::Outcome::Success,
    });
    let mut service = ServiceBuilder::new()
        .layer(layer)
        .service_fn(async |number: u8| Ok::<_, Failure>(number));
    assert_eq!(service.ready().await?.call(1).await?, 1);
    assert_eq!(breaker.state(clock.now()), State::Closed);
    assert_eq!(service.ready().await?.call(7).await?, 7);
    assert_eq!(breaker.state(clock.now()), State::Open);
    Ok(())
}

type Script = Arc<Mutex<(VecDeque<Result<u16, &'static str>>, Vec<(String, Bytes)>)>>;

/// A service that follows a script and remembers attempt numbers and bodies.
fn scripted(
    script: impl IntoIterator<Item = Result<u16, &'static str>>,
) -> (
    Script,
    impl Service<Request<Body>, Response = Response<()>, Error = Failure, Future: Send> + Clone,
) {
    let state: Script = Arc::new(Mutex::new((script.into_iter().collect(), Vec::new())));
    let shared = Arc::clone(&state);
    let service = tower::service_fn(move |request: Request<Body>| {
        let shared = Arc::clone(&shared);
        async move {
            let number = request.headers()["x-envoy-attempt-count"]
                .to_str()?
                .to_owned();
            let body = request.into_body().collect(1024).await?;
            let mut state = shared.lock();
            state.1.push((number, body));
            let status = state.0.pop_front().unwrap_or(Ok(200))?;
            Ok(Response::builder().status(status).body(())?)
        }
    });
    (state, service)
}

fn retries(config: budget::Config) -> Result<RetryLayer, Failure> {
    Ok(RetryLayer::new(quick(), Arc::new(Budget::new(config)?)))
}

#[tokio::test(start_paused = true)]
async fn a_body_of_any_kind_is_sent_again() -> Checked {
    let (state, service) = scripted([Ok(503), Err("broken"), Ok(502)]);
    let service = retries(budget::Config::default())?.layer_on(service);
    let request = Request::put("/").body(Full::new(Bytes::from_static(b"body")))?;
    assert_eq!(service.oneshot(request).await?.status(), 200);
    let seen: Vec<_> = state.lock().1.clone();
    let body = Bytes::from_static(b"body");
    let expected = ["1", "2", "3", "4"].map(|number| (number.to_owned(), body.clone()));
    assert_eq!(seen, expected);
    Ok(())
}

trait LayerOn: Sized {
    fn layer_on<S>(&self, service: S) -> orchestra_mesh::tower::RetryService<S>;
}

impl LayerOn for RetryLayer {
    fn layer_on<S>(&self, service: S) -> orchestra_mesh::tower::RetryService<S> {
        tower::Layer::layer(self, service)
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_error_of_a_post_is_not_retried() -> Checked {
    let (state, service) = scripted([Err("broken")]);
    let service = retries(budget::Config::default())?.layer_on(service);
    let request = Request::post("/").body(Body::from("x"))?;
    let error = service.oneshot(request).await.expect_err("it is broken");
    assert_eq!(error.to_string(), "broken");
    assert_eq!(state.lock().1.len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_ends_the_attempts() -> Checked {
    let config = budget::Config::default()
        .ratio(Ratio::percent(50))
        .floor_per_second(0);
    let (state, service) = scripted([Err("broken"), Err("broken")]);
    let service = retries(config)?.layer_on(service);
    let get = || Request::get("/").body(Body::empty());
    let error = service
        .clone()
        .oneshot(get()?)
        .await
        .expect_err("no budget");
    assert_eq!(kind(error)?, Kind::BudgetExhausted);
    assert_eq!(service.oneshot(get()?).await?.status(), 200);
    assert_eq!(state.lock().1.len(), 3);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_the_caller_fills_no_budget() -> Checked {
    let config = budget::Config::default()
        .ratio(Ratio::percent(50))
        .floor_per_second(0);
    let (state, service) = scripted([Ok(200), Ok(503)]);
    let service = retries(config)?.layer_on(service);
    let retried = Request::get("/")
        .header("x-envoy-attempt-count", "2")
        .body(Body::empty())?;
    assert_eq!(service.clone().oneshot(retried).await?.status(), 200);
    let request = Request::get("/").body(Body::empty())?;
    assert_eq!(service.oneshot(request).await?.status(), 503);
    assert_eq!(state.lock().1.len(), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn deadline_retries_and_breaker_stack_up() -> Checked {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let (breaker, layer) = breaker(2, &clock)?;
    let (state, service) = scripted([Ok(503), Ok(503), Ok(503)]);
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(1)))
        .layer(retries(budget::Config::default())?)
        .layer(layer)
        .service(service);
    let error = service
        .oneshot(Request::get("/").body(Body::empty())?)
        .await;
    // The circuit opens within the call, and its own rejection is not retried.
    assert_eq!(kind(error.err().ok_or("answered")?)?, Kind::CircuitOpen);
    assert_eq!(state.lock().1.len(), 2);
    assert_eq!(breaker.state(clock.now()), State::Open);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_wins_where_it_is_shorter() -> Checked {
    let started = tokio::time::Instant::now();
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new(Duration::from_secs(60)))
        .service_fn(async |request: Request<()>| {
            assert_eq!(request.headers()["x-envoy-expected-rq-timeout-ms"], "250");
            std::future::pending::<Result<Response<()>, Failure>>().await
        });
    let request = Request::get("/")
        .header("x-envoy-expected-rq-timeout-ms", "250")
        .body(())?;
    let error = service.oneshot(request).await.expect_err("nobody answers");
    assert_eq!(kind(error)?, Kind::DeadlineExceeded);
    assert_eq!(started.elapsed(), Duration::from_millis(250));
    Ok(())
}
