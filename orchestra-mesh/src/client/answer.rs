//! The response on its way back to the caller.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use orchestra_core::{Clock, Deadline, Monotonic, Outcome};
use tokio::time::Sleep;

use crate::error::{Error, Kind};
use crate::pick::{Pick, PickToken};

/// Completes a choice exactly once, on whichever path it is dropped.
#[derive(Debug)]
pub(super) struct Settle {
    pick: Arc<dyn Pick>,
    token: PickToken,
    clock: Arc<dyn Clock>,
    /// What is told; nothing is learned unless somebody says so.
    pub(super) outcome: Outcome,
}

impl Settle {
    pub(super) fn new(pick: &Arc<dyn Pick>, token: PickToken, clock: &Arc<dyn Clock>) -> Self {
        Self {
            pick: Arc::clone(pick),
            token,
            clock: Arc::clone(clock),
            outcome: Outcome::Neutral,
        }
    }

    pub(super) fn now(&self) -> Monotonic {
        self.clock.now()
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        let now = self.now();
        self.pick.complete(self.token, self.outcome, now);
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
            let is_impatience =
                error.kind() == Kind::DeadlineExceeded && self.patience.is_expired(settle.now());
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
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
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
