//! Several processes on one store, in virtual time: who has what, who dies, who freezes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use orchestra_saga::fleet::Shares;
use orchestra_saga::{
    Append, Blueprint, Call, Claim, Definition, Entry, ErrorKind, Executor, Failure, Filter, Fleet,
    Holder, MemoryStore, Partition, Position, Recorded, Result, SagaId, SagaStore, Snapshot, Start,
    Status, Summary, Timer, Version,
};
use parking_lot::Mutex;

const TERM: Duration = Duration::from_secs(3);

/// A store behind a network that can be cut: then nothing comes back.
#[derive(Debug, Clone)]
struct Line {
    store: Arc<MemoryStore>,
    cut: Arc<AtomicBool>,
    /// Renewals alone are not answered.
    deaf: Arc<AtomicBool>,
}

impl Line {
    fn new(store: &Arc<MemoryStore>) -> Self {
        Self {
            store: Arc::clone(store),
            cut: Arc::default(),
            deaf: Arc::default(),
        }
    }

    async fn pass(&self) -> &MemoryStore {
        if self.cut.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        &self.store
    }
}

#[async_trait]
impl SagaStore for Line {
    async fn claim(&self, of: Partition, owner: &str) -> Result<Claim> {
        self.pass().await.claim(of, owner).await
    }

    async fn lease(&self, of: Partition, owner: &str, term: Duration) -> Result<Option<Claim>> {
        self.pass().await.lease(of, owner, term).await
    }

    async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        if self.deaf.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.pass().await.renew(claim, term).await
    }

    async fn release(&self, claim: Claim) -> Result<()> {
        self.pass().await.release(claim).await
    }

    async fn holders(&self) -> Result<Vec<Holder>> {
        self.pass().await.holders().await
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        self.pass().await.append(claim, append).await
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        self.pass().await.load(saga, after).await
    }

    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        self.pass().await.find_start(key).await
    }

    async fn timers(&self, of: Partition, now: Timestamp, limit: usize) -> Result<Vec<Timer>> {
        self.pass().await.timers(of, now, limit).await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        self.pass().await.list(filter).await
    }

    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
        self.pass().await.save_snapshot(saga, snapshot).await
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        self.pass().await.load_snapshot(saga).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
        self.pass().await.read(after, limit).await
    }

    async fn define(&self, blueprint: &Blueprint) -> Result<()> {
        self.pass().await.define(blueprint).await
    }

    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
        self.pass().await.definition(hash).await
    }

    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        self.pass().await.purge(claim, before, limit).await
    }
}

/// Calls as their participant saw them: the saga, the step, the epoch.
type Seen = Arc<Mutex<Vec<(SagaId, String, u64)>>>;

/// Ten steps of a second each.
fn definition(seen: &Seen) -> Definition {
    let mut d = Definition::builder("slow", "1");
    let mut before = None;
    for number in 0..10 {
        let seen = Arc::clone(seen);
        let step = d.step(&format!("s{number}"), (), move |call: Call, (): ()| {
            seen.lock()
                .push((call.saga, call.step.to_string(), call.epoch.0));
            async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<_, Failure>(())
            }
        });
        let step = match before {
            Some(before) => step.after(before),
            None => step,
        };
        before = Some(step.read_only());
    }
    d.timeout(None).build().expect("valid")
}

fn fleet(store: Line, owner: &str, seen: &Seen) -> Fleet {
    let builder = Executor::builder(store)
        .definition(definition(seen))
        .owner(owner);
    let shares = Shares::new(8.try_into().expect("eight"), TERM);
    builder.fleet(shares).expect("valid")
}

async fn settle() {
    tokio::time::sleep(TERM * 3).await;
}

fn sizes(fleets: &[&Fleet]) -> Vec<usize> {
    let mut sizes: Vec<_> = fleets.iter().map(|fleet| fleet.holds().len()).collect();
    sizes.sort_unstable();
    let all: BTreeSet<_> = fleets.iter().flat_map(|fleet| fleet.holds()).collect();
    assert_eq!(
        all.len(),
        sizes.iter().sum::<usize>(),
        "nobody shares a partition"
    );
    sizes
}

#[tokio::test(start_paused = true)]
async fn each_process_has_its_fair_share() {
    let store = Arc::new(MemoryStore::default());
    let seen = Seen::default();
    let one = fleet(Line::new(&store), "one", &seen);
    one.ready().await;
    settle().await;
    assert_eq!(sizes(&[&one]), [8]);
    let two = fleet(Line::new(&store), "two", &seen);
    settle().await;
    assert_eq!(sizes(&[&one, &two]), [4, 4]);
    let three = fleet(Line::new(&store), "three", &seen);
    settle().await;
    assert_eq!(sizes(&[&one, &two, &three]), [2, 3, 3]);
    // One that leaves gives its partitions up at once.
    two.shutdown().await;
    tokio::time::sleep(TERM / 2).await;
    assert_eq!(sizes(&[&one, &three]), [4, 4]);
    assert_eq!(
        two.any().expect_err("it has none").kind(),
        ErrorKind::NoPartition
    );
}

#[tokio::test(start_paused = true)]
async fn sagas_change_hands_when_a_process_joins_or_leaves() {
    let store = Arc::new(MemoryStore::default());
    let seen = Seen::default();
    let one = fleet(Line::new(&store), "one", &seen);
    one.ready().await;
    settle().await;
    let mut sagas = Vec::new();
    for _ in 0..16 {
        sagas.push(one.start(Start::of("slow")).await.expect("started"));
    }
    let two = fleet(Line::new(&store), "two", &seen);
    settle().await;
    let mut owners = BTreeSet::new();
    for &saga in &sagas {
        let owner = two.owner_of(saga).await.expect("read").expect("owned");
        let here = two.executor_of(saga).await.expect("read").is_some();
        assert_eq!(here, &*owner == "two");
        owners.insert(owner.to_string());
    }
    assert_eq!(owners.into_iter().collect::<Vec<_>>(), ["one", "two"]);
    one.shutdown().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let executor = two.any().expect("it has all");
    for saga in sagas {
        assert_eq!(
            executor.status(saga).await.expect("read").status,
            Status::Completed
        );
    }
    // Calls in flight were let end, so nothing was called twice.
    let mut calls = seen.lock().clone();
    let all = calls.len();
    calls.sort_unstable();
    calls.dedup_by(|a, b| (a.0, &a.1) == (b.0, &b.1));
    assert_eq!((all, calls.len()), (160, 160));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_stops_calling_before_its_leases_end() {
    let store = Arc::new(MemoryStore::default());
    let seen = Seen::default();
    let line = Line::new(&store);
    let one = fleet(line.clone(), "one", &seen);
    one.ready().await;
    settle().await;
    let saga = one.start(Start::of("slow")).await.expect("started");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    line.cut.store(true, Ordering::Relaxed);
    let two = fleet(Line::new(&store), "two", &seen);
    tokio::time::sleep(TERM * 2).await;
    assert_eq!((one.holds().len(), two.holds().len()), (0, 8));
    let view = two
        .any()
        .expect("it has all")
        .wait(saga)
        .await
        .expect("ended");
    assert_eq!(view.status, Status::Completed);
    // The network is back: nothing of the old owner's time comes after the new one's.
    line.cut.store(false, Ordering::Relaxed);
    settle().await;
    let epochs: Vec<_> = seen.lock().iter().map(|(_, _, epoch)| *epoch).collect();
    assert!(epochs.is_sorted(), "{epochs:?}");
    assert_eq!(sizes(&[&one, &two]), [4, 4], "it is one of them again");
}

#[tokio::test(start_paused = true)]
async fn one_that_wakes_too_late_issues_no_call() {
    let store = Arc::new(MemoryStore::default());
    let seen = Seen::default();
    let line = Line::new(&store);
    let one = fleet(line.clone(), "one", &seen);
    one.ready().await;
    settle().await;
    let saga = one.start(Start::of("slow")).await.expect("started");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let calls = seen.lock().len();
    // As after SIGSTOP: time passes in one leap, and whoever is polled first goes on as if nothing were.
    line.deaf.store(true, Ordering::Relaxed);
    tokio::time::advance(TERM * 4).await;
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        seen.lock().len(),
        calls,
        "a call of {saga} by a lease that may have ended"
    );
    line.deaf.store(false, Ordering::Relaxed);
    tokio::time::sleep(TERM * 6).await;
    let view = one.any().expect("leased again").status(saga).await;
    assert_eq!(
        view.expect("read").status,
        Status::Completed,
        "under a new lease"
    );
}
