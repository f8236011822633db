//! The page `/metrics`, as an axum router.

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::{Format, Registry};

/// Serves the registry at `GET /metrics`, in the format that the scraper accepts.
///
/// ```
/// use axum::body::Body;
/// use axum::http::Request;
/// use orchestra_observe::{Registry, export};
/// use tower::ServiceExt;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let registry = Registry::new();
/// let app = export::http::router(registry);
/// let answer = app.oneshot(Request::get("/metrics").body(Body::empty())?).await?;
/// assert_eq!(answer.status(), 200);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub fn router(registry: Registry) -> Router {
    Router::new()
        .route("/metrics", get(page))
        .with_state(registry)
}

async fn page(State(registry): State<Registry>, headers: HeaderMap) -> Response {
    let accept = accepted(&headers);
    let format = Format::negotiate(Some(&accept));
    let content_type = HeaderValue::from_static(format.content_type());
    let vary = HeaderValue::from_static("accept");
    let head = [(CONTENT_TYPE, content_type), (VARY, vary)];
    (head, format.render(&registry.snapshot())).into_response()
}

/// All `Accept` headers count as one list.
fn accepted(headers: &HeaderMap) -> String {
    let values = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}
