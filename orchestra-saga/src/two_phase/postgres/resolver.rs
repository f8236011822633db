//! Ends what is in doubt.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, Jitter};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Database, InDoubt};
use crate::error::Result;
use crate::two_phase::{Coordinator, Decision};

/// How soon the database is asked again after it failed.
const AGAIN: Backoff = Backoff::exponential(Duration::from_millis(500), 2.0).jitter(Jitter::Equal);

/// What a look at the prepared transactions came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// So many were committed.
    pub committed: u32,
    /// So many were rolled back.
    pub rolled_back: u32,
    /// So many wait: their sagas have not decided, or nobody knows them and they are young.
    pub waiting: u32,
    /// Of so many the coordinator or the database could not be asked.
    pub failed: u32,
}

/// What to do with a transaction in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Commit,
    RollBack,
    Wait,
}

/// A saga that nobody knows was never begun, or is forgotten; or its log was asked for in the wrong place,
/// which somebody may notice while the transaction is young. A saga that has not decided is waited for,
/// however long.
fn judge(decision: Option<Decision>, age: Duration, presumed_after: Duration) -> Verdict {
    match decision {
        Some(Decision::Commit) => Verdict::Commit,
        Some(Decision::Abort) => Verdict::RollBack,
        None if age >= presumed_after => Verdict::RollBack,
        Some(Decision::Undecided) | None => Verdict::Wait,
    }
}

/// Looks once at all transactions that are prepared; see [`Database::resolve`].
pub(super) async fn pass(
    database: &Database,
    coordinator: &dyn Coordinator,
    presumed_after: Duration,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut decisions = HashMap::new();
    for doubt in database.in_doubt().await? {
        let known = decisions.get(&doubt.saga).copied();
        let decision = match known {
            Some(decision) => decision,
            None => match coordinator.decided(doubt.saga).await {
                Ok(decision) => decision,
                Err(error) => {
                    let (saga, step) = (doubt.saga, &doubt.step);
                    tracing::warn!(%saga, %step, %error, "a transaction stays in doubt");
                    outcome.failed += 1;
                    continue;
                }
            },
        };
        decisions.insert(doubt.saga, decision);
        let verdict = judge(decision, doubt.age, presumed_after);
        carry_out(database, &doubt, verdict, &mut outcome).await;
    }
    Ok(outcome)
}

async fn carry_out(database: &Database, doubt: &InDoubt, verdict: Verdict, outcome: &mut Outcome) {
    let (key, age) = (doubt.key(), doubt.age);
    let (saga, step) = (doubt.saga, &doubt.step);
    let (ended, count) = match verdict {
        Verdict::Commit => (database.commit(&key).await, &mut outcome.committed),
        Verdict::RollBack => (database.roll_back(&key).await, &mut outcome.rolled_back),
        Verdict::Wait => {
            tracing::debug!(%saga, %step, ?age, "a prepared transaction waits for the decision");
            outcome.waiting += 1;
            return;
        }
    };
    match ended {
        Ok(()) => {
            *count += 1;
            tracing::info!(%saga, %step, ?age, ?verdict, "a transaction in doubt was ended");
        }
        Err(failure) => {
            outcome.failed += 1;
            tracing::warn!(%saga, %step, ?verdict, ?failure, "a transaction stays in doubt");
        }
    }
}

/// Looks again and again for transactions in doubt and ends those that are decided, until it is shut down.
///
/// Several may run, also beside the executors: each end is reached once, whoever is first.
///
/// Drop: aborts; what it was about to end is found again by the next. [`Resolver::shutdown`] lets the look
/// that it is at come to its end.
///
/// ```no_run
/// use std::time::Duration;
/// use orchestra_saga::Executor;
/// use orchestra_saga::two_phase::postgres::{Database, Resolver};
///
/// # async fn run(bank: Database, executor: Executor) {
/// let resolver = Resolver::builder(bank, executor)
///     .every(Duration::from_secs(10))
///     .presumed_after(Duration::from_secs(3600))
///     .start();
/// // …
/// resolver.shutdown().await;
/// # }
/// ```
#[must_use = "a resolver that is dropped ends nothing"]
pub struct Resolver {
    task: JoinSet<()>,
    stop: CancellationToken,
}

impl Resolver {
    /// A resolver of the transactions of this database, by the word of this coordinator.
    pub fn builder(database: Database, coordinator: impl Coordinator + 'static) -> Builder {
        Builder {
            database,
            coordinator: Arc::new(coordinator),
            every: Duration::from_secs(5),
            presumed_after: Duration::from_secs(300),
            rng: fastrand::Rng::new(),
        }
    }

    /// Begins no further look, and lets the one it is at end.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("runs", &!self.task.is_empty())
            .finish_non_exhaustive()
    }
}

/// How a [`Resolver`] works.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    database: Database,
    coordinator: Arc<dyn Coordinator>,
    every: Duration,
    presumed_after: Duration,
    rng: fastrand::Rng,
}

impl Builder {
    /// The longest time between two looks: five seconds unless told otherwise. Each pause is drawn between
    /// half of it and the whole, so that resolvers that were started together do not stay together.
    pub const fn every(mut self, period: Duration) -> Self {
        self.every = period;
        self
    }

    /// How old a transaction must be before it is rolled back because nobody knows its saga: five minutes
    /// unless told otherwise. Transactions of sagas that are known are not affected.
    pub const fn presumed_after(mut self, age: Duration) -> Self {
        self.presumed_after = age;
        self
    }

    /// The draws of its jitter, for tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.rng = fastrand::Rng::with_seed(seed);
        self
    }

    /// Begins, inside a tokio runtime.
    pub fn start(self) -> Resolver {
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(run(self, stop.clone()));
        Resolver { task, stop }
    }
}

async fn run(mut builder: Builder, stop: CancellationToken) {
    let period = builder.every.max(Duration::from_millis(1));
    let pauses = Backoff::fixed(period).cap(period).jitter(Jitter::Equal);
    let mut failures = 0_u32;
    loop {
        let draw = builder.rng.u64(..);
        let pause = if failures == 0 {
            pauses.delay(1, Duration::ZERO, draw)
        } else {
            AGAIN.delay(failures, Duration::ZERO, draw)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let looked = pass(
            &builder.database,
            &*builder.coordinator,
            builder.presumed_after,
        )
        .await;
        failures = match looked {
            Ok(_outcome) => 0,
            Err(error) => {
                tracing::warn!(%error, "the transactions in doubt cannot be listed");
                failures.saturating_add(1)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_knows_is_presumed_and_only_when_it_is_old() {
        let (young, old, limit) = (
            Duration::from_millis(9_999),
            Duration::from_secs(10),
            Duration::from_secs(10),
        );
        for (decision, at_first, later) in [
            (Some(Decision::Commit), Verdict::Commit, Verdict::Commit),
            (Some(Decision::Abort), Verdict::RollBack, Verdict::RollBack),
            (Some(Decision::Undecided), Verdict::Wait, Verdict::Wait),
            (None, Verdict::Wait, Verdict::RollBack),
        ] {
            assert_eq!(judge(decision, young, limit), at_first, "{decision:?}");
            assert_eq!(judge(decision, old, limit), later, "{decision:?}");
        }
    }
}
