//! A source that is read whole from time to time, by whoever asks or watches when it is due.
//!
//! No task runs: a watch reads when the last reading is due, a snapshot as well, and of those who find it
//! due at the same time one reads and the others are told what it found, be it a failure.

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{Clock, Monotonic, TokioClock};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::ledger::{Ledger, Page};
use super::{Revision, Scope, Snapshot, WatchEvent, WatchStream};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::Instance;

/// tokio's timer has a resolution of a millisecond; a shorter sleep would only spin.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// What a reading found.
#[derive(Debug)]
pub(super) struct Reading {
    /// The members, each id of a service once; `None` when they are those of the last reading.
    pub(super) members: Option<Vec<Instance>>,
    /// How long it holds.
    pub(super) fresh: Duration,
}

/// How a reading is made.
pub(super) trait Read: Send + Sync {
    /// Reads the whole; never twice at the same time. A dropped future leaves no trace.
    fn read(&self) -> impl Future<Output = Result<Reading>> + Send;

    /// The number of the next change: greater than all before.
    fn next_revision(&self) -> Revision;
}

/// A failure, to be told to each that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    kind: ErrorKind,
    message: String,
}

impl Failure {
    fn error(&self) -> Error {
        Error::new(self.kind, self.message.clone())
    }
}

/// What is known, and until when. Pure: it is told what was found and when.
#[derive(Debug)]
struct State {
    ledger: Ledger,
    due: Monotonic,
    /// Readings that ended, one way or the other.
    readings: u64,
    failure: Option<Failure>,
    /// Failures that a watch is to tell: the same one again is not.
    failures: u64,
}

impl State {
    fn found(&mut self, next: Revision, reading: Reading, now: Monotonic) {
        self.readings += 1;
        self.due = now + reading.fresh;
        self.failure = None;
        if let Some(members) = reading.members {
            self.ledger.replace(next, members);
        }
    }

    /// Says nothing about the members.
    fn failed(&mut self, error: &Error, retry: Duration, now: Monotonic) {
        self.readings += 1;
        self.due = now + retry;
        let failure = Failure {
            kind: error.kind(),
            message: message(error),
        };
        if self.failure.as_ref() != Some(&failure) {
            self.failures += 1;
            self.failure = Some(failure);
        }
    }

    fn outcome(&self) -> Result<()> {
        match &self.failure {
            Some(failure) => Err(failure.error()),
            None => Ok(()),
        }
    }
}

/// The error and what caused it: a shared failure cannot keep the cause itself.
fn message(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

pub(super) struct Poll<R> {
    reader: R,
    retry: Duration,
    clock: TokioClock,
    state: Mutex<State>,
    /// Held by who reads; waiting for it is waiting for what that one finds.
    turn: tokio::sync::Mutex<()>,
    /// The number of readings, for watches to wake.
    readings: watch::Sender<u64>,
}

impl<R: Read> Poll<R> {
    /// Nothing is read yet. After a failure it is read again `retry` later.
    pub(super) fn new(reader: R, retry: Duration, max_changes: NonZeroUsize) -> Self {
        let start = reader.next_revision();
        let state = State {
            ledger: Ledger::new(start, max_changes),
            due: Monotonic::ZERO,
            readings: 0,
            failure: None,
            failures: 0,
        };
        Self {
            reader,
            retry,
            clock: TokioClock::new(),
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::new(()),
            readings: watch::Sender::new(0),
        }
    }

    pub(super) async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        self.refresh().await?;
        Ok(self.state.lock().ledger.snapshot(scope))
    }

    /// Reads if it is due, or waits for who does; the outcome of the last reading.
    async fn refresh(&self) -> Result<()> {
        let asked = self.clock.now();
        let known = {
            let state = self.state.lock();
            if asked < state.due {
                return state.outcome();
            }
            state.readings
        };
        let _turn = self.turn.lock().await;
        {
            let state = self.state.lock();
            if state.readings != known {
                return state.outcome();
            }
        }
        let found = self.reader.read().await;
        let now = self.clock.now();
        let mut state = self.state.lock();
        match found {
            Ok(reading) => state.found(self.reader.next_revision(), reading, now),
            Err(error) => state.failed(&error, self.retry, now),
        }
        self.readings.send_replace(state.readings);
        state.outcome()
    }
}

impl<R: fmt::Debug> fmt::Debug for Poll<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poll")
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}

pub(super) struct PollWatch<R> {
    poll: Arc<Poll<R>>,
    scope: Scope,
    after: Revision,
    lost: bool,
    /// The failure that was told last.
    told: u64,
    readings: watch::Receiver<u64>,
}

impl<R: Read> PollWatch<R> {
    pub(super) fn new(poll: Arc<Poll<R>>, scope: Scope, after: Revision) -> Self {
        let readings = poll.readings.subscribe();
        Self {
            poll,
            scope,
            after,
            lost: false,
            told: 0,
            readings,
        }
    }

    /// What there is to say now, and else until when there is nothing.
    fn say(&mut self) -> Result<Result<WatchEvent>, Monotonic> {
        let state = self.poll.state.lock();
        match state.ledger.changes(&self.scope, self.after) {
            Page::Forgotten => {
                self.lost = true;
                return Ok(Ok(WatchEvent::Resync));
            }
            Page::Changes { upto, changes } => {
                self.after = upto;
                if !changes.is_empty() {
                    let revision = upto;
                    return Ok(Ok(WatchEvent::Changes { revision, changes }));
                }
            }
        }
        if let Some(failure) = &state.failure
            && self.told != state.failures
        {
            self.told = state.failures;
            return Ok(Err(failure.error()));
        }
        Err(state.due)
    }
}

#[async_trait]
impl<R: Read + 'static> WatchStream for PollWatch<R> {
    async fn next(&mut self) -> Result<WatchEvent> {
        if self.lost {
            return Ok(WatchEvent::Resync);
        }
        loop {
            self.readings.borrow_and_update();
            let due = match self.say() {
                Ok(said) => return said,
                Err(due) => due,
            };
            let now = self.poll.clock.now();
            if due <= now {
                // What it found, or why it failed, is said in the next round.
                let _either = self.poll.refresh().await.is_err();
                continue;
            }
            let sleep = due.since(now).max(SHORTEST_SLEEP);
            let changed = self.readings.changed();
            let _either = tokio::time::timeout(sleep, changed).await.is_err();
        }
    }

    fn revision(&self) -> Revision {
        self.after
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Fails while `broken`; each reading takes a second and holds for ten.
    #[derive(Default)]
    struct Slow {
        reads: AtomicU64,
        broken: Mutex<bool>,
        revision: AtomicU64,
    }

    impl Read for Slow {
        async fn read(&self) -> Result<Reading> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.reads.fetch_add(1, Ordering::Relaxed);
            if *self.broken.lock() {
                return Err(Error::new(ErrorKind::Timeout, "too slow"));
            }
            Ok(Reading {
                members: Some(Vec::new()),
                fresh: Duration::from_secs(10),
            })
        }

        fn next_revision(&self) -> Revision {
            Revision::new(self.revision.fetch_add(1, Ordering::Relaxed))
        }
    }

    fn poll(broken: bool) -> Arc<Poll<Slow>> {
        let slow = Slow {
            broken: Mutex::new(broken),
            ..Slow::default()
        };
        let retry = Duration::from_secs(2);
        Arc::new(Poll::new(slow, retry, NonZeroUsize::MIN))
    }

    async fn at_once(poll: &Arc<Poll<Slow>>, callers: usize) -> Vec<Result<()>> {
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..callers {
            let poll = Arc::clone(poll);
            set.spawn(async move { poll.refresh().await });
        }
        set.join_all().await
    }

    #[tokio::test(start_paused = true)]
    async fn callers_at_the_same_time_share_one_reading() {
        let poll = poll(false);
        let outcomes = at_once(&poll, 10_000).await;
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(poll.reader.reads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_at_the_same_time_share_one_failure() {
        let poll = poll(true);
        let began = tokio::time::Instant::now();
        let outcomes = at_once(&poll, 10_000).await;
        assert!(outcomes.iter().all(Result::is_err));
        assert_eq!(poll.reader.reads.load(Ordering::Relaxed), 1);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn reading_that_was_given_up_is_made_by_the_next() {
        let poll = poll(false);
        let given_up = tokio::time::timeout(Duration::from_millis(500), poll.refresh());
        assert!(given_up.await.is_err());
        assert!(poll.refresh().await.is_ok());
        assert_eq!(poll.reader.reads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_told_once_and_asked_about_again_after_the_retry() {
        let poll = poll(true);
        let mut watch = PollWatch::new(Arc::clone(&poll), Scope::All, Revision::new(0));
        let began = tokio::time::Instant::now();
        let kind = watch.next().await.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::Timeout));
        let again = tokio::time::timeout(Duration::from_secs(10), watch.next());
        assert!(again.await.is_err());
        // A second each, and two between.
        assert_eq!(began.elapsed(), Duration::from_secs(11));
        assert_eq!(poll.reader.reads.load(Ordering::Relaxed), 4);
    }
}
