//! What a branch answers to calls that are repeated, late or overtaken.

use std::sync::Arc;

use orchestra_core::Timestamp;
use orchestra_saga::Failure;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;

fn number(payload: Result<Payload, Failure>) -> i64 {
    payload.unwrap().read().unwrap()
}

fn is_rejected<T>(answer: &Result<T, Failure>, with: &str) -> bool {
    matches!(answer, Err(Failure::Rejected(reason)) if reason.contains(with))
}

#[tokio::test]
async fn what_is_prepared_is_not_seen_before_it_is_committed() {
    let bank = Bank::fresh().await;
    let (branch, call) = (branch(&bank.database), call(1, 30).await);
    branch.prepare(&call).await.unwrap();
    assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![], 1));
    branch.commit(&second(&call)).await.unwrap();
    assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![30], 0));
}

#[tokio::test]
async fn repetitions_are_answered_and_done_once() {
    let bank = Bank::fresh().await;
    let (branch, call) = (branch(&bank.database), call(1, 30).await);
    let first = number(branch.prepare(&call).await);
    for _ in 0..3 {
        assert_eq!(number(branch.prepare(&call).await), first);
    }
    for _ in 0..3 {
        branch.commit(&second(&call)).await.unwrap();
        assert_eq!(number(branch.prepare(&call).await), first);
    }
    assert_eq!(bank.booked().await, [30]);
    let late = branch.rollback(&undo(&call)).await;
    assert!(is_rejected(&late, "committed already"), "{late:?}");
    assert_eq!(bank.booked().await, [30]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repetitions_at_once_are_done_once() {
    let bank = Bank::fresh().await;
    for round in 1..=5 {
        let call = call(round, 30).await;
        let mut prepares = JoinSet::new();
        for _ in 0..12 {
            let (branch, call) = (branch(&bank.database), call.clone());
            prepares.spawn(async move { number(branch.prepare(&call).await) });
        }
        let answers = prepares.join_all().await;
        assert!(answers.iter().all(|one| *one == answers[0]), "{answers:?}");
        assert_eq!(bank.in_doubt().await, 1);
        let mut commits = JoinSet::new();
        for _ in 0..12 {
            let (branch, call) = (branch(&bank.database), second(&call));
            commits.spawn(async move { branch.commit(&call).await });
        }
        assert_eq!(commits.join_all().await, vec![Ok(()); 12]);
        assert_eq!(bank.booked().await.len(), usize::from(round));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepare_and_a_rollback_at_once_leave_nothing() {
    let bank = Bank::fresh().await;
    for round in 1..=20 {
        let call = call(round, 30).await;
        let mut calls = JoinSet::new();
        for number in 0..6 {
            let (branch, call) = (branch(&bank.database), call.clone());
            calls.spawn(async move {
                if number % 2 == 0 {
                    drop(branch.prepare(&call).await);
                } else {
                    branch.rollback(&undo(&call)).await.unwrap();
                }
            });
        }
        calls.join_all().await;
        assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![], 0));
    }
}

#[tokio::test]
async fn a_rollback_is_repeated_and_what_comes_after_it_is_refused() {
    let bank = Bank::fresh().await;
    let branch = branch(&bank.database);
    let (before, never) = (call(1, 30).await, call(2, 30).await);
    branch.prepare(&before).await.unwrap();
    for call in [before, never] {
        for _ in 0..3 {
            branch.rollback(&undo(&call)).await.unwrap();
        }
        let late = branch.prepare(&call).await;
        assert!(is_rejected(&late, "rolled back before"), "{late:?}");
        branch.commit(&second(&call)).await.unwrap_err();
    }
    assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_waits_for_the_work_and_takes_back_what_it_prepared() {
    let bank = Bank::fresh().await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (at, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let slow = bank.database.branch(move |tx, _| {
        let (at, wait) = (Arc::clone(&at), Arc::clone(&wait));
        Box::pin(async move {
            let done = book(tx, 30).await;
            at.notify_one();
            wait.notified().await;
            done
        })
    });
    let call = call(1, 30).await;
    let (late, undone) = (call.clone(), undo(&call));
    let mut preparing = JoinSet::new();
    let prepared = slow.clone();
    preparing.spawn(async move { prepared.prepare(&late).await });
    begun.notified().await;
    let waited = slow.rollback(&undone).await;
    assert!(matches!(waited, Err(Failure::Unknown(_))), "{waited:?}");
    go.notify_one();
    number(preparing.join_next().await.unwrap().unwrap());
    assert_eq!(bank.in_doubt().await, 1);
    slow.rollback(&undone).await.unwrap();
    assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![], 0));
    assert!(is_rejected(
        &slow.prepare(&call).await,
        "rolled back before"
    ));
}

#[tokio::test]
async fn a_refusal_leaves_nothing_and_stays() {
    let bank = Bank::fresh().await;
    let (branch, mut call) = (branch(&bank.database), call(1, 0).await);
    let refused = branch.prepare(&call).await;
    assert!(
        is_rejected(&refused, "nothing is not booked"),
        "{refused:?}"
    );
    call.edit().input = Payload::from(json!(30));
    assert_eq!(branch.prepare(&call).await, refused, "the same key");
    branch.rollback(&undo(&call)).await.unwrap();
    assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![], 0));
}

#[tokio::test]
async fn failed_work_may_be_done_later() {
    let bank = Bank::fresh().await;
    let call = call(1, 30).await;
    bank.eyes
        .batch_execute("ALTER TABLE booking RENAME TO away")
        .await
        .unwrap();
    let failed = branch(&bank.database).prepare(&call).await;
    assert!(
        matches!(failed, Err(Failure::Retryable { .. })),
        "{failed:?}"
    );
    bank.eyes
        .batch_execute("ALTER TABLE away RENAME TO booking")
        .await
        .unwrap();
    branch(&bank.database).prepare(&call).await.unwrap();
    branch(&bank.database).commit(&second(&call)).await.unwrap();
    assert_eq!(bank.booked().await, [30]);
}

#[tokio::test]
async fn what_postgresql_cannot_prepare_is_refused() {
    let bank = Bank::fresh().await;
    let branch = bank.database.branch(|tx, _| {
        Box::pin(async move {
            tx.batch_execute("CREATE TEMPORARY TABLE scratch (n INT)")
                .await?;
            Ok(Payload::default())
        })
    });
    let refused = branch.prepare(&call(1, 30).await).await;
    assert!(is_rejected(&refused, "temporary"), "{refused:?}");
    assert_eq!(bank.in_doubt().await, 0);
}

#[tokio::test]
async fn deferred_constraints_are_checked_before_anything_is_promised() {
    let bank = Bank::fresh().await;
    let sql = "ALTER TABLE booking ADD CONSTRAINT one UNIQUE (cents) DEFERRABLE INITIALLY DEFERRED";
    bank.eyes.batch_execute(sql).await.unwrap();
    let branch = branch(&bank.database);
    let (first, twice) = (call(1, 30).await, call(2, 30).await);
    branch.prepare(&first).await.unwrap();
    branch.commit(&second(&first)).await.unwrap();
    let refused = branch.prepare(&twice).await;
    assert!(
        matches!(&refused, Err(Failure::Retryable { reason, .. }) if reason.contains("one")),
        "{refused:?}"
    );
    assert_eq!(bank.in_doubt().await, 0);
}

#[tokio::test]
async fn iterations_are_transactions_of_their_own_and_the_last_is_committed() {
    let bank = Bank::fresh().await;
    let (branch, first) = (branch(&bank.database), call(1, 30).await);
    branch.prepare(&first).await.unwrap();
    branch.rollback(&undo(&first)).await.unwrap();
    let mut again = first.clone();
    again.edit().iteration = 1;
    again.edit().input = Payload::from(json!(40));
    branch.prepare(&again).await.unwrap();
    assert!(is_rejected(
        &branch.prepare(&first).await,
        "rolled back before"
    ));
    // The saga went back to the step itself: the second phase was passed by once more.
    let mut commit = second(&again);
    commit.edit().iteration = 2;
    for _ in 0..2 {
        branch.commit(&commit).await.unwrap();
    }
    assert_eq!((bank.booked().await, bank.in_doubt().await), (vec![40], 0));
}

#[tokio::test]
async fn what_somebody_ended_by_hand_is_as_they_ended_it() {
    let bank = Bank::fresh().await;
    let branch = branch(&bank.database);
    for (number, verb) in [(1, "COMMIT"), (2, "ROLLBACK")] {
        let call = call(number, i64::from(number)).await;
        branch.prepare(&call).await.unwrap();
        let saga = call.saga.to_string().replace('-', "");
        let gid = format!("orchestra/{}/{saga}/0/take", bank.namespace);
        let sql = format!("{verb} PREPARED '{gid}'");
        bank.eyes.batch_execute(&sql).await.unwrap();
        let committed = branch.commit(&second(&call)).await;
        if number == 1 {
            assert_eq!(committed, Ok(()));
        } else {
            let reason = |failure: &Failure| format!("{failure:?}").contains("was not committed");
            assert!(committed.as_ref().is_err_and(reason), "{committed:?}");
        }
    }
    assert_eq!(bank.booked().await, [1]);
}

#[tokio::test]
async fn a_prune_leaves_what_is_prepared() {
    let bank = Bank::fresh().await;
    let branch = branch(&bank.database);
    let (ended, open) = (call(1, 30).await, call(2, 40).await);
    for call in [&ended, &open] {
        branch.prepare(call).await.unwrap();
    }
    branch.commit(&second(&ended)).await.unwrap();
    let (never, ever) = (0, 4_000_000_000 * 1_000_000_000);
    for (before, pruned) in [(never, 0), (ever, 1), (ever, 0)] {
        let before = Timestamp::from_unix_nanos(before);
        assert_eq!(bank.database.prune(before, 10).await.unwrap(), pruned);
    }
    let kept = number(branch.prepare(&open).await);
    branch.commit(&second(&open)).await.unwrap();
    assert_eq!(number(branch.prepare(&open).await), kept);
    assert_eq!(bank.booked().await, [30, 40]);
}

#[tokio::test]
async fn as_many_prepare_as_there_are_connections_and_the_others_wait() {
    let bank = Bank::fresh().await;
    let one = Database::builder(bank.namespace.clone()).connections(std::num::NonZeroUsize::MIN);
    let one = one.connect(bank.schema.config.clone()).await.unwrap();
    let mut calls = JoinSet::new();
    for number in 1..=20 {
        let (branch, call) = (branch(&one), call(number, i64::from(number)).await);
        calls.spawn(async move {
            branch.prepare(&call).await.unwrap();
            branch.commit(&second(&call)).await.unwrap();
        });
    }
    calls.join_all().await;
    let mut booked = bank.booked().await;
    booked.sort_unstable();
    assert_eq!(booked, (1..=20).collect::<Vec<_>>());
}
