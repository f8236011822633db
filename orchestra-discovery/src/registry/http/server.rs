use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BearerToken;
use super::wire::{self, Failure, OverrideChange, Polled, SnapshotQuery, StatusChange, WatchQuery};
use crate::error::{Error, ErrorKind};
use crate::instance::Registration;
use crate::registry::{Lease, Registry};

/// The largest request.
const MAX_REQUEST: usize = 64 * 1024;
/// The longest that a watch is held, whatever it asks for.
const MAX_WAIT: Duration = Duration::from_secs(30);

type Shared = State<Arc<dyn Registry>>;

/// Serves a registry; with a token, every request must carry it.
///
/// A watch is held for up to 30 seconds, so a graceful shutdown of the server should have a deadline.
///
/// ```no_run
/// use std::sync::Arc;
/// use orchestra_discovery::MemoryRegistry;
/// use orchestra_discovery::registry::http::{BearerToken, router};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let token = BearerToken::new("correct-horse-battery")?;
/// let app = router(Arc::new(MemoryRegistry::default()), Some(token));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:7000").await?;
/// axum::serve(listener, app).await?;
/// # Ok(())
/// # }
/// ```
pub fn router(registry: Arc<dyn Registry>, token: Option<BearerToken>) -> Router {
    let router = Router::new()
        .route(wire::REGISTER, post(register))
        .route(wire::RENEW, post(renew))
        .route(wire::STATUS, post(set_status))
        .route(wire::DEREGISTER, post(deregister))
        .route(wire::OVERRIDE, post(set_override))
        .route(wire::SNAPSHOT, get(snapshot))
        .route(wire::WATCH, get(watch))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(registry);
    match token {
        Some(token) => router.layer(middleware::from_fn_with_state(token, authorize)),
        None => router,
    }
}

async fn authorize(State(token): State<BearerToken>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    if given.is_some_and(|given| token.is_in(given)) {
        return next.run(request).await;
    }
    let message = "the bearer token is missing or wrong";
    let mut refused = Refused(Error::new(ErrorKind::Unauthorized, message)).into_response();
    let challenge = HeaderValue::from_static("Bearer");
    refused
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge);
    refused
}

struct Refused(Error);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let mut response = json(wire::status_of(error.kind()), &Failure::from(&error));
        if let Some(after) = error.class().retry_after() {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

type Answer = Result<Response, Refused>;

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let kind = HeaderValue::from_static("application/json");
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, kind)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer of the registry cannot be written as json");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("the request is not understood: {error}");
        Error::new(ErrorKind::Invalid, message)
    })
}

fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Error> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => {
            let message = format!("the query is not understood: {}", rejection.body_text());
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}

async fn register(State(registry): Shared, body: Bytes) -> Answer {
    let asked: Registration = parse(&body)?;
    let lease = registry.register(asked).await?;
    Ok(json(StatusCode::CREATED, &lease))
}

async fn renew(State(registry): Shared, body: Bytes) -> Answer {
    let lease: Lease = parse(&body)?;
    registry.renew(&lease).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn set_status(State(registry): Shared, body: Bytes) -> Answer {
    let StatusChange { lease, status } = parse(&body)?;
    registry.set_status(&lease, status).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn deregister(State(registry): Shared, body: Bytes) -> Answer {
    let lease: Lease = parse(&body)?;
    registry.deregister(&lease).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn set_override(State(registry): Shared, body: Bytes) -> Answer {
    let change: OverrideChange = parse(&body)?;
    let OverrideChange {
        service,
        id,
        forced,
    } = change;
    registry.set_override(&service, &id, forced).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn snapshot(
    State(registry): Shared,
    query: Result<Query<SnapshotQuery>, QueryRejection>,
) -> Answer {
    let scope = asked(query)?.scope();
    Ok(json(StatusCode::OK, &registry.snapshot(&scope).await?))
}

async fn watch(
    State(registry): Shared,
    query: Result<Query<WatchQuery>, QueryRejection>,
) -> Answer {
    let query = asked(query)?;
    let (after, wait) = (query.after, query.wait().min(MAX_WAIT));
    let mut watch = registry.watch(&query.scope(), after).await?;
    let polled = match tokio::time::timeout(wait, watch.next()).await {
        Ok(event) => Polled::from(event?),
        Err(_elapsed) => Polled::Idle {
            revision: watch.revision(),
        },
    };
    Ok(json(StatusCode::OK, &polled))
}
