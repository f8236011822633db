//! The task of one saga.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use orchestra_core::{Backoff, IdempotencyKey, Timestamp};
use tokio::sync::oneshot;

use super::Notice;
use super::admission::Permit;
use super::attempt::attempt;
use super::mailbox::Mailbox;
use super::shared::Shared;
use super::snapshots::Snapshots;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{SagaId, Version};
use crate::machine::{Input, Machine};
use crate::recovery;
use crate::status::{SagaView, Status};
use crate::store::Append;

/// How fast a saga whose store fails is read again.
const AGAIN: Backoff = Backoff::exponential(Duration::from_millis(50), 2.0)
    .cap(Duration::from_secs(10))
    .jitter(orchestra_core::Jitter::Equal);

/// Something to tell a saga, and who wants to know whether it mattered.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) input: Input,
    pub(super) reply: Option<oneshot::Sender<Result<bool>>>,
}

impl Letter {
    pub(super) fn silent(input: Input) -> Self {
        Self { input, reply: None }
    }

    /// Says that it may not have been heard, and why.
    fn lost(reply: Option<oneshot::Sender<Result<bool>>>, saga: SagaId, error: &Error) {
        if let Some(reply) = reply {
            let message = "the request may not be durable";
            let answer = Error::new(error.kind(), message).of(saga);
            let _gone = reply.send(Err(answer.caused_by(error.to_string())));
        }
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

/// Why the task begins.
pub(super) enum First {
    /// A new saga.
    Start(Box<New>),
    /// A saga of the store.
    Letter(Letter),
}

/// A saga that is not in the store yet, and who wants to know that it is.
pub(super) struct New {
    pub(super) machine: Machine,
    pub(super) events: Vec<Event>,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) at: Timestamp,
    pub(super) durable: oneshot::Sender<Result<()>>,
    /// Is sent the end, unless the saga sleeps or is read again before.
    pub(super) ended: Option<oneshot::Sender<SagaView>>,
}

/// Runs a saga until it has ended, sleeps, or the executor stops.
pub(super) async fn drive(
    shared: Arc<Shared>,
    saga: SagaId,
    inbox: Arc<Mailbox>,
    ticket: Ticket,
    first: First,
) {
    let ticket = match ticket {
        Ticket::Wanted => shared.permit().await.map(Ticket::Held),
        ticket => Some(ticket),
    };
    let mut task = Task {
        shared,
        saga,
        inbox,
        failures: 0,
    };
    if ticket.is_some() {
        task.run(first).await;
    } else {
        // Letters of a stopping executor are dropped, which their senders see.
        task.leave();
    }
}

struct Task {
    shared: Arc<Shared>,
    saga: SagaId,
    inbox: Arc<Mailbox>,
    failures: u32,
}

impl Task {
    async fn run(&mut self, first: First) {
        let mut letter = match first {
            First::Letter(letter) => Some(letter),
            First::Start(new) => {
                if self.start(*new).await {
                    return;
                }
                None
            }
        };
        while !self.recover(letter.take()).await {}
    }

    /// Makes the start durable and goes on. Whether the task is over.
    async fn start(&mut self, new: New) -> bool {
        let mut run = Run::new(Arc::clone(&self.shared), new.machine);
        match run.append(new.events, new.key, new.at).await {
            Ok(()) => {
                // A caller who went away does not stop the saga.
                let _gone = new.durable.send(Ok(()));
                run.ended = new.ended;
                self.follow(run, None).await
            }
            Err(error) => {
                // After such an error it may be durable all the same; the log knows.
                let refused = !matches!(error.kind(), ErrorKind::Store | ErrorKind::Busy);
                if error.kind() == ErrorKind::Fenced {
                    self.shared.fence(&error);
                }
                let _gone = new.durable.send(Err(error));
                if refused {
                    self.leave();
                }
                refused
            }
        }
    }

    /// Reads the saga from its log and goes on. Whether the task is over.
    async fn recover(&mut self, letter: Option<Letter>) -> bool {
        let shared = Arc::clone(&self.shared);
        match recovery::load(&*shared.store, self.saga, &shared.definitions).await {
            Ok(machine) => {
                // A batch whose append failed may be durable: whoever waits learns of it here.
                shared.changed(self.saga, Status::of(machine.state()));
                let run = Run::new(Arc::clone(&shared), machine);
                self.follow(run, letter).await
            }
            Err(error) => self.failed(error, letter).await,
        }
    }

    /// Whether the task is over.
    async fn follow(&mut self, mut run: Run, letter: Option<Letter>) -> bool {
        match run.go(&self.inbox, letter).await {
            Ok(()) => {
                run.tell_the_end();
                self.leave_if_empty()
            }
            Err(error) => self.failed(error, None).await,
        }
    }

    async fn failed(&mut self, error: Error, letter: Option<Letter>) -> bool {
        match error.kind() {
            ErrorKind::Fenced => self.shared.fence(&error),
            ErrorKind::NotFound | ErrorKind::ForeignPartition => {}
            ErrorKind::UnknownDefinition | ErrorKind::DefinitionChanged | ErrorKind::Corrupt => {
                self.shared.give_up(self.saga, &error);
            }
            _ => return self.again(&error).await,
        }
        self.leave_for(&error, letter);
        true
    }

    /// Waits a little before the log is read again. Whether the executor stops instead.
    async fn again(&mut self, error: &Error) -> bool {
        tracing::warn!(saga = %self.saga, %error, "saga store failed; reading the saga again");
        let saga = self.saga;
        self.shared.tell(&Notice::StoreFailed { saga, error });
        self.failures = self.failures.saturating_add(1);
        let delay = AGAIN.delay(self.failures, Duration::ZERO, self.shared.draw());
        tokio::select! {
            () = self.shared.stop.cancelled() => {
                self.leave();
                true
            }
            () = tokio::time::sleep(delay) => false,
        }
    }

    /// Ends the task, and says why to everybody who asked something of the saga.
    fn leave_for(&mut self, error: &Error, letter: Option<Letter>) {
        drop(self.shared.running.lock().remove(&self.saga));
        let letters = letter.into_iter().chain(self.inbox.drain());
        for reply in letters.filter_map(|letter| letter.reply) {
            let _gone = reply.send(Err(error.repeated()));
        }
    }

    fn leave(&mut self) {
        drop(self.shared.running.lock().remove(&self.saga));
        // Whoever waits for an answer sees that there is none.
        drop(self.inbox.drain());
    }

    /// Ends the task unless a letter has come.
    fn leave_if_empty(&mut self) -> bool {
        let mut running = self.shared.running.lock();
        let empty = self.inbox.is_empty() || self.shared.stop.is_cancelled();
        if empty {
            drop(running.remove(&self.saga));
        }
        empty
    }
}

/// A saga in memory, with its calls.
struct Run {
    shared: Arc<Shared>,
    machine: Machine,
    calls: FuturesUnordered<BoxFuture<'static, Input>>,
    snapshots: Snapshots,
    ended: Option<oneshot::Sender<SagaView>>,
}

impl Run {
    fn new(shared: Arc<Shared>, machine: Machine) -> Self {
        let snapshots = Snapshots::new(shared.snapshot_every, machine.version().0);
        Self {
            shared,
            machine,
            calls: FuturesUnordered::new(),
            snapshots,
            ended: None,
        }
    }

    /// Until the saga has ended, sleeps, or the executor stops.
    async fn go(&mut self, inbox: &Mailbox, first: Option<Letter>) -> Result<()> {
        if self.calls.is_empty() {
            // Whatever the log shows in flight was called by someone who is gone.
            if let Err(error) = self.take(Letter::silent(Input::Recovered)).await {
                let reply = first.and_then(|letter| letter.reply);
                Letter::lost(reply, self.machine.saga(), &error);
                return Err(error);
            }
        }
        let mut next = first;
        loop {
            if let Some(letter) = next.take() {
                self.take(letter).await?;
            }
            if self.is_over() && inbox.is_empty() {
                return Ok(());
            }
            // A saga whose steps answer at once is no reason for others to wait.
            tokio::task::consume_budget().await;
            next = Some(self.next(inbox).await);
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
        let stopping = self.shared.stop.is_cancelled();
        let asleep = || {
            let soon = self.shared.now() + self.shared.poll;
            self.machine.wake().is_none_or(|wake| wake > soon)
        };
        self.calls.is_empty() && (status.is_terminal() || stopping || asleep())
    }

    async fn next(&mut self, inbox: &Mailbox) -> Letter {
        let stopping = self.shared.stop.is_cancelled();
        let wake = self.machine.wake().filter(|_| !stopping);
        let (shared, calls) = (&self.shared, &mut self.calls);
        tokio::select! {
            // What is often ready comes first: nothing else is touched then.
            biased;
            Some(input) = calls.next() => Letter::silent(input),
            letter = inbox.take() => letter,
            () = shared.stop.cancelled(), if !stopping => Letter::silent(Input::Wake),
            () = sleep(wake.map(|wake| wake.since(shared.now()))) => Letter::silent(Input::Wake),
        }
    }

    /// Decides, appends, and only then calls.
    async fn take(&mut self, letter: Letter) -> Result<()> {
        let Letter { input, reply } = letter;
        if let Err(error) = self.check_history(&input) {
            if let Some(reply) = reply {
                let _gone = reply.send(Err(error));
            }
            return Ok(());
        }
        let (now, draw) = (self.shared.now(), self.shared.draw());
        let mut events = self.machine.settle(&input, now, draw);
        let mattered = !events.is_empty();
        if !self.shared.stop.is_cancelled() {
            self.machine.follow(now, &mut events);
        }
        if let Err(error) = self.append(events, None, now).await {
            Letter::lost(reply, self.machine.saga(), &error);
            return Err(error);
        }
        if let Some(reply) = reply {
            let _gone = reply.send(Ok(mattered));
        }
        Ok(())
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

    /// Makes durable what the machine has folded already.
    async fn append(
        &mut self,
        events: Vec<Event>,
        start_key: Option<IdempotencyKey>,
        now: Timestamp,
    ) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let (saga, status) = (self.machine.saga(), Status::of(self.machine.state()));
        let before = Version(self.machine.version().0 - events.len() as u64);
        let batch = Append::new(saga, before, now, events)
            .start_key(start_key)
            .status(status)
            .wake(self.machine.wake());
        shared.store.append(shared.claim, &batch).await?;
        shared.tell(&Notice::Appended {
            saga,
            definition: self.machine.definition().id(),
            status,
            started: self.machine.state().started,
            at: now,
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
        self.issue(&batch.events);
        if self.snapshots.note(&batch.events) && !status.is_terminal() {
            self.keep_snapshot();
        }
        Ok(())
    }

    fn issue(&mut self, events: &[Event]) {
        let now = self.shared.now();
        for event in events {
            let Some(call) = self.machine.call(event, self.shared.claim.epoch, now) else {
                continue;
            };
            let definition = Arc::clone(self.machine.definition());
            let attempt = attempt(Arc::clone(&self.shared), definition, call);
            self.calls.push(Box::pin(attempt));
        }
    }

    /// Beside the calls: the saga does not wait for it.
    fn keep_snapshot(&self) {
        let Some(snapshot) = recovery::snapshot(&self.machine) else {
            return;
        };
        let (shared, saga) = (Arc::clone(&self.shared), self.machine.saga());
        self.calls.push(Box::pin(async move {
            if let Err(error) = shared.store.save_snapshot(saga, snapshot).await {
                tracing::warn!(%saga, %error, "snapshot not kept");
            }
            Input::Wake
        }));
    }
}

/// Sleeps that long; for ever without a time.
async fn sleep(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}
