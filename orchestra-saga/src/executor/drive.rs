//! The task of one saga.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use orchestra_core::{Backoff, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::Notice;
use super::admission::Permit;
use super::attempt;
use super::calls::{Calls, Ended};
use super::mailbox::Mailbox;
use super::shared::Shared;
use super::snapshots::Snapshots;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{SagaId, Version};
use crate::machine::{Input, Machine};
use crate::recovery;
use crate::status::{SagaView, Status};
use crate::step::{Beat, Call, Heart};
use crate::store::Append;

/// How fast a saga whose store fails is read again.
const AGAIN: Backoff = Backoff::exponential(Duration::from_millis(50), 2.0)
    .cap(Duration::from_secs(10))
    .jitter(orchestra_core::Jitter::Equal);

/// Something to tell a saga, and who wants to know whether it mattered.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) input: Input,
    pub(super) reply: Reply,
}

type Reply = Option<oneshot::Sender<Result<bool>>>;

impl Letter {
    pub(super) fn silent(input: Input) -> Self {
        Self { input, reply: None }
    }
}

/// Whether a saga has a place among those that run.
#[derive(Debug)]
pub(super) enum Ticket {
    /// It has one, until its task ends.
    Held(#[expect(dead_code, reason = "it is held, and given back when it is dropped")] Permit),
    /// It must wait for one.
    Wanted,
    /// It runs in that of its parent.
    NotNeeded,
}

/// A saga that is not in the store yet: its first events, and who wants to know that they are there.
pub(super) struct Birth {
    pub(super) run: Box<Run>,
    pub(super) batch: Append,
    pub(super) durable: oneshot::Sender<Result<()>>,
}

/// Runs a saga until it has ended, sleeps, or the executor stops.
///
/// There is one such future for each saga that runs, so it holds little: what is large or rare is
/// behind a pointer.
#[expect(clippy::manual_async_fn, reason = "its arguments would be held twice")]
pub(super) fn drive(mut task: Task, mut next: Next) -> impl Future<Output = ()> {
    async move {
        if matches!(task.ticket, Ticket::Wanted) {
            match Box::pin(task.place()).await {
                Some(ticket) => task.ticket = ticket,
                // Letters of a stopping executor are dropped, which their senders see.
                None => return task.leave(),
            }
        }
        loop {
            next = match next {
                Next::Start(birth) => Box::pin(task.start(*birth)).await,
                Next::Run(mut run) => match run.go(&task.inbox).await {
                    Ok(()) => task.rest(*run),
                    Err(error) => Next::Failed(error),
                },
                Next::Read => Box::pin(task.read()).await,
                Next::Failed(error) => Box::pin(task.failed(error)).await,
                Next::Leave => return,
            }
        }
    }
}

/// What the task of a saga does next.
pub(super) enum Next {
    /// A new saga.
    Start(Box<Birth>),
    Run(Box<Run>),
    /// The log knows. Letters wait in the mailbox.
    Read,
    Failed(Error),
    Leave,
}

pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) saga: SagaId,
    pub(super) inbox: Arc<Mailbox>,
    pub(super) ticket: Ticket,
    failures: u32,
    /// Whether its entry among those that run is gone.
    left: bool,
}

/// A panic, of a listener say, leaves no entry behind to which letters go that nobody reads.
impl Drop for Task {
    fn drop(&mut self) {
        if !self.left {
            self.leave();
        }
    }
}

impl Task {
    pub(super) fn new(
        shared: Arc<Shared>,
        saga: SagaId,
        inbox: Arc<Mailbox>,
        ticket: Ticket,
    ) -> Self {
        Self {
            shared,
            saga,
            inbox,
            ticket,
            failures: 0,
            left: false,
        }
    }

    /// Waits for a place, unless the saga turns out to need none; none once the executor stops.
    async fn place(&self) -> Option<Ticket> {
        tokio::select! {
            permit = self.shared.permit() => permit.map(Ticket::Held),
            () = poll_fn(|context| self.inbox.poll_seated(context)) => Some(Ticket::NotNeeded),
        }
    }

    /// Makes the start durable.
    async fn start(&mut self, birth: Birth) -> Next {
        let mut run = birth.run;
        let error = match run.append(&birth.batch).await {
            Ok(()) => {
                // A caller who went away does not stop the saga.
                let _gone = birth.durable.send(Ok(()));
                return Next::Run(run);
            }
            Err(error) => error,
        };
        // After such an error it may be durable all the same; the log knows.
        let refused = !matches!(error.kind(), ErrorKind::Store | ErrorKind::Busy);
        if error.kind() == ErrorKind::Fenced {
            self.shared.fence(&error);
        }
        let _gone = birth.durable.send(Err(error));
        if !refused {
            return Next::Read;
        }
        self.leave();
        Next::Leave
    }

    async fn read(&self) -> Next {
        let shared = &self.shared;
        match recovery::load(&*shared.store, self.saga, &shared.definitions).await {
            Ok(machine) => {
                // A batch whose append failed may be durable: whoever waits learns of it here.
                shared.changed(self.saga, Status::of(machine.state()));
                Next::Run(Box::new(Run::new(Arc::clone(shared), machine, None)))
            }
            Err(error) => Next::Failed(error),
        }
    }

    /// The saga has nothing to do now.
    fn rest(&mut self, mut run: Run) -> Next {
        run.tell_the_end();
        if self.leave_if_empty() {
            Next::Leave
        } else {
            Next::Read
        }
    }

    async fn failed(&mut self, error: Error) -> Next {
        match error.kind() {
            ErrorKind::Fenced => self.shared.fence(&error),
            ErrorKind::NotFound | ErrorKind::ForeignPartition => {}
            ErrorKind::UnknownDefinition | ErrorKind::DefinitionChanged | ErrorKind::Corrupt => {
                self.shared.give_up(self.saga, &error);
            }
            _ => return self.again(&error).await,
        }
        self.leave_for(&error);
        Next::Leave
    }

    /// Waits a little before the log is read again, unless the executor stops.
    async fn again(&mut self, error: &Error) -> Next {
        tracing::warn!(saga = %self.saga, %error, "saga store failed; reading the saga again");
        let saga = self.saga;
        self.shared.tell(&Notice::StoreFailed { saga, error });
        self.failures = self.failures.saturating_add(1);
        let delay = AGAIN.delay(self.failures, Duration::ZERO, self.shared.draw());
        tokio::select! {
            () = self.shared.stop.cancelled() => {
                self.leave();
                Next::Leave
            }
            () = tokio::time::sleep(delay) => Next::Read,
        }
    }

    /// Ends the task, and says why to everybody who asked something of the saga.
    fn leave_for(&mut self, error: &Error) {
        self.left = true;
        drop(self.shared.running.lock().remove(&self.saga));
        let letters = self.inbox.drain();
        for reply in letters.into_iter().filter_map(|letter| letter.reply) {
            let _gone = reply.send(Err(error.repeated()));
        }
    }

    fn leave(&mut self) {
        self.left = true;
        drop(self.shared.running.lock().remove(&self.saga));
        // Whoever waits for an answer sees that there is none.
        drop(self.inbox.drain());
    }

    /// Ends the task unless a letter has come.
    fn leave_if_empty(&mut self) -> bool {
        let mut running = self.shared.running.lock();
        let empty = self.inbox.is_empty() || self.shared.is_stopping();
        if empty {
            self.left = true;
            drop(running.remove(&self.saga));
        }
        empty
    }
}

/// A saga in memory, with its calls.
pub(super) struct Run {
    shared: Arc<Shared>,
    machine: Machine,
    calls: Calls,
    snapshots: Snapshots,
    /// A snapshot that is being kept, beside the calls.
    saving: Option<BoxFuture<'static, ()>>,
    /// Rings no later than the saga or a call of it wants to be woken.
    alarm: Option<Pin<Box<Sleep>>>,
    alarm_at: Timestamp,
    rng: fastrand::Rng,
    /// Whether a letter was the last that was heard.
    heard_letter: bool,
    /// Is sent the end, unless the saga sleeps or is read again before.
    ended: Option<oneshot::Sender<SagaView>>,
}

/// What happens to a saga that runs.
enum Heard {
    Ended(Ended),
    Letter(Letter),
    /// It is time, or the executor stops.
    Woken,
}

/// What was decided, and who wants to know whether what he asked for was part of it.
struct Decided {
    batch: Append,
    reply: Reply,
    mattered: bool,
}

impl Run {
    pub(super) fn new(
        shared: Arc<Shared>,
        machine: Machine,
        ended: Option<oneshot::Sender<SagaView>>,
    ) -> Self {
        Self {
            calls: Calls::default(),
            snapshots: Snapshots::new(shared.snapshot_every, machine.version().0),
            saving: None,
            alarm: None,
            alarm_at: Timestamp::UNIX_EPOCH,
            rng: fastrand::Rng::with_seed(shared.draw()),
            heard_letter: false,
            shared,
            machine,
            ended,
        }
    }

    /// Until the saga has ended, sleeps, or the executor stops.
    async fn go(&mut self, inbox: &Mailbox) -> Result<()> {
        if self.calls.is_empty() {
            // Whatever the log shows in flight was called by someone who is gone.
            let decided = self.decide(Letter::silent(Input::Recovered), self.shared.now());
            self.carry_out(decided).await?;
        }
        loop {
            if self.is_over() && inbox.is_empty() {
                return Ok(());
            }
            // A saga whose steps answer at once is no reason for others to wait.
            tokio::task::consume_budget().await;
            let stopping = self.shared.is_stopping();
            let heard = poll_fn(|context| self.poll_next(inbox, stopping, context)).await;
            let decided = self.hear(heard);
            self.carry_out(decided).await?;
        }
    }

    /// What is ready first is taken first: the rest is not even looked at. Letters and answers take turns, so
    /// that neither steps that answer at once nor a flood of letters keep a saga from the other.
    fn poll_next(
        &mut self,
        inbox: &Mailbox,
        stopping: bool,
        context: &mut Context<'_>,
    ) -> Poll<Heard> {
        if let Some(saving) = &mut self.saving
            && saving.poll_unpin(context).is_ready()
        {
            self.saving = None;
            return Poll::Ready(Heard::Woken);
        }
        if !std::mem::take(&mut self.heard_letter)
            && let Some(letter) = inbox.take()
        {
            self.heard_letter = true;
            return Poll::Ready(Heard::Letter(letter));
        }
        if let Poll::Ready(ended) = self.calls.poll_ended(context) {
            return Poll::Ready(Heard::Ended(ended));
        }
        if let Poll::Ready(letter) = inbox.poll_take(context) {
            self.heard_letter = true;
            return Poll::Ready(Heard::Letter(letter));
        }
        // Whoever stops the executor rouses all readers of letters afterwards.
        if self.shared.is_stopping() != stopping || self.poll_alarm(stopping, context).is_ready() {
            return Poll::Ready(Heard::Woken);
        }
        Poll::Pending
    }

    fn poll_alarm(&mut self, stopping: bool, context: &mut Context<'_>) -> Poll<()> {
        let wake = self.machine.wake().filter(|_| !stopping);
        let Some(at) = wake.into_iter().chain(self.calls.patience()).min() else {
            return Poll::Pending;
        };
        // One that rings too early is set again then: most are not needed any more.
        let alarm = match &mut self.alarm {
            Some(alarm) if self.alarm_at <= at => alarm,
            alarm => {
                let left = at.since(self.shared.now());
                self.alarm_at = at;
                alarm.insert(Box::pin(tokio::time::sleep(left)))
            }
        };
        let rung = alarm.as_mut().poll(context);
        if rung.is_ready() {
            self.alarm = None;
        }
        rung
    }

    fn hear(&mut self, heard: Heard) -> Option<Box<Decided>> {
        let now = self.shared.now();
        match heard {
            Heard::Letter(letter) => {
                if let Input::Heartbeat { step, .. } = &letter.input {
                    self.calls.beat(step, now);
                }
                // Whoever is told something again and again has no other time to look.
                self.calls.give_up(now);
                self.decide(letter, now)
            }
            Heard::Ended(ended) => {
                let input = self.report(ended, now);
                self.decide(Letter::silent(input), now)
            }
            Heard::Woken => {
                self.calls.give_up(now);
                self.decide(Letter::silent(Input::Wake), now)
            }
        }
    }

    fn report(&self, ended: Ended, now: Timestamp) -> Input {
        let Ended {
            call,
            begun,
            outcome,
        } = ended;
        let outcome = self.shared.limits.check_outcome(&call, outcome);
        self.shared.tell(&Notice::Attempted {
            saga: call.saga,
            definition: &call.definition,
            step: &call.step,
            op: call.op,
            attempt: call.attempt,
            outcome: outcome.name(),
            took: now.since(begun),
            trace: call.trace.as_deref(),
        });
        Input::Report {
            step: call.step.clone(),
            op: call.op,
            attempt: call.attempt,
            outcome,
        }
    }

    fn tell_the_end(&mut self) {
        if Status::of(self.machine.state()).is_terminal()
            && let Some(ended) = self.ended.take()
        {
            let _gone = ended.send(SagaView::of(&self.machine));
        }
    }

    fn is_over(&self) -> bool {
        let status = Status::of(self.machine.state());
        let stopping = self.shared.is_stopping();
        let asleep = || {
            let soon = self.shared.now() + self.shared.poll;
            self.machine.wake().is_none_or(|wake| wake > soon)
        };
        let idle = self.calls.is_empty() && (self.saving.is_none() || status.is_terminal());
        idle && (status.is_terminal() || stopping || asleep())
    }

    /// What is to be appended, and only then called.
    fn decide(&mut self, letter: Letter, now: Timestamp) -> Option<Box<Decided>> {
        let Letter { input, reply } = letter;
        if let Err(error) = self.check_history(&input) {
            if let Some(reply) = reply {
                let _gone = reply.send(Err(error));
            }
            return None;
        }
        let mut events = self.machine.settle(&input, now, self.rng.u64(..));
        let mattered = !events.is_empty();
        if !self.shared.is_stopping() {
            self.machine.follow(now, &mut events);
        }
        if events.is_empty() {
            self.answer(reply, mattered, &Ok(()));
            return None;
        }
        let batch = self.batch(events, now);
        Some(Box::new(Decided {
            batch,
            reply,
            mattered,
        }))
    }

    fn answer(&self, reply: Reply, mattered: bool, appended: &Result<()>) {
        match (reply, appended) {
            (None, _) => {}
            (Some(reply), Ok(())) => {
                let _gone = reply.send(Ok(mattered));
            }
            (Some(reply), Err(error)) => {
                let message = "the request may not be durable";
                let answer = Error::new(error.kind(), message).of(self.machine.saga());
                let _gone = reply.send(Err(answer.caused_by(error.to_string())));
            }
        }
    }

    /// What comes from outside may not grow a log without end.
    fn check_history(&self, input: &Input) -> Result<()> {
        let grows = matches!(input, Input::Signal { .. } | Input::Heartbeat { .. });
        let most = self.shared.limits.events;
        if !grows || self.machine.version().0 < most {
            return Ok(());
        }
        let message = format!("the log has {most} events, and no more are taken");
        Err(Error::new(ErrorKind::HistoryFull, message).of(self.machine.saga()))
    }

    /// What the machine has folded already, to be made durable.
    pub(super) fn batch(&self, events: Vec<Event>, now: Timestamp) -> Append {
        let before = Version(self.machine.version().0 - events.len() as u64);
        Append::new(self.machine.saga(), before, now, events)
            .status(Status::of(self.machine.state()))
            .wake(self.machine.wake())
    }

    async fn carry_out(&mut self, decided: Option<Box<Decided>>) -> Result<()> {
        let Some(mut decided) = decided else {
            return Ok(());
        };
        let appended = self.append(&decided.batch).await;
        self.answer(decided.reply.take(), decided.mattered, &appended);
        appended
    }

    async fn append(&mut self, batch: &Append) -> Result<()> {
        // Of the store itself: the pointer is a store too, which costs a future more.
        let store = &*self.shared.store;
        store.append(self.shared.claim, batch).await?;
        self.appended(batch)
    }

    /// Makes the calls of what is durable now.
    fn appended(&mut self, batch: &Append) -> Result<()> {
        let (shared, saga, status) = (Arc::clone(&self.shared), batch.saga, batch.status);
        shared.tell(&Notice::Appended {
            saga,
            definition: self.machine.definition().id(),
            status,
            started: self.machine.state().started,
            at: batch.at,
            events: &batch.events,
        });
        for event in &batch.events {
            if let Event::SagaParked {
                step, op, reason, ..
            } = event
            {
                tracing::error!(%saga, %step, %op, reason, "saga is parked until somebody helps");
            }
        }
        shared.changed(saga, status);
        if shared.is_unreliable() {
            // Frozen for longer than the lease lasts, perhaps: whoever has it now makes these calls.
            let message = "the lease of the partition may have ended";
            return Err(Error::new(ErrorKind::Fenced, message).of(saga));
        }
        if status.is_terminal() {
            return Ok(());
        }
        self.issue(&batch.events);
        if self.snapshots.note(&batch.events) {
            self.keep_snapshot();
        }
        Ok(())
    }

    fn issue(&mut self, events: &[Event]) {
        let now = self.shared.now();
        for event in events {
            if let Event::StepHeartbeat { step, .. } = event {
                self.calls.beat(step, now);
                continue;
            }
            let heart = Heart::new(Arc::clone(&self.shared) as Arc<dyn Beat>);
            let epoch = self.shared.claim.epoch;
            if let Some(attempt) = self.machine.attempt(event, epoch, now, heart) {
                let call = Call::new(attempt);
                let definition = self.machine.definition();
                let running = attempt::begin(&self.shared, definition, call, now);
                self.calls.push(running);
            }
        }
    }

    /// Beside the calls: the saga does not wait for it. While one is kept the next is left out.
    fn keep_snapshot(&mut self) {
        if self.saving.is_some() {
            return;
        }
        let Some(snapshot) = recovery::snapshot(&self.machine) else {
            return;
        };
        let (shared, saga) = (Arc::clone(&self.shared), self.machine.saga());
        self.saving = Some(Box::pin(async move {
            if let Err(error) = shared.store.save_snapshot(saga, snapshot).await {
                tracing::warn!(%saga, %error, "snapshot not kept");
            }
        }));
    }
}
