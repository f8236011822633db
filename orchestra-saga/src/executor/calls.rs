//! The calls of a saga that are in flight.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use orchestra_core::Timestamp;

use crate::id::StepName;
use crate::step::{Call, Operation, StepOutcome};

/// The most characters of a panic's message that are kept.
const MAX_PANIC: usize = 256;

/// All of them. Most sagas have one at a time, which costs no more than itself.
#[derive(Default)]
pub(super) struct Calls {
    one: Option<Running>,
    more: Option<FuturesUnordered<Running>>,
    /// None is late before.
    patience: Option<Timestamp>,
}

/// A call and how it ended.
pub(super) struct Ended {
    pub(super) call: Call,
    pub(super) begun: Timestamp,
    pub(super) outcome: StepOutcome,
}

/// A call that nobody has answered yet.
pub(super) struct Running {
    call: Call,
    begun: Timestamp,
    /// The longest time without a heartbeat.
    silence: Option<Duration>,
    /// Nobody waits for the answer any longer.
    until: Timestamp,
    answer: BoxFuture<'static, StepOutcome>,
}

impl Running {
    pub(super) fn new(
        call: Call,
        begun: Timestamp,
        silence: Option<Duration>,
        answer: BoxFuture<'static, StepOutcome>,
    ) -> Self {
        let silence = silence.filter(|_| call.op == Operation::Action);
        let mut running = Self {
            until: call.deadline,
            call,
            begun,
            silence,
            answer,
        };
        running.beat(begun);
        running
    }

    fn beat(&mut self, now: Timestamp) {
        let quiet = self.silence.map(|limit| now + limit);
        self.until = quiet.map_or(self.call.deadline, |quiet| quiet.min(self.call.deadline));
    }

    fn ended(&self, outcome: StepOutcome) -> Ended {
        Ended {
            call: self.call.clone(),
            begun: self.begun,
            outcome,
        }
    }

    /// Nobody waits for the answer any longer, if it is late: the call may have been heard.
    fn give_up_if_late(&mut self, now: Timestamp) {
        if now < self.until {
            return;
        }
        let reason = match self.silence {
            Some(limit) if now < self.call.deadline => format!("no heartbeat within {limit:?}"),
            _ => format!("no answer within {:?}", self.call.budget),
        };
        self.answer = ready(StepOutcome::Unknown(reason)).boxed();
    }
}

impl Future for Running {
    type Output = Ended;

    /// A panic is an answer that nobody heard.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let running = self.get_mut();
        let answer = AssertUnwindSafe(|| running.answer.poll_unpin(context));
        match catch_unwind(answer) {
            Ok(answer) => answer.map(|outcome| running.ended(outcome)),
            Err(panic) => Poll::Ready(running.ended(StepOutcome::Unknown(panicked(&*panic)))),
        }
    }
}

/// What a panic said, the beginning of it.
fn panicked(panic: &(dyn Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().copied();
    match literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)) {
        Some(text) => {
            let text: String = text.chars().take(MAX_PANIC).collect();
            format!("the step panicked: {text}")
        }
        None => "the step panicked".to_owned(),
    }
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.one.is_none() && self.more.is_none()
    }

    pub(super) fn push(&mut self, running: Running) {
        let until = running.until;
        self.patience = Some(self.patience.map_or(until, |earliest| earliest.min(until)));
        match &mut self.one {
            Some(_) => self.more.get_or_insert_default().push(running),
            none => *none = Some(running),
        }
    }

    /// The next call that has ended.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        let mut ended = Poll::Pending;
        if let Some(one) = &mut self.one {
            ended = one.poll_unpin(context);
            if ended.is_ready() {
                self.one = None;
            }
        }
        if let Some(more) = &mut self.more
            && ended.is_pending()
        {
            match more.poll_next_unpin(context) {
                Poll::Ready(Some(other)) => ended = Poll::Ready(other),
                Poll::Ready(None) | Poll::Pending => {}
            }
            if more.is_empty() {
                self.more = None;
            }
        }
        if self.is_empty() {
            self.patience = None;
        }
        ended
    }

    /// When some call may have to be given up.
    pub(super) fn patience(&self) -> Option<Timestamp> {
        self.patience
    }

    /// Ends those that are late.
    pub(super) fn give_up(&mut self, now: Timestamp) {
        if self.patience.is_none_or(|earliest| now < earliest) {
            return;
        }
        if let Some(one) = &mut self.one {
            one.give_up_if_late(now);
        }
        if self
            .more
            .iter()
            .flatten()
            .any(|running| running.until <= now)
        {
            // Who is in it anew is looked at again.
            let more = FuturesUnordered::new();
            for mut running in self.more.take().into_iter().flatten() {
                running.give_up_if_late(now);
                more.push(running);
            }
            self.more = Some(more);
        }
        let all = self.one.iter().chain(self.more.iter().flatten());
        let rest = all
            .map(|running| running.until)
            .filter(|until| *until > now);
        self.patience = rest.min();
    }

    /// A heartbeat of an action has come.
    pub(super) fn beat(&mut self, step: &StepName, now: Timestamp) {
        let more = self.more.iter_mut().flat_map(FuturesUnordered::iter_mut);
        let all = self.one.iter_mut().chain(more);
        for running in all.filter(|running| running.call.step == *step) {
            running.beat(now);
        }
    }
}
