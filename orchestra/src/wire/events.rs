//! The events of the crates as metrics.
//!
//! Label values are names from the configuration (services, routes, steps) and words of the crates
//! themselves; nothing that a request says becomes a label, so the number of series is bounded.

#[cfg(feature = "discovery")]
mod cache;
#[cfg(feature = "discovery")]
mod discovery;

use orchestra_core::Listener;
use orchestra_observe::{Error, Registry};

/// Counts what the crates report: a [`Listener`] of each crate's events.
///
/// ```
/// use orchestra::observe::Registry;
/// use orchestra::wire::events::Telemetry;
///
/// let metrics = Registry::new();
/// let telemetry = Telemetry::register(&metrics)?;
/// # drop(telemetry);
/// # Ok::<(), orchestra::observe::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Telemetry {
    #[cfg(feature = "mesh")]
    mesh: mesh::Metrics,
    #[cfg(feature = "discovery")]
    discovery: discovery::Metrics,
    #[cfg(feature = "scheduler")]
    scheduler: scheduler::Metrics,
    #[cfg(feature = "saga")]
    saga: saga::Metrics,
}

impl Telemetry {
    /// Registers the metrics; a name that is taken already is an error.
    pub fn register(metrics: &Registry) -> Result<Self, Error> {
        Ok(Self {
            #[cfg(feature = "mesh")]
            mesh: mesh::Metrics::register(metrics)?,
            #[cfg(feature = "discovery")]
            discovery: discovery::Metrics::register(metrics)?,
            #[cfg(feature = "scheduler")]
            scheduler: scheduler::Metrics::register(metrics)?,
            #[cfg(feature = "saga")]
            saga: saga::Metrics::register(metrics)?,
        })
    }
}

#[cfg(feature = "mesh")]
mod mesh {
    use http::StatusCode;
    use orchestra_core::Outcome;
    use orchestra_mesh::Event;
    use orchestra_mesh::breaker::State;
    use orchestra_observe::{Buckets, Counter, Error, Family, Histogram, Registry};

    use super::{Listener, Telemetry};

    #[derive(Debug, Clone)]
    pub(super) struct Metrics {
        attempts: Family<Counter, 2>,
        attempt_seconds: Family<Histogram, 1>,
        retries: Family<Counter, 1>,
        calls: Family<Counter, 2>,
        breakers: Family<Counter, 1>,
        requests: Family<Counter, 2>,
        request_seconds: Family<Histogram, 1>,
    }

    impl Metrics {
        pub(super) fn register(metrics: &Registry) -> Result<Self, Error> {
            let seconds = Buckets::seconds();
            Ok(Self {
                attempts: metrics.counters(
                    "orchestra_mesh_attempts_total",
                    "Attempts of calls by service and what they say of the instance.",
                    ["service", "outcome"],
                )?,
                attempt_seconds: metrics.histograms(
                    "orchestra_mesh_attempt_duration_seconds",
                    "How long an attempt took until its answer began.",
                    ["service"],
                    &seconds,
                )?,
                retries: metrics.counters(
                    "orchestra_mesh_retries_total",
                    "Attempts that were followed by another.",
                    ["service"],
                )?,
                calls: metrics.counters(
                    "orchestra_mesh_calls_total",
                    "Calls by service and result: the class of the status, or error.",
                    ["service", "result"],
                )?,
                breakers: metrics.counters(
                    "orchestra_mesh_breaker_changes_total",
                    "Circuit breakers that came into a state.",
                    ["state"],
                )?,
                requests: metrics.counters(
                    "orchestra_gateway_requests_total",
                    "Requests at the gateway by route and status; none if the client went away.",
                    ["route", "status"],
                )?,
                request_seconds: metrics.histograms(
                    "orchestra_gateway_request_duration_seconds",
                    "How long the gateway took until its answer began.",
                    ["route"],
                    &seconds,
                )?,
            })
        }
    }

    impl Listener<Event> for Telemetry {
        fn on_event(&self, event: &Event) {
            let metrics = &self.mesh;
            match event {
                Event::Attempt(attempt) => {
                    let service = attempt.service.as_str();
                    metrics
                        .attempts
                        .with([service, word(attempt.outcome)])
                        .inc();
                    metrics
                        .attempt_seconds
                        .with([service])
                        .observe_duration(attempt.duration);
                }
                Event::Retry { service, .. } => metrics.retries.with([service.as_str()]).inc(),
                Event::Call {
                    service, result, ..
                } => {
                    let class = result
                        .as_ref()
                        .map_or("error", |status| match status.as_u16() {
                            200..=299 => "2xx",
                            300..=399 => "3xx",
                            400..=499 => "4xx",
                            _ => "5xx",
                        });
                    metrics.calls.with([service.as_str(), class]).inc();
                }
                Event::BreakerChanged { to, .. } => {
                    let state = match to {
                        State::Closed => "closed",
                        State::HalfOpen => "half_open",
                        _ => "open",
                    };
                    metrics.breakers.with([state]).inc();
                }
                Event::Request(request) => {
                    let route = request.route.as_deref().unwrap_or("none");
                    let status = request.status.as_ref().map_or("none", StatusCode::as_str);
                    metrics.requests.with([route, status]).inc();
                    metrics
                        .request_seconds
                        .with([route])
                        .observe_duration(request.duration);
                }
                _ => {}
            }
        }
    }

    fn word(outcome: Outcome) -> &'static str {
        match outcome {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Overloaded => "overloaded",
            _ => "neutral",
        }
    }
}

#[cfg(feature = "scheduler")]
mod scheduler {
    use orchestra_observe::{Counter, Error, Family, Registry};
    use orchestra_scheduler::Event;
    use orchestra_scheduler::event::FenceReason;

    use super::{Listener, Telemetry};

    #[derive(Debug, Clone)]
    pub(super) struct Metrics {
        instances: Family<Counter, 2>,
        fenced: Family<Counter, 2>,
        unschedulable: Counter,
    }

    impl Metrics {
        pub(super) fn register(metrics: &Registry) -> Result<Self, Error> {
            Ok(Self {
                instances: metrics.counters(
                    "orchestra_scheduler_instances_total",
                    "Instances by service and what happened to them.",
                    ["service", "event"],
                )?,
                fenced: metrics.counters(
                    "orchestra_scheduler_fenced_total",
                    "Instances that were killed before they were replaced, by reason.",
                    ["service", "reason"],
                )?,
                unschedulable: metrics.counter(
                    "orchestra_scheduler_unschedulable_total",
                    "Times that no node could carry a replica.",
                )?,
            })
        }
    }

    impl Listener<Event> for Telemetry {
        fn on_event(&self, event: &Event) {
            let metrics = &self.scheduler;
            let count = |service: &orchestra_core::ServiceName, word| {
                metrics.instances.with([service.as_str(), word]).inc();
            };
            match event {
                Event::Placed { service, .. } => count(service, "placed"),
                Event::Started { service, .. } => count(service, "started"),
                Event::StartFailed { service, .. } => count(service, "start_failed"),
                Event::Ready { service, .. } => count(service, "ready"),
                Event::Exited { service, .. } => count(service, "exited"),
                Event::Replaced { service, .. } => count(service, "replaced"),
                Event::Fenced {
                    service, reason, ..
                } => {
                    let reason = match reason {
                        FenceReason::LeaseLapsed => "lease_lapsed",
                        FenceReason::StartTimeout => "start_timeout",
                        _ => "node_lost",
                    };
                    metrics.fenced.with([service.as_str(), reason]).inc();
                }
                Event::Unschedulable(_) => metrics.unschedulable.inc(),
                _ => {}
            }
        }
    }
}

#[cfg(feature = "saga")]
mod saga {
    use orchestra_observe::{Buckets, Counter, Error, Family, Histogram, Registry};
    use orchestra_saga::{Event, Notice};

    use super::{Listener, Telemetry};

    #[derive(Debug, Clone)]
    pub(super) struct Metrics {
        events: Family<Counter, 2>,
        attempts: Family<Counter, 4>,
        attempt_seconds: Family<Histogram, 2>,
        saga_seconds: Family<Histogram, 2>,
        failures: Counter,
    }

    impl Metrics {
        pub(super) fn register(metrics: &Registry) -> Result<Self, Error> {
            Ok(Self {
                events: metrics.counters(
                    "orchestra_saga_events_total",
                    "Durable events by definition.",
                    ["definition", "event"],
                )?,
                attempts: metrics.counters(
                    "orchestra_saga_attempts_total",
                    "Attempts of steps by outcome.",
                    ["definition", "step", "op", "outcome"],
                )?,
                attempt_seconds: metrics.histograms(
                    "orchestra_saga_attempt_duration_seconds",
                    "How long an attempt took.",
                    ["definition", "step"],
                    &Buckets::seconds(),
                )?,
                saga_seconds: metrics.histograms(
                    "orchestra_saga_duration_seconds",
                    "How long a saga took from its start to its end.",
                    ["definition", "end"],
                    &Buckets::seconds(),
                )?,
                failures: metrics.counter(
                    "orchestra_saga_store_failures_total",
                    "Times that the store failed.",
                )?,
            })
        }
    }

    impl<'a> Listener<Notice<'a>> for Telemetry {
        fn on_event(&self, notice: &Notice<'a>) {
            let metrics = &self.saga;
            match notice {
                Notice::Appended {
                    definition,
                    started,
                    at,
                    events,
                    ..
                } => {
                    for event in *events {
                        metrics.events.with([definition, event.name()]).inc();
                        if matches!(event, Event::SagaCompleted | Event::SagaCompensated) {
                            let ended = metrics.saga_seconds.with([definition, event.name()]);
                            ended.observe_duration(at.since(*started));
                        }
                    }
                }
                Notice::Attempted {
                    definition,
                    step,
                    op,
                    outcome,
                    took,
                    ..
                } => {
                    let labels = [definition, step.as_str(), op.as_str(), outcome];
                    metrics.attempts.with(labels).inc();
                    metrics
                        .attempt_seconds
                        .with([definition, step.as_str()])
                        .observe_duration(*took);
                }
                Notice::StoreFailed { .. } => metrics.failures.inc(),
                _ => {}
            }
        }
    }
}
