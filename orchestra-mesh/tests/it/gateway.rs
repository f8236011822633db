use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use orchestra_core::{Endpoint, Outcome};
use orchestra_mesh::gateway::{Limits, Serving};
use orchestra_mesh::pick::RoundRobin;
use orchestra_mesh::route::{PathPattern, Route};
use orchestra_mesh::split::Split;
use orchestra_mesh::{Body, Client, Event, Gateway, Policy, Ratio, breaker, connect, retry};
use orchestra_testkit::{Faults, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use crate::client::{Witness, recorder};
use crate::upstream::{
    Act, Checked, Failure, GRACE, Upstream, any_port, first, get, post, round_robin, targets, text,
};

async fn passes(inner: Endpoint, outer: Endpoint, protocol: connect::Protocol) -> Checked {
    let upstream = Upstream::new("cart", []);
    let serving = upstream.serve(inner).await?;
    let connect = connect::Config::default().protocol(protocol);
    let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?)
        .connect(connect)
        .build()?;
    let gateway = Gateway::builder()
        .route(Route::to("carts", "cart".parse()?).path(PathPattern::prefix("/carts")?))
        .client(client.clone())
        .build()?
        .serve([outer])
        .await?;
    let outside = Client::builder("gateway".parse()?, round_robin(&[first(&gateway)])?)
        .connect(connect)
        .build()?;
    for number in 0..20 {
        let response = outside.send(post("/carts/7?x=1", "hello")?).await?;
        assert_eq!(response.status(), 200);
        assert_eq!(text(response).await?, "cart:5");
        assert_eq!(upstream.count(), number + 1);
    }
    let seen = upstream.seen();
    assert_eq!(
        seen[0].head.uri.path_and_query().map(PathAndQuery::as_str),
        Some("/carts/7?x=1")
    );
    assert_eq!(outside.send(get("/other")?).await?.status(), 404);
    outside.shutdown().await;
    assert_eq!(gateway.shutdown(GRACE).await.cut, 0);
    client.shutdown().await;
    assert_eq!(serving.shutdown(GRACE).await.cut, 0);
    Ok(())
}

#[tokio::test]
async fn requests_pass_over_tcp_by_http1() -> Checked {
    passes(any_port(), any_port(), connect::Protocol::Http1).await
}

#[tokio::test]
async fn requests_pass_over_tcp_by_http2() -> Checked {
    passes(any_port(), any_port(), connect::Protocol::Http2).await
}

#[tokio::test]
async fn requests_pass_over_unix_sockets_which_are_removed() -> Checked {
    let directory = tempfile::tempdir()?;
    let (inner, outer) = (directory.path().join("a"), directory.path().join("b"));
    for protocol in [connect::Protocol::Http1, connect::Protocol::Http2] {
        let limit = Duration::from_secs(10);
        let passing = passes(Endpoint::unix(&inner)?, Endpoint::unix(&outer)?, protocol);
        tokio::time::timeout(limit, passing).await??;
        assert!(!inner.exists() && !outer.exists());
    }
    Ok(())
}

struct Site {
    upstream: Upstream,
    gateway: Gateway,
    _serving: Serving,
}

/// A gateway in front of one upstream.
async fn site() -> Result<Site, Failure> {
    let upstream = Upstream::new("cart", []);
    let serving = upstream.serve(any_port()).await?;
    let client = Client::builder("cart".parse()?, round_robin(&[first(&serving)])?).build()?;
    let gateway = Gateway::builder()
        .route(Route::to("carts", "cart".parse()?).path(PathPattern::prefix("/carts")?))
        .client(client)
        .limits(Limits::default().body(100))
        .build()?;
    Ok(Site {
        upstream,
        gateway,
        _serving: serving,
    })
}

async fn ask(gateway: &Gateway, request: Request<Body>) -> Result<Response<Body>, Failure> {
    Ok(gateway.clone().oneshot(request).await?)
}

/// The status, the time to return, and the reason in the body.
async fn refusal(response: Response<Body>) -> Result<(u16, Option<String>, String), Failure> {
    let status = response.status().as_u16();
    let after = response.headers().get("retry-after");
    let after = after
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()?;
    let id = response.headers()["x-request-id"].to_str()?.to_owned();
    let body = text(response).await?;
    assert!(
        body.ends_with(&format!(r#""request_id":"{id}"}}"#)),
        "{body}"
    );
    assert!(!body.contains("127.0.0.1"), "an address leaks: {body}");
    let reason = body.split('"').nth(3).unwrap_or_default().to_owned();
    Ok((status, after, reason))
}

fn expected(status: u16, after: Option<&str>, reason: &str) -> (u16, Option<String>, String) {
    (status, after.map(str::to_owned), reason.to_owned())
}

#[tokio::test]
async fn what_cannot_be_routed_or_read_is_refused_with_a_reason() -> Checked {
    let site = site().await?;
    let cases = [
        (get("/other")?, expected(404, None, "no_route")),
        (get("/carts/../admin")?, expected(400, None, "bad_request")),
        (
            get("/carts/%2E%2e/admin")?,
            expected(400, None, "bad_request"),
        ),
        (
            post("/carts", "x".repeat(101))?,
            expected(413, None, "body_too_large"),
        ),
        (
            Request::connect("a:1").body(Body::empty())?,
            expected(501, None, "no_tunnel"),
        ),
    ];
    for (mut request, expected) in cases {
        request
            .headers_mut()
            .insert("host", "shop.example".parse()?);
        let shown = request.uri().to_string();
        let refusal = refusal(ask(&site.gateway, request).await?).await?;
        assert_eq!(refusal, expected, "{shown}");
    }
    assert_eq!(site.upstream.count(), 0);
    Ok(())
}

fn to(path: &str) -> Result<Request<Body>, Failure> {
    Ok(Request::get(format!("http://shop.example{path}")).body(Body::empty())?)
}

#[tokio::test]
async fn failures_of_services_have_a_status_and_a_time_to_return() -> Checked {
    let never = Policy::default().retry(retry::Policy::never());
    let nobody = Upstream::new("never reached", []).serve(any_port()).await?;
    let hole = Proxy::start(first(&nobody)).await?;
    hole.set(Faults::black_hole()).await?;
    let dead = Endpoint::Tcp(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let (listener, _) = recorder();
    let config = breaker::Config::default().consecutive_failures(1);
    let guarded = RoundRobin::new(targets(&[dead])?).breakers(config, &listener)?;
    let clients = [
        Client::builder("hole".parse()?, round_robin(&[hole.endpoint().clone()])?).build()?,
        Client::builder("guarded".parse()?, Arc::new(guarded))
            .policy(never)
            .build()?,
        Client::builder("nobody".parse()?, round_robin(&[])?).build()?,
    ];
    let mut builder = Gateway::builder();
    for client in clients {
        let name = client.service().clone();
        let path = PathPattern::prefix(&format!("/{name}"))?;
        builder = builder
            .route(
                Route::to(&name, name.clone())
                    .path(path)
                    .timeout(Duration::from_millis(100)),
            )
            .client(client);
    }
    let pending = tower::service_fn(async |_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, Failure>>().await
    });
    let mounted = Route::to("mounted", "mounted".parse()?)
        .path(PathPattern::prefix("/mounted")?)
        .timeout(Duration::from_millis(100));
    let gateway = builder
        .route(mounted)
        .mount("mounted".parse()?, pending)
        .build()?;
    let cases = [
        ("/hole", expected(504, None, "deadline_exceeded")),
        ("/mounted", expected(504, None, "deadline_exceeded")),
        ("/guarded", expected(503, Some("1"), "unreachable")),
        ("/guarded", expected(503, Some("1"), "circuit_open")),
        ("/nobody", expected(503, Some("1"), "no_endpoint")),
    ];
    for (path, expected) in cases {
        let asking = tokio::time::timeout(Duration::from_secs(3), ask(&gateway, to(path)?));
        assert_eq!(refusal(asking.await??).await?, expected, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_breaks_the_connection_is_a_bad_gateway() -> Checked {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::Tcp(listener.local_addr()?);
    let client = Client::builder("cart".parse()?, round_robin(&[endpoint])?).build()?;
    let gateway = Gateway::builder()
        .route(Route::to("all", "cart".parse()?))
        .client(client)
        .build()?;
    let breaking = async {
        let (mut stream, _) = listener.accept().await?;
        stream.read(&mut [0; 16]).await
    };
    let request = Request::post("http://shop.example/").body(Body::empty())?;
    let (read, response) = tokio::join!(breaking, ask(&gateway, request));
    assert!(read? > 0);
    assert_eq!(
        refusal(response?).await?,
        expected(502, None, "upstream_failed")
    );
    Ok(())
}

#[tokio::test]
async fn a_streamed_body_beyond_the_limit_is_too_large_over_either_protocol() -> Checked {
    let site = site().await?;
    let outer = site.gateway.serve([any_port()]).await?;
    for protocol in [connect::Protocol::Http1, connect::Protocol::Http2] {
        let outside = Client::builder("gateway".parse()?, round_robin(&[first(&outer)])?)
            .connect(connect::Config::default().protocol(protocol))
            .build()?;
        // Without a length, only the bytes themselves tell.
        let body = Full::new(Bytes::from("x".repeat(101))).map_frame(|frame| frame);
        let body = Body::wrap(Unsized(body));
        let response = outside.send(Request::post("/carts").body(body)?).await?;
        assert_eq!(
            refusal(response).await?,
            expected(413, None, "body_too_large")
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_length_beyond_the_limit_is_refused_before_anybody_is_asked() -> Checked {
    let dead = Endpoint::Tcp(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let gateway = Gateway::builder()
        .route(Route::to("all", "cart".parse()?))
        .client(Client::builder("cart".parse()?, round_robin(&[dead])?).build()?)
        .limits(Limits::default().body(100))
        .build()?;
    let send = |length| Request::post("http://shop.example/").body(Body::from("x".repeat(length)));
    let answer = refusal(ask(&gateway, send(101)?).await?).await?;
    assert_eq!(answer, expected(413, None, "body_too_large"));
    let answer = refusal(ask(&gateway, send(100)?).await?).await?;
    assert_eq!(answer, expected(503, Some("1"), "unreachable"));
    Ok(())
}

#[tokio::test]
async fn a_peer_that_writes_it_all_before_it_reads_hears_that_it_was_too_much() -> Checked {
    let dead = Endpoint::Tcp(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let gateway = Gateway::builder()
        .route(Route::to("all", "cart".parse()?))
        .client(Client::builder("cart".parse()?, round_robin(&[dead])?).build()?)
        .limits(Limits::default().body(100))
        .build()?
        .serve([any_port()])
        .await?;
    let Endpoint::Tcp(address) = first(&gateway) else {
        return Err("not TCP".into());
    };
    for _ in 0..10 {
        let mut peer = tokio::net::TcpStream::connect(address).await?;
        let length = 4 << 20;
        let head = format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {length}\r\n\r\n");
        peer.write_all(head.as_bytes()).await?;
        // More than the kernel buffers: this ends only if somebody reads.
        peer.write_all(&vec![b'x'; length]).await?;
        let mut answer = [0; 12];
        peer.read_exact(&mut answer).await?;
        assert_eq!(answer, *b"HTTP/1.1 413");
    }
    gateway.shutdown(GRACE).await;
    Ok(())
}

struct Unsized<B>(B);

impl<B: http_body::Body + Unpin> http_body::Body for Unsized<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }
}

#[tokio::test]
async fn outsiders_cannot_speak_as_insiders() -> Checked {
    let site = site().await?;
    let outer = site.gateway.serve([any_port()]).await?;
    let outside = Client::builder("gateway".parse()?, round_robin(&[first(&outer)])?).build()?;
    let mut request = to("/carts")?;
    for (name, value) in [
        ("x-saga-id", "1"),
        ("x-envoy-overloaded", "1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-request-id", "mine-1"),
        ("authorization", "Bearer t"),
    ] {
        request.headers_mut().insert(name, value.parse()?);
    }
    let response = outside.send(request).await?;
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let seen = site.upstream.seen();
    let seen = seen.first().ok_or("nothing arrived")?;
    assert_eq!(seen.header("x-saga-id"), None);
    assert_eq!(seen.header("x-envoy-overloaded"), None);
    assert_eq!(seen.header("x-envoy-attempt-count"), Some("1"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-request-id"), Some("mine-1"));
    assert_eq!(seen.header("authorization"), Some("Bearer t"));
    assert_eq!(seen.header("host"), Some("shop.example"));
    assert!(seen.header("traceparent").is_some());
    Ok(())
}

#[tokio::test]
async fn the_connection_header_takes_away_nothing_that_the_gateway_says() -> Checked {
    let named = "connection";
    let names = "x-forwarded-for, x-forwarded-proto, x-request-id, traceparent, \
                 x-envoy-expected-rq-timeout-ms";
    let (sender, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let echo = tower::service_fn(move |request: Request<Body>| {
        let sent = sender.send(request.into_parts().0.headers);
        async move { sent.map(|()| Response::new(Body::empty())) }
    });
    let service: orchestra_core::ServiceName = "echo".parse()?;
    let gateway = Gateway::builder()
        .route(Route::to("all", service.clone()).timeout(Duration::from_secs(5)))
        .mount(service, echo)
        .build()?;
    let serving = gateway.serve([any_port()]).await?;
    let Endpoint::Tcp(address) = first(&serving) else {
        return Err("no TCP".into());
    };
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{named}: close, {names}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let seen = tokio::time::timeout(GRACE, heads.recv())
        .await?
        .ok_or("nothing arrived")?;
    for name in names.split(", ") {
        assert!(seen.contains_key(name), "{name} is gone: {seen:?}");
    }
    assert!(!seen.contains_key(named));
    Ok(())
}

#[tokio::test]
async fn an_impatient_outsider_opens_no_circuit() -> Checked {
    // It may itself notice that the time is up, and say so.
    let acts = [Act::Hang, Act::Hang, Act::Status(504), Act::Status(504)];
    let upstream = Upstream::new("slow", acts);
    let serving = upstream.serve(any_port()).await?;
    let pick = Witness::new(RoundRobin::new(targets(&[first(&serving)])?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _).build()?;
    let gateway = Gateway::builder()
        .route(Route::to("all", "cart".parse()?))
        .client(client)
        .build()?;
    for (name, value) in [
        ("grpc-timeout", "20m"),
        ("x-envoy-expected-rq-timeout-ms", "20"),
        ("grpc-timeout", "1S"),
    ] {
        let mut request = post("http://a/carts", "x")?;
        request.headers_mut().insert(name, value.parse()?);
        let response = ask(&gateway, request).await?;
        assert_eq!(response.status(), 504);
    }
    assert_eq!(pick.outcomes(), [Outcome::Neutral; 3]);
    assert_eq!(
        ask(&gateway, post("http://a/carts", "x")?).await?.status(),
        504
    );
    assert_eq!(pick.outcomes().last(), Some(&Outcome::Failure));
    Ok(())
}

/// An instance that keeps the time it was given may say so first.
#[tokio::test]
async fn an_instance_that_reports_an_outsiders_deadline_is_not_blamed() -> Checked {
    let late = [
        Act::Status(504),
        Act::StatusWith(200, "grpc-status", "4"),
        Act::Status(504),
        Act::Status(503),
    ];
    let upstream = Upstream::new("cart", late);
    let serving = upstream.serve(any_port()).await?;
    let pick = Witness::new(RoundRobin::new(targets(&[first(&serving)])?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _)
        .policy(Policy::default().retry(retry::Policy::never()))
        .build()?;
    let gateway = Gateway::builder()
        .route(Route::to("all", "cart".parse()?))
        .client(client)
        .build()?;
    // The third outsider gives more time than an attempt gets anyway.
    for left in ["2S", "1500500u", "20S", "2S"] {
        let mut request = to("/carts")?;
        request.headers_mut().insert("grpc-timeout", left.parse()?);
        text(ask(&gateway, request).await?).await?;
    }
    let expected = [
        Outcome::Neutral,
        Outcome::Neutral,
        Outcome::Failure,
        Outcome::Failure,
    ];
    assert_eq!(pick.outcomes(), expected);
    Ok(())
}

#[tokio::test]
async fn a_host_that_is_none_is_refused() -> Checked {
    let site = site().await?;
    for host in ["a b", "u@a", "u:p@a", "a/b", "a?c", "a:b:c", "[::1", "a,b"] {
        let mut request = get("/carts")?;
        request.headers_mut().insert("host", host.parse()?);
        let refused = refusal(ask(&site.gateway, request).await?).await?;
        assert_eq!(refused, expected(400, None, "bad_request"), "{host}");
    }
    let named = ask(&site.gateway, get("http://u:p@a/carts")?).await?;
    assert_eq!(refusal(named).await?, expected(400, None, "bad_request"));
    for host in [
        "a",
        "a:80",
        "127.0.0.1:80",
        "[::1]:80",
        "shop.example",
        "a_b",
    ] {
        let mut request = get("/carts")?;
        request.headers_mut().insert("host", host.parse()?);
        assert_eq!(ask(&site.gateway, request).await?.status(), 200, "{host}");
    }
    Ok(())
}

#[tokio::test]
async fn a_hostile_request_id_is_replaced() -> Checked {
    let site = site().await?;
    for id in ["a\"b", "a b", "", &"x".repeat(129), "{}"] {
        let mut request = to("/nowhere")?;
        request.headers_mut().insert("x-request-id", id.parse()?);
        let response = ask(&site.gateway, request).await?;
        let given = response.headers()["x-request-id"].to_str()?.to_owned();
        assert_eq!(given.len(), 36, "{given} is a UUID");
        assert_eq!(given.as_bytes()[14], b'4');
        assert_eq!(refusal(response).await?.0, 404);
    }
    Ok(())
}

#[tokio::test]
async fn traces_are_continued_or_begun_and_sampled_by_share() -> Checked {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let (listener, events) = recorder();
    let gateway = Gateway::builder()
        .listener(listener)
        .sampling(Ratio::percent(25))
        .build()?;
    let mut request = to("/")?;
    request.headers_mut().insert("traceparent", parent.parse()?);
    ask(&gateway, request).await?;
    for _ in 0..4000 {
        ask(&gateway, to("/")?).await?;
    }
    let events = events.lock();
    let traces = events.iter().filter_map(|event| match event {
        Event::Request(request) => Some(&request.trace),
        _ => None,
    });
    let traces: Vec<_> = traces.collect();
    assert_eq!(
        traces[0].trace_id().to_string(),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    assert!(!traces[0].flags().is_sampled());
    assert_ne!(traces[0].span_id().to_string(), "00f067aa0ba902b7");
    let sampled = traces.iter().filter(|trace| trace.flags().is_sampled());
    let threshold = (1_u128 << 56) / 4 * 3;
    for trace in &traces[1..] {
        let rank = trace.trace_id().as_number() & ((1 << 56) - 1);
        assert_eq!(trace.flags().is_sampled(), rank >= threshold);
    }
    let count = sampled.count();
    assert!(
        (880..=1120).contains(&count),
        "{count} of 4000 are not a quarter"
    );
    Ok(())
}

#[tokio::test]
async fn a_service_of_this_process_can_be_mounted() -> Checked {
    let service = tower::service_fn(async |request: Request<Body>| {
        assert!(request.headers().get("connection").is_none());
        Ok::<_, std::io::Error>(Response::new(request.into_body()))
    });
    let failing = tower::service_fn(async |_: Request<Body>| {
        Err::<Response<Body>, _>(std::io::Error::other("secret detail"))
    });
    let gateway = Gateway::builder()
        .route(Route::to("echo", "echo".parse()?).path(PathPattern::exact("/echo")?))
        .route(Route::to("fail", "fail".parse()?).path(PathPattern::exact("/fail")?))
        .mount("echo".parse()?, service)
        .mount("fail".parse()?, failing)
        .build()?;
    let mut request = Request::post("http://shop.example/echo").body(Body::from("hi"))?;
    request.headers_mut().insert("connection", "close".parse()?);
    assert_eq!(text(ask(&gateway, request).await?).await?, "hi");
    let answer = refusal(ask(&gateway, to("/fail")?).await?).await?;
    assert_eq!(answer, expected(502, None, "upstream_failed"));
    Ok(())
}

#[tokio::test]
async fn a_split_sends_each_request_by_its_share() -> Checked {
    let echo = |name: &'static str| {
        tower::service_fn(move |_: Request<Body>| async move {
            Ok::<_, std::io::Error>(Response::new(Body::from(name)))
        })
    };
    let split = Split::new([
        ("new".parse()?, 1),
        ("never".parse()?, 0),
        ("old".parse()?, 3),
    ])?;
    let gateway = Gateway::builder()
        .route(Route::split("all", split))
        .mount("new".parse()?, echo("new"))
        .mount("old".parse()?, echo("old"))
        .seed(7)
        .build()?;
    let mut new = 0;
    for _ in 0..2000 {
        let answer = text(ask(&gateway, to("/")?).await?).await?;
        new += u32::from(answer == "new");
    }
    // Five standard deviations of a binomial of 2,000 with 1/4.
    assert!((403..=597).contains(&new), "{new}");
    Ok(())
}

#[tokio::test]
async fn each_request_is_reported_once_with_its_route_or_reason() -> Checked {
    let slow = tower::service_fn(async |_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, Failure>>().await
    });
    let echo = tower::service_fn(async |request: Request<Body>| {
        Ok::<_, Failure>(Response::new(request.into_body()))
    });
    let (listener, events) = recorder();
    let gateway = Gateway::builder()
        .route(Route::to("echo", "echo".parse()?).path(PathPattern::exact("/echo")?))
        .route(Route::to("slow", "slow".parse()?).path(PathPattern::exact("/slow")?))
        .mount("echo".parse()?, echo)
        .mount("slow".parse()?, slow)
        .listener(listener)
        .build()?;
    ask(&gateway, to("/echo")?).await?;
    ask(&gateway, to("/nowhere")?).await?;
    let given_up = tokio::time::timeout(Duration::from_millis(20), ask(&gateway, to("/slow")?));
    assert!(given_up.await.is_err());
    let events = events.lock();
    let reports = events.iter().filter_map(|event| match event {
        Event::Request(report) => Some((
            report.route.as_deref(),
            report
                .service
                .as_ref()
                .map(orchestra_core::ServiceName::as_str),
            report.status.map(|status| status.as_u16()),
            report.reason,
        )),
        _ => None,
    });
    let expected = [
        (Some("echo"), Some("echo"), Some(200), None),
        (None, None, Some(404), Some("no_route")),
        (Some("slow"), Some("slow"), None, None),
    ];
    assert_eq!(reports.collect::<Vec<_>>(), expected);
    Ok(())
}

#[test]
fn routes_that_lead_nowhere_are_refused() -> Checked {
    let error = Gateway::builder()
        .route(Route::to("a", "cart".parse()?))
        .build();
    let error = error.err().ok_or("it leads nowhere")?;
    let shown = "route \"a\" leads to cart, which is no destination";
    assert_eq!(error.to_string(), shown);
    Ok(())
}
