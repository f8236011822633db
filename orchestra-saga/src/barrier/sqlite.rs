//! A barrier in the participant's own SQLite file.
//!
//! One row per saga, step and operation, written in the transaction that has the effect: both are
//! there or neither. Several processes may share the file. Begin the transaction with
//! [`Barrier::begin`]: it takes the write lock at once, so a busy file is reported before the work and
//! not in its middle, and set a `busy_timeout` on the connection; what is still busy after that is
//! [`ErrorKind::Busy`], which a participant answers as `503` with `Retry-After`.

use http::StatusCode;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BarrierCall;
use crate::error::{Error, ErrorKind, Result};
use crate::id::Epoch;
use crate::step::Operation;

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS orchestra_barrier (
    saga BLOB NOT NULL,
    step TEXT NOT NULL,
    op TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (saga, step, op)
) WITHOUT ROWID;";

/// Why the participant's own work did not happen.
#[derive(Debug)]
#[non_exhaustive]
pub enum Abort {
    /// Its rules refuse it, now and for ever; what it wrote is rolled back and the refusal recorded.
    Rejected(String),
    /// The database failed; what it wrote is rolled back and nothing is recorded.
    Database(rusqlite::Error),
}

impl Abort {
    /// A refusal by the participant's rules.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self::Rejected(reason.into())
    }
}

impl From<rusqlite::Error> for Abort {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// What the barrier did with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Barriered<T> {
    /// The work was done now.
    Applied(T),
    /// The work was done before; this is what it returned then.
    Replayed(T),
    /// The participant's rules refused it, now or before.
    Rejected(String),
    /// A compensation of an action that had no effect: nothing was undone. A late action is refused
    /// from now on.
    NullCompensation,
    /// The action comes after its compensation.
    Tombstoned,
    /// A coordinator with a higher epoch has been here.
    Stale(Epoch),
}

impl<T> Barriered<T> {
    /// The answer over HTTP: 200, 422 for a refusal, 409 for a call that came too late.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Applied(_) | Self::Replayed(_) | Self::NullCompensation => StatusCode::OK,
            Self::Rejected(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Tombstoned | Self::Stale(_) => StatusCode::CONFLICT,
        }
    }

    /// What the work returned, now or before.
    pub fn into_value(self) -> Option<T> {
        match self {
            Self::Applied(value) | Self::Replayed(value) => Some(value),
            _ => None,
        }
    }
}

/// Lets each operation of a step take effect at most once, and none after its compensation.
///
/// Laws: 1. the work of one saga, step and operation is done at most once, and repetitions are answered
/// from the record, refusals of actions too; 2. a compensation whose action had no effect does nothing
/// and refuses the action from then on; 3. an action whose compensation was done is refused; 4. a call
/// with a lower epoch than any seen for the saga is refused; 5. the record is written in the caller's
/// transaction: it is there exactly if the effect is.
///
/// A refused compensation is not recorded, so that it can succeed later.
///
/// ```
/// use orchestra_core::{IdempotencyKey, Timestamp};
/// use orchestra_saga::barrier::sqlite::{Barrier, Barriered};
/// # use orchestra_saga::BarrierCall;
/// # let headers = {
/// #     let mut headers = http::HeaderMap::new();
/// #     headers.insert("x-saga-id", "01890000-0000-7000-8000-000000000001".parse()?);
/// #     headers.insert("x-step-name", "charge".parse()?);
/// #     headers.insert("x-saga-op", "action".parse()?);
/// #     headers.insert("x-saga-epoch", "3".parse()?);
/// #     headers.insert("idempotency-key", "k-1".parse()?);
/// #     headers
/// # };
///
/// let mut db = rusqlite::Connection::open_in_memory()?;
/// Barrier::install(&db)?;
/// db.execute_batch("CREATE TABLE account (balance INTEGER); INSERT INTO account VALUES (100)")?;
///
/// let call = BarrierCall::from_headers(&headers)?;
/// for expected in [Barriered::Applied(70), Barriered::Replayed(70)] {
///     let tx = Barrier::begin(&mut db)?;
///     let answer = Barrier::run(&tx, &call, |tx| {
///         let sql = "UPDATE account SET balance = balance - 30 RETURNING balance";
///         Ok(tx.query_row(sql, [], |row| row.get::<_, i64>(0))?)
///     })?;
///     tx.commit()?;
///     assert_eq!(answer, expected);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Barrier;

impl Barrier {
    /// Creates the barrier's table unless it is there.
    pub fn install(db: &Connection) -> Result<()> {
        db.execute_batch(TABLE)
            .map_err(|source| failed("installing the table", source))
    }

    /// Begins a transaction that holds the write lock from its beginning.
    pub fn begin(db: &mut Connection) -> Result<Transaction<'_>> {
        db.transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| failed("beginning a transaction", source))
    }

    /// Does the work of a call, or says why not. `tx` is a transaction or savepoint of the caller, who
    /// commits it and answers only then.
    pub fn run<T: Serialize + DeserializeOwned>(
        tx: &Connection,
        call: &BarrierCall,
        work: impl FnOnce(&Connection) -> Result<T, Abort>,
    ) -> Result<Barriered<T>> {
        if tx.is_autocommit() {
            let message = "a barrier needs the transaction that has the effect";
            return Err(Error::new(ErrorKind::NoTransaction, message).of(call.saga));
        }
        let barrier = Attempt { tx, call };
        if let Some(newer) = barrier.newer_epoch()? {
            return Ok(Barriered::Stale(newer));
        }
        match call.op {
            Operation::Action => barrier.act(work),
            Operation::Compensation => barrier.compensate(work),
        }
    }
}

fn failed(what: &str, source: rusqlite::Error) -> Error {
    let kind = match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            ErrorKind::Busy
        }
        _ => ErrorKind::Store,
    };
    Error::new(kind, format!("barrier: {what} failed")).caused_by(source)
}

/// What the record says of an operation.
enum Record {
    Done(String),
    Rejected(String),
    /// Refused by a compensation that came first.
    Tombstone,
}

struct Attempt<'a> {
    tx: &'a Connection,
    call: &'a BarrierCall,
}

impl Attempt<'_> {
    fn act<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Abort>,
    ) -> Result<Barriered<T>> {
        if self.record(Operation::Compensation)?.is_some() {
            self.touch()?;
            return Ok(Barriered::Tombstoned);
        }
        match self.record(Operation::Action)? {
            Some(Record::Done(result)) => self.replay(&result),
            Some(Record::Rejected(reason)) => {
                self.touch()?;
                Ok(Barriered::Rejected(reason))
            }
            Some(Record::Tombstone) => Ok(Barriered::Tombstoned),
            None => self.apply(work),
        }
    }

    fn compensate<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Abort>,
    ) -> Result<Barriered<T>> {
        match self.record(Operation::Compensation)? {
            Some(Record::Done(result)) => return self.replay(&result),
            Some(Record::Rejected(_) | Record::Tombstone) => {
                self.touch()?;
                return Ok(Barriered::NullCompensation);
            }
            None => {}
        }
        if let Some(Record::Done(_)) = self.record(Operation::Action)? {
            return self.apply(work);
        }
        self.keep(Operation::Compensation, "tombstone", "null")?;
        Ok(Barriered::NullCompensation)
    }

    /// Does the work inside a savepoint and records it.
    fn apply<T: Serialize>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Abort>,
    ) -> Result<Barriered<T>> {
        self.batch("SAVEPOINT orchestra_barrier")?;
        match work(self.tx) {
            Ok(value) => {
                let result = serde_json::to_string(&value).map_err(|source| {
                    let message = "barrier: the result cannot be written";
                    Error::corrupt(message).of(self.call.saga).caused_by(source)
                });
                let kept = result.and_then(|result| self.keep(self.call.op, "done", &result));
                if kept.is_err() {
                    self.roll_back()?;
                }
                kept?;
                self.batch("RELEASE orchestra_barrier")?;
                Ok(Barriered::Applied(value))
            }
            Err(Abort::Rejected(reason)) => {
                self.roll_back()?;
                match self.call.op {
                    Operation::Action => self.keep(Operation::Action, "rejected", &reason)?,
                    // Its action has a record, which remembers the epoch.
                    Operation::Compensation => self.touch()?,
                }
                Ok(Barriered::Rejected(reason))
            }
            Err(Abort::Database(source)) => {
                self.roll_back()?;
                Err(self.failed("the work", source))
            }
        }
    }

    fn replay<T: DeserializeOwned>(&self, result: &str) -> Result<Barriered<T>> {
        self.touch()?;
        serde_json::from_str(result)
            .map(Barriered::Replayed)
            .map_err(|source| {
                let message = format!(
                    "barrier: the record of step {} cannot be read",
                    self.call.step
                );
                Error::corrupt(message).of(self.call.saga).caused_by(source)
            })
    }

    fn newer_epoch(&self) -> Result<Option<Epoch>> {
        let sql = "SELECT max(epoch) FROM orchestra_barrier WHERE saga = ?1";
        let seen: Option<i64> = self
            .tx
            .prepare_cached(sql)
            .and_then(|mut sql| sql.query_row([self.call.saga.to_bytes()], |row| row.get(0)))
            .map_err(|source| self.failed("reading the epoch", source))?;
        let seen = seen.and_then(|seen| u64::try_from(seen).ok()).map(Epoch);
        Ok(seen.filter(|seen| *seen > self.call.epoch))
    }

    fn record(&self, op: Operation) -> Result<Option<Record>> {
        let sql = "SELECT state, result FROM orchestra_barrier
                   WHERE saga = ?1 AND step = ?2 AND op = ?3";
        let values = params![
            self.call.saga.to_bytes(),
            self.call.step.as_str(),
            op.as_str()
        ];
        let found: Option<(String, String)> = self
            .tx
            .prepare_cached(sql)
            .and_then(|mut sql| {
                let row = sql.query_row(values, |row| Ok((row.get(0)?, row.get(1)?)));
                row.optional()
            })
            .map_err(|source| self.failed("reading the record", source))?;
        Ok(found.map(|(state, result)| match &*state {
            "done" => Record::Done(result),
            "rejected" => Record::Rejected(result),
            _ => Record::Tombstone,
        }))
    }

    fn keep(&self, op: Operation, state: &str, result: &str) -> Result<()> {
        let sql = "INSERT INTO orchestra_barrier (saga, step, op, epoch, state, result)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let call = self.call;
        let (saga, step) = (call.saga.to_bytes(), call.step.as_str());
        let values = params![saga, step, op.as_str(), self.epoch(), state, result];
        self.tx
            .prepare_cached(sql)
            .and_then(|mut sql| sql.execute(values))
            .map_err(|source| self.failed("recording", source))?;
        Ok(())
    }

    /// A call by a newer coordinator that writes no record fences off older ones too.
    fn touch(&self) -> Result<()> {
        let sql = "UPDATE orchestra_barrier SET epoch = ?3
                   WHERE saga = ?1 AND step = ?2 AND epoch < ?3";
        let call = self.call;
        let (saga, step) = (call.saga.to_bytes(), call.step.as_str());
        self.tx
            .prepare_cached(sql)
            .and_then(|mut sql| sql.execute(params![saga, step, self.epoch()]))
            .map_err(|source| self.failed("recording", source))?;
        Ok(())
    }

    fn epoch(&self) -> i64 {
        i64::try_from(self.call.epoch.0).unwrap_or(i64::MAX)
    }

    fn roll_back(&self) -> Result<()> {
        self.batch("ROLLBACK TO orchestra_barrier; RELEASE orchestra_barrier")
    }

    fn batch(&self, sql: &str) -> Result<()> {
        self.tx
            .execute_batch(sql)
            .map_err(|source| self.failed("a savepoint", source))
    }

    fn failed(&self, what: &str, source: rusqlite::Error) -> Error {
        failed(what, source).of(self.call.saga)
    }
}
