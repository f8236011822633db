use std::time::Duration;

use orchestra_core::Endpoint;
use orchestra_mesh::route::{PathPattern, Route};
use orchestra_mesh::{Client, Gateway, connect};

use crate::upstream::{Checked, GRACE, Upstream, any_port, first, get, post, round_robin, text};

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
        seen[0].head.uri.path_and_query().map(|p| p.as_str()),
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
