//! What the client, the gateway and the breakers report while they work.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use orchestra_core::{InstanceId, Outcome, ServiceName, TraceContext};

use crate::breaker::State;
use crate::error::Kind;
use crate::retry::{Failure, Stop};

/// One thing that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// An attempt got its response headers, or failed.
    Attempt(Attempt),
    /// Another attempt was decided on and follows after `delay`.
    Retry {
        /// The service.
        service: ServiceName,
        /// The number of the attempt that follows; the first attempt is 1.
        attempt: u32,
        /// What the attempt before ended with.
        failure: Failure,
        /// The pause before it.
        delay: Duration,
    },
    /// An attempt failed and no other follows.
    GaveUp {
        /// The service.
        service: ServiceName,
        /// What the last attempt ended with.
        failure: Failure,
        /// Why there is no other.
        reason: Stop,
    },
    /// A call got its response headers, or failed.
    Call {
        /// The service.
        service: ServiceName,
        /// How many attempts it took.
        attempts: u32,
        /// The status, or what went wrong.
        result: Result<StatusCode, Kind>,
        /// From the call to the response headers, pauses included.
        duration: Duration,
    },
    /// The caller went away before the call had a result.
    CallAbandoned {
        /// The service.
        service: ServiceName,
        /// How many attempts had been made.
        attempts: u32,
        /// From the call until it was dropped.
        duration: Duration,
    },
    /// A circuit changed its state.
    BreakerChanged {
        /// The name that the breaker was given.
        breaker: Arc<str>,
        /// The state before.
        from: State,
        /// The state after.
        to: State,
    },
    /// The gateway answered a request, or had nobody to answer any more.
    Request(Request),
}

/// One attempt to reach one instance.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// The service.
    pub service: ServiceName,
    /// The instance that was asked.
    pub instance: InstanceId,
    /// 1 for the first attempt of a call.
    pub number: u32,
    /// What the instance is told to have done.
    pub outcome: Outcome,
    /// The status, or how the attempt failed.
    pub result: Result<StatusCode, Failure>,
    /// From the choice of the instance to the response headers.
    pub duration: Duration,
    /// The span of this attempt, as it was sent.
    pub trace: Option<TraceContext>,
}

/// One request that the gateway answered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The name of the route, `None` if none matched.
    pub route: Option<Arc<str>>,
    /// The destination that the split chose.
    pub service: Option<ServiceName>,
    /// The method.
    pub method: Method,
    /// The status that was sent; `None` if the peer went away before.
    pub status: Option<StatusCode>,
    /// The reason, if the gateway itself made the answer.
    pub reason: Option<&'static str>,
    /// From the request headers to the response headers.
    pub duration: Duration,
    /// The trace.
    pub trace: TraceContext,
}
