use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::StreamBody;
use orchestra_core::{
    Backoff, Clock, Deadline, Endpoint, Listener, Monotonic, Outcome, Selector, TokioClock,
    TraceContext,
};
use orchestra_mesh::error::Kind;
use orchestra_mesh::pick::{
    Completion, NoEndpoint, NoEndpointReason, Pick, PickRequest, PickToken, Picked, RoundRobin,
};
use orchestra_mesh::retry::{Failure, Stop};
use orchestra_mesh::{Body, Client, Event, Policy, Ratio, breaker, budget, connect, retry};
use orchestra_testkit::{Faults, Proxy};
use parking_lot::Mutex;

use crate::upstream::{
    Act, Checked, GRACE, Upstream, any_port, first, get, post, round_robin, targets, text,
};

/// A completion that outlives its call.
#[derive(Debug, Clone, PartialEq)]
struct Completed {
    outcome: Outcome,
    result: Option<Result<StatusCode, Failure>>,
    retry_after: Option<Duration>,
    load: Option<String>,
}

impl Completed {
    fn new(completion: &Completion<'_>) -> Self {
        Self {
            outcome: completion.outcome,
            result: completion.result,
            retry_after: completion.retry_after,
            load: completion.load.map(str::to_owned),
        }
    }
}

/// Remembers every choice and completion of another pick.
#[derive(Debug)]
pub(crate) struct Witness {
    inner: RoundRobin,
    completed: Mutex<Vec<Completed>>,
    picked: Mutex<usize>,
}

impl Witness {
    pub(crate) fn new(inner: RoundRobin) -> Arc<Self> {
        Arc::new(Self {
            inner,
            completed: Mutex::default(),
            picked: Mutex::default(),
        })
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        let completed = self.completed.lock();
        completed.iter().map(|it| it.outcome).collect()
    }

    fn last(&self) -> Option<Completed> {
        self.completed.lock().last().cloned()
    }

    fn in_flight(&self) -> usize {
        *self.picked.lock() - self.completed.lock().len()
    }
}

impl Pick for Witness {
    fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoEndpoint> {
        let picked = self.inner.pick(request)?;
        *self.picked.lock() += 1;
        Ok(picked)
    }

    fn complete(&self, token: PickToken, completion: Completion<'_>, now: Monotonic) {
        self.completed.lock().push(Completed::new(&completion));
        self.inner.complete(token, completion, now);
    }
}

pub(crate) fn quick() -> retry::Policy {
    retry::Policy::default().backoff(Backoff::fixed(Duration::from_millis(1)))
}

type Events = Arc<Mutex<Vec<Event>>>;

pub(crate) fn recorder() -> (Arc<dyn Listener<Event>>, Events) {
    let events = Events::default();
    let seen = Arc::clone(&events);
    let listener = move |event: &Event| seen.lock().push(event.clone());
    (Arc::new(listener), events)
}

#[tokio::test]
async fn a_failed_attempt_is_followed_by_one_to_another_instance() -> Checked {
    let (bad, good) = (
        Upstream::new("bad", [Act::Status(503)]),
        Upstream::new("good", []),
    );
    let (one, two) = (bad.serve(any_port()).await?, good.serve(any_port()).await?);
    let (listener, events) = recorder();
    let client = Client::builder("cart".parse()?, round_robin(&[first(&one), first(&two)])?)
        .policy(Policy::default().retry(quick()))
        .listener(listener)
        .build()?;
    let response = client.send(get("/")?).await?;
    assert_eq!(text(response).await?, "good:0");
    assert_eq!((bad.count(), good.count()), (1, 1));
    let attempts: Vec<_> = events
        .lock()
        .iter()
        .filter_map(|event| match event {
            Event::Attempt(attempt) => {
                Some((attempt.number, attempt.instance.to_string(), attempt.result))
            }
            _ => None,
        })
        .collect();
    let expected = [
        (1, "i-0".to_owned(), Ok(StatusCode::SERVICE_UNAVAILABLE)),
        (2, "i-1".to_owned(), Ok(StatusCode::OK)),
    ];
    assert_eq!(attempts, expected);
    Ok(())
}

/// The first of a list that was not tried.
#[derive(Debug)]
struct InOrder(Vec<Picked>);

impl Pick for InOrder {
    fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoEndpoint> {
        let mut untried = self
            .0
            .iter()
            .filter(|picked| !request.tried.contains(&picked.id));
        let none = NoEndpoint::new(NoEndpointReason::AllTried, None);
        untried.next().cloned().ok_or(none)
    }

    fn complete(&self, _: PickToken, _: Completion<'_>, _: Monotonic) {}
}

#[tokio::test]
async fn what_was_tried_is_left_out_until_nothing_else_is_left() -> Checked {
    let mut upstreams = Vec::new();
    let mut serving = Vec::new();
    let mut known = Vec::new();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let upstream = Upstream::new(name, [Act::Status(503)]);
        serving.push(upstream.serve(any_port()).await?);
        upstreams.push(upstream);
        let token = PickToken::from_parts([0; 3]);
        known.push(Picked::new(name.parse()?, first(&serving[number]), token));
    }
    let client = Client::builder("cart".parse()?, Arc::new(InOrder(known)))
        .policy(Policy::default().retry(quick()))
        .build()?;
    assert_eq!(text(client.send(get("/")?).await?).await?, "a:0");
    let counts: Vec<_> = upstreams.iter().map(Upstream::count).collect();
    assert_eq!(counts, [2, 1, 1]);
    Ok(())
}

#[tokio::test]
async fn with_one_instance_alone_that_one_is_asked_again() -> Checked {
    let upstream = Upstream::new("only", [Act::Status(502), Act::Status(504)]);
    let serving = upstream.serve(any_port()).await?;
    let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?)
        .policy(Policy::default().retry(quick()))
        .build()?;
    assert_eq!(client.send(get("/")?).await?.status(), 200);
    assert_eq!(upstream.count(), 3);
    Ok(())
}

#[tokio::test]
async fn when_retries_are_used_up_the_last_response_is_returned() -> Checked {
    let upstream = Upstream::new("bad", [503, 503, 503, 502].map(Act::Status));
    let serving = upstream.serve(any_port()).await?;
    let (listener, events) = recorder();
    let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?)
        .policy(Policy::default().retry(quick()))
        .listener(listener)
        .build()?;
    let response = client.send(get("/")?).await?;
    assert_eq!(response.status(), 502);
    assert_eq!(text(response).await?, "bad:0");
    let reasons: Vec<_> = events
        .lock()
        .iter()
        .filter_map(|event| match event {
            Event::GaveUp { reason, .. } => Some(*reason),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [Stop::Exhausted]);
    Ok(())
}

#[tokio::test]
async fn a_post_is_repeated_only_with_a_key_or_unsent() -> Checked {
    let upstream = Upstream::new("cart", [503, 503].map(Act::Status));
    let serving = upstream.serve(any_port()).await?;
    let dead = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let endpoints = [first(&serving), Endpoint::Tcp(dead)];
    let client = Client::builder("cart".parse()?, round_robin(&endpoints[..1])?)
        .policy(Policy::default().retry(quick()))
        .build()?;
    assert_eq!(client.send(post("/", "x")?).await?.status(), 503);
    assert_eq!(upstream.count(), 1);
    let mut keyed = post("/", "x")?;
    keyed.headers_mut().insert("idempotency-key", "k".parse()?);
    assert_eq!(client.send(keyed).await?.status(), 200);
    assert_eq!(upstream.count(), 3);
    let client = Client::builder("cart".parse()?, round_robin(&endpoints)?)
        .policy(Policy::default().retry(quick()))
        .build()?;
    for _ in 0..4 {
        assert_eq!(client.send(post("/", "x")?).await?.status(), 200);
    }
    assert_eq!(upstream.count(), 7);
    Ok(())
}

fn streamed(chunks: &'static [&'static str]) -> Body {
    let frames = chunks.iter().map(|chunk| {
        let data = Bytes::from_static(chunk.as_bytes());
        Ok::<_, std::io::Error>(http_body::Frame::data(data))
    });
    Body::wrap(StreamBody::new(Frames(frames)))
}

pub(crate) struct Frames<I>(pub(crate) I);

impl<I: Iterator + Unpin> futures_core::Stream for Frames<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

#[tokio::test]
async fn a_streamed_body_is_sent_again_from_its_start() -> Checked {
    for protocol in [connect::Protocol::Http1, connect::Protocol::Http2] {
        let upstream = Upstream::new("cart", [503, 502].map(Act::Status));
        let serving = upstream.serve(any_port()).await?;
        let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?)
            .connect(connect::Config::default().protocol(protocol))
            .policy(Policy::default().retry(quick()))
            .build()?;
        let body = streamed(&["one,", "two,", "three"]);
        let response = client.send(Request::put("/").body(body)?).await?;
        assert_eq!(response.status(), 200);
        let bodies: Vec<_> = upstream.seen().into_iter().map(|seen| seen.body).collect();
        assert_eq!(bodies, ["one,two,three"; 3]);
    }
    Ok(())
}

#[tokio::test]
async fn a_body_of_unknown_length_is_sent_whatever_the_method() -> Checked {
    for protocol in [connect::Protocol::Http1, connect::Protocol::Http2] {
        let upstream = Upstream::new("cart", []);
        let serving = upstream.serve(any_port()).await?;
        let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?)
            .connect(connect::Config::default().protocol(protocol))
            .build()?;
        for method in ["GET", "DELETE", "OPTIONS", "PUT"] {
            let request = Request::builder().method(method).uri("http://a/");
            let request = request.body(streamed(&["que", "ry"]))?;
            assert_eq!(text(client.send(request).await?).await?, "cart:5");
        }
        assert!(upstream.seen().iter().all(|seen| seen.body == "query"));
    }
    Ok(())
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_sent_once() -> Checked {
    let upstream = Upstream::new("cart", [503, 200, 503].map(Act::Status));
    let serving = upstream.serve(any_port()).await?;
    let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?)
        .policy(Policy::default().retry(quick().max_replay(8)))
        .build()?;
    let put = |body: Body| Request::put("/").body(body);
    let response = client.send(put(Body::from("12345678"))?).await?;
    assert_eq!((response.status().as_u16(), upstream.count()), (200, 2));
    let response = client.send(put(streamed(&["1234", "56789"]))?).await?;
    assert_eq!((response.status().as_u16(), upstream.count()), (503, 3));
    assert_eq!(upstream.seen()[2].body, "123456789");
    Ok(())
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_followed_by_another() -> Checked {
    let upstream = Upstream::new("slow", [Act::Hang]);
    let serving = upstream.serve(any_port()).await?;
    let pick = Witness::new(RoundRobin::new(targets(&[first(&serving)])?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _)
        .policy(
            Policy::default()
                .attempt_timeout(Duration::from_millis(50))
                .retry(quick()),
        )
        .build()?;
    assert_eq!(text(client.send(get("/")?).await?).await?, "slow:0");
    assert_eq!(pick.outcomes(), [Outcome::Failure, Outcome::Success]);
    Ok(())
}

#[tokio::test]
async fn the_deadline_covers_every_attempt_and_pause() -> Checked {
    let upstream = Upstream::new("never reached", []);
    let serving = upstream.serve(any_port()).await?;
    let hole = Proxy::start(first(&serving)).await?;
    hole.set(Faults::black_hole()).await?;
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let policy = Policy::default()
        .attempt_timeout(Duration::from_millis(40))
        .retry(quick().max_retries(10))
        .timeout(Duration::from_millis(150));
    let client = Client::builder("cart".parse()?, round_robin(&[hole.endpoint().clone()])?)
        .policy(policy)
        .clock(Arc::clone(&clock))
        .build()?;
    let within = |started| clock.now().since(started) < Duration::from_millis(600);
    let attempts = || hole.traffic().accepted;
    let started = clock.now();
    let error = client.send(get("/")?).await.expect_err("nobody answers");
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    assert!(within(started) && attempts() >= 2);

    let mut request = get("/")?;
    let soon = Deadline::after(clock.now(), Duration::from_millis(20));
    request.extensions_mut().insert(soon);
    let (started, before) = (clock.now(), attempts());
    let error = client.send(request).await.expect_err("nobody answers");
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    assert!(within(started) && attempts() == before + 1);

    let mut request = get("/")?;
    request
        .headers_mut()
        .insert("x-envoy-expected-rq-timeout-ms", "0".parse()?);
    let error = client.send(request).await.expect_err("it is too late");
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    assert_eq!(attempts(), before + 1);
    Ok(())
}

#[tokio::test]
async fn each_attempt_says_its_number_its_time_and_its_span() -> Checked {
    let upstream = Upstream::new("cart", [Act::Status(503)]);
    let serving = upstream.serve(any_port()).await?;
    let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?)
        .policy(
            Policy::default()
                .timeout(Duration::from_secs(3))
                .retry(quick()),
        )
        .build()?;
    let parent: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
    let mut request = get("/")?;
    request.extensions_mut().insert(parent.clone());
    request
        .headers_mut()
        .insert("connection", "x-private, close".parse()?);
    request.headers_mut().insert("x-private", "1".parse()?);
    request
        .headers_mut()
        .insert("te", "gzip, trailers".parse()?);
    request
        .headers_mut()
        .insert("proxy-authorization", "Basic eA==".parse()?);
    client.send(request).await?;
    let mut spans = HashSet::from([parent.span_id()]);
    for (seen, number) in upstream.seen().iter().zip(["1", "2"]) {
        assert_eq!(seen.header("x-envoy-attempt-count"), Some(number));
        let millis: u64 = seen
            .header("x-envoy-expected-rq-timeout-ms")
            .unwrap_or("")
            .parse()?;
        assert!((1..=3000).contains(&millis));
        let trace: TraceContext = seen.header("traceparent").unwrap_or("").parse()?;
        assert_eq!(trace.trace_id(), parent.trace_id());
        assert!(spans.insert(trace.span_id()), "each attempt is a span");
        assert_eq!(seen.header("proxy-authorization"), None);
        assert_eq!(seen.header("x-private"), None);
        assert_eq!(seen.header("te"), Some("trailers"));
        assert_eq!(seen.header("host"), Some("cart"));
    }
    assert_eq!(spans.len(), 3);
    Ok(())
}

#[tokio::test]
async fn without_budget_there_is_no_retry() -> Checked {
    let upstream = Upstream::new("bad", [Act::Status(503)]);
    let serving = upstream.serve(any_port()).await?;
    let dead = Endpoint::Tcp(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let nothing = budget::Config::default()
        .ratio(Ratio::NOTHING)
        .floor_per_second(0);
    let policy = Policy::default().retry(quick()).budget(nothing);
    let client = |endpoint| -> Result<Client, crate::upstream::Failure> {
        let pick = round_robin(&[endpoint])?;
        Ok(Client::builder("cart".parse()?, pick)
            .policy(policy.clone())
            .build()?)
    };
    // A response is better than none, so it is handed on.
    assert_eq!(
        client(first(&serving))?.send(get("/")?).await?.status(),
        503
    );
    assert_eq!(upstream.count(), 1);
    let error = client(dead)?
        .send(get("/")?)
        .await
        .expect_err("nobody listens");
    assert_eq!(error.kind(), Kind::BudgetExhausted);
    assert_eq!(error.class().retry_after(), Some(Duration::from_secs(1)));
    Ok(())
}

#[tokio::test]
async fn requests_that_are_retries_of_a_caller_fill_no_budget() -> Checked {
    let upstream = Upstream::new("bad", [200, 503, 503].map(Act::Status));
    let serving = upstream.serve(any_port()).await?;
    let half = budget::Config::default()
        .ratio(Ratio::percent(50))
        .floor_per_second(0);
    let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?)
        .policy(Policy::default().retry(quick()).budget(half))
        .build()?;
    let mut retried = get("/")?;
    retried
        .headers_mut()
        .insert("x-envoy-attempt-count", "2".parse()?);
    assert_eq!(client.send(retried).await?.status(), 200);
    assert_eq!(client.send(get("/")?).await?.status(), 503);
    assert_eq!(upstream.count(), 2);
    // Two first attempts have earned one retry.
    assert_eq!(client.send(get("/")?).await?.status(), 200);
    assert_eq!(upstream.count(), 4);
    Ok(())
}

#[tokio::test]
async fn an_open_circuit_fails_at_once_and_says_when_to_return() -> Checked {
    let upstream = Upstream::new("bad", std::iter::repeat_n(Act::Status(500), 9));
    let serving = upstream.serve(any_port()).await?;
    let (listener, events) = recorder();
    let config = breaker::Config::default().consecutive_failures(2);
    let pick = RoundRobin::new(targets(&[first(&serving)])?).breakers(config, &listener)?;
    let client = Client::builder("cart".parse()?, Arc::new(pick)).build()?;
    for _ in 0..2 {
        let response = client.send(get("/")?).await?;
        assert_eq!(response.status(), 500);
        text(response).await?;
    }
    let error = client
        .send(get("/")?)
        .await
        .expect_err("the circuit is open");
    assert_eq!(error.kind(), Kind::CircuitOpen);
    let after = error.class().retry_after().unwrap_or_default();
    assert!(after > Duration::ZERO && after <= Duration::from_secs(1));
    let shown = "service cart: every instance is behind an open circuit";
    assert_eq!(error.to_string(), shown);
    assert_eq!(upstream.count(), 2);
    let changes = |event: &&Event| matches!(event, Event::BreakerChanged { .. });
    assert_eq!(events.lock().iter().filter(changes).count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_completion_says_how_the_call_ended_and_what_the_instance_asked_for() -> Checked {
    let load = "TEXT cpu_utilization=0.5, rps_fractional=100";
    let script = [
        Act::StatusWith(503, "retry-after", "7"),
        Act::StatusWith(429, "retry-after", "3"),
        // It says when to ask again, not that it wants to be left alone.
        Act::StatusWith(302, "retry-after", "9"),
        Act::StatusWith(200, "endpoint-load-metrics", load),
        Act::StatusWith(200, "grpc-status", "14"),
        Act::StatusWith(200, "grpc-status", "8"),
        Act::StatusWith(200, "grpc-status", "5"),
        Act::Hang,
    ];
    let upstream = Upstream::new("cart", script);
    let serving = upstream.serve(any_port()).await?;
    let pick = Witness::new(RoundRobin::new(targets(&[first(&serving)])?));
    let policy = Policy::default().retry(retry::Policy::never());
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _)
        .policy(policy.attempt_timeout(Duration::from_millis(200)))
        .build()?;
    let ended = |outcome, result| Completed {
        outcome,
        result: Some(result),
        retry_after: None,
        load: None,
    };
    let status = |code| StatusCode::from_u16(code).map_err(crate::upstream::Failure::from);
    let expected = [
        Completed {
            retry_after: Some(Duration::from_secs(7)),
            ..ended(Outcome::Failure, Ok(status(503)?))
        },
        Completed {
            retry_after: Some(Duration::from_secs(3)),
            ..ended(Outcome::Overloaded, Ok(status(429)?))
        },
        ended(Outcome::Success, Ok(status(302)?)),
        Completed {
            load: Some(load.to_owned()),
            ..ended(Outcome::Success, Ok(status(200)?))
        },
        ended(Outcome::Failure, Ok(status(503)?)),
        ended(Outcome::Overloaded, Ok(status(429)?)),
        ended(Outcome::Success, Ok(status(200)?)),
        ended(Outcome::Failure, Err(Failure::Timeout)),
    ];
    for expected in expected {
        drop(client.send(get("/")?).await);
        assert_eq!(pick.last(), Some(expected));
    }
    serving.shutdown(Duration::ZERO).await;
    drop(client.send(get("/")?).await);
    let refused = ended(Outcome::Failure, Err(Failure::Connect));
    assert_eq!(pick.last(), Some(refused));
    Ok(())
}

#[tokio::test]
async fn a_call_that_is_given_up_is_neutral() -> Checked {
    let upstream = Upstream::new("slow", [Act::Hang]);
    let serving = upstream.serve(any_port()).await?;
    let pick = Witness::new(RoundRobin::new(targets(&[first(&serving)])?));
    let (listener, events) = recorder();
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _)
        .listener(listener)
        .build()?;
    let calling = client.send(get("/")?);
    let given_up = tokio::time::timeout(Duration::from_millis(50), calling).await;
    assert!(given_up.is_err());
    assert_eq!(pick.outcomes(), [Outcome::Neutral]);
    let events = std::mem::take(&mut *events.lock());
    assert!(
        matches!(&events[..], [Event::CallAbandoned { attempts: 1, .. }]),
        "{events:?}"
    );
    tokio::time::timeout(GRACE, client.shutdown()).await?;
    Ok(())
}

#[tokio::test]
async fn an_instance_is_busy_until_the_body_is_read_or_dropped() -> Checked {
    let upstream = Upstream::new("cart", []);
    let serving = upstream.serve(any_port()).await?;
    let pick = Witness::new(RoundRobin::new(targets(&[first(&serving)])?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _).build()?;
    let response = client.send(get("/")?).await?;
    assert_eq!(pick.in_flight(), 1);
    text(response).await?;
    assert_eq!(pick.in_flight(), 0);
    let response = client.send(get("/")?).await?;
    assert_eq!(pick.in_flight(), 1);
    drop(response);
    assert_eq!(pick.in_flight(), 0);
    assert_eq!(pick.outcomes(), [Outcome::Success, Outcome::Success]);
    Ok(())
}

#[tokio::test]
async fn statuses_tell_the_pick_what_they_mean() -> Checked {
    let cases = [
        (Act::Status(404), Outcome::Success),
        (Act::Status(429), Outcome::Overloaded),
        (Act::Status(500), Outcome::Failure),
        (
            Act::StatusWith(503, "x-envoy-overloaded", "true"),
            Outcome::Overloaded,
        ),
        (Act::StatusWith(200, "grpc-status", "14"), Outcome::Failure),
        (
            Act::StatusWith(200, "grpc-status", "8"),
            Outcome::Overloaded,
        ),
        (Act::StatusWith(200, "grpc-status", "5"), Outcome::Success),
    ];
    let upstream = Upstream::new("cart", cases.clone().map(|(act, _)| act));
    let serving = upstream.serve(any_port()).await?;
    let pick = Witness::new(RoundRobin::new(targets(&[first(&serving)])?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _)
        .policy(Policy::default().retry(retry::Policy::never()))
        .build()?;
    for _ in &cases {
        text(client.send(get("/")?).await?).await?;
    }
    assert_eq!(pick.outcomes(), cases.map(|(_, outcome)| outcome));
    Ok(())
}

#[tokio::test]
async fn a_subset_limits_the_choice() -> Checked {
    let (stable, canary) = (Upstream::new("stable", []), Upstream::new("canary", []));
    let (one, two) = (
        stable.serve(any_port()).await?,
        canary.serve(any_port()).await?,
    );
    let labels = [[("track", "stable")], [("track", "canary")]];
    let targets = targets(&[first(&one), first(&two)])?
        .into_iter()
        .zip(labels);
    let targets = targets.map(|(target, labels)| Ok(target.labels(labels.try_into()?)));
    let targets = targets.collect::<Result<Vec<_>, orchestra_core::InvalidLabel>>()?;
    let client = Client::builder("cart".parse()?, Arc::new(RoundRobin::new(targets))).build()?;
    for _ in 0..4 {
        let mut request = get("/")?;
        request
            .extensions_mut()
            .insert("track=canary".parse::<Selector>()?);
        assert_eq!(text(client.send(request).await?).await?, "canary:0");
    }
    let mut request = get("/")?;
    request
        .extensions_mut()
        .insert("track=none".parse::<Selector>()?);
    let error = client.send(request).await.expect_err("no instance matches");
    assert_eq!(error.kind(), Kind::NoEndpoint);
    Ok(())
}

#[tokio::test]
async fn after_shutdown_calls_are_refused() -> Checked {
    let upstream = Upstream::new("cart", []);
    let serving = upstream.serve(any_port()).await?;
    for protocol in [connect::Protocol::Http1, connect::Protocol::Http2] {
        let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?)
            .connect(connect::Config::default().protocol(protocol))
            .build()?;
        text(client.send(get("/")?).await?).await?;
        tokio::time::timeout(GRACE, client.shutdown()).await?;
        let error = client.send(get("/")?).await.expect_err("it is shut down");
        assert_eq!(error.kind(), Kind::ShutDown);
    }
    Ok(())
}

#[tokio::test]
async fn a_retry_that_is_still_to_come_does_not_hold_up_the_shutdown() -> Checked {
    let pause = Backoff::fixed(Duration::from_millis(200));
    for protocol in [connect::Protocol::Http1, connect::Protocol::Http2] {
        let upstream = Upstream::new("cart", [Act::Status(200), Act::Status(503)]);
        let serving = upstream.serve(any_port()).await?;
        let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?)
            .connect(connect::Config::default().protocol(protocol))
            .policy(Policy::default().retry(quick().backoff(pause)))
            .build()?;
        let unread = client.send(get("/")?).await?;
        let mut tasks = tokio::task::JoinSet::new();
        let (caller, request) = (client.clone(), get("/")?);
        tasks.spawn(async move { caller.send(request).await.map(drop) });
        while upstream.count() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tasks.spawn(async move {
            client.shutdown().await;
            Ok(())
        });
        // The retry connects anew, after the kept connections were forgotten.
        while upstream.count() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(unread);
        while let Some(done) = tokio::time::timeout(GRACE, tasks.join_next()).await? {
            done??;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_breaks_blames_nobody() -> Checked {
    let upstream = Upstream::new("cart", []);
    let serving = upstream.serve(any_port()).await?;
    let pick = Witness::new(RoundRobin::new(targets(&[first(&serving)])?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _)
        .policy(Policy::default().retry(quick()))
        .build()?;
    let frames = [
        Ok(http_body::Frame::data(Bytes::from_static(b"x"))),
        Err(std::io::Error::other("the disk is gone")),
    ];
    let body = Body::wrap(StreamBody::new(Frames(frames.into_iter())));
    let error = client
        .send(Request::put("/").body(body)?)
        .await
        .expect_err("no body");
    assert_eq!(error.kind(), Kind::Body);
    assert_eq!(pick.outcomes(), [Outcome::Neutral]);
    Ok(())
}

#[test]
fn failures_that_prove_nothing_are_told_apart() {
    for failure in [
        Failure::Reset,
        Failure::Timeout,
        Failure::Status(StatusCode::OK),
    ] {
        assert!(!failure.proves_unprocessed());
    }
    for failure in [Failure::Connect, Failure::Unsent, Failure::RefusedStream] {
        assert!(failure.proves_unprocessed());
    }
}
