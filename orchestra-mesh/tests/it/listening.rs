//! How the gateway binds, limits, drains and ends.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::StreamBody;
use orchestra_core::Endpoint;
use orchestra_mesh::error::Kind;
use orchestra_mesh::gateway::{Limits, Serving};
use orchestra_mesh::route::Route;
use orchestra_mesh::{Body, Client, Gateway, connect};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::TryRecvError;

use crate::client::Frames;
use crate::upstream::{
    Act, Checked, Failure, GRACE, Upstream, any_port, first, get, post, round_robin, text,
};

async fn open(serving: &Serving) -> Result<TcpStream, Failure> {
    match first(serving) {
        Endpoint::Tcp(address) => Ok(TcpStream::connect(address).await?),
        other => Err(format!("{other} is not TCP").into()),
    }
}

/// Sends raw bytes and reads until the peer closes.
async fn raw(serving: &Serving, bytes: &[u8]) -> Result<String, Failure> {
    let mut stream = open(serving).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(GRACE, stream.read_to_end(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn empty(limits: Limits) -> Result<Gateway, Failure> {
    Ok(Gateway::builder().limits(limits).build()?)
}

#[tokio::test]
async fn a_port_in_use_is_named() -> Checked {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let endpoint = Endpoint::Tcp(taken.local_addr()?);
    let error = empty(Limits::default())?
        .serve([any_port(), endpoint.clone()])
        .await;
    let error = error.err().ok_or("it listens twice")?;
    assert_eq!(error.kind(), Kind::Bind);
    assert_eq!(error.to_string(), format!("cannot listen on {endpoint}"));
    Ok(())
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_respected() -> Checked {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("gateway");
    drop(std::os::unix::net::UnixListener::bind(&path)?);
    assert!(path.exists());
    let endpoint = Endpoint::unix(&path)?;
    let gateway = empty(Limits::default())?;
    let serving = gateway.serve([endpoint.clone()]).await?;
    let error = gateway
        .serve([endpoint.clone()])
        .await
        .err()
        .ok_or("it listens twice")?;
    assert_eq!(error.kind(), Kind::Bind);
    assert!(
        path.exists(),
        "the failed attempt must not remove the socket"
    );
    let client = Client::builder("gateway".parse()?, round_robin(&[endpoint])?).build()?;
    assert_eq!(client.send(get("/")?).await?.status(), 404);
    client.shutdown().await;
    serving.shutdown(GRACE).await;
    assert!(!path.exists());
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() -> Checked {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("precious");
    std::fs::write(&path, "data")?;
    let error = empty(Limits::default())?
        .serve([Endpoint::unix(&path)?])
        .await
        .err()
        .ok_or("it listens on a file")?;
    assert_eq!(error.kind(), Kind::Bind);
    assert_eq!(std::fs::read_to_string(&path)?, "data");
    Ok(())
}

#[tokio::test]
async fn a_peer_that_says_nothing_or_stops_halfway_is_cut() -> Checked {
    let limits = Limits::default().header_timeout(Duration::from_millis(100));
    let serving = empty(limits)?.serve([any_port()]).await?;
    let beginnings: [&[u8]; 4] = [
        b"",
        b"PRI * HTTP/2.0\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n",
        b"PUT / HTTP/1.1\r\n",
    ];
    for beginning in beginnings {
        let answer = raw(&serving, beginning).await?;
        assert!(!answer.contains("200"), "{answer}");
    }
    Ok(())
}

/// A gateway whose answer has no end; it is told when that is dropped.
async fn endless(limits: Limits) -> Result<(Serving, tokio::sync::mpsc::Receiver<()>), Failure> {
    let (alive, gone) = tokio::sync::mpsc::channel::<()>(1);
    let chunk = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
    let frames = std::iter::repeat_with(move || {
        let _held = &alive;
        Ok::<_, std::io::Error>(http_body::Frame::data(chunk.clone()))
    });
    let body = Body::wrap(StreamBody::new(Frames(frames)));
    let body = Arc::new(Mutex::new(Some(body)));
    let service = tower::service_fn(move |_| {
        let body = body.lock().take().unwrap_or_default();
        std::future::ready(Ok::<_, std::io::Error>(http::Response::new(body)))
    });
    let serving = Gateway::builder()
        .route(Route::to("all", "endless".parse()?))
        .mount("endless".parse()?, service)
        .limits(limits)
        .build()?
        .serve([any_port()])
        .await?;
    Ok((serving, gone))
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_cut_and_a_slow_one_is_not() -> Checked {
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let limits = Limits::default().stall_timeout(Duration::from_millis(500));
    let (serving, mut gone) = endless(limits).await?;
    let mut stream = open(&serving).await?;
    stream.write_all(request).await?;
    assert_eq!(tokio::time::timeout(GRACE, gone.recv()).await?, None);

    let (serving, mut gone) = endless(limits).await?;
    let mut slow = open(&serving).await?;
    slow.write_all(request).await?;
    let mut buffer = vec![0; 4 << 20];
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(slow.read(&mut buffer).await? > 0);
    }
    assert_eq!(gone.try_recv(), Err(TryRecvError::Empty));
    Ok(())
}

#[tokio::test]
async fn heads_beyond_the_limits_are_answered_with_431() -> Checked {
    let limits = Limits::default().headers(10).header_bytes(8192);
    let serving = empty(limits)?.serve([any_port()]).await?;
    let many = "x-again: 1\r\n".repeat(20);
    let long = format!("x-long: {}\r\n", "a".repeat(20_000));
    for headers in [many, long] {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
        let answer = raw(&serving, request.as_bytes()).await?;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_with_two_meanings_are_refused_or_given_one() -> Checked {
    let upstream = Upstream::new("cart", []);
    let inner = upstream.serve(any_port()).await?;
    let client = Client::builder("cart".parse()?, round_robin(&[first(&inner)])?).build()?;
    let serving = Gateway::builder()
        .route(Route::to("all", "cart".parse()?))
        .client(client)
        .build()?
        .serve([any_port()])
        .await?;
    let heads = [
        "host: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n",
        "host: a\r\ntransfer-encoding: xchunked\r\n",
        "host: a\r\nhost: b\r\n",
        "",
    ];
    for head in heads {
        let request = format!("POST / HTTP/1.1\r\nconnection: close\r\n{head}\r\n0\r\n\r\n");
        let answer = raw(&serving, request.as_bytes()).await?;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?} {answer}");
    }
    assert_eq!(upstream.count(), 0);
    // A length beside a transfer coding means nothing (RFC 9112, 6.3), to us and to those behind us.
    for head in [
        "content-length: 9\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 9\r\n",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: a\r\n{head}\r\n3\r\nabc\r\n0\r\n\r\n\
             POST /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        raw(&serving, request.as_bytes()).await?;
    }
    let seen = upstream.seen();
    let requests: Vec<_> = seen
        .iter()
        .map(|seen| (seen.head.uri.path(), &*seen.body))
        .collect();
    // Whether the connection goes on to the next request is a matter of taste.
    let first = |request: &&(&str, &[u8])| **request == ("/", b"abc");
    assert_eq!(requests.iter().filter(first).count(), 2);
    assert!(
        requests
            .iter()
            .all(|request| first(&request) || *request == ("/next", b""))
    );
    for seen in &seen {
        let length = seen.header("content-length").map(str::parse).transpose()?;
        assert!(length.is_none_or(|length: usize| length == seen.body.len()));
    }
    Ok(())
}

async fn hanging(protocol: connect::Protocol) -> Result<(Upstream, Vec<Serving>, Client), Failure> {
    let upstream = Upstream::new("slow", [Act::Hang]);
    let inner = upstream.serve(any_port()).await?;
    let client = Client::builder("cart".parse()?, round_robin(&[first(&inner)])?).build()?;
    let outer = Gateway::builder()
        .route(Route::to("all", "cart".parse()?))
        .client(client)
        .build()?
        .serve([any_port()])
        .await?;
    let outside = Client::builder("gateway".parse()?, round_robin(&[first(&outer)])?)
        .connect(connect::Config::default().protocol(protocol))
        .build()?;
    Ok((upstream, vec![inner, outer], outside))
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() -> Checked {
    for protocol in [connect::Protocol::Http1, connect::Protocol::Http2] {
        let (upstream, mut serving, outside) = hanging(protocol).await?;
        let mut calls = tokio::task::JoinSet::new();
        let request = post("/", "x")?;
        calls.spawn(async move { outside.send(request).await.map_err(|error| error.kind()) });
        while upstream.count() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let outer = serving.pop().ok_or("no gateway")?;
        let drained = outer.shutdown(Duration::from_millis(50)).await;
        assert!(drained.cut > 0);
        let result = calls.join_next().await.ok_or("no call")??;
        assert_eq!(result.map(|response| response.status()), Err(Kind::Reset));
    }
    Ok(())
}

#[tokio::test]
async fn requests_under_way_end_well_while_the_gateway_drains() -> Checked {
    for protocol in [connect::Protocol::Http1, connect::Protocol::Http2] {
        let (release, wait) = tokio::sync::watch::channel(false);
        let (started, mut running) = tokio::sync::mpsc::channel(1);
        let service = tower::service_fn(move |_| {
            let (mut wait, started) = (wait.clone(), started.clone());
            async move {
                started.send(()).await?;
                wait.wait_for(|released| *released).await?;
                Ok::<_, Failure>(http::Response::new(Body::from("done")))
            }
        });
        let serving = Gateway::builder()
            .route(Route::to("all", "slow".parse()?))
            .mount("slow".parse()?, service)
            .build()?
            .serve([any_port()])
            .await?;
        let address = first(&serving);
        let outside = Client::builder(
            "gateway".parse()?,
            round_robin(std::slice::from_ref(&address))?,
        )
        .connect(connect::Config::default().protocol(protocol))
        .build()?;
        let mut calls = tokio::task::JoinSet::new();
        let request = get("/")?;
        calls.spawn(async move { text(outside.send(request).await?).await });
        running.recv().await.ok_or("not started")?;
        let draining = serving.shutdown(GRACE);
        let releasing = async {
            // The listener is gone while the request is still under way.
            let Endpoint::Tcp(address) = address else {
                return;
            };
            while TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            release.send_replace(true);
        };
        let (drained, ()) = tokio::join!(draining, releasing);
        assert_eq!(drained.cut, 0);
        assert_eq!(calls.join_next().await.ok_or("no call")???, "done");
    }
    Ok(())
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() -> Checked {
    let serving = empty(Limits::default().connections(1))?
        .serve([any_port()])
        .await?;
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let held = open(&serving).await?;
    let waiting = raw(&serving, request);
    let mut waiting = std::pin::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(early.is_err());
    drop(held);
    assert!(waiting.await?.starts_with("HTTP/1.1 404 "));
    Ok(())
}
