//! The barrier under random interleavings, against a model.

#[cfg(feature = "tower")]
mod layer;
mod model;

use std::collections::HashMap;

use orchestra_core::Timestamp;
use orchestra_saga::barrier::sqlite::{Abort, Barrier, Barriered};
use orchestra_saga::{BarrierCall, Epoch, Error, ErrorKind, Failure, Operation};
use proptest::prelude::*;
use rusqlite::Connection;

use model::{Arrival, Model, Work, arrival, call};

fn participant() -> Connection {
    let db = Connection::open_in_memory().expect("opened");
    Barrier::install(&db).expect("installed");
    Barrier::install(&db).expect("installed twice");
    db.execute_batch("CREATE TABLE effect (saga, step, change)")
        .expect("created");
    db
}

/// The work writes its effect first and only then refuses or fails.
fn serve(tx: &Connection, arrival: Arrival, serial: i64) -> Option<Barriered<i64>> {
    let answer = Barrier::run(tx, &call(arrival), |tx| {
        let change = if arrival.op == Operation::Action {
            1
        } else {
            -1
        };
        let sql = "INSERT INTO effect VALUES (?1, ?2, ?3)";
        tx.execute(sql, (arrival.saga, arrival.step, change))?;
        match arrival.work {
            Work::Succeeds => Ok(serial),
            Work::Refuses => Err(Abort::rejected("no")),
            Work::Fails => Err(Abort::Database(rusqlite::Error::InvalidQuery)),
        }
    });
    match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Store, "{error}");
            None
        }
    }
}

fn effects(db: &Connection) -> HashMap<(u8, u8), i64> {
    let sql = "SELECT saga, step, sum(change) FROM effect GROUP BY saga, step";
    let mut sql = db.prepare(sql).expect("prepared");
    let rows = sql.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)));
    rows.expect("queried")
        .map(|row| row.expect("a row"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_interleaving_is_answered_as_by_the_model(
        arrivals in prop::collection::vec(arrival(), 1..40),
    ) {
        let mut db = participant();
        let mut model = Model::default();
        for arrival in arrivals {
            let mut next = model.clone();
            let tx = Barrier::begin(&mut db).expect("begun");
            let answer = serve(&tx, arrival, model.serial + 1);
            prop_assert_eq!(answer, next.answer(arrival), "{:?}", arrival);
            if arrival.lost {
                tx.rollback().expect("rolled back");
            } else {
                tx.commit().expect("committed");
                model = next;
            }
            let left = effects(&db);
            prop_assert_eq!(&left, &model.effects);
            prop_assert!(left.values().all(|count| (0..=1).contains(count)));
        }
    }
}

#[test]
fn a_call_that_does_nothing_fences_older_coordinators_too() {
    let arrive = |db: &mut Connection, step, op, epoch, work| {
        let arrival = Arrival {
            saga: 0,
            step,
            op,
            epoch,
            work,
            body: 0,
            lost: false,
        };
        let tx = Barrier::begin(db).expect("begun");
        let answer = serve(&tx, arrival, 1).expect("answered");
        tx.commit().expect("committed");
        answer
    };
    let (action, undo) = (Operation::Action, Operation::Compensation);

    let mut db = participant();
    arrive(&mut db, 0, undo, 1, Work::Succeeds);
    let late = arrive(&mut db, 0, action, 5, Work::Succeeds);
    assert_eq!(late, Barriered::Tombstoned);
    let older = arrive(&mut db, 1, action, 4, Work::Succeeds);
    assert_eq!(older, Barriered::Stale(Epoch(5)));

    let mut db = participant();
    arrive(&mut db, 0, action, 1, Work::Succeeds);
    let refused = arrive(&mut db, 0, undo, 5, Work::Refuses);
    assert_eq!(refused, Barriered::Rejected("no".to_owned()));
    let older = arrive(&mut db, 1, action, 4, Work::Succeeds);
    assert_eq!(older, Barriered::Stale(Epoch(5)));
}

#[test]
fn what_is_put_off_leaves_nothing_and_may_succeed_later() {
    let mut db = participant();
    let arrival = Arrival {
        saga: 0,
        step: 0,
        op: Operation::Action,
        epoch: 1,
        work: Work::Succeeds,
        body: 0,
        lost: false,
    };
    let put_off = Barrier::transact::<i64>(&mut db, &call(arrival), |tx| {
        tx.execute("INSERT INTO effect VALUES (0, 0, 1)", [])?;
        Err(Abort::retryable("no truck"))
    });
    let put_off = put_off.expect_err("put off");
    assert_eq!(put_off.kind(), ErrorKind::Busy);
    assert!(put_off.is_retryable());
    assert!(put_off.to_string().starts_with("no truck"), "{put_off}");
    assert!(db.is_autocommit());
    assert_eq!(effects(&db), HashMap::new());

    for expected in [Barriered::Applied(7), Barriered::Replayed(7)] {
        let answer = Barrier::transact(&mut db, &call(arrival), |tx| {
            tx.execute("INSERT INTO effect VALUES (0, 0, 1)", [])?;
            Ok(7)
        });
        assert_eq!(answer.expect("answered"), expected);
    }
    assert_eq!(effects(&db), HashMap::from([((0, 0), 1)]));
}

#[test]
fn a_commit_that_fails_is_in_doubt_and_not_busy() {
    let mut db = participant();
    // Deferred: the violation is found by the commit.
    db.execute_batch(
        "PRAGMA foreign_keys = ON; CREATE TABLE a (id INTEGER PRIMARY KEY);
         CREATE TABLE b (a REFERENCES a DEFERRABLE INITIALLY DEFERRED)",
    )
    .expect("created");
    let arrival = Arrival {
        saga: 0,
        step: 0,
        op: Operation::Action,
        epoch: 1,
        work: Work::Succeeds,
        body: 0,
        lost: false,
    };
    let answer = Barrier::transact(&mut db, &call(arrival), |tx| {
        tx.execute("INSERT INTO b VALUES (1)", [])?;
        Ok(())
    });
    assert_eq!(answer.expect_err("not committed").kind(), ErrorKind::Store);
    assert!(db.is_autocommit());
}

#[test]
fn a_barrier_outside_a_transaction_is_refused() {
    let db = participant();
    let arrival = Arrival {
        saga: 0,
        step: 0,
        op: Operation::Action,
        epoch: 1,
        work: Work::Succeeds,
        body: 0,
        lost: false,
    };
    let answer = Barrier::run(&db, &call(arrival), |_| Ok(1));
    assert_eq!(
        answer.expect_err("no transaction").kind(),
        ErrorKind::NoTransaction
    );
}

#[test]
fn headers_that_describe_no_call_are_refused_by_name() {
    let error = BarrierCall::from_headers(&http::HeaderMap::new()).expect_err("no headers");
    assert_eq!(error.kind(), ErrorKind::InvalidCall);
    assert!(error.to_string().contains("x-step-name"), "{error}");
}

#[test]
fn what_is_pruned_is_forgotten_and_nothing_else() {
    let mut db = participant();
    let arrive = |db: &mut Connection, saga| {
        let arrival = Arrival {
            saga,
            step: 0,
            op: Operation::Action,
            epoch: 1,
            work: Work::Succeeds,
            body: 0,
            lost: false,
        };
        let tx = Barrier::begin(db).expect("begun");
        let answer = serve(&tx, arrival, i64::from(saga)).expect("answered");
        tx.commit().expect("committed");
        answer
    };
    for saga in 0..3 {
        arrive(&mut db, saga);
    }
    // Sagas 0 and 1 were here ten and five seconds after the epoch.
    for (saga, touched) in [(0, 10_000), (1, 5_000)] {
        let sql = "UPDATE orchestra_barrier_saga SET touched = ?2
                   WHERE saga = (SELECT saga FROM orchestra_barrier_saga ORDER BY saga LIMIT 1 OFFSET ?1)";
        assert_eq!(db.execute(sql, [saga, touched]).expect("updated"), 1);
    }
    let at = |seconds: u64| Timestamp::from_unix_nanos(seconds * 1_000_000_000);
    let rows = |db: &Connection, table| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        db.query_row(&sql, [], |row| row.get(0)).expect("counted")
    };
    assert_eq!(Barrier::prune(&mut db, at(5), 10).expect("pruned"), 0);
    assert_eq!(Barrier::prune(&mut db, at(11), 1).expect("pruned"), 1);
    assert_eq!(arrive(&mut db, 0), Barriered::Replayed(0));
    assert_eq!(
        arrive(&mut db, 1),
        Barriered::Applied(1),
        "it was forgotten"
    );
    assert_eq!(arrive(&mut db, 2), Barriered::Replayed(2));
    assert_eq!(
        Barrier::prune(&mut db, Timestamp::from_unix_nanos(u64::MAX), 10).expect("pruned"),
        3
    );
    assert_eq!(rows(&db, "orchestra_barrier_saga"), 0);
    assert_eq!(rows(&db, "orchestra_barrier_record"), 0);
}

#[test]
fn an_operation_that_is_none_is_refused_by_name() {
    let mut headers = http::HeaderMap::new();
    for (name, value) in [
        ("x-saga-id", "01890000-0000-7000-8000-000000000001"),
        ("x-step-name", "charge"),
        ("x-saga-op", "do"),
        ("x-saga-epoch", "3"),
        ("idempotency-key", "k-1"),
    ] {
        headers.insert(name, value.parse().expect("visible"));
    }
    let error = BarrierCall::from_headers(&headers).expect_err("no operation");
    assert_eq!(error.kind(), ErrorKind::InvalidCall);
    assert!(error.to_string().contains("x-saga-op"), "{error}");
}

#[test]
fn a_key_with_another_body_is_refused_and_the_same_body_answered_again() {
    let mut db = participant();
    let arrival = Arrival {
        saga: 0,
        step: 0,
        op: Operation::Action,
        epoch: 1,
        work: Work::Succeeds,
        body: 0,
        lost: false,
    };
    let other = Arrival { body: 1, ..arrival };
    for (arrival, expected) in [
        (arrival, Barriered::Applied(1)),
        (other, Barriered::KeyReused),
        (arrival, Barriered::Replayed(1)),
    ] {
        let tx = Barrier::begin(&mut db).expect("begun");
        assert_eq!(serve(&tx, arrival, 1), Some(expected));
        tx.commit().expect("committed");
    }
    assert_eq!(effects(&db), HashMap::from([((0, 0), 1)]));
}

#[test]
fn tables_without_room_for_bodies_are_given_it_and_keep_their_records() {
    let mut db = Connection::open_in_memory().expect("opened");
    db.execute_batch(
        "CREATE TABLE orchestra_barrier_record (
             saga BLOB NOT NULL, step TEXT NOT NULL, iteration INTEGER NOT NULL DEFAULT 0, op TEXT NOT NULL,
             state TEXT NOT NULL, result TEXT NOT NULL, PRIMARY KEY (saga, step, iteration, op)
         ) WITHOUT ROWID;",
    )
    .expect("created");
    let arrival = Arrival {
        saga: 0,
        step: 0,
        op: Operation::Action,
        epoch: 1,
        work: Work::Succeeds,
        body: 0,
        lost: false,
    };
    let call = call(arrival);
    let row = "INSERT INTO orchestra_barrier_record VALUES (?1, ?2, ?3, 'action', 'done', '7')";
    db.execute(
        row,
        (call.saga.to_bytes(), call.step.as_str(), call.iteration),
    )
    .expect("kept");
    for _ in 0..2 {
        Barrier::install(&db).expect("installed");
        let answer = Barrier::transact(&mut db, &call, |_| Ok(8)).expect("answered");
        assert_eq!(answer, Barriered::Replayed(7));
    }
}

#[test]
fn what_a_barrier_answered_is_the_answer_of_a_step_in_code() {
    let late = "it was compensated before, and has no effect";
    let stale = "a coordinator of epoch 4 has been here";
    let reused = "another body was sent under this key before";
    let refused = || Err(Failure::rejected("no"));
    for (answer, result, probed) in [
        (Barriered::Applied(7), Ok(7), Ok(Some(7))),
        (Barriered::Replayed(7), Ok(7), Ok(Some(7))),
        (Barriered::NullCompensation, Ok(0), Ok(None)),
        (Barriered::Rejected("no".to_owned()), refused(), Ok(None)),
        (
            Barriered::Tombstoned,
            Err(Failure::rejected(late)),
            Ok(None),
        ),
        (
            Barriered::Stale(Epoch(4)),
            Err(Failure::unknown(stale)),
            Err(Failure::unknown(stale)),
        ),
        (
            Barriered::KeyReused,
            Err(Failure::unknown(reused)),
            Err(Failure::unknown(reused)),
        ),
    ] {
        assert_eq!(answer.clone().into_result(), result, "{answer:?}");
        assert_eq!(answer.clone().into_probed(), probed, "{answer:?}");
    }
    let failed = |kind| Failure::from(Error::new(kind, "the file"));
    assert_eq!(failed(ErrorKind::Busy), Failure::retryable("the file"));
    for kind in [ErrorKind::Store, ErrorKind::Corrupt, ErrorKind::InvalidCall] {
        assert_eq!(failed(kind), Failure::unknown("the file"));
    }
}
