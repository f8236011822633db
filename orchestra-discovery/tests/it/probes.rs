//! HTTP and TCP probes, on real sockets of this machine, and against servers that mean ill.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::routing::{any, get};
use orchestra_core::Endpoint;
use orchestra_discovery::health::{self, Network, Networks, Reach, Thresholds};
use orchestra_discovery::{
    Event, HealthCheck, HttpProbe, Instance, Probe, ProbeTarget, TcpProbe, Verdict, resolver,
};
use orchestra_testkit::{Faults, Proxy};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;

use crate::common::{draw, instance, with_members};
use crate::doubles::heard;
use crate::http::{serve, until};

fn at(endpoint: &Endpoint) -> Instance {
    let mut one = instance("p-1", 1);
    one.endpoint = endpoint.clone();
    one
}

fn targeting(mut instance: Instance, probe: ProbeTarget) -> Instance {
    instance.probe = Some(Arc::new(probe));
    instance
}

fn port(endpoint: &Endpoint) -> u16 {
    match endpoint {
        Endpoint::Tcp(address) => address.port(),
        other => panic!("{other} has no port"),
    }
}

fn critical(reason: &str) -> Verdict {
    Verdict::Critical(reason.to_owned())
}

/// Answers every connection by what the closure does to it.
async fn raw<F, T>(answer: F) -> (Endpoint, JoinSet<()>)
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut calls = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            calls.spawn(answer(stream));
        }
    });
    (endpoint, server)
}

/// Takes the request, so that what follows is an answer.
async fn take_request(stream: &mut TcpStream) {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
        request.extend(byte);
    }
}

#[tokio::test]
async fn status_decides_and_only_what_may_pass_is_counted() {
    let app = Router::new()
        .route("/well", get(|| async { StatusCode::NO_CONTENT }))
        .route("/big", get(|| async { "x".repeat(1 << 20) }))
        .route("/ill", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route("/busy", get(|| async { StatusCode::TOO_MANY_REQUESTS }))
        .route("/spare", get(|| async { [("x-envoy-degraded", "")] }))
        .route("/teapot", get(|| async { StatusCode::IM_A_TEAPOT }));
    let (endpoint, server) = serve(app).await;
    let payments = at(&endpoint);
    let expected = [
        ("/well", Verdict::Pass),
        ("/big", Verdict::Pass),
        ("/ill", critical("status 503")),
        ("/absent", critical("status 404")),
        ("/busy", Verdict::Degraded("status 429".to_owned())),
        (
            "/spare",
            Verdict::Degraded("header x-envoy-degraded".to_owned()),
        ),
    ];
    for (path, verdict) in expected {
        let probe = HttpProbe::new(path).unwrap();
        assert_eq!(probe.probe(&payments).await, verdict, "{path}");
    }
    let probe = |path: &str| {
        let probe = HttpProbe::new(path)
            .unwrap()
            .expect_statuses([200..=200, 418..=418]);
        let probe = probe.retry_statuses([502..=504]).degraded_statuses([]);
        probe.degraded_header(None)
    };
    let expected = [
        ("/well", critical("status 204")),
        ("/teapot", Verdict::Pass),
        ("/ill", Verdict::Fail("status 503".to_owned())),
        ("/busy", critical("status 429")),
        ("/spare", Verdict::Pass),
    ];
    for (path, verdict) in expected {
        assert_eq!(probe(path).probe(&payments).await, verdict, "{path}");
    }
    drop(server);
    let gone = HttpProbe::new("/well").unwrap().probe(&payments).await;
    let Verdict::Fail(reason) = gone else {
        panic!("nobody is there");
    };
    assert!(
        reason.starts_with("cannot connect to 127.0.0.1"),
        "{reason}"
    );
}

#[tokio::test]
async fn body_must_hold_what_is_expected() {
    let long = format!("{}up", "x".repeat(1 << 17));
    let app = Router::new()
        .route("/up", get(|| async { "status: up" }))
        .route("/down", get(|| async { "status: down" }))
        .route("/late", get(move || async { long }));
    let (endpoint, _server) = serve(app).await;
    let without = critical("status 200 without the expected body");
    for (path, verdict) in [
        ("/up", Verdict::Pass),
        ("/down", without.clone()),
        ("/late", without),
    ] {
        let probe = HttpProbe::new(path).unwrap().expect_body("up");
        assert_eq!(probe.probe(&at(&endpoint)).await, verdict, "{path}");
    }
    let anything = HttpProbe::new("/down").unwrap().expect_body("");
    assert_eq!(anything.probe(&at(&endpoint)).await, Verdict::Pass);
}

#[tokio::test]
async fn registration_sets_path_and_port_and_the_host_stays_its_own() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&seen);
    let app = Router::new().fallback(any(move |method: Method, uri: Uri, headers: HeaderMap| {
        let host = headers.get("host").and_then(|host| host.to_str().ok());
        log.lock()
            .push(format!("{method} {uri} {}", host.unwrap_or("-")));
        async { "" }
    }));
    let (endpoint, _server) = serve(app).await;
    let other = ProbeTarget::default()
        .path("/ready?deep=1")
        .port(port(&endpoint));
    // Nobody listens at its own port.
    let payments = targeting(at(&"127.0.0.1:1".parse().unwrap()), other);
    let probe = HttpProbe::new("/health").unwrap();
    assert_eq!(probe.probe(&payments).await, Verdict::Pass);
    let named = probe.head().host("payments.internal").unwrap();
    assert_eq!(named.probe(&payments).await, Verdict::Pass);
    let expected = [
        format!("GET /ready?deep=1 {endpoint}"),
        "HEAD /ready?deep=1 payments.internal".to_owned(),
    ];
    assert_eq!(*seen.lock(), expected);
    assert!(HttpProbe::new("/").unwrap().host("a\r\nb: c").is_err());
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let (elsewhere, mut server) = raw(|_| async {}).await;
    let proxy = Proxy::start(elsewhere).await.unwrap();
    let location = format!("http://{}/", proxy.endpoint());
    let moved = move || {
        let location = location.clone();
        async move { (StatusCode::FOUND, [("location", location)]) }
    };
    let (endpoint, _server) = serve(Router::new().route("/", get(moved))).await;
    let verdict = HttpProbe::new("/").unwrap().probe(&at(&endpoint)).await;
    assert_eq!(verdict, critical("status 302"));
    assert_eq!(proxy.traffic().accepted, 0);
    server.shutdown().await;
}

#[tokio::test]
async fn forbidden_targets_are_never_connected_to() {
    let (endpoint, _server) = serve(Router::new().route("/", get(|| async { "" }))).await;
    let proxy = Proxy::start(endpoint).await.unwrap();
    let own = at(proxy.endpoint());
    let named: Endpoint = format!("localhost:{}", port(proxy.endpoint()))
        .parse()
        .unwrap();
    let elsewhere: Networks = "10.0.0.0/8".parse().unwrap();
    let strict = HttpProbe::new("/")
        .unwrap()
        .reach(Reach::default().networks(elsewhere));
    let open = HttpProbe::new("/").unwrap();
    let path = |path: &str| targeting(own.clone(), ProbeTarget::default().path(path));
    let forbidden = [
        (
            &strict,
            own.clone(),
            "127.0.0.1 is not in the networks of probes",
        ),
        (
            &strict,
            at(&named),
            "no address of localhost is in the networks of probes",
        ),
        (
            &open,
            at(&"169.254.169.254:80".parse().unwrap()),
            "169.254.169.254 is not in the networks of probes",
        ),
        (
            &open,
            at(&"[::ffff:169.254.169.254]:80".parse().unwrap()),
            "::ffff:169.254.169.254 is not in the networks of probes",
        ),
        (
            &open,
            path("/\r\nx: y"),
            "probe path \"/\\r\\nx: y\" is not a plain path or name",
        ),
        (
            &open,
            path("ready"),
            "probe path \"ready\" is not an absolute path",
        ),
        (
            &open,
            path("http://10.0.0.1/"),
            "probe path \"http://10.0.0.1/\" is not a plain path or name",
        ),
        (
            &open,
            at(&"unix:/run/docker.sock".parse().unwrap()),
            "/run/docker.sock is not in the directories of probes",
        ),
    ];
    for (probe, payments, reason) in forbidden {
        let verdict = probe.probe(&payments).await;
        assert_eq!(verdict, Verdict::Forbidden(reason.to_owned()));
    }
    assert_eq!(proxy.traffic().accepted, 0);
    // The name as such is not forbidden.
    assert_eq!(open.probe(&at(&named)).await, Verdict::Pass);
    assert_eq!(proxy.traffic().accepted, 1);
}

#[tokio::test]
async fn forbidden_probe_makes_unhealthy_at_once_and_is_an_event() {
    let metadata = at(&"169.254.169.254:80".parse().unwrap());
    let payments = with_members(resolver::Config::default(), [metadata]);
    let (events, listener) = heard();
    let mut config = health::Config::default().listener(listener);
    config.admit_unchecked = true;
    config.initial_jitter = Duration::ZERO;
    let check = HealthCheck::start(
        Arc::new(HttpProbe::new("/latest/meta-data").unwrap()),
        payments.clone(),
        config,
    );
    until("unhealthy", || payments.pick(&draw(0)).is_err()).await;
    check.shutdown().await.unwrap();
    let reasons: Vec<_> = events
        .lock()
        .iter()
        .filter_map(|event| match event {
            Event::ProbeForbidden { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(
        reasons,
        ["169.254.169.254 is not in the networks of probes"]
    );
}

#[tokio::test]
async fn connection_is_reused_until_it_breaks_or_is_forgotten() {
    let (endpoint, _server) = serve(Router::new().route("/", get(|| async { "well" }))).await;
    let proxy = Proxy::start(endpoint).await.unwrap();
    let payments = at(proxy.endpoint());
    let probe = HttpProbe::new("/").unwrap();
    for _ in 0..5 {
        assert_eq!(probe.probe(&payments).await, Verdict::Pass);
    }
    assert_eq!(proxy.traffic().accepted, 1);
    // Broken meanwhile: that is no failure of the instance.
    proxy.reset_connections();
    until("cut", || proxy.traffic().open == 0).await;
    assert_eq!(probe.probe(&payments).await, Verdict::Pass);
    assert_eq!(proxy.traffic().accepted, 2);
    probe.forget(&payments);
    until("closed", || proxy.traffic().open == 0).await;
    let mut reborn = payments.clone();
    reborn.incarnation = orchestra_discovery::Incarnation::new(2);
    for (instance, accepted) in [(&payments, 3), (&reborn, 4), (&reborn, 4)] {
        assert_eq!(probe.probe(instance).await, Verdict::Pass);
        assert_eq!(proxy.traffic().accepted, accepted);
    }

    let fresh = HttpProbe::new("/").unwrap().without_reuse();
    for accepted in 5..8 {
        assert_eq!(fresh.probe(&payments).await, Verdict::Pass);
        assert_eq!(proxy.traffic().accepted, accepted);
    }
}

#[tokio::test]
async fn connection_that_is_not_read_to_its_end_is_not_reused() {
    let app = Router::new().route("/", get(|| async { Body::from(vec![b'x'; 1 << 20]) }));
    let (endpoint, _server) = serve(app).await;
    let proxy = Proxy::start(endpoint).await.unwrap();
    let probe = HttpProbe::new("/").unwrap();
    for accepted in 1..4 {
        assert_eq!(probe.probe(&at(proxy.endpoint())).await, Verdict::Pass);
        assert_eq!(proxy.traffic().accepted, accepted);
    }
}

#[tokio::test]
async fn hostile_servers_fail_and_do_not_hold_up_the_others() {
    let (well, _well) = serve(Router::new().route("/", get(|| async { "" }))).await;
    // A byte of the head now and then; a head without end; a body without end; nothing at all.
    let (drip, _drip) = raw(|mut stream| async move {
        take_request(&mut stream).await;
        while stream.write_all(b"H").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (heads, _heads) = raw(|mut stream| async move {
        take_request(&mut stream).await;
        let start = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        let mut goes_on = start.is_ok();
        while goes_on {
            goes_on = stream.write_all(b"x: y\r\n").await.is_ok();
        }
    })
    .await;
    let (hole, _hole) = raw(|_| async {}).await;
    let hole = Proxy::start(hole).await.unwrap();
    hole.set(Faults::black_hole()).await.unwrap();
    let cut = Proxy::start(well.clone()).await.unwrap();
    cut.set(Faults::reset()).await.unwrap();

    let endpoints = [&drip, &heads, hole.endpoint(), cut.endpoint(), &well];
    let members = endpoints.iter().enumerate().map(|(n, endpoint)| {
        let mut one = instance(&format!("p-{n}"), 1);
        one.endpoint = (*endpoint).clone();
        one
    });
    let payments = with_members(resolver::Config::default(), members);
    let (events, listener) = heard();
    let interval = Duration::from_millis(50);
    let mut config = health::Config::default()
        .interval(interval)
        .listener(listener);
    config.timeout = Duration::from_millis(200);
    config.thresholds = Thresholds::default();
    let probe = Arc::new(HttpProbe::new("/").unwrap());
    let check = HealthCheck::start(probe, payments.clone(), config);
    until("all are judged", || events.lock().len() >= 5).await;
    let none = (0..64).map(|n| payments.pick(&draw(u64::MAX / 64 * n)).unwrap());
    assert!(
        none.into_iter()
            .all(|it| it.instance().id.as_str() == "p-4")
    );
    check.shutdown().await.unwrap();
    let reasons: std::collections::BTreeMap<_, _> = events
        .lock()
        .iter()
        .filter_map(|event| match event {
            Event::HealthChanged { id, reason, .. } => Some((id.to_string(), reason.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(reasons["p-0"], "no answer within 200ms");
    let heads = &reasons["p-1"];
    assert!(heads.contains("message head is too large"), "{heads}");
    assert_eq!(reasons["p-2"], "no answer within 200ms");
    assert_eq!(reasons["p-4"], "");
}

#[tokio::test]
async fn body_without_end_is_cut_and_the_status_stands() {
    let (endpoint, _server) = raw(|mut stream| async move {
        take_request(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut goes_on = stream.write_all(head).await.is_ok();
        while goes_on {
            goes_on = stream.write_all(b"4\r\nwell\r\n").await.is_ok();
        }
    })
    .await;
    let verdict = HttpProbe::new("/").unwrap().probe(&at(&endpoint)).await;
    assert_eq!(verdict, Verdict::Pass);
}

#[tokio::test]
async fn unix_socket_is_probed_within_the_reach() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut server = JoinSet::new();
    let app = Router::new().route(
        "/",
        get(|headers: HeaderMap| async move {
            assert_eq!(headers["host"], "localhost");
        }),
    );
    server.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let payments = at(&Endpoint::unix(&path).unwrap());
    let reach = Reach::default().unix_directory(directory.path());
    let http = HttpProbe::new("/").unwrap().reach(reach.clone());
    assert_eq!(http.probe(&payments).await, Verdict::Pass);
    let tcp = TcpProbe::default();
    assert_eq!(
        tcp.clone().reach(reach).probe(&payments).await,
        Verdict::Pass
    );
    assert!(matches!(tcp.probe(&payments).await, Verdict::Forbidden(_)));
}

#[tokio::test]
async fn tcp_probe_connects_and_finds_what_it_expects_in_pieces() {
    let (endpoint, _server) = raw(|mut stream| async move {
        let mut asked = [0; 6];
        if stream.read_exact(&mut asked).await.is_ok() && asked == *b"PING\r\n" {
            for piece in [b"-LOADING\r\n+P".as_slice(), b"ON", b"G\r\n"] {
                stream.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })
    .await;
    let payments = at(&endpoint);
    let asking = TcpProbe::default().send(*b"PING\r\n");
    assert_eq!(TcpProbe::default().probe(&payments).await, Verdict::Pass);
    assert_eq!(
        asking.clone().expect(*b"+PONG").probe(&payments).await,
        Verdict::Pass
    );
    let wrong = asking.expect(*b"+PANG").probe(&payments).await;
    let message = "what was expected is not in the 17 bytes of the answer";
    assert_eq!(wrong, Verdict::Fail(message.to_owned()));

    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = TcpProbe::default().probe(&at(&closed.into())).await;
    assert!(matches!(refused, Verdict::Fail(reason) if reason.starts_with("cannot connect")));
}

#[tokio::test]
async fn tcp_probe_reads_no_more_than_its_limit() {
    let (endpoint, _server) =
        raw(|mut stream| async move { while stream.write_all(&[b'x'; 4096]).await.is_ok() {} })
            .await;
    let verdict = TcpProbe::default()
        .expect(*b"y")
        .probe(&at(&endpoint))
        .await;
    let message = "what was expected is not in the 65536 bytes of the answer";
    assert_eq!(verdict, Verdict::Fail(message.to_owned()));
}

#[tokio::test]
async fn tcp_probe_goes_to_the_port_of_the_registration_within_the_networks() {
    let (endpoint, _server) = raw(|_| async {}).await;
    let target = ProbeTarget::default().port(port(&endpoint));
    let payments = targeting(at(&"127.0.0.1:1".parse().unwrap()), target);
    assert_eq!(TcpProbe::default().probe(&payments).await, Verdict::Pass);
    let one: Network = "127.0.0.2".parse().unwrap();
    let reach = Reach::default().networks(Networks::new([one]));
    let verdict = TcpProbe::default().reach(reach).probe(&payments).await;
    assert!(matches!(verdict, Verdict::Forbidden(_)), "{verdict:?}");
}
