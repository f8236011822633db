//! One call: attempts until one is good, or no other may follow.

use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use orchestra_core::{Deadline, InstanceId, Monotonic, Outcome, Selector, SpanId, TraceContext};

use super::Shared;
use super::answer::{Answer, Settle};
use super::attempt::{Broken, Head, attempt};
use crate::deadline::Patience;
use crate::error::{Error, Kind};
use crate::event::{self, Event};
use crate::pick::{HashKey, NoEndpoint, NoEndpointReason, PickRequest, Picked, Sticky};
use crate::request::replay::Replay;
use crate::request::{headers, outcome};
use crate::retry::{Course, Failure, Stop};
use crate::{Body, deadline};

pub(super) struct Call<'a> {
    shared: &'a Shared,
    head: Head,
    replay: Replay,
    course: Course<'a>,
    deadline: Deadline,
    /// Until when an outsider waits; what it did not wait for is nobody's fault.
    patience: Deadline,
    /// Whether nothing else limits the attempt that is under way.
    is_hurried: bool,
    trace: Option<TraceContext>,
    subset: Option<Selector>,
    hash: Option<HashKey>,
    sticky: Option<Sticky>,
    tried: Vec<InstanceId>,
    attempts: u32,
}

/// What came of an attempt.
enum Ended {
    /// There is nothing to decide.
    Finally(Result<Response<Body>, Error>),
    /// Another attempt may follow; if not, this is the result.
    Failed(Failure, Result<Response<Body>, Error>),
}

impl<'a> Call<'a> {
    pub(super) fn new(shared: &'a Shared, request: Request<Body>, now: Monotonic) -> Self {
        let (mut parts, body) = request.into_parts();
        let extensions = std::mem::take(&mut parts.extensions);
        let policy = &shared.policy;
        let deadline = [
            policy.timeout.map(|limit| Deadline::after(now, limit)),
            extensions.get().copied(),
            deadline::from_headers(&parts.headers).map(|left| Deadline::after(now, left)),
        ];
        let deadline = deadline
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Deadline::NEVER);
        let patience = extensions.get().map_or(Deadline::NEVER, |&Patience(left)| {
            Deadline::after(now, left)
        });
        // A caller that retries has paid from its own budget; it must not fill ours as well.
        if !headers::is_retry(&parts.headers) {
            shared.budget.deposit(now);
        }
        let trace = extensions
            .get()
            .cloned()
            .or_else(|| headers::trace(&parts.headers));
        Self {
            course: Course::new(&policy.retry, &parts, deadline),
            head: Head::new(parts, &shared.service, &shared.headers),
            replay: Replay::new(body, policy.retry.replay_limit()),
            deadline,
            patience,
            is_hurried: false,
            trace,
            subset: extensions.get().cloned(),
            hash: extensions.get().copied(),
            sticky: extensions.get().cloned(),
            tried: Vec::new(),
            attempts: 0,
            shared,
        }
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(super) async fn run(&mut self) -> Result<Response<Body>, Error> {
        loop {
            let (failure, result) = match self.attempt().await {
                Ended::Finally(result) => return result,
                Ended::Failed(failure, result) => (failure, result),
            };
            match self.next(failure, result.as_ref().ok().map(Response::headers)) {
                Ok(delay) => {
                    drop(result);
                    tokio::time::sleep(delay).await;
                }
                Err(stop) => return self.give_up(stop, failure, result),
            }
        }
    }

    async fn attempt(&mut self) -> Ended {
        let shared = self.shared;
        let started = shared.clock.now();
        if self.deadline.is_expired(started) {
            return Ended::Finally(Err(self.too_late()));
        }
        let Picked {
            id,
            endpoint,
            token,
            ..
        } = match self.pick(started) {
            Ok(picked) => picked,
            Err(none) => return Ended::Finally(Err(self.nobody(none))),
        };
        let settle = Settle::new(&shared.pick, token, &shared.clock);
        self.attempts += 1;
        let trace = self
            .trace
            .as_ref()
            .map(|trace| trace.child(SpanId::from_draw(shared.draw())));
        let left = self.deadline.remaining(started);
        let limit = [left, shared.policy.attempt_timeout]
            .into_iter()
            .flatten()
            .min();
        self.is_hurried = is_hurried(self.patience.remaining(started), limit);
        headers::set_attempt(
            self.head.headers_mut(),
            self.attempts,
            limit,
            trace.as_ref(),
        );
        let sent = attempt(&shared.pool, &endpoint, &self.head, &mut self.replay, limit).await;
        let mut report = event::Attempt {
            service: shared.service.clone(),
            instance: id,
            number: self.attempts,
            outcome: Outcome::Neutral,
            result: Err(Failure::RequestBody),
            duration: shared.clock.now().since(started),
            trace,
        };
        let ended = match sent {
            Ok(response) => self.answered(response, settle, &mut report),
            Err(broken) => self.broken(broken, settle, &mut report),
        };
        shared.listener.on_event(&Event::Attempt(report.clone()));
        self.tried.push(report.instance);
        ended
    }

    /// Leaves out the instances that were tried, unless there are no others.
    fn pick(&self, now: Monotonic) -> Result<Picked, NoEndpoint> {
        let first = PickRequest::new(now, self.shared.draw())
            .subset(self.subset.as_ref())
            .hash(self.hash.map(|HashKey(hash)| hash))
            .sticky(self.sticky.as_ref().map(|Sticky(id)| id));
        let pick = &self.shared.pick;
        match pick.pick(&first.tried(&self.tried)) {
            Err(none) if none.reason == NoEndpointReason::AllTried => pick.pick(&first),
            picked => picked,
        }
    }

    fn answered(
        &self,
        response: Response<Incoming>,
        mut settle: Settle,
        report: &mut event::Attempt,
    ) -> Ended {
        let status = response.status();
        settle.answered(&response);
        if self.is_hurried && outcome::is_late(status, response.headers()) {
            settle.outcome = Outcome::Neutral;
        }
        report.outcome = settle.outcome;
        report.result = Ok(status);
        let response = self.wrap(response, settle);
        if is_failure(status) {
            Ended::Failed(Failure::Status(status), Ok(response))
        } else {
            Ended::Finally(Ok(response))
        }
    }

    fn wrap(&self, response: Response<Incoming>, settle: Settle) -> Response<Body> {
        let (mut parts, incoming) = response.into_parts();
        headers::strip_hop_by_hop(&mut parts.headers);
        let body = if http_body::Body::is_end_stream(&incoming) {
            Body::empty()
        } else {
            let answer = Answer::new(incoming, settle, self.deadline);
            Body::wrap(answer.patience(self.patience))
        };
        Response::from_parts(parts, body)
    }

    fn broken(&self, broken: Broken, mut settle: Settle, report: &mut event::Attempt) -> Ended {
        let Broken { failure, error } = broken;
        report.result = Err(failure);
        settle.broken(failure);
        let now = settle.now();
        // A caller that spoilt its body or did not wait says nothing about the instance, nor does a goodbye.
        let is_impatience = failure == Failure::Timeout && self.is_hurried;
        let is_spoilt = failure == Failure::RequestBody;
        if !is_spoilt && !is_impatience && !failure.is_goodbye() {
            settle.outcome = Outcome::Failure;
        }
        report.outcome = settle.outcome;
        if failure == Failure::Timeout && self.deadline.is_expired(now) {
            let late = self.too_late().with_instance(&report.instance);
            return Ended::Finally(Err(late.with_source(error)));
        }
        let error = error
            .with_service(&report.service)
            .with_instance(&report.instance);
        Ended::Failed(failure, Err(error))
    }

    fn next(&mut self, failure: Failure, response: Option<&HeaderMap>) -> Result<Duration, Stop> {
        let now = self.shared.clock.now();
        let delay = self
            .course
            .next(failure, response, now, self.shared.draw())?;
        if !self.replay.is_left() {
            return Err(Stop::BodyNotReplayable);
        }
        if !failure.is_goodbye() && !self.shared.budget.try_withdraw(now) {
            return Err(Stop::Budget);
        }
        self.shared.listener.on_event(&Event::Retry {
            service: self.shared.service.clone(),
            attempt: self.attempts + 1,
            failure,
            delay,
        });
        Ok(delay)
    }

    fn give_up(
        &self,
        reason: Stop,
        failure: Failure,
        result: Result<Response<Body>, Error>,
    ) -> Result<Response<Body>, Error> {
        if reason == Stop::NotRetryable {
            return result;
        }
        self.shared.listener.on_event(&Event::GaveUp {
            service: self.shared.service.clone(),
            failure,
            reason,
        });
        match result {
            Err(error) if reason == Stop::Budget => Err(self.over_budget(error)),
            other => other,
        }
    }

    fn error(&self, kind: Kind, message: &'static str) -> Error {
        Error::new(kind, message).with_service(&self.shared.service)
    }

    fn too_late(&self) -> Error {
        self.error(Kind::DeadlineExceeded, "the deadline has passed")
    }

    fn over_budget(&self, last: Error) -> Error {
        let message = "an attempt failed and the retry budget is used up";
        self.error(Kind::BudgetExhausted, message)
            .with_retry_after(Some(Duration::from_secs(1)))
            .with_source(last)
    }

    fn nobody(&self, none: NoEndpoint) -> Error {
        let kind = match none.reason {
            NoEndpointReason::AllRefused => Kind::CircuitOpen,
            _ => Kind::NoEndpoint,
        };
        Error::new(kind, none.reason.to_string())
            .with_service(&self.shared.service)
            .with_retry_after(none.retry_after)
    }
}

/// Whether the limit of an attempt is what an outsider leaves, to the millisecond that headers can tell.
fn is_hurried(patience: Option<Duration>, limit: Option<Duration>) -> bool {
    let close = Duration::from_millis(1);
    matches!((patience, limit), (Some(left), Some(limit)) if left < limit + close)
}

fn is_failure(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}
