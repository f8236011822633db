//! The page `/metrics`.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use orchestra_observe::{Format, Registry, export};
use tower::ServiceExt;

fn registry() -> Registry {
    let registry = Registry::new();
    registry.counter("orders", "Orders.").unwrap().add(2);
    registry
}

async fn ask(request: Request<Body>) -> (StatusCode, String, String) {
    let app = export::http::router(registry());
    let answer = app.oneshot(request).await.unwrap();
    let status = answer.status();
    let kind = answer.headers().get("content-type");
    let kind = kind.map(|kind| kind.to_str().unwrap().to_owned());
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (
        status,
        kind.unwrap_or_default(),
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn the_page_is_served_in_the_format_that_is_asked_for() {
    for (accept, format) in [
        (None, Format::Text),
        (
            Some("application/openmetrics-text; version=1.0.0"),
            Format::OpenMetrics,
        ),
    ] {
        let mut request = Request::get("/metrics");
        if let Some(accept) = accept {
            request = request
                .header("accept", "text/html")
                .header("accept", accept);
        }
        let (status, kind, body) = ask(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(kind, format.content_type());
        assert_eq!(body, format.render(&registry().snapshot()));
    }
}

#[tokio::test]
async fn nothing_else_is_served() {
    let post = Request::post("/metrics").body(Body::empty()).unwrap();
    assert_eq!(ask(post).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let other = Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(ask(other).await.0, StatusCode::NOT_FOUND);
}
