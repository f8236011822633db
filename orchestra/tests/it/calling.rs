use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use orchestra::core::Backoff;
use orchestra::discovery::{Balancer, Candidates, PickContext};
use orchestra::mesh::error::Kind;
use orchestra::mesh::{Body, breaker};
use orchestra::observe::{Format, Value};
use orchestra::{ErrorKind, Orchestra};
use tower::{Service as _, ServiceExt as _};

use crate::support::{get, known, no_retries, register, server, status};

#[tokio::test]
async fn a_client_finds_what_is_registered_and_forgets_what_is_not() {
    let orchestra = Orchestra::builder()
        .policy(no_retries())
        .build()
        .await
        .unwrap();
    let (endpoint, serving) = server(Arc::new(|_| status(StatusCode::NO_CONTENT))).await;
    let mut client = orchestra.client("cart").unwrap();
    let none = client.send(get("/")).await.unwrap_err();
    assert_eq!(none.kind(), Kind::NoEndpoint);

    let lease = register(&orchestra, "cart", "cart-1", endpoint).await;
    known(&orchestra, "cart", 1).await;
    let response = client.ready().await.unwrap().call(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);

    orchestra.registry().deregister(&lease).await.unwrap();
    known(&orchestra, "cart", 0).await;
    assert_eq!(
        client.send(get("/")).await.unwrap_err().kind(),
        Kind::NoEndpoint
    );
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    serving.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_failing_instance_loses_its_calls_to_the_others_and_to_nobody_if_it_is_alone() {
    let breaker = breaker::Config::default()
        .consecutive_failures(2)
        .open_wait(Backoff::fixed(Duration::from_secs(60)));
    let orchestra = Orchestra::builder()
        .policy(no_retries())
        .breaker(breaker)
        .build()
        .await
        .unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let (endpoint, serving) = server(Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        status(StatusCode::INTERNAL_SERVER_ERROR)
    }))
    .await;
    let _lease = register(&orchestra, "cart", "cart-1", endpoint).await;
    known(&orchestra, "cart", 1).await;

    let client = orchestra.client("cart").unwrap();
    for _ in 0..2 {
        assert_eq!(
            client.send(get("/")).await.unwrap().status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
    let refused = client.send(get("/")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::CircuitOpen);
    assert!(
        refused
            .class()
            .retry_after()
            .is_some_and(|after| after <= Duration::from_secs(60))
    );
    assert_eq!(calls.load(Ordering::SeqCst), 2);

    let opened = orchestra.metrics().snapshot();
    let opened = opened.value("orchestra_mesh_breaker_changes_total", &[("state", "open")]);
    assert_eq!(opened, Some(&Value::Counter(1)));
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    serving.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn every_request_carries_the_platforms_header() {
    let token = HeaderName::from_static("x-token");
    let orchestra = Orchestra::builder()
        .header(token.clone(), HeaderValue::from_static("secret"))
        .build()
        .await
        .unwrap();
    let (endpoint, serving) = server(Arc::new(move |request| {
        let known = request
            .headers()
            .get(&token)
            .is_some_and(|value| value == "secret");
        status(if known {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        })
    }))
    .await;
    let _lease = register(&orchestra, "cart", "cart-1", endpoint).await;
    known(&orchestra, "cart", 1).await;
    let client = orchestra.client("cart").unwrap();
    let mut forged = get("/");
    forged
        .headers_mut()
        .insert("x-token", HeaderValue::from_static("forged"));
    for request in [get("/"), forged] {
        assert_eq!(client.send(request).await.unwrap().status(), StatusCode::OK);
    }
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    serving.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn what_happens_is_counted() {
    let orchestra = Orchestra::builder().build().await.unwrap();
    let (endpoint, serving) = server(Arc::new(|_| status(StatusCode::OK))).await;
    let _lease = register(&orchestra, "cart", "cart-1", endpoint).await;
    known(&orchestra, "cart", 1).await;
    let client = orchestra.client("cart").unwrap();
    for _ in 0..5 {
        let response = client.send(get("/")).await.unwrap();
        response.into_body().collect(1024).await.unwrap();
    }
    let page = Format::Text.render(&orchestra.metrics().snapshot());
    for line in [
        "orchestra_mesh_attempts_total{service=\"cart\",outcome=\"success\"} 5",
        "orchestra_mesh_calls_total{service=\"cart\",result=\"2xx\"} 5",
        "orchestra_registry_registrations_total{service=\"cart\"} 1",
        "orchestra_discovery_members{service=\"cart\"} 1",
        "orchestra_mesh_attempt_duration_seconds_count{service=\"cart\"} 5",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    serving.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn names_that_cannot_be_called_are_refused_and_the_rest_is_bounded() {
    let orchestra = Orchestra::builder().build().await.unwrap();
    assert_eq!(
        orchestra.client("Not A Name").unwrap_err().kind(),
        ErrorKind::Config
    );
    for number in 0..4096 {
        let _client = orchestra.client(&format!("service-{number}")).unwrap();
    }
    assert_eq!(
        orchestra.client("one-more").unwrap_err().kind(),
        ErrorKind::Config
    );
    orchestra.client("service-7").unwrap();
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!(
        orchestra.client("service-7").unwrap_err().kind(),
        ErrorKind::ShutDown
    );
}

#[tokio::test]
async fn a_gateway_routes_to_clients_and_mounted_services() {
    use orchestra::core::Endpoint;
    use orchestra::mesh::route::{PathPattern, Route};

    let orchestra = Orchestra::builder().build().await.unwrap();
    let (endpoint, serving) = server(Arc::new(|_| status(StatusCode::IM_A_TEAPOT))).await;
    let _lease = register(&orchestra, "cart", "cart-1", endpoint).await;
    known(&orchestra, "cart", 1).await;
    let local = tower::service_fn(|_| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::from("here")))
    });
    let gateway = orchestra
        .gateway()
        .mount("local".parse().unwrap(), local)
        .client(orchestra.client("cart").unwrap())
        .route(
            Route::to("local", "local".parse().unwrap())
                .path(PathPattern::exact("/local").unwrap()),
        )
        .route(
            Route::to("cart", "cart".parse().unwrap()).path(PathPattern::prefix("/cart").unwrap()),
        )
        .build()
        .unwrap();
    let bound = orchestra
        .serve(&gateway, ["127.0.0.1:0".parse().unwrap()])
        .await
        .unwrap();
    let Endpoint::Tcp(address) = bound[0] else {
        panic!("not TCP: {bound:?}")
    };
    let taken = orchestra
        .serve(&gateway, [Endpoint::Tcp(address)])
        .await
        .unwrap_err();
    let source = std::error::Error::source(&taken).unwrap().to_string();
    assert!(source.contains(&address.to_string()), "{source}");

    let mut front = gateway.clone();
    for (path, expected) in [
        ("/local", StatusCode::OK),
        ("/cart/7", StatusCode::IM_A_TEAPOT),
        ("/else", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(
            front.call(get(path)).await.unwrap().status(),
            expected,
            "{path}"
        );
    }
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "the port is still open"
    );
    serving.shutdown(Duration::ZERO).await;
}

/// The last one, whoever else there is.
#[derive(Debug)]
struct Last;

impl Balancer for Last {
    fn choose(&self, candidates: &Candidates<'_>, _: &PickContext<'_>) -> Option<usize> {
        candidates.len().checked_sub(1)
    }
}

#[tokio::test]
async fn a_balancer_of_ones_own_chooses_the_instance() {
    let orchestra = Orchestra::builder()
        .policy(no_retries())
        .resolver(|_, config| config.balancer(Arc::new(Last)))
        .build()
        .await
        .unwrap();
    let calls = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let mut kept = Vec::new();
    for (number, id) in ["cart-1", "cart-2"].into_iter().enumerate() {
        let seen = Arc::clone(&calls);
        let (endpoint, serving) = server(Arc::new(move |_| {
            seen[number].fetch_add(1, Ordering::Relaxed);
            status(StatusCode::NO_CONTENT)
        }))
        .await;
        kept.push((register(&orchestra, "cart", id, endpoint).await, serving));
    }
    known(&orchestra, "cart", 2).await;
    let client = orchestra.client("cart").unwrap();
    for _ in 0..20 {
        client.send(get("/")).await.unwrap();
    }
    let counts = calls.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [0, 20]);
}
