//! Our client in front of nginx.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use orchestra_core::Endpoint;
use orchestra_mesh::connect::Protocol;
use orchestra_mesh::{Body, Client, Event};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    Checked, Failure, client, get, nginx, nginx_http2, nginx_socket, quick, seen, targets, text,
};

const LENGTH: usize = 4 << 20;

async fn serves(endpoint: Endpoint) -> Checked {
    let client = client(endpoint, Protocol::Http1)?;
    let response = client.send(get("/ok")?).await?;
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await?, "ok\n");
    let mut connections = BTreeSet::new();
    for number in 2..=20 {
        let seen = seen(&client, get("/seen?q=1")?).await?;
        assert_eq!(seen.of("protocol"), Some("HTTP/1.1"));
        assert_eq!(seen.of("uri"), Some("/seen?q=1"));
        assert_eq!(
            seen.of("connection-requests"),
            Some(&*number.to_string()),
            "{seen:?}"
        );
        connections.insert(seen.of("connection").map(str::to_owned));
    }
    assert_eq!(connections.len(), 1, "one connection serves one caller");
    client.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn nginx_answers_over_tcp_on_a_connection_that_is_kept() -> Checked {
    serves(nginx()?).await
}

#[tokio::test]
async fn nginx_answers_over_its_unix_socket_on_a_connection_that_is_kept() -> Checked {
    serves(nginx_socket()?).await
}

#[tokio::test]
async fn nginx_answers_many_streams_on_one_http2_connection() -> Checked {
    let client = client(nginx_http2()?, Protocol::Http2)?;
    let mut calls = JoinSet::new();
    for _ in 0..80 {
        let client = client.clone();
        calls.spawn(async move { seen(&client, get("/seen")?).await });
    }
    let mut connections = BTreeSet::new();
    while let Some(seen) = calls.join_next().await {
        let seen = seen??;
        assert_eq!(seen.of("protocol"), Some("HTTP/2.0"));
        connections.insert(seen.of("connection").map(str::to_owned));
    }
    assert_eq!(connections.len(), 1);
    client.shutdown().await;
    Ok(())
}

/// nginx ends an HTTP/2 connection after 1,000 requests and ignores the streams that come later: what it
/// says it ignored may be sent again, whatever the method.
#[tokio::test]
async fn streams_that_nginx_ignored_when_it_said_goodbye_are_sent_again() -> Checked {
    let client = client(nginx_http2()?, Protocol::Http2)?;
    let mut calls = JoinSet::new();
    for _ in 0..60 {
        let client = client.clone();
        calls.spawn(async move {
            let mut connections = BTreeSet::new();
            for _ in 0..50 {
                let request = Request::post("/seen").body(Body::from("once"))?;
                let seen = seen(&client, request).await?;
                connections.insert(seen.of("connection").map(str::to_owned));
            }
            Ok::<_, Failure>(connections)
        });
    }
    let mut connections = BTreeSet::new();
    while let Some(some) = calls.join_next().await {
        connections.extend(some??);
    }
    assert!(connections.len() >= 3, "{connections:?}");
    Ok(())
}

#[tokio::test]
async fn nginx_sees_what_a_call_carries_and_nothing_of_the_hop_before() -> Checked {
    let client = client(nginx()?, Protocol::Http1)?;
    let request = Request::get("http://shop.example/seen")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .header("x-custom", "kept")
        .header("connection", "keep-alive, x-hop")
        .header("keep-alive", "timeout=5")
        .header("te", "gzip")
        .header("upgrade", "websocket")
        .header("x-hop", "1")
        .body(Body::empty())?;
    let seen = seen(&client, request).await?;
    assert_eq!(seen.of("host"), Some("shop.example"));
    assert_eq!(seen.of("custom"), Some("kept"));
    assert_eq!(seen.of("hop"), Some(""), "{seen:?}");
    assert_eq!(seen.of("attempt"), Some("1"));
    let trace = seen.of("traceparent").unwrap_or_default();
    assert!(
        trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
        "{trace}"
    );
    assert!(
        !trace.contains("b7ad6b7169203331"),
        "an attempt has a span of its own: {trace}"
    );
    let limit: u64 = seen.of("timeout").unwrap_or_default().parse()?;
    assert!((4000..=5000).contains(&limit), "{limit}");
    Ok(())
}

#[tokio::test]
async fn a_failing_answer_is_retried_within_the_policy_and_then_returned() -> Checked {
    let client = client(nginx()?, Protocol::Http1)?;
    let passed = client.send(get("/flaky")?).await?;
    assert_eq!(passed.status(), 200);
    assert_eq!(text(passed).await?, "attempt 2\n");
    let failed = client.send(get("/fail")?).await?;
    assert_eq!(failed.status(), 503);
    assert_eq!(text(failed).await?, "attempt 4\n");
    let order = Request::post("/fail").body(Body::from("order"))?;
    let once = client.send(order).await?;
    assert_eq!(once.status(), 503);
    assert_eq!(text(once).await?, "attempt 1\n");
    Ok(())
}

#[tokio::test]
async fn an_answer_to_head_has_a_length_and_no_body() -> Checked {
    for (endpoint, protocol) in [
        (nginx()?, Protocol::Http1),
        (nginx_http2()?, Protocol::Http2),
    ] {
        let client = client(endpoint, protocol)?;
        let head = Request::head("/ok").body(Body::empty())?;
        let response = client.send(head).await?;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], "3");
        assert_eq!(text(response).await?, "");
        assert_eq!(
            seen(&client, get("/seen")?)
                .await?
                .of("connection-requests"),
            Some("2")
        );
    }
    Ok(())
}

/// A body whose length is not known, in pieces that fit no buffer.
struct Pieces(Bytes);

impl Stream for Pieces {
    type Item = Result<Frame<Bytes>, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let length = self.0.len().min(12_345);
        let piece = self.0.split_to(length);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(piece))))
    }
}

/// Bytes that are not all the same.
pub(crate) fn content() -> Bytes {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut content = vec![0; LENGTH];
    rng.fill(&mut content);
    content.into()
}

async fn store(client: &Client, path: &str, body: Body) -> Result<StatusCode, Failure> {
    let request = Request::put(path).body(body)?;
    Ok(client.send(request).await?.status())
}

async fn carries(endpoint: Endpoint, protocol: Protocol, path: &str) -> Checked {
    let client = client(endpoint, protocol)?;
    let content = content();
    let streamed = Body::wrap(StreamBody::new(Pieces(content.clone())));
    for (body, expected) in [(Body::from(content.clone()), 201), (streamed, 204)] {
        assert_eq!(store(&client, path, body).await?, expected);
        let response = client.send(get(path)?).await?;
        let returned = response.into_body().collect(LENGTH).await?;
        assert!(
            returned == content,
            "{} bytes came back changed",
            returned.len()
        );
    }
    let delete = Request::builder().method(Method::DELETE).uri(path);
    let gone = client.send(delete.body(Body::empty())?).await?;
    assert_eq!(gone.status(), 204);
    assert_eq!(client.send(get(path)?).await?.status(), 404);
    Ok(())
}

#[tokio::test]
async fn large_bodies_go_there_and_back_over_http1() -> Checked {
    carries(nginx()?, Protocol::Http1, "/files/client-1").await
}

#[tokio::test]
async fn large_bodies_go_there_and_back_over_http2() -> Checked {
    carries(nginx_http2()?, Protocol::Http2, "/files/client-2").await
}

#[tokio::test]
async fn large_bodies_go_there_and_back_over_a_unix_socket() -> Checked {
    carries(nginx_socket()?, Protocol::Http1, "/files/client-3").await
}

#[tokio::test]
async fn a_connection_that_nginx_closed_is_replaced_without_a_retry() -> Checked {
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    let client = Client::builder("nginx".parse()?, Arc::new(targets([nginx()?])?))
        .policy(quick())
        .listener(Arc::new(move |event: &Event| {
            if let Event::Attempt(attempt) = event {
                heard.lock().push((attempt.number, attempt.result));
            }
        }))
        .build()?;
    let first = seen(&client, get("/brief")?).await?;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let second = seen(&client, get("/brief")?).await?;
    assert_ne!(first.of("connection"), second.of("connection"));
    assert_eq!(*events.lock(), [(1, Ok(StatusCode::OK)); 2]);
    Ok(())
}
