//! Real HTTP servers to call, and what a test waits for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use orchestra::Orchestra;
use orchestra::core::{Endpoint, ServiceName};
use orchestra::discovery::{Lease, Registration};
use orchestra::mesh::route::Route;
use orchestra::mesh::{Body, Gateway, gateway::Serving};

pub(crate) type Answer = Arc<dyn Fn(Request<Body>) -> Response<Body> + Send + Sync>;

pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A server whose every request is answered by `answer`.
pub(crate) async fn server(answer: Answer) -> (Endpoint, Serving) {
    let service = tower::service_fn(move |request| {
        let answer = Arc::clone(&answer);
        async move { Ok::<_, Infallible>(answer(request)) }
    });
    let name = ServiceName::new("server").unwrap();
    let gateway = Gateway::builder()
        .mount(name.clone(), service)
        .strip::<&str>([])
        .route(Route::to("all", name))
        .build()
        .unwrap();
    let serving = gateway
        .serve(["127.0.0.1:0".parse().unwrap()])
        .await
        .unwrap();
    (serving.endpoints()[0].clone(), serving)
}

pub(crate) async fn register(
    orchestra: &Orchestra,
    service: &str,
    id: &str,
    endpoint: Endpoint,
) -> Lease {
    let ttl = Duration::from_secs(60);
    let registration =
        Registration::new(service.parse().unwrap(), id.parse().unwrap(), endpoint, ttl);
    orchestra.registry().register(registration).await.unwrap()
}

/// Waits until the clients of a service know this many instances.
pub(crate) async fn known(orchestra: &Orchestra, service: &str, count: usize) {
    let resolver = orchestra.resolver(service).unwrap();
    while resolver.members().len() != count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path)
        .header("host", "shop.example")
        .body(Body::empty())
        .unwrap()
}
