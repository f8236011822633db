//! The production executor on stores that break one law each: the damage is done, and it is seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use orchestra_saga::saboteur::{Fault, Saboteur};
use orchestra_saga::{
    Append, Blueprint, Call, Claim, Definition, Entry, Error, ErrorKind, Event, Executor, Failure,
    Filter, MemoryStore, Notice, Partition, Position, Recorded, Result, SagaId, SagaStore,
    Snapshot, Start, Status, Summary, Timer, Version,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What happens between an executor and its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// The process dies at this append.
    Dies(u64),
    /// As before, and what was acknowledged last was not synced.
    DiesUnsynced(u64),
    /// This append fails, and lands before the one that follows so much later.
    LandsLate(u64, u64),
    /// Unfinished sagas are found only when the gate opens.
    Waits,
}

/// One executor's way to a store that several share.
#[derive(Debug)]
struct Way {
    store: Arc<dyn SagaStore>,
    plan: Plan,
    appends: AtomicU64,
    held: Mutex<Option<(Claim, Append)>>,
    died: Notify,
    gate: Notify,
}

impl Way {
    fn new(store: &Arc<dyn SagaStore>, plan: Plan) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            plan,
            appends: AtomicU64::new(0),
            held: Mutex::default(),
            died: Notify::new(),
            gate: Notify::new(),
        })
    }

    async fn let_land(&self) {
        let held = self.held.lock().take();
        if let Some((claim, append)) = held {
            drop(self.store.append(claim, &append).await);
        }
    }

    async fn die(&self) -> ! {
        self.died.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
impl SagaStore for Way {
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
        self.store.claim(partition, owner).await
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        let number = self.appends.fetch_add(1, Ordering::Relaxed);
        match self.plan {
            Plan::Dies(at) if number >= at => self.die().await,
            Plan::DiesUnsynced(at) => {
                if number >= at {
                    self.die().await;
                }
                // What came before is written by now.
                self.let_land().await;
                *self.held.lock() = Some((claim, append.clone()));
                Ok(append.version())
            }
            Plan::LandsLate(at, _) if number == at => {
                *self.held.lock() = Some((claim, append.clone()));
                Err(Error::new(ErrorKind::Store, "no answer"))
            }
            Plan::LandsLate(at, later) if number == at + later => {
                self.let_land().await;
                self.store.append(claim, append).await
            }
            _ => self.store.append(claim, append).await,
        }
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        if self.plan == Plan::Waits {
            self.gate.notified().await;
            self.gate.notify_one();
        }
        self.store.list(filter).await
    }

    async fn load(&self, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
        self.store.load(saga, after).await
    }

    async fn find_start(&self, key: &IdempotencyKey) -> Result<Option<SagaId>> {
        self.store.find_start(key).await
    }

    async fn timers(&self, of: Partition, now: Timestamp, limit: usize) -> Result<Vec<Timer>> {
        self.store.timers(of, now, limit).await
    }

    async fn save_snapshot(&self, saga: SagaId, snapshot: Snapshot) -> Result<()> {
        self.store.save_snapshot(saga, snapshot).await
    }

    async fn load_snapshot(&self, saga: SagaId) -> Result<Option<Snapshot>> {
        self.store.load_snapshot(saga).await
    }

    async fn lease(&self, of: Partition, owner: &str, term: Duration) -> Result<Option<Claim>> {
        self.store.lease(of, owner, term).await
    }

    async fn renew(&self, claim: Claim, term: Duration) -> Result<()> {
        self.store.renew(claim, term).await
    }

    async fn release(&self, claim: Claim) -> Result<()> {
        self.store.release(claim).await
    }

    async fn holders(&self) -> Result<Vec<orchestra_saga::Holder>> {
        self.store.holders().await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Entry>> {
        self.store.read(after, limit).await
    }

    async fn define(&self, blueprint: &Blueprint) -> Result<()> {
        self.store.define(blueprint).await
    }

    async fn definition(&self, hash: &str) -> Result<Option<Blueprint>> {
        self.store.definition(hash).await
    }

    async fn purge(&self, claim: Claim, before: Timestamp, limit: usize) -> Result<usize> {
        self.store.purge(claim, before, limit).await
    }
}

const STEPS: [&str; 4] = ["one", "two", "three", "four"];

/// Participants that keep keys and may be slow.
#[derive(Debug, Default)]
struct World {
    /// Which call is not answered before the gate opens.
    slow: Option<usize>,
    slowed: Notify,
    gate: Notify,
    calls: Mutex<Vec<(u64, String)>>,
    effects: Mutex<BTreeMap<IdempotencyKey, u32>>,
    acknowledged: Mutex<Vec<Event>>,
}

impl World {
    fn definition(self: &Arc<Self>) -> Definition {
        let mut d = Definition::builder("campaign", "1");
        let mut last = None;
        for (number, name) in STEPS.into_iter().enumerate() {
            let world = Arc::clone(self);
            let step = d.step(name, (), move |call: Call, (): ()| {
                let world = Arc::clone(&world);
                async move { world.serve(number, call).await }
            });
            let step = match last {
                Some(last) => step.after(last),
                None => step,
            };
            last = Some(step.compensate(|_: Call, (): (), _: Option<()>| async { Ok(()) }));
        }
        d.build().expect("valid")
    }

    async fn serve(&self, number: usize, call: Call) -> std::result::Result<(), Failure> {
        self.calls
            .lock()
            .push((call.epoch.0, call.step.to_string()));
        self.effects.lock().insert(call.key.clone(), 1);
        if self.slow == Some(number) && call.epoch.0 == 1 {
            self.slowed.notify_one();
            self.gate.notified().await;
        }
        Ok(())
    }

    async fn executor(self: &Arc<Self>, way: Arc<Way>) -> Executor {
        let world = Arc::clone(self);
        let listener = move |notice: &Notice<'_>| {
            if let Notice::Appended { events, .. } = notice {
                world.acknowledged.lock().extend_from_slice(events);
            }
        };
        let builder = Executor::builder(way)
            .definition(self.definition())
            .listener(listener);
        builder.seed(7).build().await.expect("built")
    }
}

fn start() -> Start {
    Start::of("campaign").key(IdempotencyKey::new("once").expect("valid"))
}

fn store(fault: Option<Fault>) -> Arc<dyn SagaStore> {
    match fault {
        Some(fault) => Arc::new(Saboteur::new(MemoryStore::default(), fault)),
        None => Arc::new(MemoryStore::default()),
    }
}

/// An owner that froze in a call hears its answer after another one has claimed: does it call on?
async fn zombie(fault: Option<Fault>, slow: usize) -> bool {
    let store = store(fault);
    let slow = Some(slow);
    let world = Arc::new(World {
        slow,
        ..World::default()
    });
    let first = world.executor(Way::new(&store, Plan::Nothing)).await;
    let saga = first.start(start()).await.expect("started");
    world.slowed.notified().await;
    let way = Way::new(&store, Plan::Waits);
    let second = world.executor(Arc::clone(&way)).await;
    let before = world.calls.lock().len();
    world.gate.notify_one();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let after: Vec<_> = world.calls.lock().split_off(before);
    way.gate.notify_one();
    let status = second.wait(saga).await.map(|view| view.status);
    assert!(fault.is_some() || status.is_ok_and(|status| status == Status::Completed));
    after.iter().any(|(epoch, _)| *epoch == 1)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_epochs_lets_a_zombie_call() {
    for slow in 0..STEPS.len() {
        assert!(!zombie(None, slow).await, "step {slow}");
        // After the last step nothing is left to call.
        let calls = zombie(Some(Fault::IgnoresTheEpoch), slow).await;
        assert_eq!(calls, slow + 1 < STEPS.len(), "step {slow}");
    }
}

/// An append fails and lands later: can the log still be read?
async fn late(fault: Option<Fault>, at: u64, later: u64) -> Option<Status> {
    let store = store(fault);
    let world = Arc::new(World::default());
    let way = Way::new(&store, Plan::LandsLate(at, later));
    let first = world.executor(Arc::clone(&way)).await;
    // The start is answered with an error if its append is the one.
    let _answer = first.start(start()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    way.let_land().await;
    first.shutdown().await;
    let second = world.executor(Way::new(&store, Plan::Nothing)).await;
    let saga = second.start(start()).await.ok()?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let view = second.status(saga).await.ok()?;
    let done = world.effects.lock().len();
    assert_eq!(done, STEPS.len(), "append {at}, {later} later");
    Some(view.status)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_versions_spoils_the_log() {
    let mut spoilt = 0;
    for at in 0..6 {
        for later in 1..4 {
            let whole = late(None, at, later).await;
            assert_eq!(whole, Some(Status::Completed), "append {at}, {later} later");
            let fault = Some(Fault::IgnoresTheVersion);
            spoilt += u32::from(late(fault, at, later).await != Some(Status::Completed));
        }
    }
    assert!(spoilt > 5, "only {spoilt} logs are spoilt");
}

/// A process dies: is everything that it was acknowledged in the log?
async fn death(plan: Plan) -> bool {
    let store = store(None);
    let world = Arc::new(World::default());
    let way = Way::new(&store, plan);
    let first = world.executor(Arc::clone(&way)).await;
    let life = async {
        if let Ok(saga) = first.start(start()).await {
            drop(first.wait(saga).await);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = life => {}
        () = way.died.notified() => {}
    }
    let acknowledged = std::mem::take(&mut *world.acknowledged.lock());
    let second = world.executor(Way::new(&store, Plan::Nothing)).await;
    let saga = second.start(start()).await.expect("started");
    let view = second.wait(saga).await.expect("ended");
    assert_eq!(view.status, Status::Completed);
    let log = second.history(saga).await.expect("read");
    let logged: Vec<_> = log.into_iter().map(|recorded| recorded.event).collect();
    logged.starts_with(&acknowledged)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_sync_loses_what_it_acknowledged() {
    for at in 1..5 {
        assert!(death(Plan::Dies(at)).await, "append {at}");
        assert!(!death(Plan::DiesUnsynced(at)).await, "append {at}");
    }
}
