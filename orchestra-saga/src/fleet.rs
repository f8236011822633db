//! Several processes that share the sagas of one store.
//!
//! The sagas are divided into partitions, each of which one process has by a lease on the store's clock; every
//! append carries the epoch of the lease, and so does every call. A [`Fleet`] keeps the leases of its process
//! and an [`Executor`] for each. It takes its fair share of the partitions: all of them, divided by the
//! processes that are there. One that joins is given partitions by the others, which let calls in flight end
//! before; one that dies loses its partitions when their terms end, and the others continue its sagas.
//!
//! A process that cannot renew a lease stops calling before the term ends, by its own monotonic clock, a fifth
//! of the term early. One that was frozen meanwhile stops when it wakes: its appends are refused, and the
//! barriers of participants refuse what it had sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use orchestra_core::Monotonic;
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::error::{Error, ErrorKind, Result};
use crate::executor::{Builder, Executor, Start};
use crate::id::{Partition, SagaId};
use crate::store::{Claim, Filter, SagaStore};

/// How a store is shared.
///
/// ```
/// use std::time::Duration;
/// use orchestra_saga::fleet::Shares;
///
/// let shares = Shares::new(16.try_into()?, Duration::from_secs(10));
/// assert_eq!(shares.partitions().get(), 16);
/// # Ok::<(), std::num::TryFromIntError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    partitions: NonZeroU32,
    term: Duration,
}

/// Partitions from here on say which processes are there; nothing is appended to them.
const PRESENCE: u32 = 1 << 31;
/// The most processes of a fleet.
const MOST: u32 = 1024;
/// The shortest term: a renewal must have time to go wrong twice.
const SHORTEST: Duration = Duration::from_millis(300);

impl Shares {
    /// So many partitions, the same in every process and at all times, leased for that long at a time (at
    /// least 300 ms). There can be no more processes than partitions with something to do. A short term hands
    /// the sagas of a dead process over sooner and renews more often: three times in each term.
    pub fn new(partitions: NonZeroU32, term: Duration) -> Self {
        Self {
            partitions: partitions.min(NonZeroU32::MAX.min(BELOW_PRESENCE)),
            term: term.max(SHORTEST),
        }
    }

    /// The number of partitions.
    pub const fn partitions(&self) -> NonZeroU32 {
        self.partitions
    }

    /// How long a lease lasts.
    pub const fn term(&self) -> Duration {
        self.term
    }
}

const BELOW_PRESENCE: NonZeroU32 = NonZeroU32::new(PRESENCE).unwrap();

/// The executors of one process among several on one store. A clone is the same fleet.
///
/// Drop: when the last clone is dropped, no further call is issued and the leases end with their terms;
/// [`Fleet::shutdown`] gives them up at once.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use orchestra_saga::fleet::Shares;
/// use orchestra_saga::{Call, Definition, Executor, MemoryStore, Start, Status};
///
/// let mut d = Definition::builder("double", "1");
/// let n = d.input::<u64>();
/// d.step("double", n, |_: Call, n: u64| async move { Ok(n * 2) }).read_only();
/// let double = Arc::new(d.build()?);
///
/// let store = Arc::new(MemoryStore::default());
/// let worker = |name: &str| {
///     let builder = Executor::builder(Arc::clone(&store)).definition(Arc::clone(&double));
///     builder.owner(name).fleet(Shares::new(8.try_into().expect("eight"), Duration::from_secs(5)))
/// };
/// let (one, two) = (worker("one")?, worker("two")?);
/// one.ready().await;
/// let saga = one.start(Start::of("double").input(&21)?).await?;
/// assert_eq!(two.executor_of(saga).await?.is_some(), two.holds().len() == 8);
/// # one.shutdown().await;
/// # two.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
    _stop: Arc<DropGuard>,
}

struct Inner {
    template: Builder,
    store: Arc<dyn SagaStore>,
    shares: Shares,
    held: Mutex<BTreeMap<Partition, Executor>>,
    turn: AtomicUsize,
    changed: tokio::sync::watch::Sender<usize>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("shares", &self.inner.shares)
            .field("holds", &self.holds())
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Shares the partitions of the store with other processes, in place of owning one. Its
    /// [`owner`](Builder::owner) must be another name in each process; make it an address, and whoever asks
    /// [`Fleet::owner_of`] knows where to go.
    ///
    /// Must be called inside a tokio runtime with time enabled.
    pub fn fleet(self, shares: Shares) -> Result<Fleet> {
        self.check()?;
        let store = self.store();
        let inner = Arc::new(Inner {
            template: self,
            store,
            shares,
            held: Mutex::default(),
            turn: AtomicUsize::new(0),
            changed: tokio::sync::watch::channel(0).0,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let keeper = Keeper {
            inner: Arc::clone(&inner),
            presence: None,
            leases: BTreeMap::new(),
        };
        drop(inner.tasks.spawn(keeper.keep()));
        let stop = Arc::new(inner.stop.clone().drop_guard());
        Ok(Fleet { inner, _stop: stop })
    }
}

impl Fleet {
    /// The partitions that this process has.
    pub fn holds(&self) -> BTreeSet<Partition> {
        self.inner.held.lock().keys().copied().collect()
    }

    /// Waits until this process has a partition.
    pub async fn ready(&self) {
        let mut changed = self.inner.changed.subscribe();
        let _gone = changed.wait_for(|held| *held > 0).await;
    }

    /// Starts a saga in one of the partitions of this process; as [`Executor::start`]. Without any it is
    /// refused as [`ErrorKind::NoPartition`].
    pub async fn start(&self, start: Start) -> Result<SagaId> {
        self.any()?.start(start).await
    }

    /// An executor of this process, for what any of them can do: to start, to read, to list.
    pub fn any(&self) -> Result<Executor> {
        let held = self.inner.held.lock();
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        let chosen = turn
            .checked_rem(held.len())
            .and_then(|at| held.values().nth(at));
        chosen.cloned().ok_or_else(|| {
            let message = "this process has no partition of the sagas at the moment";
            Error::new(ErrorKind::NoPartition, message)
        })
    }

    /// The executor that has the saga, if it is of this process: for signals, cancelling, operators.
    pub async fn executor_of(&self, saga: SagaId) -> Result<Option<Executor>> {
        let partition = self.partition_of(saga).await?;
        Ok(self.inner.held.lock().get(&partition).cloned())
    }

    /// The owner that has the saga at the moment, in whichever process.
    pub async fn owner_of(&self, saga: SagaId) -> Result<Option<Arc<str>>> {
        let partition = self.partition_of(saga).await?;
        let holders = self.inner.store.holders().await?;
        let mut holders = holders.into_iter();
        let found = holders.find(|holder| holder.claim.partition == partition);
        Ok(found.map(|holder| holder.owner))
    }

    async fn partition_of(&self, saga: SagaId) -> Result<Partition> {
        let filter = Filter::default().after(saga.before()).limit(1);
        let found = self.inner.store.list(&filter).await?;
        let found = found.first().filter(|summary| summary.saga == saga);
        found
            .map(|summary| summary.partition)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no such saga").of(saga))
    }

    /// Issues no further call, waits for those in flight and gives every partition up.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// A lease of this process, and until when it may be relied on.
#[derive(Debug, Clone, Copy)]
struct Lease {
    claim: Claim,
    until: Monotonic,
}

/// The task that keeps the leases.
struct Keeper {
    inner: Arc<Inner>,
    presence: Option<Lease>,
    leases: BTreeMap<Partition, Lease>,
}

impl Keeper {
    async fn keep(mut self) {
        let stop = self.inner.stop.clone();
        while !stop.is_cancelled() {
            // A store that does not answer must not keep leases alive beyond their end.
            let limit = self.until_the_next_ends();
            match tokio::time::timeout(limit, self.round()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the leases of saga partitions cannot be kept");
                }
                Err(_elapsed) => tracing::warn!("the store of the sagas does not answer in time"),
            }
            self.give_up_what_ended();
            let pause = self.until_the_next_ends().min(self.inner.shares.term / 3);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.leave().await;
    }

    async fn round(&mut self) -> Result<()> {
        self.renew().await;
        self.show_up().await?;
        let holders = self.inner.store.holders().await?;
        let partitions = self.inner.shares.partitions.get();
        let is_presence = |partition: Partition| partition.0 >= PRESENCE;
        let claims = || holders.iter().map(|holder| holder.claim.partition);
        let workers = claims()
            .filter(|&partition| is_presence(partition))
            .count()
            .max(1);
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        let fair = partitions.div_ceil(workers) as usize;
        let taken: BTreeSet<_> = claims().collect();
        let mut free: Vec<_> = (0..partitions)
            .map(Partition)
            .filter(|partition| !taken.contains(partition))
            .collect();
        // Processes that look at once should not all want the same.
        fastrand::shuffle(&mut free);
        for partition in free
            .into_iter()
            .take(fair.saturating_sub(self.leases.len()))
        {
            self.take(partition).await?;
        }
        while self.leases.len() > fair
            && let Some((partition, lease)) = self.leases.pop_last()
        {
            self.hand_over(partition, lease);
        }
        Ok(())
    }

    /// Renews all leases at once; what cannot be renewed is relied on until it ends.
    async fn renew(&mut self) {
        let term = self.inner.shares.term;
        let begun = self.inner.template.monotonic();
        let leases: Vec<_> = self.leases.values().copied().chain(self.presence).collect();
        let store = &self.inner.store;
        let renewals = leases.iter().map(|lease| async move {
            let renewed = tokio::time::timeout(term / 3, store.renew(lease.claim, term)).await;
            (lease.claim.partition, renewed)
        });
        for (partition, renewed) in join_all(renewals).await {
            match renewed {
                Ok(Ok(())) => self.extend(partition, begun + reliable(term)),
                Ok(Err(error)) if error.kind() == ErrorKind::Fenced => self.lose(partition, &error),
                Ok(Err(error)) => tracing::warn!(%partition, %error, "a lease is not renewed"),
                Err(_elapsed) => tracing::warn!(%partition, "renewing a lease takes too long"),
            }
        }
    }

    fn extend(&mut self, partition: Partition, until: Monotonic) {
        let presence = self.presence.iter_mut();
        let presence = presence.filter(|lease| lease.claim.partition == partition);
        for lease in self.leases.get_mut(&partition).into_iter().chain(presence) {
            lease.until = until;
        }
        if let Some(executor) = self.inner.held.lock().get(&partition) {
            executor.rely_until(until);
        }
    }

    fn lose(&mut self, partition: Partition, error: &Error) {
        if self
            .presence
            .is_some_and(|lease| lease.claim.partition == partition)
        {
            self.presence = None;
        }
        if self.leases.remove(&partition).is_some() {
            self.inner.drop_executor(partition, error);
        }
    }

    /// How long all leases may be relied on, and at most a term.
    fn until_the_next_ends(&self) -> Duration {
        let now = self.inner.template.monotonic();
        let all = self.leases.values().chain(&self.presence);
        let next = all.map(|lease| lease.until.since(now)).min();
        next.map_or(self.inner.shares.term, |next| {
            next.min(self.inner.shares.term)
        })
    }

    /// Stops what has a lease that may have ended by now.
    fn give_up_what_ended(&mut self) {
        let now = self.inner.template.monotonic();
        let all = self.leases.values().copied().chain(self.presence);
        let ended: Vec<_> = all.filter(|lease| lease.until <= now).collect();
        for lease in ended {
            let message = "the lease could not be renewed in time";
            let error = Error::new(ErrorKind::Fenced, message).at_epoch(lease.claim.epoch);
            self.lose(lease.claim.partition, &error);
        }
    }

    /// Says that this process is there.
    async fn show_up(&mut self) -> Result<()> {
        if self.presence.is_some() {
            return Ok(());
        }
        let first = fastrand::u32(..MOST);
        for number in 0..MOST {
            let seat = Partition(PRESENCE + (first + number) % MOST);
            self.presence = self.lease(seat).await?;
            if self.presence.is_some() {
                return Ok(());
            }
        }
        let message = format!("{MOST} processes share the store already");
        Err(Error::new(ErrorKind::NoPartition, message))
    }

    async fn lease(&self, partition: Partition) -> Result<Option<Lease>> {
        let begun = self.inner.template.monotonic();
        let term = self.inner.shares.term;
        let owner = self.inner.template.owner_name();
        let claim = self.inner.store.lease(partition, owner, term).await?;
        let until = begun + reliable(term);
        Ok(claim.map(|claim| Lease { claim, until }))
    }

    async fn take(&mut self, partition: Partition) -> Result<()> {
        let Some(lease) = self.lease(partition).await? else {
            return Ok(());
        };
        let executor = self.inner.template.clone().assemble(lease.claim).await?;
        executor.rely_until(lease.until);
        self.leases.insert(partition, lease);
        self.inner.held.lock().insert(partition, executor);
        self.inner.tell();
        Ok(())
    }

    /// Lets calls in flight end, and the partition go.
    fn hand_over(&self, partition: Partition, lease: Lease) {
        let executor = self.inner.held.lock().remove(&partition);
        self.inner.tell();
        let (store, term) = (Arc::clone(&self.inner.store), self.inner.shares.term);
        drop(self.inner.tasks.spawn(async move {
            if let Some(executor) = executor {
                // What takes longer is not relied on when it ends.
                let _late = tokio::time::timeout(reliable(term), executor.shutdown()).await;
            }
            if let Err(error) = store.release(lease.claim).await {
                tracing::warn!(%partition, %error, "a lease ends with its term");
            }
        }));
    }

    async fn leave(mut self) {
        for (partition, lease) in std::mem::take(&mut self.leases) {
            self.hand_over(partition, lease);
        }
        if let Some(lease) = self.presence
            && let Err(error) = self.inner.store.release(lease.claim).await
        {
            tracing::warn!(%error, "a lease ends with its term");
        }
    }
}

impl Inner {
    fn drop_executor(&self, partition: Partition, error: &Error) {
        let executor = self.held.lock().remove(&partition);
        if let Some(executor) = executor {
            executor.fence(error);
        }
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_replace(self.held.lock().len());
    }
}

/// How long of a term a lease is relied on: clocks that run apart, and a call that is about to be made, have the
/// rest.
fn reliable(term: Duration) -> Duration {
    term / 5 * 4
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::{Call, Definition, MemoryStore};

    /// Whoever wakes from a freeze may be polled before the task that keeps the leases.
    #[tokio::test(start_paused = true)]
    async fn a_lease_that_may_have_ended_issues_no_call() {
        let calls = Arc::new(AtomicU32::new(0));
        let (first, second) = (Arc::clone(&calls), Arc::clone(&calls));
        let mut d = Definition::builder("two", "1");
        let one = d
            .step("one", (), move |_: Call, (): ()| {
                first.fetch_add(1, Ordering::Relaxed);
                async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok(())
                }
            })
            .read_only();
        d.step("two", one, move |_: Call, (): ()| {
            second.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(()))
        })
        .read_only();
        let store = Arc::new(MemoryStore::default());
        let builder = Executor::builder(Arc::clone(&store)).definition(d.build().unwrap());
        let term = Duration::from_secs(3);
        let claim = store
            .lease(Partition(0), "one", term)
            .await
            .unwrap()
            .unwrap();
        let now = builder.monotonic();
        let executor = builder.assemble(claim).await.unwrap();
        executor.rely_until(now + reliable(term));
        executor.start(Start::of("two")).await.unwrap();
        tokio::time::advance(term).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        let error = executor.start(Start::of("two")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
    }
}
