//! The wire: what is refused, what survives it, and what a broken network looks like.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use orchestra_core::{Endpoint, InstanceId, ServiceName};
use orchestra_discovery::registry::http::{BearerToken, router};
use orchestra_discovery::registry::memory::Config;
use orchestra_discovery::{
    Capabilities, Error, ErrorKind, Follow, Heartbeat, HttpRegistry, Lease, MemoryRegistry,
    Override, Registration, Registry, Resolver, Result, Revision, Scope, Snapshot, Source, Status,
    Watch, WatchEvent, follow, heartbeat, resolver,
};
use orchestra_testkit::{Faults, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::common::{asked, service};

const TTL: Duration = Duration::from_millis(600);

fn token() -> BearerToken {
    BearerToken::new("correct-horse-battery").unwrap()
}

/// Serves until the set is dropped.
pub(crate) async fn serve(app: Router) -> (Endpoint, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address.into(), server)
}

/// Status and body of a request as written, byte for byte.
async fn raw(endpoint: &Endpoint, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(endpoint.to_string()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn fetch(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn wrong_and_missing_tokens_are_refused() {
    let app = router(Arc::new(MemoryRegistry::default()), Some(token()));
    let (endpoint, _server) = serve(app).await;
    let wrong = [
        "correct-horse-batterz",
        "correct-horse-batter",
        "correct-horse-battery1",
    ];
    let wrong = wrong.map(|text| Some(BearerToken::new(text).unwrap()));
    for token in wrong.into_iter().chain([None]) {
        let client = HttpRegistry::new(endpoint.clone(), token);
        let refused = client.snapshot(&Scope::All).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthorized);
        let registered = client.register(asked("p-1", TTL)).await.unwrap_err();
        assert_eq!(registered.kind(), ErrorKind::Unauthorized);
    }
    let client = HttpRegistry::new(endpoint, Some(token()));
    assert_eq!(client.snapshot(&Scope::All).await.unwrap().instances(), []);
}

#[test]
fn token_is_not_shown() {
    let client = HttpRegistry::new("127.0.0.1:1".parse().unwrap(), Some(token()));
    let shown = format!("{client:?} {:?}", token());
    assert!(!shown.contains("horse"), "{shown}");
    assert_eq!(
        BearerToken::new("two words").unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

/// Refuses everything in one way.
struct Refusing(ErrorKind);

impl Refusing {
    fn error(&self) -> Error {
        let error = Error::new(self.0, "no, and this is why");
        error.with_retry_after(Duration::from_millis(2_500))
    }
}

#[async_trait]
impl Source for Refusing {
    async fn snapshot(&self, _: &Scope) -> Result<Snapshot> {
        Err(self.error())
    }

    async fn watch(&self, _: &Scope, _: Revision) -> Result<Watch> {
        Err(self.error())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

#[async_trait]
impl Registry for Refusing {
    async fn register(&self, _: Registration) -> Result<Lease> {
        Err(self.error())
    }

    async fn renew(&self, _: &Lease) -> Result<()> {
        Err(self.error())
    }

    async fn set_status(&self, _: &Lease, _: Status) -> Result<()> {
        Err(self.error())
    }

    async fn deregister(&self, _: &Lease) -> Result<()> {
        Err(self.error())
    }

    async fn set_override(
        &self,
        _: &ServiceName,
        _: &InstanceId,
        _: Option<Override>,
    ) -> Result<()> {
        Err(self.error())
    }
}

#[tokio::test]
async fn every_kind_survives_the_wire() {
    let kinds = [
        ErrorKind::Invalid,
        ErrorKind::LeaseLost,
        ErrorKind::Replaced,
        ErrorKind::Full,
        ErrorKind::Unauthorized,
        ErrorKind::Unsupported,
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
        ErrorKind::Protocol,
        ErrorKind::Closed,
    ];
    for kind in kinds {
        let (endpoint, _server) = serve(router(Arc::new(Refusing(kind)), None)).await;
        let client = HttpRegistry::new(endpoint, None);
        let refused = client.register(asked("p-1", TTL)).await.unwrap_err();
        assert_eq!(refused.kind(), kind);
        assert_eq!(refused.to_string(), "no, and this is why");
        assert_eq!(refused.class(), Refusing(kind).error().class());
        let mut watch = client.watch(&Scope::All, Revision::new(1)).await.unwrap();
        assert_eq!(watch.next().await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn nonsense_is_answered_and_named() {
    let app = router(Arc::new(MemoryRegistry::default()), None);
    let (endpoint, _server) = serve(app).await;
    let (status, body) = raw(
        &endpoint,
        &post("/v1/register", r#"{"service":"Not A Name"}"#),
    )
    .await;
    assert_eq!(status, "400");
    assert!(
        body.contains(r#""kind":"invalid""#) && body.contains("service"),
        "{body}"
    );
    let (status, body) = raw(&endpoint, &fetch("/v1/watch?after=x&wait_ms=1")).await;
    assert_eq!(status, "400");
    assert!(body.contains(r#""kind":"invalid""#), "{body}");
    let (status, _) = raw(&endpoint, &fetch("/v1/snapshot?service=Not!A!Name")).await;
    assert_eq!(status, "400");
    let (status, _) = raw(&endpoint, &post("/v1/renew", &"x".repeat(65 * 1024))).await;
    assert_eq!(status, "413");
    let (status, _) = raw(&endpoint, &fetch("/v1/register")).await;
    assert_eq!(status, "405");
}

#[tokio::test]
async fn registration_may_be_written_by_hand() {
    let app = router(Arc::new(MemoryRegistry::default()), None);
    let (endpoint, _server) = serve(app).await;
    let body = r#"{"service":"payments","id":"p-1","endpoint":"127.0.0.1:80","ttl_ms":600}"#;
    let (status, body) = raw(&endpoint, &post("/v1/register", body)).await;
    assert_eq!(status, "201", "{body}");
    let members = HttpRegistry::new(endpoint, None)
        .snapshot(&Scope::All)
        .await
        .unwrap();
    assert_eq!(
        (members.instances()[0].weight, members.instances()[0].status),
        (1, Status::Ready)
    );
}

#[tokio::test]
async fn idle_poll_says_where_to_go_on() {
    let registry = MemoryRegistry::default();
    let from = registry.snapshot(&Scope::All).await.unwrap().revision();
    let (endpoint, _server) = serve(router(Arc::new(registry.clone()), None)).await;
    let mut elsewhere = asked("p-1", Duration::from_secs(60));
    elsewhere.service = "orders".parse().unwrap();
    registry.register(elsewhere).await.unwrap();
    let latest = registry.snapshot(&Scope::All).await.unwrap().revision();
    let path = format!("/v1/watch?after={from}&wait_ms=20&service=payments");
    let (status, body) = raw(&endpoint, &fetch(&path)).await;
    assert_eq!(
        (status.as_str(), body),
        ("200", format!(r#"{{"idle":{{"revision":{latest}}}}}"#))
    );
}

#[tokio::test]
async fn quiet_watch_over_http_does_not_fall_behind_what_is_remembered() {
    let mut config = Config::default();
    config.max_changes = NonZeroUsize::new(4).unwrap();
    let registry = MemoryRegistry::new(config);
    let (endpoint, _server) = serve(router(Arc::new(registry.clone()), None)).await;
    let client = HttpRegistry::new(endpoint, None).hold(Duration::from_millis(20));
    let scope = Scope::Service(service());
    let from = client.snapshot(&scope).await.unwrap().revision();
    let mut quiet = client.watch(&scope, from).await.unwrap();
    for _ in 0..4 {
        let mut elsewhere = asked("p-1", Duration::from_secs(60));
        elsewhere.service = "orders".parse().unwrap();
        registry.register(elsewhere.clone()).await.unwrap();
        registry.register(elsewhere).await.unwrap();
        let said = tokio::time::timeout(Duration::from_millis(300), quiet.next()).await;
        assert!(said.is_err(), "{said:?}");
    }
    registry
        .register(asked("p-1", Duration::from_secs(60)))
        .await
        .unwrap();
    let said = quiet.next().await.unwrap();
    assert!(matches!(said, WatchEvent::Changes { .. }), "{said:?}");
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::from(listener.local_addr().unwrap());
    drop(listener);
    let refused = HttpRegistry::new(endpoint, None)
        .snapshot(&Scope::All)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.is_retryable());
}

#[tokio::test]
async fn black_hole_is_a_timeout_and_a_reset_is_unavailable() {
    let (endpoint, _server) = serve(router(Arc::new(MemoryRegistry::default()), None)).await;
    let proxy = Proxy::start(endpoint).await.unwrap();
    let client =
        HttpRegistry::new(proxy.endpoint().clone(), None).timeout(Duration::from_millis(200));
    assert!(client.snapshot(&Scope::All).await.is_ok());
    proxy.set(Faults::black_hole()).await.unwrap();
    let refused = client.snapshot(&Scope::All).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Timeout);
    proxy.set(Faults::reset()).await.unwrap();
    let refused = client.snapshot(&Scope::All).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    proxy.shutdown().await;
}

#[tokio::test]
async fn strange_answer_is_a_protocol_error() {
    let app = Router::new().fallback(|| async { "welcome to the intranet" });
    let (endpoint, _server) = serve(app).await;
    let client = HttpRegistry::new(endpoint, None);
    let refused = client.snapshot(&Scope::All).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Protocol);
    let refused = client.register(asked("p-1", TTL)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Protocol);
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within ten seconds: {what}");
}

#[tokio::test]
async fn partitioned_process_is_delisted_and_comes_back_with_a_greater_incarnation() {
    let registry = MemoryRegistry::default();
    let (endpoint, _server) = serve(router(Arc::new(registry.clone()), Some(token()))).await;
    let proxy = Proxy::start(endpoint.clone()).await.unwrap();
    let away = HttpRegistry::new(proxy.endpoint().clone(), Some(token()));
    let near = HttpRegistry::new(endpoint, Some(token()));

    let payments = Resolver::new(service(), resolver::Config::default());
    let follow = Follow::start(Arc::new(near), payments.clone(), follow::Config::default());
    let config = heartbeat::Config::default();
    let heartbeat = Heartbeat::start(Arc::new(away), asked("p-1", TTL), config);
    let first = heartbeat.registered().await.unwrap();
    until("listed", || payments.members().len() == 1).await;

    proxy.set(Faults::refuse()).await.unwrap();
    until("delisted", || payments.members().is_empty()).await;
    proxy.set(Faults::none()).await.unwrap();
    until("listed again", || payments.members().len() == 1).await;
    assert!(payments.members()[0].incarnation > first.incarnation);

    heartbeat.shutdown().await.unwrap();
    until("deregistered", || payments.members().is_empty()).await;
    follow.shutdown().await.unwrap();
    proxy.shutdown().await;
}

#[tokio::test]
async fn refusal_for_now_says_when_to_come_again() {
    let (endpoint, _server) = serve(router(Arc::new(Refusing(ErrorKind::Full)), None)).await;
    let mut stream = TcpStream::connect(endpoint.to_string()).await.unwrap();
    stream
        .write_all(fetch("/v1/snapshot").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 3\r\n"), "{answer}");
}
