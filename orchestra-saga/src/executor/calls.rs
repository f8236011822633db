//! The calls of a saga that are in flight.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
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
    /// Those that nobody waits for any longer.
    late: Vec<Ended>,
    /// No other one is late before.
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

    /// As a call that may have been heard.
    fn given_up(&self, now: Timestamp) -> Ended {
        let reason = match self.silence {
            Some(limit) if now < self.call.deadline => format!("no heartbeat within {limit:?}"),
            _ => format!("no answer within {:?}", self.call.budget),
        };
        self.ended(StepOutcome::Unknown(reason))
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
        self.one.is_none() && self.more.is_none() && self.late.is_empty()
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
        if let Some(late) = self.late.pop() {
            return Poll::Ready(late);
        }
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

    /// Drops those that nobody waits for any longer: they have ended.
    pub(super) fn give_up(&mut self, now: Timestamp) {
        let is_over = |running: &Running| running.until <= now;
        if self.patience.is_none_or(|earliest| now < earliest) {
            return;
        }
        if let Some(one) = self.one.take_if(|one| is_over(one)) {
            self.late.push(one.given_up(now));
        }
        if self.more.iter().flatten().any(is_over) {
            let more = self.more.take().into_iter().flatten();
            let (late, rest): (Vec<_>, Vec<_>) = more.partition(is_over);
            self.late.extend(late.iter().map(|running| running.given_up(now)));
            rest.into_iter().for_each(|running| self.push(running));
        }
        let all = self.one.iter().chain(self.more.iter().flatten());
        self.patience = all.map(|running| running.until).min();
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
