//! A crash before and after every append, under every answer of every step.
//!
//! The production executor and machine run on a store that stops answering at a chosen append: the
//! process is dead from there on. A second executor (and, in the second sweep, a third) takes over. The
//! participants keep keys and tombstones as a barrier does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{IdempotencyKey, Timestamp};
use orchestra_saga::{
    Append, Blueprint, Claim, Entry, Executor, Filter, Holder, MemoryStore, Operation, Partition,
    Position, Recorded, Result, SagaId, SagaStore, SagaView, Snapshot, Start, Status, Summary,
    Timer, Version,
};
use tokio::sync::Notify;

use crate::checkout::{Answer, World, checkout};

/// A store whose process dies at an append: twice the number of the append, plus one if it is written.
#[derive(Debug)]
struct Mortal {
    store: Arc<MemoryStore>,
    death: u64,
    appends: AtomicU64,
    died: Notify,
}

impl Mortal {
    fn new(store: &Arc<MemoryStore>, death: u64) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            death,
            appends: AtomicU64::new(0),
            died: Notify::new(),
        })
    }
}

#[async_trait]
impl SagaStore for Mortal {
    async fn claim(&self, partition: Partition, owner: &str) -> Result<Claim> {
        self.store.claim(partition, owner).await
    }

    async fn append(&self, claim: Claim, append: &Append) -> Result<Version> {
        let number = self.appends.fetch_add(1, Ordering::Relaxed);
        if number == self.death / 2 && self.death % 2 == 1 {
            self.store.append(claim, append).await?;
        }
        if number >= self.death / 2 {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        self.store.append(claim, append).await
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

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>> {
        self.store.list(filter).await
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

    async fn holders(&self) -> Result<Vec<Holder>> {
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

/// Which step answers what, and how often.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    step: &'static str,
    answer: Answer,
    times: usize,
    /// Whether the pivot is refused and the answer is to the compensation.
    back: bool,
}

fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    let answers = [
        Answer::Done,
        Answer::Rejected,
        Answer::Retryable,
        Answer::LostAfter,
        Answer::LostBefore,
    ];
    for answer in answers {
        for times in [1, 4] {
            for step in ["check", "reserve", "hold", "charge", "notify"] {
                all.push(Scenario {
                    step,
                    answer,
                    times,
                    back: false,
                });
            }
            for step in ["reserve", "hold"] {
                all.push(Scenario {
                    step,
                    answer,
                    times,
                    back: true,
                });
            }
        }
    }
    all
}

async fn executor(store: Arc<dyn SagaStore>, world: &Arc<World>) -> Executor {
    let builder = Executor::builder(store)
        .definition(checkout(world))
        .seed(11);
    builder.build().await.expect("built")
}

/// Runs a saga whose processes die at these appends and returns how it ended, or none if a process
/// survived its death: then there are no more points to sweep.
fn survive(scenario: Scenario, deaths: &[u64]) -> Option<(SagaView, Arc<World>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let world = World::new();
        if scenario.back {
            world.script("charge", Operation::Action, &[Answer::Rejected]);
        }
        let op = if scenario.back {
            Operation::Compensation
        } else {
            Operation::Action
        };
        world.script(scenario.step, op, &vec![scenario.answer; scenario.times]);
        let store = Arc::new(MemoryStore::default());
        let key = IdempotencyKey::new("order").expect("valid");
        let start = || Start::of("checkout").key(key.clone());
        for death in deaths {
            let mortal = Mortal::new(&store, *death);
            let executor = executor(Arc::clone(&mortal) as Arc<dyn SagaStore>, &world).await;
            let life = async {
                if let Ok(saga) = executor.start(start()).await {
                    drop(executor.wait(saga).await);
                }
            };
            tokio::select! {
                () = life => return None,
                () = mortal.died.notified() => {}
            }
        }
        let last = executor(store, &world).await;
        let saga = last.start(start()).await.expect("started");
        let view = last.wait(saga).await.expect("ended");
        Some((view, world))
    })
}

/// Nothing is lost or doubled: everything took effect once, or nothing that can be undone is left.
fn check(view: &SagaView, world: &World, context: &str) {
    let effects = world.effects();
    assert!(
        effects.values().all(|count| *count == 1),
        "{context}: {effects:?}"
    );
    match view.status {
        Status::Completed => assert_eq!(effects.len(), 5, "{context}: {effects:?}"),
        Status::Compensated => {
            let left: Vec<_> = effects.keys().filter(|step| *step != "check").collect();
            assert!(
                left.is_empty(),
                "{context}: {left:?} left of {:?}",
                world.calls()
            );
        }
        other => panic!("{context}: ended {other}"),
    }
}

#[test]
fn a_crash_at_any_append_loses_and_doubles_nothing() {
    let (mut runs, mut compensated) = (0, 0);
    for scenario in scenarios() {
        for death in 0.. {
            let Some((view, world)) = survive(scenario, &[death]) else {
                break;
            };
            check(&view, &world, &format!("{scenario:?} death {death}"));
            runs += 1;
            compensated += u32::from(view.status == Status::Compensated);
        }
    }
    assert!(runs > 500, "only {runs} crash points");
    assert!(
        compensated > 200,
        "only {compensated} of them were compensated"
    );
}

#[test]
fn a_second_crash_during_recovery_changes_nothing() {
    let mut runs = 0;
    for scenario in scenarios()
        .into_iter()
        .filter(|scenario| scenario.times == 1)
    {
        for death in [1, 3, 4, 5, 7, 9] {
            for again in [0, 1, 2, 3, 5] {
                if let Some((view, world)) = survive(scenario, &[death, again]) {
                    check(
                        &view,
                        &world,
                        &format!("{scenario:?} deaths {death}, {again}"),
                    );
                    runs += 1;
                }
            }
        }
    }
    assert!(runs > 300, "only {runs} crash points");
}
