use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Clock, Monotonic, TokioClock};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Notice;
use super::builder::Listening;
use crate::error::{Error, ErrorKind, Result};
use crate::outbox::judge::{Progress, Rules, judge};
use crate::outbox::{Backlog, Batch, Lane, Message, MessageId, Next, Publisher, Settled};

pub(super) struct Shared {
    pub(super) backlog: Arc<dyn Backlog>,
    pub(super) publisher: Arc<dyn Publisher>,
    pub(super) listener: Listening,
    pub(super) batch: Batch,
    pub(super) rules: Rules,
    pub(super) timeout: Duration,
    pub(super) poll: Duration,
    pub(super) clock: TokioClock,
    /// When the broker last took a message.
    pub(super) accepted: Mutex<Option<Monotonic>>,
    pub(super) stop: CancellationToken,
}

/// A key that was published as far as it went.
struct Finished {
    lane: Lane,
    sent: usize,
    stopped: Option<Error>,
    others_pass: bool,
    /// When the loan is over at the latest.
    end: Monotonic,
}

/// What waits to be written down.
struct Owed {
    settled: Settled,
    end: Monotonic,
}

/// What the loop remembers.
struct Turn {
    shared: Arc<Shared>,
    rng: fastrand::Rng,
    flying: JoinSet<Finished>,
    owed: Vec<Owed>,
    /// When the backlog is next asked for keys, or told what is owed.
    look: Monotonic,
    /// How often in a row the backlog failed.
    failures: u32,
    /// How often in a row the broker was away.
    outage: u32,
    /// Whether that was counted since the backlog was last asked.
    counted: bool,
    /// Until when the broker is left alone.
    pause: Monotonic,
}

pub(super) async fn run(shared: Arc<Shared>, rng: fastrand::Rng, wake: Arc<Notify>) {
    let mut turn = Turn {
        look: shared.clock.now(),
        rng,
        flying: JoinSet::new(),
        owed: Vec::new(),
        failures: 0,
        outage: 0,
        counted: false,
        pause: Monotonic::ZERO,
        shared: Arc::clone(&shared),
    };
    loop {
        let stopping = shared.stop.is_cancelled();
        if turn.look <= shared.clock.now() || stopping {
            let well = turn.settle().await;
            if well && !stopping {
                turn.claim().await;
            }
        }
        if stopping && turn.flying.is_empty() {
            return;
        }
        let look = shared.clock.instant(turn.look);
        tokio::select! {
            Some(finished) = turn.flying.join_next() => turn.land(finished),
            () = shared.stop.cancelled(), if !stopping => {}
            () = wake.notified(), if !stopping && turn.is_well() => turn.look = shared.clock.now(),
            () = tokio::time::sleep_until(look), if !stopping => {}
        }
    }
}

impl Turn {
    /// Neither the backlog nor the broker is being waited for.
    const fn is_well(&self) -> bool {
        self.failures == 0 && self.outage == 0
    }

    /// Takes keys for as many as are free.
    async fn claim(&mut self) {
        let busy = u32::try_from(self.flying.len() + self.owed.len()).unwrap_or(u32::MAX);
        let now = self.shared.clock.now();
        self.look = self.look.max(now + self.shared.poll);
        let mut batch = self.shared.batch.clone();
        // While the broker is away, one key is enough to find out whether it is back.
        let most = if self.outage > 0 { 1 } else { batch.lanes };
        batch.lanes = most.saturating_sub(busy);
        if batch.lanes == 0 {
            return;
        }
        let lanes = match self.shared.backlog.claim(&batch).await {
            Ok(lanes) => lanes,
            Err(error) => return self.backlog_failed(&error),
        };
        self.failures = 0;
        self.counted = false;
        if u32::try_from(lanes.len()).is_ok_and(|found| found == batch.lanes) && self.outage == 0 {
            self.look = now;
        }
        for lane in lanes {
            let shared = Arc::clone(&self.shared);
            // By this clock the loan began before the backlog granted it.
            self.flying
                .spawn(async move { shared.publish(lane, now).await });
        }
    }

    /// A key has landed, and perhaps others with it.
    fn land(&mut self, first: Result<Finished, tokio::task::JoinError>) {
        let mut landed = vec![first];
        while let Some(next) = self.flying.try_join_next() {
            landed.push(next);
        }
        // A publisher that panics loses its key until the loan is over.
        for finished in landed.into_iter().flatten() {
            self.weigh(&finished);
            self.decide(finished);
        }
        self.look = self.shared.clock.now().max(self.pause);
    }

    /// Whether the broker is away, from what it did with a key.
    fn weigh(&mut self, finished: &Finished) {
        if finished.sent > 0 {
            (self.outage, self.pause) = (0, Monotonic::ZERO);
        }
        let away = |error: &Error| error.kind() == ErrorKind::Unavailable && !finished.others_pass;
        // Keys that were tried together tell of one outage, not of many.
        if finished.stopped.as_ref().is_some_and(away) && !self.counted {
            self.counted = true;
            self.outage = self.outage.saturating_add(1);
            let (backoff, draw) = (self.shared.rules.backoff, self.rng.u64(..));
            let delay = backoff.delay(self.outage, Duration::ZERO, draw);
            self.pause = self.shared.clock.now() + delay;
        }
    }

    fn decide(&mut self, finished: Finished) {
        let stopped = finished.lane.messages.get(finished.sent);
        let progress = Progress {
            failures: finished.lane.failures,
            advanced: finished.sent > 0,
            stopped: stopped.zip(finished.stopped.as_ref()),
            others_pass: finished.others_pass,
        };
        let next = judge(&progress, &self.shared.rules, self.rng.u64(..));
        if let Some((message, error)) = progress.stopped {
            self.shared.tell(message, &next, error);
        }
        let sent = finished.lane.messages.iter().take(finished.sent);
        let settled = Settled {
            sent: sent.map(|message| message.id().clone()).collect(),
            key: finished.lane.key,
            token: finished.lane.token,
            next,
        };
        let end = finished.end;
        self.owed.push(Owed { settled, end });
    }

    /// Writes down what is owed, and says whether the backlog is well. What cannot be written is tried
    /// again while the loans last.
    async fn settle(&mut self) -> bool {
        let now = self.shared.clock.now();
        let (owed, over) = std::mem::take(&mut self.owed)
            .into_iter()
            .partition(|owed: &Owed| now < owed.end);
        self.owed = owed;
        for owed in over {
            self.shared.lost(&owed.settled.key);
        }
        if self.owed.is_empty() {
            return true;
        }
        let settled: Vec<_> = self.owed.iter().map(|owed| owed.settled.clone()).collect();
        match self.shared.backlog.settle(&settled).await {
            Ok(lost) => {
                self.failures = 0;
                self.owed.clear();
                for key in lost {
                    self.shared.lost(&key);
                }
                true
            }
            Err(error) => {
                self.backlog_failed(&error);
                false
            }
        }
    }

    fn backlog_failed(&mut self, error: &Error) {
        self.failures = self.failures.saturating_add(1);
        let draw = self.rng.u64(..);
        let delay = self
            .shared
            .rules
            .backoff
            .delay(self.failures, Duration::ZERO, draw);
        self.look = self.shared.clock.now() + delay.max(Duration::from_millis(1));
        tracing::warn!(%error, "the outbox cannot be read or written");
        self.shared
            .listener
            .on_event(&Notice::BacklogFailed { error });
    }
}

impl Shared {
    /// Publishes the messages of a key in their order, up to the first that fails, as long as nobody
    /// else can have the key.
    async fn publish(&self, lane: Lane, lent: Monotonic) -> Finished {
        let end = lent + self.batch.term;
        let last = lent + self.batch.term / 4 * 3;
        let (mut sent, mut stopped, mut others_pass) = (0, None, false);
        for message in &lane.messages {
            let begun = self.clock.now();
            let left = last.since(begun);
            if left.is_zero() || self.stop.is_cancelled() {
                break;
            }
            match self.attempt(message, left.min(self.timeout)).await {
                Ok(()) => {
                    sent += 1;
                    let now = self.clock.now();
                    *self.accepted.lock() = Some(now);
                    let took = now.since(begun);
                    self.listener.on_event(&Notice::Published { message, took });
                }
                Err(error) => {
                    others_pass = self
                        .accepted
                        .lock()
                        .is_some_and(|accepted| accepted > begun);
                    stopped = Some(error);
                    break;
                }
            }
        }
        Finished {
            lane,
            sent,
            stopped,
            others_pass,
            end,
        }
    }

    async fn attempt(&self, message: &Message, limit: Duration) -> Result<()> {
        let answer = tokio::time::timeout(limit, self.publisher.publish(message)).await;
        answer.unwrap_or_else(|_elapsed| {
            let text = format!("message {} was not answered in {limit:?}", message.id());
            Err(Error::new(ErrorKind::Unavailable, text))
        })
    }

    fn tell(&self, message: &Message, next: &Next, error: &Error) {
        let (id, key): (&MessageId, _) = (message.id(), message.key());
        match next {
            Next::After { delay, failures } => {
                let (delay, failures) = (*delay, *failures);
                tracing::warn!(%id, key, failures, %error, "a message of the outbox failed");
                self.listener.on_event(&Notice::Failed {
                    message,
                    failures,
                    delay,
                    error,
                });
            }
            Next::Park { .. } => {
                tracing::error!(%id, key, %error, "a message of the outbox is parked");
                self.listener.on_event(&Notice::Parked { message, error });
            }
            Next::Due => {}
        }
    }

    fn lost(&self, key: &str) {
        tracing::warn!(
            key,
            "the loan of a key of the outbox was over before it was settled"
        );
        self.listener.on_event(&Notice::LeaseLost { key });
    }
}
