//! The response on its way back to the caller.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use orchestra_core::{Clock, Deadline, Monotonic, Outcome};
use tokio::time::Sleep;

use crate::error::{Error, Kind};
use crate::pick::{Completion, Pick, PickToken};
use crate::request::outcome;
use crate::retry::{Advice, Failure};

/// In which an instance reports its load (ORCA).
const LOAD: &str = "endpoint-load-metrics";

/// Completes a choice exactly once, on whichever path it is dropped.
#[derive(Debug)]
pub(super) struct Settle {
    pick: Arc<dyn Pick>,
    token: PickToken,
    clock: Arc<dyn Clock>,
    /// What is told; nothing is learned unless somebody says so.
    pub(super) outcome: Outcome,
    result: Option<Result<StatusCode, Failure>>,
    retry_after: Option<Duration>,
    load: Option<HeaderValue>,
}

impl Settle {
    pub(super) fn new(pick: &Arc<dyn Pick>, token: PickToken, clock: &Arc<dyn Clock>) -> Self {
        Self {
            pick: Arc::clone(pick),
            token,
            clock: Arc::clone(clock),
            outcome: Outcome::Neutral,
            result: None,
            retry_after: None,
            load: None,
        }
    }

    /// The head of an answer is there; the body may still fail.
    pub(super) fn answered<B>(&mut self, response: &Response<B>) {
        let (status, headers) = (response.status(), response.headers());
        self.outcome = outcome::of_response(status, headers);
        self.result = Some(Ok(outcome::status_of(status, headers)));
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            self.retry_after = Advice::from_headers(headers).retry_after;
        }
        self.reported(headers);
    }

    pub(super) fn broken(&mut self, failure: Failure) {
        self.result = Some(Err(failure));
    }

    fn reported(&mut self, headers: &HeaderMap) {
        if let Some(load) = headers.get(LOAD) {
            self.load = Some(load.clone());
        }
    }

    pub(super) fn now(&self) -> Monotonic {
        self.clock.now()
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        let load = self.load.as_ref();
        let completion = Completion {
            outcome: self.outcome,
            result: self.result,
            retry_after: self.retry_after,
            load: load.and_then(|value| value.to_str().ok()),
        };
        self.pick.complete(self.token, completion, self.now());
    }
}

/// The response body; while it lasts, the instance is busy and the deadline runs.
#[derive(Debug)]
pub(super) struct Answer {
    incoming: Incoming,
    settle: Option<Settle>,
    deadline: Deadline,
    /// Until when an outsider waits.
    patience: Deadline,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Answer {
    pub(super) fn new(incoming: Incoming, settle: Settle, deadline: Deadline) -> Self {
        Self {
            incoming,
            settle: Some(settle),
            deadline,
            patience: Deadline::NEVER,
            alarm: None,
        }
    }

    pub(super) fn patience(self, patience: Deadline) -> Self {
        Self { patience, ..self }
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(mut settle) = self.settle.take() {
            let is_late = error.kind() == Kind::DeadlineExceeded;
            let is_impatience = is_late && self.patience.is_expired(settle.now());
            settle.broken(if is_late {
                Failure::Timeout
            } else {
                Failure::Reset
            });
            settle.outcome = if is_impatience {
                Outcome::Neutral
            } else {
                Outcome::Failure
            };
        }
        Poll::Ready(Some(Err(error)))
    }

    /// Waits for the deadline; the timer is made only when the body is not there at once.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(settle) = &self.settle else {
            return Poll::Pending;
        };
        if self.alarm.is_none() {
            let Some(left) = self.deadline.remaining(settle.now()) else {
                return Poll::Pending;
            };
            self.alarm = Some(Box::pin(tokio::time::sleep(left)));
        }
        match &mut self.alarm {
            Some(alarm) => alarm.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(trailers), Some(settle)) = (frame.trailers_ref(), &mut self.settle) {
                    settle.reported(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let reset = Error::new(Kind::Reset, "the connection broke within the response");
                self.fail(reset.with_source(error))
            }
            Poll::Ready(None) => {
                self.settle = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.poll_deadline(context));
                let late = "the response body did not end before the deadline";
                self.fail(Error::new(Kind::DeadlineExceeded, late))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
