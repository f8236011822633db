//! The barrier under random interleavings, against a model.

use std::collections::HashMap;

use orchestra_core::Timestamp;
use orchestra_saga::barrier::sqlite::{Abort, Barrier, Barriered};
use orchestra_saga::{BarrierCall, Epoch, ErrorKind, Operation, SagaId};
use proptest::prelude::*;
use rusqlite::Connection;

/// What the participant's own work does.
#[derive(Debug, Clone, Copy)]
enum Work {
    Succeeds,
    Refuses,
    Fails,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    saga: u8,
    step: u8,
    op: Operation,
    epoch: u64,
    work: Work,
    /// Whether the participant dies before it commits.
    lost: bool,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let op = prop_oneof![Just(Operation::Action), Just(Operation::Compensation)];
    let work = prop_oneof![
        3 => Just(Work::Succeeds),
        1 => Just(Work::Refuses),
        1 => Just(Work::Fails),
    ];
    (0..2u8, 0..2u8, op, 1..4u64, work, prop::bool::weighted(0.1)).prop_map(
        |(saga, step, op, epoch, work, lost)| Arrival {
            saga,
            step,
            op,
            epoch,
            work,
            lost,
        },
    )
}

fn call(arrival: Arrival) -> BarrierCall {
    let saga = SagaId::from_parts(Timestamp::UNIX_EPOCH, u128::from(arrival.saga));
    let mut headers = http::HeaderMap::new();
    let mut put = |name: &'static str, value: String| {
        headers.insert(name, value.parse().expect("visible"));
    };
    put("x-saga-id", saga.to_string());
    put("x-step-name", format!("step-{}", arrival.step));
    put("x-saga-op", arrival.op.to_string());
    put("x-saga-epoch", Epoch(arrival.epoch).to_string());
    put("idempotency-key", "key".to_owned());
    BarrierCall::from_headers(&headers).expect("complete")
}

/// What has been recorded, said plainly.
#[derive(Debug, Default, Clone)]
struct Model {
    epochs: HashMap<u8, u64>,
    records: HashMap<(u8, u8, Operation), Kept>,
    effects: HashMap<(u8, u8), i64>,
    serial: i64,
}

#[derive(Debug, Clone, PartialEq)]
enum Kept {
    Done(i64),
    Refused,
    Nothing,
}

impl Model {
    fn answer(&mut self, arrival: Arrival) -> Option<Barriered<i64>> {
        let Arrival { saga, step, op, .. } = arrival;
        let seen = self.epochs.get(&saga).copied().unwrap_or_default();
        if arrival.epoch < seen {
            return Some(Barriered::Stale(Epoch(seen)));
        }
        let undone = self.records.get(&(saga, step, Operation::Compensation));
        if op == Operation::Action && undone.is_some() {
            self.epochs.insert(saga, arrival.epoch);
            return Some(Barriered::Tombstoned);
        }
        let done = self.records.get(&(saga, step, Operation::Action)).cloned();
        let answer = match self.records.get(&(saga, step, op)) {
            Some(Kept::Done(value)) => Barriered::Replayed(*value),
            Some(Kept::Refused) => Barriered::Rejected("no".to_owned()),
            Some(Kept::Nothing) => Barriered::NullCompensation,
            None if op == Operation::Compensation && !matches!(done, Some(Kept::Done(_))) => {
                self.records.insert((saga, step, op), Kept::Nothing);
                Barriered::NullCompensation
            }
            None => match arrival.work {
                Work::Fails => return None,
                Work::Refuses if op == Operation::Action => {
                    self.records.insert((saga, step, op), Kept::Refused);
                    Barriered::Rejected("no".to_owned())
                }
                // A refused compensation leaves no record, so it can succeed later.
                Work::Refuses => Barriered::Rejected("no".to_owned()),
                Work::Succeeds => {
                    self.serial += 1;
                    self.records
                        .insert((saga, step, op), Kept::Done(self.serial));
                    let change = if op == Operation::Action { 1 } else { -1 };
                    *self.effects.entry((saga, step)).or_default() += change;
                    Barriered::Applied(self.serial)
                }
            },
        };
        self.epochs.insert(saga, arrival.epoch);
        Some(answer)
    }
}

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
fn a_barrier_outside_a_transaction_is_refused() {
    let db = participant();
    let arrival = Arrival {
        saga: 0,
        step: 0,
        op: Operation::Action,
        epoch: 1,
        work: Work::Succeeds,
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
