//! Declarative saga steps as mesh calls.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use http::Request;
use orchestra_core::{ErrorClass, TraceContext};
use orchestra_mesh::error::Kind;
use orchestra_mesh::{Body, Client};
use orchestra_saga::step::{Call, Caller, StepOutcome, StepRequest};

use crate::clients::Clients;

/// The longest answer of a participant that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// Sends each attempt of a step through the client of its service.
///
/// The saga repeats a step with the same idempotency key, so these clients repeat a request only when it
/// was certainly not processed; anything else is for the saga to know. The deadline of the attempt and the
/// trace of the saga go with the request.
pub struct MeshCaller {
    clients: Clients,
    #[cfg(feature = "observe")]
    tracer: Option<orchestra_observe::Tracer>,
}

impl fmt::Debug for MeshCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshCaller").finish_non_exhaustive()
    }
}

impl MeshCaller {
    pub(crate) fn new(clients: Clients) -> Self {
        Self {
            clients,
            #[cfg(feature = "observe")]
            tracer: None,
        }
    }

    /// With a span for each attempt.
    #[cfg(feature = "observe")]
    pub(crate) fn traced(mut self, tracer: orchestra_observe::Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    fn span(&self, call: &Call) -> StepSpan {
        #[cfg(feature = "observe")]
        let span = self.tracer.as_ref().map(|tracer| {
            let name = format!("{} {}", call.op, call.step);
            let span = tracer.span(&name).kind(orchestra_observe::SpanKind::Client);
            let span = span
                .parent(call.trace.as_deref())
                .attribute("saga.id", call.saga.to_string());
            span.attribute("saga.attempt", i64::from(call.attempt))
                .start()
        });
        StepSpan {
            above: call.trace.as_deref().cloned(),
            #[cfg(feature = "observe")]
            span,
        }
    }
}

/// The span of one attempt, where spans are kept.
struct StepSpan {
    above: Option<TraceContext>,
    #[cfg(feature = "observe")]
    span: Option<orchestra_observe::Span>,
}

impl StepSpan {
    /// What the request is below of.
    fn context(&self) -> Option<TraceContext> {
        #[cfg(feature = "observe")]
        if let Some(span) = &self.span {
            return Some(span.context().clone());
        }
        self.above.clone()
    }

    fn end(self, outcome: &StepOutcome) {
        let failed = match outcome {
            StepOutcome::Done(_) => None,
            other => Some(other.name()),
        };
        tracing::trace!(failed, "an attempt of a step ended");
        #[cfg(feature = "observe")]
        if let Some(mut span) = self.span {
            match failed {
                None => span.succeed(),
                Some(reason) => span.fail(reason),
            }
        }
    }
}

#[async_trait]
impl Caller for MeshCaller {
    async fn call(&self, request: StepRequest) -> StepOutcome {
        let client = match self.clients.for_steps(&request.service) {
            Ok(client) => client,
            Err(error) => return retryable(&error, None),
        };
        let span = self.span(&request.call);
        let outcome = send(&client, request, span.context()).await;
        span.end(&outcome);
        outcome
    }
}

async fn send(client: &Client, step: StepRequest, trace: Option<TraceContext>) -> StepOutcome {
    let limit = step.call.budget;
    let body = step.body.map_or_else(Body::empty, Body::from);
    let mut request = Request::new(body);
    *request.method_mut() = step.method;
    match step.path.parse() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(error) => return StepOutcome::Rejected(format!("path {:?}: {error}", step.path)),
    }
    *request.headers_mut() = step.call.headers();
    let json = http::HeaderValue::from_static("application/json");
    request
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    if let Some(trace) = trace {
        request.extensions_mut().insert(trace);
    }
    // The saga's attempt ends at its deadline whatever the client's own limits are.
    match tokio::time::timeout(limit, exchange(client, request)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => StepOutcome::Unknown(format!("no answer within {limit:?}")),
    }
}

async fn exchange(client: &Client, request: Request<Body>) -> StepOutcome {
    let response = match client.send(request).await {
        Ok(response) => response,
        Err(error) => return outcome_of(&error),
    };
    let status = response.status();
    let after = response
        .headers()
        .get(http::header::RETRY_AFTER)
        .and_then(seconds);
    match response.into_body().collect(MAX_ANSWER).await {
        Ok(body) => StepOutcome::from_http(status, after, &body),
        Err(error) => StepOutcome::Unknown(format!("the answer could not be read: {error}")),
    }
}

fn seconds(value: &http::HeaderValue) -> Option<Duration> {
    value
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// What a call without an answer means for the step: only where the request was certainly not processed
/// may the saga say so.
fn outcome_of(error: &orchestra_mesh::Error) -> StepOutcome {
    let after = match error.class() {
        ErrorClass::Throttled { after } => after,
        _ => None,
    };
    match error.kind() {
        Kind::NoEndpoint
        | Kind::CircuitOpen
        | Kind::Connect
        | Kind::RefusedStream
        | Kind::ShutDown => retryable(error, after),
        Kind::Config | Kind::InvalidRequest => StepOutcome::Rejected(error.to_string()),
        _ => StepOutcome::Unknown(error.to_string()),
    }
}

fn retryable(error: &dyn std::error::Error, after: Option<Duration>) -> StepOutcome {
    StepOutcome::Retryable {
        reason: error.to_string(),
        after,
    }
}
