//! The calls of a saga that are in flight.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
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

    /// Nobody waits for the answer any longer, if it is late: the call may have been heard. An answer that
    /// is there all the same, since nobody looked for a while, counts.
    fn give_up_if_late(&mut self, now: Timestamp) {
        if now < self.until {
            return;
        }
        let late = match self.silence {
            Some(limit) if now < self.call.deadline => format!("no heartbeat within {limit:?}"),
            _ => format!("no answer within {:?}", self.call.budget),
        };
        let outcome = match self.ask(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => StepOutcome::Unknown(late),
        };
        let given_up = std::mem::replace(&mut self.answer, ready(outcome).boxed());
        // What is given up may panic once more, which says nothing new.
        let _panicked = catch_unwind(AssertUnwindSafe(|| drop(given_up)));
    }

    /// A panic is an answer that nobody heard.
    fn ask(&mut self, context: &mut Context<'_>) -> Poll<StepOutcome> {
        let answer = AssertUnwindSafe(|| self.answer.poll_unpin(context));
        catch_unwind(answer)
            .unwrap_or_else(|panic| Poll::Ready(StepOutcome::Unknown(panicked(&*panic))))
    }
}

impl Future for Running {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let running = self.get_mut();
        let answer = running.ask(context);
        answer.map(|outcome| running.ended(outcome))
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
        match (&mut self.one, &mut self.more) {
            (none @ None, None) => *none = Some(running),
            // Nobody passes those that have waited for longer.
            (_, more) => more.get_or_insert_default().push(running),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::pending;
    use orchestra_core::IdempotencyKey;

    use super::*;
    use crate::id::{Epoch, SagaId};
    use crate::payload::Payload;
    use crate::step::{Applied, Attempt, Heart};

    const LATE: Timestamp = Timestamp::from_unix_nanos(9);

    fn running(name: &str, answer: BoxFuture<'static, StepOutcome>) -> Running {
        let attempt = Attempt {
            saga: SagaId::from_bytes([7; 16]),
            definition: Arc::from("calls"),
            step: name.parse().expect("a name"),
            op: Operation::Action,
            attempt: 1,
            key: IdempotencyKey::new("key").expect("a key"),
            iteration: 0,
            epoch: Epoch(1),
            deadline: Timestamp::from_unix_nanos(5),
            budget: Duration::from_nanos(5),
            trace: None,
            input: Payload::default(),
            output: None,
            applied: Applied::Unknown,
            details: None,
            number: 0,
            heart: Heart::default(),
        };
        Running::new(Call::new(attempt), Timestamp::UNIX_EPOCH, None, answer)
    }

    fn done() -> BoxFuture<'static, StepOutcome> {
        ready(StepOutcome::Done(Payload::default())).boxed()
    }

    fn next(calls: &mut Calls) -> Option<(String, &'static str)> {
        let mut context = Context::from_waker(Waker::noop());
        match calls.poll_ended(&mut context) {
            Poll::Ready(ended) => Some((ended.call.step.to_string(), ended.outcome.name())),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_answer_that_is_there_counts_though_it_is_looked_at_late() {
        let mut calls = Calls::default();
        calls.push(running("quick", done()));
        calls.push(running("silent", pending().boxed()));
        calls.push(running("also_quick", done()));
        calls.give_up(LATE);
        let mut ended: Vec<_> = std::iter::from_fn(|| next(&mut calls)).collect();
        ended.sort();
        let expected = [
            ("also_quick", "done"),
            ("quick", "done"),
            ("silent", "unknown"),
        ];
        assert_eq!(
            ended,
            expected.map(|(step, outcome)| (step.to_owned(), outcome))
        );
        assert!(calls.is_empty() && calls.patience().is_none());
    }

    #[test]
    fn a_branch_that_answers_at_once_again_and_again_lets_others_be_heard() {
        let mut calls = Calls::default();
        calls.push(running("chain", done()));
        calls.push(running("other", done()));
        let mut heard = Vec::new();
        for _ in 0..3 {
            let (step, _) = next(&mut calls).expect("ready");
            if step == "chain" {
                calls.push(running("chain", done()));
            }
            heard.push(step);
        }
        assert!(heard.contains(&"other".to_owned()), "{heard:?}");
    }

    #[test]
    fn a_panic_while_a_late_call_is_looked_at_is_an_answer_that_nobody_heard() {
        struct Bomb;
        impl Future for Bomb {
            type Output = StepOutcome;
            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StepOutcome> {
                Poll::Pending
            }
        }
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let mut calls = Calls::default();
        calls.push(running("bomb", Bomb.boxed()));
        calls.push(running(
            "loud",
            futures_util::future::lazy(|_| panic!("loud")).boxed(),
        ));
        calls.give_up(LATE);
        let ended: Vec<_> = std::iter::from_fn(|| next(&mut calls)).collect();
        assert!(ended.len() == 2 && ended.iter().all(|(_, outcome)| *outcome == "unknown"));
    }
}
