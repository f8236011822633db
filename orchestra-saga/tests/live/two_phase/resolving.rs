//! The resolver, by the word of a coordinator that says what it is told to.

use std::collections::HashMap;

use orchestra_saga::two_phase::Coordinator;
use orchestra_saga::two_phase::postgres::{Outcome, Resolver};
use orchestra_saga::{Decision, Error, ErrorKind, Failure};
use tokio::task::JoinSet;

use super::*;

/// What it says of the sagas that it knows; it is out of order for one.
#[derive(Debug, Default)]
struct Oracle {
    decisions: HashMap<SagaId, Decision>,
    fails_for: Option<SagaId>,
}

#[async_trait::async_trait]
impl Coordinator for Oracle {
    async fn decided(&self, saga: SagaId) -> orchestra_saga::Result<Option<Decision>> {
        if self.fails_for == Some(saga) {
            return Err(Error::new(ErrorKind::Store, "out of order"));
        }
        Ok(self.decisions.get(&saga).copied())
    }
}

fn outcome([committed, rolled_back, waiting, failed]: [u32; 4]) -> Outcome {
    let mut outcome = Outcome::default();
    (outcome.committed, outcome.rolled_back) = (committed, rolled_back);
    (outcome.waiting, outcome.failed) = (waiting, failed);
    outcome
}

#[tokio::test]
async fn each_is_ended_as_it_was_decided_and_only_the_unknown_by_age() {
    let bank = Bank::fresh().await;
    let branch = branch(&bank.database);
    let mut calls = Vec::new();
    for number in 1..=5 {
        let call = call(number, i64::from(number)).await;
        branch.prepare(&call).await.unwrap();
        calls.push(call);
    }
    let said = [Decision::Commit, Decision::Abort, Decision::Undecided];
    let mut oracle = Oracle {
        decisions: calls.iter().map(|call| call.saga).zip(said).collect(),
        fails_for: Some(calls[4].saga),
    };
    let hour = Duration::from_secs(3600);
    let looked = bank.database.resolve(&oracle, hour).await.unwrap();
    assert_eq!(looked, outcome([1, 1, 2, 1]));
    assert_eq!(bank.booked().await, [1]);
    let looked = bank
        .database
        .resolve(&oracle, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(looked, outcome([0, 1, 1, 1]), "nobody knows the fourth");
    oracle.fails_for = None;
    oracle.decisions.insert(calls[2].saga, Decision::Commit);
    oracle.decisions.insert(calls[4].saga, Decision::Commit);
    let looked = bank.database.resolve(&oracle, hour).await.unwrap();
    assert_eq!(looked, outcome([2, 0, 0, 0]));
    assert_eq!(
        (bank.booked().await, bank.in_doubt().await),
        (vec![1, 3, 5], 0)
    );
    // What was rolled back is not prepared any more, and what was committed is known.
    for (call, late) in calls.iter().zip([false, true, false, true, false]) {
        let answer = branch.prepare(call).await;
        assert_eq!(
            matches!(answer, Err(Failure::Rejected(_))),
            late,
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn what_is_of_others_is_left_alone() {
    let (bank, other) = (Bank::fresh().await, Bank::fresh().await);
    let call = call(1, 30).await;
    branch(&other.database).prepare(&call).await.unwrap();
    let gid = format!("somebody's {}", other.namespace);
    let sql = format!(
        "BEGIN; INSERT INTO booking (cents) VALUES (1); PREPARE TRANSACTION '{}'",
        gid.replace('\'', "''")
    );
    bank.eyes.batch_execute(&sql).await.unwrap();
    let looked = bank
        .database
        .resolve(&Oracle::default(), Duration::ZERO)
        .await;
    assert_eq!(looked.unwrap(), Outcome::default());
    assert_eq!(other.in_doubt().await, 1);
    branch(&other.database)
        .rollback(&undo(&call))
        .await
        .unwrap();
    let sql = format!("ROLLBACK PREPARED '{}'", gid.replace('\'', "''"));
    bank.eyes.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_at_once_and_the_participant_end_each_once() {
    let bank = Bank::fresh().await;
    let mut decisions = HashMap::new();
    let mut calls = Vec::new();
    for number in 1..=24 {
        let call = call(number, i64::from(number)).await;
        branch(&bank.database).prepare(&call).await.unwrap();
        decisions.insert(call.saga, Decision::Commit);
        calls.push(call);
    }
    let oracle = Oracle {
        decisions,
        fails_for: None,
    };
    let oracle = Arc::new(oracle);
    let mut commits = JoinSet::new();
    for call in calls {
        let branch = branch(&bank.database);
        commits.spawn(async move { branch.commit(&second(&call)).await.unwrap() });
    }
    let mut looks = JoinSet::new();
    for _ in 0..4 {
        let (database, oracle) = (bank.database.clone(), Arc::clone(&oracle));
        looks.spawn(async move { database.resolve(&oracle, Duration::ZERO).await.unwrap() });
    }
    assert!(looks.join_all().await.iter().all(|look| look.failed == 0));
    commits.join_all().await;
    let mut booked = bank.booked().await;
    booked.sort_unstable();
    assert_eq!(booked, (1..=24).collect::<Vec<_>>());
    assert_eq!(bank.in_doubt().await, 0);
}

#[tokio::test]
async fn it_looks_again_and_again_until_it_is_shut_down() {
    let bank = Bank::fresh().await;
    let resolver = Resolver::builder(bank.database.clone(), Oracle::default())
        .every(Duration::from_millis(20))
        .presumed_after(Duration::ZERO)
        .seed(7)
        .start();
    for number in 1..=2 {
        let call = call(number, 30).await;
        branch(&bank.database).prepare(&call).await.unwrap();
        until("it is rolled back", || async { bank.in_doubt().await == 0 }).await;
    }
    resolver.shutdown().await;
    let late = call(3, 30).await;
    branch(&bank.database).prepare(&late).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(bank.in_doubt().await, 1, "nobody looks any more");
    branch(&bank.database).rollback(&undo(&late)).await.unwrap();
}
