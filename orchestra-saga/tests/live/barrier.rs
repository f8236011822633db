//! The barrier in a real PostgreSQL.

use std::collections::HashMap;
use std::time::Duration;

use orchestra_core::Timestamp;
use orchestra_saga::barrier::postgres::{Abort, Barrier, Barriered};
use orchestra_saga::{Epoch, ErrorKind, Operation};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::task::JoinSet;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::schema::Schema;

#[path = "../it/barrier/model.rs"]
#[expect(clippy::expect_used, reason = "a test fails by panicking")]
mod model;

use model::{Arrival, Model, Work, arrival, call};

async fn participant() -> (Schema, Client) {
    let mut schema = Schema::fresh().await;
    let client = schema.connect().await;
    Barrier::install(&client).await.unwrap();
    let sql = "CREATE TABLE effect (saga INT, step INT, change INT)";
    client.batch_execute(sql).await.unwrap();
    (schema, client)
}

/// The work writes its effect first and only then refuses or fails.
async fn serve(
    tx: &Transaction<'_>,
    arrival: Arrival,
    serial: i64,
) -> orchestra_saga::Result<Barriered<i64>> {
    Barrier::run(tx, &call(arrival), async {
        let change = if arrival.op == Operation::Action {
            1
        } else {
            -1
        };
        let sql = "INSERT INTO effect VALUES ($1, $2, $3)";
        let (saga, step) = (i32::from(arrival.saga), i32::from(arrival.step));
        tx.execute(sql, &[&saga, &step, &change]).await?;
        match arrival.work {
            Work::Succeeds => Ok(serial),
            Work::Refuses => Err(Abort::rejected("no")),
            Work::Fails => Ok(tx.query_one("SELECT 1 / 0::bigint", &[]).await?.get(0)),
        }
    })
    .await
}

const fn asks(saga: u8, op: Operation, epoch: u64) -> Arrival {
    Arrival {
        saga,
        step: 0,
        op,
        epoch,
        work: Work::Succeeds,
        body: 0,
        lost: false,
    }
}

async fn effects(db: &Client) -> HashMap<(u8, u8), i64> {
    let sql = "SELECT saga, step, sum(change) FROM effect GROUP BY saga, step";
    let small = |number: i32| u8::try_from(number).unwrap();
    let rows = db.query(sql, &[]).await.unwrap();
    rows.iter()
        .map(|row| ((small(row.get(0)), small(row.get(1))), row.get(2)))
        .collect()
}

#[test]
fn any_interleaving_is_answered_as_by_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (_schema, db) = runtime.block_on(participant());
    let db = std::cell::RefCell::new(db);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(60));
    let arrivals = prop::collection::vec(arrival(), 1..30);
    let outcome = runner.run(&arrivals, |arrivals| {
        let mut db = db.borrow_mut();
        runtime.block_on(async {
            let sql = "TRUNCATE orchestra_barrier_saga, orchestra_barrier_record, effect";
            db.batch_execute(sql).await.unwrap();
            let mut model = Model::default();
            for arrival in arrivals {
                let mut next = model.clone();
                let tx = db.transaction().await.unwrap();
                let answer = serve(&tx, arrival, model.serial + 1).await;
                let answer = answer.map_err(|error| assert_eq!(error.kind(), ErrorKind::Store));
                prop_assert_eq!(answer.ok(), next.answer(arrival), "{:?}", arrival);
                if arrival.lost {
                    tx.rollback().await.unwrap();
                } else {
                    tx.commit().await.unwrap();
                    model = next;
                }
            }
            prop_assert_eq!(effects(&db).await, model.effects);
            Ok(())
        })
    });
    outcome.unwrap();
}

/// Serves it in a transaction and commits.
async fn commit(db: &mut Client, arrival: Arrival, serial: i64) -> Barriered<i64> {
    let tx = db.transaction().await.unwrap();
    let answer = serve(&tx, arrival, serial).await.unwrap();
    tx.commit().await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_at_once_have_one_effect_and_one_answer() {
    let (mut schema, db) = participant().await;
    let mut calls = JoinSet::new();
    for serial in 0..12 {
        let mut db = schema.connect().await;
        calls.spawn(async move {
            let mut answers = Vec::new();
            for saga in 0..10 {
                answers.push(commit(&mut db, asks(saga, Operation::Action, 1), serial).await);
            }
            answers
        });
    }
    let all = calls.join_all().await;
    for saga in 0..10 {
        let answers: Vec<_> = all.iter().map(|answers| answers[saga].clone()).collect();
        let applied = |answer: &&Barriered<i64>| matches!(answer, Barriered::Applied(_));
        assert_eq!(answers.iter().filter(applied).count(), 1, "{answers:?}");
        let values: Vec<_> = answers
            .into_iter()
            .map(|answer| answer.into_value().unwrap())
            .collect();
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    }
    let effects = effects(&db).await;
    assert_eq!(effects.len(), 10);
    assert!(effects.values().all(|count| *count == 1), "{effects:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_and_its_compensation_at_once_leave_nothing() {
    let (mut schema, db) = participant().await;
    let mut calls = JoinSet::new();
    for op in [Operation::Action, Operation::Compensation] {
        for _ in 0..3 {
            let mut db = schema.connect().await;
            calls.spawn(async move {
                for saga in 0..60 {
                    let answer = commit(&mut db, asks(saga, op, 1), 1).await;
                    assert!(!matches!(
                        answer,
                        Barriered::Rejected(_) | Barriered::Stale(_)
                    ));
                }
            });
        }
    }
    calls.join_all().await;
    let effects = effects(&db).await;
    assert!(effects.values().all(|count| *count == 0), "{effects:?}");
}

/// What happens to a second call while the first has not ended, and then it ends in this way.
async fn second(first: Arrival, second: Arrival, commits: bool) -> Barriered<i64> {
    let (mut schema, mut db) = participant().await;
    let mut other = schema.connect().await;
    let tx = db.transaction().await.unwrap();
    serve(&tx, first, 1).await.unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { commit(&mut other, second, 2).await });
    let early = tokio::time::timeout(Duration::from_millis(300), waiting.join_next()).await;
    assert!(early.is_err(), "the second did not wait: {early:?}");
    if commits {
        tx.commit().await.unwrap();
    } else {
        tx.rollback().await.unwrap();
    }
    waiting.join_next().await.unwrap().unwrap()
}

#[tokio::test]
async fn a_call_waits_for_the_one_before_and_sees_what_became_of_it() {
    let action = asks(0, Operation::Action, 2);
    let undo = asks(0, Operation::Compensation, 2);
    assert_eq!(second(action, action, true).await, Barriered::Replayed(1));
    assert_eq!(second(action, action, false).await, Barriered::Applied(2));
    assert_eq!(second(action, undo, true).await, Barriered::Applied(2));
    assert_eq!(
        second(action, undo, false).await,
        Barriered::NullCompensation
    );
    assert_eq!(second(undo, action, true).await, Barriered::Tombstoned);
    assert_eq!(second(undo, action, false).await, Barriered::Applied(2));
    let older = Arrival {
        step: 1,
        epoch: 1,
        ..action
    };
    assert_eq!(
        second(action, older, true).await,
        Barriered::Stale(Epoch(2))
    );
    assert_eq!(second(action, older, false).await, Barriered::Applied(2));
}

#[tokio::test]
async fn under_stricter_isolation_the_later_is_busy() {
    let (mut schema, mut db) = participant().await;
    let mut other = schema.connect().await;
    commit(&mut db, asks(0, Operation::Compensation, 1), 1).await;
    let builder = other.build_transaction();
    let strict = builder.isolation_level(IsolationLevel::RepeatableRead);
    let tx = strict.start().await.unwrap();
    // The snapshot is taken by the first statement.
    tx.query("SELECT 1", &[]).await.unwrap();
    commit(&mut db, asks(0, Operation::Action, 2), 1).await;
    let refused = serve(&tx, asks(0, Operation::Action, 2), 2).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy);
}

#[tokio::test]
async fn failed_work_leaves_the_transaction_usable_and_no_record() {
    let (_schema, mut db) = participant().await;
    let tx = db.transaction().await.unwrap();
    let mut fails = asks(0, Operation::Action, 1);
    fails.work = Work::Fails;
    let error = serve(&tx, fails, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    let again = serve(&tx, asks(0, Operation::Action, 1), 2).await.unwrap();
    assert_eq!(again, Barriered::Applied(2));
    tx.commit().await.unwrap();
    assert_eq!(effects(&db).await, HashMap::from([((0, 0), 1)]));
}

#[tokio::test]
async fn a_prune_forgets_what_is_old_and_leaves_what_is_in_use() {
    let (mut schema, mut db) = participant().await;
    for saga in 0..3 {
        commit(&mut db, asks(saga, Operation::Action, 1), 1).await;
    }
    let mut other = schema.connect().await;
    let tx = other.transaction().await.unwrap();
    serve(&tx, asks(1, Operation::Action, 1), 2).await.unwrap();
    let never = Timestamp::UNIX_EPOCH;
    let ever = Timestamp::from_unix_nanos(4_000_000_000 * 1_000_000_000);
    assert_eq!(Barrier::prune(&db, never, 10).await.unwrap(), 0);
    assert_eq!(Barrier::prune(&db, ever, 1).await.unwrap(), 1);
    let rest = Barrier::prune(&db, ever, 10);
    let rest = tokio::time::timeout(Duration::from_secs(10), rest).await;
    assert_eq!(rest.unwrap().unwrap(), 1);
    tx.commit().await.unwrap();
    let kept = commit(&mut db, asks(1, Operation::Action, 1), 3).await;
    assert_eq!(kept, Barriered::Replayed(1));
    let forgotten = commit(&mut db, asks(0, Operation::Action, 1), 3).await;
    assert_eq!(forgotten, Barriered::Applied(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_may_install_at_once() {
    let mut schema = Schema::fresh().await;
    let mut installs = JoinSet::new();
    for _ in 0..8 {
        let db = schema.connect().await;
        installs.spawn(async move { Barrier::install(&db).await.map_err(|e| format!("{e:?}")) });
    }
    assert_eq!(installs.join_all().await, vec![Ok(()); 8]);
}

/// Writes an effect and returns the serial.
async fn transact(
    db: &mut Client,
    arrival: Arrival,
    serial: i64,
) -> orchestra_saga::Result<Barriered<i64>> {
    Barrier::transact(db, &call(arrival), async |tx| {
        tx.execute("INSERT INTO effect VALUES (0, 0, 1)", &[])
            .await?;
        Ok(serial)
    })
    .await
}

#[tokio::test]
async fn a_transaction_of_the_barrier_is_over_when_it_has_answered() {
    let (mut schema, mut db) = participant().await;
    let other = schema.connect().await;
    let action = asks(0, Operation::Action, 1);
    let mut serving = JoinSet::new();
    // A server spawns what serves a call.
    serving.spawn(async move {
        let applied = transact(&mut db, action, 7).await.unwrap();
        (db, applied)
    });
    let (mut db, applied) = serving.join_next().await.unwrap().unwrap();
    assert_eq!(applied, Barriered::Applied(7));
    assert_eq!(effects(&other).await, HashMap::from([((0, 0), 1)]));
    let again = transact(&mut db, action, 8).await.unwrap();
    assert_eq!(again, Barriered::Replayed(7));
    assert_eq!(effects(&other).await, HashMap::from([((0, 0), 1)]));
}

#[tokio::test]
async fn what_is_put_off_leaves_nothing_and_may_succeed_later() {
    let (mut schema, mut db) = participant().await;
    let mut other = schema.connect().await;
    let action = asks(0, Operation::Action, 1);
    let called = call(action);
    let put_off = Barrier::transact::<i64>(&mut db, &called, async |tx| {
        tx.execute("INSERT INTO effect VALUES (0, 0, 1)", &[])
            .await?;
        Err(Abort::retryable("no truck"))
    });
    let put_off = put_off.await.unwrap_err();
    assert_eq!(put_off.kind(), ErrorKind::Busy);
    assert!(put_off.to_string().starts_with("no truck"), "{put_off}");
    assert_eq!(effects(&other).await, HashMap::new());
    let records = "SELECT count(*) FROM orchestra_barrier_saga";
    let count: i64 = other.query_one(records, &[]).await.unwrap().get(0);
    assert_eq!(count, 0, "nothing was recorded");

    // The row of the saga is not held any more, so somebody else gets on at once.
    let served = transact(&mut other, action, 7);
    let served = tokio::time::timeout(Duration::from_secs(10), served).await;
    assert_eq!(served.unwrap().unwrap(), Barriered::Applied(7));
    let again = transact(&mut db, action, 8).await.unwrap();
    assert_eq!(again, Barriered::Replayed(7));
    assert_eq!(effects(&other).await, HashMap::from([((0, 0), 1)]));
}

#[tokio::test]
async fn a_commit_that_fails_is_in_doubt_and_not_busy() {
    let (_schema, mut db) = participant().await;
    // Deferred: the violation is found by the commit.
    let sql = "CREATE TABLE a (id INT PRIMARY KEY);
               CREATE TABLE b (a INT REFERENCES a DEFERRABLE INITIALLY DEFERRED)";
    db.batch_execute(sql).await.unwrap();
    let action = call(asks(0, Operation::Action, 1));
    let answer = Barrier::transact(&mut db, &action, async |tx| {
        tx.execute("INSERT INTO b VALUES (1)", &[]).await?;
        Ok(())
    });
    assert_eq!(answer.await.unwrap_err().kind(), ErrorKind::Store);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_and_the_same_body_answered_again() {
    let (_schema, mut db) = participant().await;
    let action = asks(0, Operation::Action, 1);
    let other = Arrival { body: 1, ..action };
    for (arrival, expected) in [
        (action, Barriered::Applied(1)),
        (other, Barriered::KeyReused),
        (action, Barriered::Replayed(1)),
    ] {
        assert_eq!(transact(&mut db, arrival, 1).await.unwrap(), expected);
    }
    assert_eq!(effects(&db).await, HashMap::from([((0, 0), 1)]));
}

#[tokio::test]
async fn tables_without_room_for_bodies_are_given_it_and_keep_their_records() {
    let (_schema, mut db) = participant().await;
    let action = asks(0, Operation::Action, 1);
    transact(&mut db, action, 1).await.unwrap();
    let before = "ALTER TABLE orchestra_barrier_record DROP COLUMN body";
    db.batch_execute(before).await.unwrap();
    for _ in 0..2 {
        Barrier::install(&db).await.unwrap();
        let answer = transact(&mut db, action, 2).await.unwrap();
        assert_eq!(answer, Barriered::Replayed(1));
    }
}
