//! Sagas over two databases, whose coordinator dies.

use std::future::pending;

use orchestra_saga::two_phase::Coordinator;
use orchestra_saga::two_phase::postgres::{Outcome, Resolver};
use orchestra_saga::{Decision, Failure, Status};

use super::*;

/// Two databases of the server, not two schemas of one.
struct Two {
    left: Database,
    right: Database,
    eyes: [Client; 2],
    _schemas: [Schema; 2],
}

impl Two {
    async fn fresh() -> Self {
        let namespace = namespace();
        let (left, one, first) = Self::database(&namespace).await;
        let (right, other, second) = Self::database(&namespace).await;
        Self {
            left,
            right,
            eyes: [one, other],
            _schemas: [first, second],
        }
    }

    async fn database(namespace: &str) -> (Database, Client, Schema) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "two_{}_{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let mut schema = Schema::fresh().await;
        let make = schema.connect().await;
        // Another test may be copying the template at the moment.
        until("a database is made", || async {
            make.batch_execute(&format!("CREATE DATABASE {name}"))
                .await
                .is_ok()
        })
        .await;
        schema.config.dbname(&name).options("");
        let database = open(schema.config.clone(), namespace).await;
        let eyes = schema.connect().await;
        create(&eyes).await;
        (database, eyes, schema)
    }

    async fn booked(&self) -> [Vec<i64>; 2] {
        [booked(&self.eyes[0]).await, booked(&self.eyes[1]).await]
    }

    async fn in_doubt(&self) -> usize {
        let (left, right) = (self.left.in_doubt().await, self.right.in_doubt().await);
        left.unwrap().len() + right.unwrap().len()
    }

    /// Books in both, and gets stuck there.
    async fn executor(&self, store: &Arc<MemoryStore>, stuck: Stuck) -> Executor {
        let mut d = Definition::builder("both", "1");
        let cents = d.input::<i64>();
        for (name, database) in [("left", &self.left), ("right", &self.right)] {
            let branch = branch(database);
            let gated = Gated { branch, stuck };
            d.two_phase::<i64, _>(name, cents, gated).end();
        }
        let executor = Executor::builder(Arc::clone(store)).definition(d.build().unwrap());
        executor.build().await.unwrap()
    }

    async fn resolve(&self, coordinator: &dyn Coordinator) -> [Outcome; 2] {
        let left = self.left.resolve(coordinator, Duration::ZERO).await;
        let right = self.right.resolve(coordinator, Duration::ZERO).await;
        [left.unwrap(), right.unwrap()]
    }
}

/// Where nobody hears from a participant any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stuck {
    Nowhere,
    /// It has prepared and does not say so.
    Prepared,
    /// It does not hear that it is to commit.
    Committing,
    /// It does not hear that it is to roll back.
    RollingBack,
}

#[derive(Debug)]
struct Gated {
    branch: Branch,
    stuck: Stuck,
}

#[async_trait::async_trait]
impl Participant for Gated {
    async fn prepare(&self, call: &Call) -> Result<Payload, Failure> {
        let prepared = self.branch.prepare(call).await;
        match self.stuck {
            Stuck::Prepared => pending().await,
            Stuck::RollingBack if call.step.as_str() == "right" => Err(Failure::rejected("no")),
            _ => prepared,
        }
    }

    async fn commit(&self, call: &Call) -> Result<(), Failure> {
        match self.stuck {
            Stuck::Committing => pending().await,
            _ => self.branch.commit(call).await,
        }
    }

    async fn rollback(&self, call: &Call) -> Result<(), Failure> {
        match self.stuck {
            Stuck::RollingBack => pending().await,
            _ => self.branch.rollback(call).await,
        }
    }
}

fn start(cents: i64) -> Start {
    Start::of("both").input(&cents).unwrap()
}

fn counts(committed: u32, rolled_back: u32, waiting: u32) -> [Outcome; 2] {
    let mut outcome = Outcome::default();
    (outcome.committed, outcome.rolled_back) = (committed, rolled_back);
    outcome.waiting = waiting;
    [outcome; 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_databases_commit_or_neither() {
    let two = Two::fresh().await;
    let executor = two.executor(&Arc::default(), Stuck::Nowhere).await;
    let view = executor.run(start(30)).await.unwrap();
    assert_eq!(view.status, Status::Completed);
    assert_eq!(two.booked().await, [[30], [30]]);
    // Nothing is refused by both, so whichever prepared is rolled back.
    let view = executor.run(start(0)).await.unwrap();
    assert_eq!(view.status, Status::Compensated);
    assert_eq!(two.booked().await, [[30], [30]]);
    assert_eq!(two.in_doubt().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_refuses_rolls_the_other_back() {
    let two = Two::fresh().await;
    let sql = "ALTER TABLE booking ADD CHECK (cents < 100)";
    two.eyes[1].batch_execute(sql).await.unwrap();
    let executor = two.executor(&Arc::default(), Stuck::Nowhere).await;
    let view = executor.run(start(100)).await.unwrap();
    assert_eq!(view.status, Status::Compensated);
    assert_eq!(
        (two.booked().await, two.in_doubt().await),
        ([vec![], vec![]], 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_dies_after_prepare_is_succeeded() {
    let (two, store) = (Two::fresh().await, Arc::default());
    let first = two.executor(&store, Stuck::Prepared).await;
    let saga = first.start(start(30)).await.unwrap();
    until("both are prepared", || async { two.in_doubt().await == 2 }).await;
    assert_eq!(first.decision(saga).await.unwrap(), Decision::Undecided);
    // It may still decide either way, so nobody else does, however old they are.
    assert_eq!(two.resolve(&first).await, counts(0, 0, 1));
    drop(first);
    let next = two.executor(&store, Stuck::Nowhere).await;
    let view = next.wait(saga).await.unwrap();
    assert_eq!(view.status, Status::Completed);
    assert_eq!(two.booked().await, [[30], [30]]);
    assert_eq!(
        view.output("left"),
        Some(&json!(1).into()),
        "not done twice"
    );
    assert_eq!(two.in_doubt().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_decided_is_committed_though_the_coordinator_does_not() {
    let (two, store) = (Two::fresh().await, Arc::default());
    let first = two.executor(&store, Stuck::Committing).await;
    let saga = first.start(start(30)).await.unwrap();
    until("it is decided", || async {
        first.decision(saga).await.unwrap() == Decision::Commit
    })
    .await;
    assert_eq!(
        (two.booked().await, two.in_doubt().await),
        ([vec![], vec![]], 2)
    );
    assert_eq!(two.resolve(&first).await, counts(1, 0, 0));
    assert_eq!(two.booked().await, [[30], [30]]);
    assert_eq!(two.resolve(&first).await, counts(0, 0, 0));
    drop(first);
    // Its successor finds the commits done.
    let next = two.executor(&store, Stuck::Nowhere).await;
    let view = next.wait(saga).await.unwrap();
    assert_eq!(view.status, Status::Completed);
    assert_eq!(two.booked().await, [[30], [30]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_aborted_is_rolled_back_though_the_coordinator_does_not() {
    let (two, store) = (Two::fresh().await, Arc::default());
    let first = two.executor(&store, Stuck::RollingBack).await;
    let saga = first.start(start(30)).await.unwrap();
    until("it is decided", || async {
        first.decision(saga).await.unwrap() == Decision::Abort
    })
    .await;
    until("both are prepared", || async { two.in_doubt().await == 2 }).await;
    assert_eq!(two.resolve(&first).await, counts(0, 1, 0));
    assert_eq!(
        (two.booked().await, two.in_doubt().await),
        ([vec![], vec![]], 0)
    );
    drop(first);
    let next = two.executor(&store, Stuck::Nowhere).await;
    let view = next.wait(saga).await.unwrap();
    assert_eq!(view.status, Status::Compensated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resolvers_beside_running_sagas_change_no_end() {
    let two = Two::fresh().await;
    let executor = two.executor(&Arc::default(), Stuck::Nowhere).await;
    let resolvers = [&two.left, &two.right, &two.left].map(|database| {
        Resolver::builder(database.clone(), executor.clone())
            .every(Duration::from_millis(2))
            .presumed_after(Duration::ZERO)
            .start()
    });
    let runs = (1..=40).map(|number| executor.run(start(if number % 4 == 0 { 0 } else { number })));
    let views = futures_util::future::join_all(runs).await;
    for resolver in resolvers {
        resolver.shutdown().await;
    }
    let completed = views
        .iter()
        .filter(|view| view.as_ref().unwrap().status == Status::Completed);
    assert_eq!(completed.count(), 30);
    let wanted: Vec<i64> = (1..=40).filter(|number| number % 4 != 0).collect();
    for mut booked in two.booked().await {
        booked.sort_unstable();
        assert_eq!(booked, wanted);
    }
    assert_eq!(two.in_doubt().await, 0);
}
