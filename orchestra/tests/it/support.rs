//! Real HTTP servers to call, and what a test waits for.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use orchestra::Orchestra;
use orchestra::core::{Clock, Endpoint, Labels, Listener, Monotonic, ServiceName};
use orchestra::discovery::{Event, Lease, Registration};
use orchestra::mesh::route::Route;
use orchestra::mesh::{Body, Gateway, Policy, gateway::Serving, retry};
use orchestra::observe::Value;
use parking_lot::Mutex;

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
    let mut looks = 0;
    while resolver.members().len() != count {
        looks += 1;
        assert!(looks < 20_000, "not {count}: {:?}", resolver.members());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path)
        .header("host", "shop.example")
        .body(Body::empty())
        .unwrap()
}

pub(crate) fn no_retries() -> Policy {
    Policy::default().retry(retry::Policy::never())
}

/// An instance whose calls are counted, which answers as its number and the count of calls before say.
pub(crate) struct Counted {
    calls: Arc<AtomicU32>,
    _lease: Lease,
    _serving: Serving,
}

impl Counted {
    pub(crate) async fn start(
        orchestra: &Orchestra,
        id: &str,
        labels: Labels,
        answer: impl Fn(u32) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let calls = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&calls);
        let counting = move |_| answer(seen.fetch_add(1, Ordering::SeqCst));
        let (endpoint, serving) = server(Arc::new(counting)).await;
        let ttl = Duration::from_secs(3600);
        let (service, id) = ("cart".parse().unwrap(), id.parse().unwrap());
        let registration = Registration::new(service, id, endpoint, ttl).labels(labels);
        let lease = orchestra.registry().register(registration).await.unwrap();
        Self {
            calls,
            _lease: lease,
            _serving: serving,
        }
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }
}

/// Shows the time that a test sets, and a tenth of a millisecond more with each look, so that calls take time.
#[derive(Debug, Default)]
pub(crate) struct Hand(AtomicU64);

impl Hand {
    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Monotonic {
        Monotonic::from_nanos(self.0.fetch_add(100_000, Ordering::SeqCst))
    }
}

type Heard = Arc<Mutex<Vec<Event>>>;

/// Keeps what it hears.
pub(crate) fn heard() -> (Arc<dyn Listener<Event>>, Heard) {
    let events = Heard::default();
    let seen = Arc::clone(&events);
    let listener = move |event: &Event| seen.lock().push(event.clone());
    (Arc::new(listener), events)
}

/// The value of a counter, zero if it never counted.
pub(crate) fn counter(orchestra: &Orchestra, name: &str, labels: &[(&str, &str)]) -> u64 {
    let snapshot = orchestra.metrics().snapshot();
    match snapshot.value(name, labels) {
        Some(Value::Counter(count)) => *count,
        other => {
            assert_eq!(other, None, "{name} is no counter");
            0
        }
    }
}
