//! The gRPC probe, against a server of HTTP/2 that answers as it is asked.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use orchestra_core::Endpoint;
use orchestra_discovery::health::{Networks, Reach};
use orchestra_discovery::{GrpcProbe, Instance, Probe, ProbeTarget, Verdict};
use orchestra_testkit::Proxy;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::common::instance;
use crate::http::until;

/// The name of the service asked for says what is answered: a status of serving, `code-5` for a bare status
/// of gRPC, `http-404` for one of HTTP.
async fn serve() -> (Endpoint, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().into();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(connection(stream));
        }
    });
    (endpoint, server)
}

async fn connection(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let mut calls = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        calls.spawn(answer(request.into_body(), respond));
    }
}

async fn answer(mut body: h2::RecvStream, mut respond: h2::server::SendResponse<Bytes>) {
    let mut asked = BytesMut::new();
    while let Some(data) = body.data().await {
        asked.extend_from_slice(&data.unwrap());
    }
    // A frame of five bytes, then a tag and a length, which are absent with an empty name.
    let name = asked.get(7..).unwrap_or_default();
    let name = std::str::from_utf8(name).unwrap();
    let mut head = Response::builder().header("content-type", "application/grpc");
    if let Some(code) = name.strip_prefix("code-") {
        let bare = head.header("grpc-status", code).body(()).unwrap();
        respond.send_response(bare, true).unwrap();
        return;
    }
    if let Some(status) = name.strip_prefix("http-") {
        let status: StatusCode = status.parse().unwrap();
        let bare = head.status(status).body(()).unwrap();
        respond.send_response(bare, true).unwrap();
        return;
    }
    if name == "spare" {
        head = head.header("x-envoy-degraded", "true");
    }
    let message: &[u8] = match name {
        "" | "spare" => &[0, 0, 0, 0, 2, 8, 1],
        "not-serving" => &[0, 0, 0, 0, 2, 8, 2],
        "unknown-service" => &[0, 0, 0, 0, 2, 8, 3],
        "unknown" => &[0, 0, 0, 0, 0],
        "endless" => &vec![0; 1 << 20],
        "silent" => return std::future::pending().await,
        _ => &[1, 2, 3],
    };
    let mut stream = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    stream
        .send_data(Bytes::copy_from_slice(message), false)
        .unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).unwrap();
}

fn at(endpoint: &Endpoint) -> Instance {
    let mut one = instance("p-1", 1);
    one.endpoint = endpoint.clone();
    one
}

fn critical(reason: &str) -> Verdict {
    Verdict::Critical(reason.to_owned())
}

fn fail(reason: &str) -> Verdict {
    Verdict::Fail(reason.to_owned())
}

#[tokio::test]
async fn what_the_health_service_says_is_the_verdict() {
    let (endpoint, _server) = serve().await;
    let expected = [
        ("", Verdict::Pass),
        (
            "spare",
            Verdict::Degraded("header x-envoy-degraded".to_owned()),
        ),
        ("not-serving", critical("not serving")),
        ("unknown-service", critical("service unknown")),
        ("unknown", fail("serving status unknown")),
        ("garbage", fail("the answer is no health check response")),
        ("code-5", critical("service unknown")),
        ("code-12", critical("no health service")),
        ("code-8", Verdict::Degraded("resource exhausted".to_owned())),
        ("code-14", fail("grpc status 14")),
        ("code-x", fail("grpc status 2")),
        ("http-404", critical("no health service")),
        ("http-503", fail("grpc status 14")),
        ("http-200", fail("grpc status 2")),
    ];
    for (service, verdict) in expected {
        let probe = GrpcProbe::new(service).unwrap();
        assert_eq!(probe.probe(&at(&endpoint)).await, verdict, "{service}");
    }
    let lenient = GrpcProbe::new("code-12").unwrap().pass_unimplemented();
    assert_eq!(lenient.probe(&at(&endpoint)).await, Verdict::Pass);
    let endless = GrpcProbe::new("endless")
        .unwrap()
        .probe(&at(&endpoint))
        .await;
    assert!(matches!(endless, Verdict::Fail(_)), "{endless:?}");
}

#[tokio::test]
async fn registration_names_the_service_and_the_port() {
    let (endpoint, _server) = serve().await;
    let Endpoint::Tcp(address) = endpoint else {
        panic!("tcp was asked for");
    };
    let mut payments = at(&"127.0.0.1:1".parse().unwrap());
    let target = ProbeTarget::default()
        .path("not-serving")
        .port(address.port());
    payments.probe = Some(Arc::new(target));
    let probe = GrpcProbe::new("").unwrap();
    assert_eq!(probe.probe(&payments).await, critical("not serving"));
    let reach = Reach::default().networks(Networks::new([]));
    let verdict = probe.reach(reach).probe(&payments).await;
    assert!(matches!(verdict, Verdict::Forbidden(_)), "{verdict:?}");
}

#[tokio::test]
async fn connection_is_reused_until_it_breaks_is_forgotten_or_a_probe_is_given_up() {
    let (endpoint, _server) = serve().await;
    let proxy = Proxy::start(endpoint).await.unwrap();
    let payments = at(proxy.endpoint());
    let probe = GrpcProbe::new("").unwrap();
    for _ in 0..5 {
        assert_eq!(probe.probe(&payments).await, Verdict::Pass);
    }
    assert_eq!(proxy.traffic().accepted, 1);
    proxy.reset_connections();
    until("cut", || proxy.traffic().open == 0).await;
    assert_eq!(probe.probe(&payments).await, Verdict::Pass);
    assert_eq!(proxy.traffic().accepted, 2);
    probe.forget(&payments);
    until("closed", || proxy.traffic().open == 0).await;

    let mut silent = payments.clone();
    silent.probe = Some(Arc::new(ProbeTarget::default().path("silent")));
    let limit = std::time::Duration::from_millis(100);
    let given_up = tokio::time::timeout(limit, probe.probe(&silent)).await;
    assert!(given_up.is_err());
    until("closed", || proxy.traffic().open == 0).await;
    let fresh = GrpcProbe::new("").unwrap().without_reuse();
    for accepted in 4..7 {
        assert_eq!(fresh.probe(&payments).await, Verdict::Pass);
        assert_eq!(proxy.traffic().accepted, accepted);
    }
}
