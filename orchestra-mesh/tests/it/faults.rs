//! What happens to calls when the network misbehaves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Endpoint, Outcome};
use orchestra_mesh::error::Kind;
use orchestra_mesh::gateway::Serving;
use orchestra_mesh::pick::RoundRobin;
use orchestra_mesh::{Client, Policy, connect, retry};
use orchestra_testkit::{Faults, Proxy};
use tokio::net::TcpStream;

use crate::client::{Witness, quick};
use crate::upstream::{
    Act, Checked, Failure, GRACE, Upstream, any_port, first, get, post, targets, text,
};

const BOTH: [connect::Protocol; 2] = [connect::Protocol::Http1, connect::Protocol::Http2];

struct Bench {
    upstream: Upstream,
    proxy: Proxy,
    pick: Arc<Witness>,
    client: Client,
    _serving: [Serving; 2],
}

/// A client of two instances, the first of them behind a proxy.
async fn bench(protocol: connect::Protocol, policy: Policy) -> Result<Bench, Failure> {
    let (upstream, spare) = (Upstream::new("first", []), Upstream::new("spare", []));
    let serving = [
        upstream.serve(any_port()).await?,
        spare.serve(any_port()).await?,
    ];
    let proxy = Proxy::start(first(&serving[0])).await?;
    let endpoints = [proxy.endpoint().clone(), first(&serving[1])];
    let pick = Witness::new(RoundRobin::new(targets(&endpoints)?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _)
        .connect(connect::Config::default().protocol(protocol))
        .policy(policy)
        .build()?;
    Ok(Bench {
        upstream,
        proxy,
        pick,
        client,
        _serving: serving,
    })
}

fn policy() -> Policy {
    Policy::default()
        .retry(quick())
        .attempt_timeout(Duration::from_millis(300))
}

#[tokio::test]
async fn a_get_survives_a_reset_a_black_hole_and_a_refusal() -> Checked {
    for protocol in BOTH {
        for faults in [
            Faults::reset(),
            Faults::black_hole(),
            Faults::refuse(),
            Faults::partition(),
        ] {
            let bench = bench(protocol, policy()).await?;
            bench.proxy.set(faults.clone()).await?;
            for _ in 0..2 {
                let response = bench.client.send(get("/")?).await?;
                assert_eq!(text(response).await?, "spare:0", "{protocol:?} {faults:?}");
            }
            assert_eq!(bench.pick.outcomes()[0], Outcome::Failure);
            tokio::time::timeout(GRACE, bench.client.shutdown()).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_post_that_may_have_arrived_is_not_sent_twice() -> Checked {
    for protocol in BOTH {
        let bench = bench(protocol, policy()).await?;
        bench.proxy.set(Faults::black_hole()).await?;
        let error = bench
            .client
            .send(post("/", "x")?)
            .await
            .expect_err("no answer");
        assert_eq!(error.kind(), Kind::AttemptTimeout);
        assert_eq!(
            error.instance().map(ToString::to_string).as_deref(),
            Some("i-0")
        );
        assert_eq!(bench.pick.outcomes(), [Outcome::Failure]);
    }
    Ok(())
}

#[tokio::test]
async fn a_post_that_was_refused_goes_elsewhere() -> Checked {
    for protocol in BOTH {
        let bench = bench(protocol, policy()).await?;
        bench.proxy.set(Faults::refuse()).await?;
        let response = bench.client.send(post("/", "x")?).await?;
        assert_eq!(text(response).await?, "spare:1");
        assert_eq!(bench.pick.outcomes(), [Outcome::Failure, Outcome::Success]);
    }
    Ok(())
}

#[tokio::test]
async fn connections_are_kept_and_replaced_after_they_were_cut() -> Checked {
    for protocol in BOTH {
        let upstream = Upstream::new("cart", []);
        let serving = upstream.serve(any_port()).await?;
        let proxy = Proxy::start(first(&serving)).await?;
        let pick = RoundRobin::new(targets(&[proxy.endpoint().clone()])?);
        let client = Client::builder("cart".parse()?, Arc::new(pick))
            .connect(connect::Config::default().protocol(protocol))
            .policy(policy())
            .build()?;
        for round in 1..=3 {
            for _ in 0..10 {
                assert_eq!(text(client.send(post("/", "x")?).await?).await?, "cart:1");
            }
            assert_eq!(proxy.traffic().accepted, round, "{protocol:?}");
            proxy.reset_connections();
            while proxy.traffic().open > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // The cut reaches the client's end a moment after the proxy is done with it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn concurrent_callers_share_one_http2_connection() -> Checked {
    let upstream = Upstream::new("cart", []);
    let serving = upstream.serve(any_port()).await?;
    let proxy = Proxy::start(first(&serving)).await?;
    let pick = RoundRobin::new(targets(&[proxy.endpoint().clone()])?);
    let client = Client::builder("cart".parse()?, Arc::new(pick))
        .connect(connect::Config::default().protocol(connect::Protocol::Http2))
        .build()?;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (client, request) = (client.clone(), get("/")?);
        calls.spawn(async move { client.send(request).await.map(|response| response.status()) });
    }
    for status in calls.join_all().await {
        assert_eq!(status?, 200);
    }
    assert_eq!(proxy.traffic().accepted, 1);
    Ok(())
}

#[tokio::test]
async fn callers_that_wait_for_one_connection_wait_no_longer_than_for_their_own() -> Checked {
    // A listener whose backlog is full drops what asks for a connection.
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let listener = socket.listen(1)?;
    let address = listener.local_addr()?;
    let mut full = Vec::new();
    let short = Duration::from_millis(50);
    while let Ok(stream) = tokio::time::timeout(short, TcpStream::connect(address)).await {
        full.push(stream?);
        assert!(full.len() < 100, "the backlog does not fill");
    }
    let limit = Duration::from_millis(200);
    let pick = RoundRobin::new(targets(&[Endpoint::Tcp(address)])?);
    let client = Client::builder("cart".parse()?, Arc::new(pick))
        .connect(
            connect::Config::default()
                .protocol(connect::Protocol::Http2)
                .connect_timeout(limit),
        )
        .policy(Policy::default().retry(retry::Policy::never()))
        .build()?;
    let started = tokio::time::Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (client, request) = (client.clone(), get("/")?);
        calls.spawn(async move { client.send(request).await.map(|response| response.status()) });
    }
    for status in calls.join_all().await {
        assert_eq!(status.map_err(|error| error.kind()), Err(Kind::Connect));
    }
    assert!(started.elapsed() < 3 * limit, "{:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_response_body_that_breaks_off_is_an_error_and_a_failure() -> Checked {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let pick = Witness::new(RoundRobin::new(targets(&[Endpoint::Tcp(
        listener.local_addr()?,
    )])?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _).build()?;
    let serving = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await?;
        let _read = stream.read(&mut [0; 1024]).await?;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
            .await
    };
    let (served, response) = tokio::join!(serving, client.send(get("/")?));
    served?;
    let error = response?
        .into_body()
        .collect(100)
        .await
        .expect_err("it broke off");
    assert_eq!(error.kind(), Kind::Reset);
    assert_eq!(pick.outcomes(), [Outcome::Failure]);
    Ok(())
}

#[tokio::test]
async fn a_response_body_that_never_ends_meets_the_deadline() -> Checked {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let pick = Witness::new(RoundRobin::new(targets(&[Endpoint::Tcp(
        listener.local_addr()?,
    )])?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _)
        .policy(Policy::default().timeout(Duration::from_millis(100)))
        .build()?;
    let serving = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await?;
        let _read = stream.read(&mut [0; 1024]).await?;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
            .await?;
        Ok::<_, std::io::Error>(stream)
    };
    let (stream, response) = tokio::join!(serving, client.send(get("/")?));
    let _open = stream?;
    let reading = response?.into_body().collect(100);
    let error = tokio::time::timeout(GRACE, reading)
        .await?
        .expect_err("it never ends");
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    assert_eq!(pick.outcomes(), [Outcome::Failure]);
    Ok(())
}

#[tokio::test]
async fn a_hanging_instance_does_not_hold_the_others_up() -> Checked {
    let bench = bench(connect::Protocol::Http1, policy()).await?;
    bench
        .proxy
        .set(Faults::latency(Duration::from_millis(50), Duration::ZERO))
        .await?;
    let response = bench.client.send(get("/")?).await?;
    assert_eq!(text(response).await?, "first:0");
    assert_eq!(bench.upstream.count(), 1);
    let hanging = Upstream::new("hanging", [Act::Hang]);
    let serving = hanging.serve(any_port()).await?;
    let pick = RoundRobin::new(targets(&[first(&serving)])?);
    let client = Client::builder("cart".parse()?, Arc::new(pick)).build()?;
    let (slow, quick) = (client.clone(), client);
    let (one, other) = (get("/")?, get("/")?);
    tokio::select! {
        _ = slow.send(one) => return Err("it hangs".into()),
        answered = async {
            while hanging.count() == 0 {
                tokio::task::yield_now().await;
            }
            quick.send(other).await
        } => assert_eq!(answered?.status(), 200),
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_that_was_kept_too_long_is_not_used() -> Checked {
    let serving = Upstream::new("cart", []).serve(any_port()).await?;
    let proxy = Proxy::start(first(&serving)).await?;
    let pick = RoundRobin::new(targets(&[proxy.endpoint().clone()])?);
    let client = Client::builder("cart".parse()?, Arc::new(pick))
        .connect(connect::Config::default().idle_timeout(Duration::from_millis(30)))
        .build()?;
    for _ in 0..2 {
        text(client.send(get("/")?).await?).await?;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(proxy.traffic().accepted, 2);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_was_refused_is_sent_again_whatever_the_method() -> Checked {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let pick = Witness::new(RoundRobin::new(targets(&[Endpoint::Tcp(
        listener.local_addr()?,
    )])?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _)
        .connect(connect::Config::default().protocol(connect::Protocol::Http2))
        .policy(policy())
        .build()?;
    let serving = async {
        let (stream, _) = listener.accept().await?;
        let mut connection = h2::server::handshake(stream).await?;
        let mut seen = 0;
        while let Some(request) = connection.accept().await {
            let (_, mut respond) = request?;
            seen += 1;
            if seen == 1 {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                respond.send_response(http::Response::new(()), true)?;
            }
        }
        Ok::<_, Failure>(())
    };
    tokio::select! {
        served = serving => served?,
        response = client.send(post("/", "x")?) => assert_eq!(response?.status(), 200),
    }
    assert_eq!(pick.outcomes(), [Outcome::Failure, Outcome::Success]);
    Ok(())
}
