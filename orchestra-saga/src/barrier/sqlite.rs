//! A barrier in the participant's own SQLite file.
//!
//! Two tables: a row per saga with the highest epoch, and one per step and operation, written in the
//! transaction that has the effect. Several processes may share the file. [`Barrier::transact`] is all that most
//! need. In a transaction of your own, begin with [`Barrier::begin`], which takes the write lock at once, so that
//! a busy file is reported before the work and not in its middle; ask [`Barrier::run`], and commit. Set a
//! `busy_timeout` on the connection: what is still busy after that is [`ErrorKind::Busy`], which a
//! participant answers as `503` with `Retry-After`.

use orchestra_core::Timestamp;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BarrierCall;
pub use super::Barriered;
use super::verdict::{self, Kept, Record, Seen, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::id::Epoch;
use crate::sql;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS orchestra_barrier_saga (
    saga BLOB NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    touched INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS orchestra_barrier_saga_touched ON orchestra_barrier_saga (touched);
CREATE TABLE IF NOT EXISTS orchestra_barrier_record (
    saga BLOB NOT NULL,
    step TEXT NOT NULL,
    iteration INTEGER NOT NULL DEFAULT 0,
    op TEXT NOT NULL,
    state TEXT NOT NULL,
    result TEXT NOT NULL,
    body BLOB,
    PRIMARY KEY (saga, step, iteration, op)
) WITHOUT ROWID;";

/// Why the participant's own work did not happen.
pub type Abort = super::Abort<rusqlite::Error>;

/// Lets each operation of a step take effect at most once, and none after its compensation; the laws
/// are those of [`barrier`](super).
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
///     let answer = Barrier::transact(&mut db, &call, |tx| {
///         let sql = "UPDATE account SET balance = balance - 30 RETURNING balance";
///         Ok(tx.query_row(sql, [], |row| row.get::<_, i64>(0))?)
///     })?;
///     assert_eq!(answer, expected);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Barrier;

impl Barrier {
    /// Creates the barrier's tables unless they are there, and adds to older ones what they lack.
    pub fn install(db: &Connection) -> Result<()> {
        db.execute_batch(TABLES)
            .and_then(|()| add_body(db))
            .map_err(|source| failed("installing the tables", source))
    }

    /// Begins a transaction that holds the write lock from its beginning.
    pub fn begin(db: &mut Connection) -> Result<Transaction<'_>> {
        db.transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| failed("beginning a transaction", source))
    }

    /// Does the work of a call, or says why not, in a transaction of its own that is over when this returns:
    /// what [`respond`](super::layer::respond) makes of the result is the answer to give.
    ///
    /// An error says that nothing happened, unless it comes of the commit: then nobody knows, and it is
    /// [`ErrorKind::Store`], never [`ErrorKind::Busy`].
    pub fn transact<T: Serialize + DeserializeOwned>(
        db: &mut Connection,
        call: &BarrierCall,
        work: impl FnOnce(&Connection) -> Result<T, Abort>,
    ) -> Result<Barriered<T>> {
        let tx = Self::begin(db)?;
        // What is dropped is rolled back.
        let answer = Self::run(&tx, call, work)?;
        tx.commit().map_err(|source| {
            let message = "barrier: whether the transaction was committed is not known";
            Error::new(ErrorKind::Store, message)
                .of(call.saga)
                .caused_by(source)
        })?;
        Ok(answer)
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
        let rows = Rows { tx, call };
        match verdict::decide(call, &rows.see()?) {
            Verdict::Answer(answer) => answer.read(call),
            Verdict::Bury => {
                rows.keep(&Record::Tombstone)?;
                Ok(verdict::buried(call.op))
            }
            Verdict::Work => rows.apply(work),
        }
    }

    /// Forgets at most `limit` sagas whose last call came before that moment, by the clock of this
    /// machine, and says how many; see [`barrier`](super) for what that risks.
    pub fn prune(db: &mut Connection, before: Timestamp, limit: u32) -> Result<usize> {
        let tx = Self::begin(db)?;
        let before = i64::try_from(before.as_unix_millis()).unwrap_or(i64::MAX);
        let old = "SELECT saga FROM orchestra_barrier_saga WHERE touched < ?1
                   ORDER BY touched, saga LIMIT ?2";
        let records = format!("DELETE FROM orchestra_barrier_record WHERE saga IN ({old})");
        let sagas = format!("DELETE FROM orchestra_barrier_saga WHERE saga IN ({old})");
        tx.execute(&records, params![before, limit])
            .and_then(|_records| tx.execute(&sagas, params![before, limit]))
            .and_then(|pruned| tx.commit().map(|()| pruned))
            .map_err(|source| failed("pruning", source))
    }
}

/// Tables of before the bodies were compared have no room for their hashes.
fn add_body(db: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('orchestra_barrier_record') WHERE name = 'body')";
    let has_body = || db.query_row(sql, [], |row| row.get::<_, bool>(0));
    if has_body()? {
        return Ok(());
    }
    match db.execute_batch("ALTER TABLE orchestra_barrier_record ADD COLUMN body BLOB") {
        // Somebody else did it meanwhile.
        Err(_) if has_body()? => Ok(()),
        added => added,
    }
}

fn failed(what: &str, source: rusqlite::Error) -> Error {
    Error::new(sql::sqlite_kind(&source), format!("barrier: {what} failed")).caused_by(source)
}

/// The rows of a call.
struct Rows<'a> {
    tx: &'a Connection,
    call: &'a BarrierCall,
}

impl Rows<'_> {
    fn see(&self) -> Result<Seen> {
        Ok(Seen {
            epoch: self.touch()?,
            kept: self.kept()?,
        })
    }

    /// Says that the saga was here, and returns the highest epoch that ever was.
    fn touch(&self) -> Result<Epoch> {
        let sql = "INSERT INTO orchestra_barrier_saga AS seen (saga, epoch, touched)
                   VALUES (?1, ?2, CAST(unixepoch('subsec') * 1000 AS INTEGER))
                   ON CONFLICT (saga) DO UPDATE
                   SET epoch = max(seen.epoch, excluded.epoch), touched = excluded.touched
                   RETURNING epoch";
        let epoch = i64::try_from(self.call.epoch.0).unwrap_or(i64::MAX);
        let values = params![self.call.saga.to_bytes(), epoch];
        let highest: i64 = self
            .tx
            .prepare_cached(sql)
            .and_then(|mut sql| sql.query_row(values, |row| row.get(0)))
            .map_err(|source| self.failed("fencing", source))?;
        Ok(Epoch(u64::try_from(highest).unwrap_or_default()))
    }

    fn kept(&self) -> Result<Vec<Kept>> {
        let sql = "SELECT op, state, result, body FROM orchestra_barrier_record
                   WHERE saga = ?1 AND step = ?2 AND iteration = ?3";
        let step = self.call.step.as_str();
        let values = params![self.call.saga.to_bytes(), step, self.call.iteration];
        let rows = self.tx.prepare_cached(sql).and_then(|mut sql| {
            let row = |row: &Row<'_>| {
                let texts: (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((texts, row.get(3)?))
            };
            sql.query_map(values, row)?
                .collect::<rusqlite::Result<Vec<_>>>()
        });
        rows.map_err(|source| self.failed("reading the record", source))?
            .into_iter()
            .map(|((op, state, result), body)| Kept::read(self.call, (op, &state, result), body))
            .collect()
    }

    /// Does the work inside a savepoint and records it.
    fn apply<T: Serialize>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Abort>,
    ) -> Result<Barriered<T>> {
        self.batch("SAVEPOINT orchestra_barrier")?;
        let failed = match work(self.tx) {
            Ok(value) => {
                let kept = verdict::done(self.call, &value).and_then(|record| self.keep(&record));
                match kept {
                    Ok(()) => {
                        self.batch("RELEASE orchestra_barrier")?;
                        return Ok(Barriered::Applied(value));
                    }
                    Err(error) => error,
                }
            }
            Err(Abort::Rejected(reason)) => {
                self.roll_back()?;
                if let Some(record) = verdict::refusal(self.call.op, &reason) {
                    self.keep(&record)?;
                }
                return Ok(Barriered::Rejected(reason));
            }
            Err(Abort::Retryable(reason)) => Error::new(ErrorKind::Busy, reason).of(self.call.saga),
            Err(Abort::Database(source)) => self.failed("the work", source),
        };
        self.roll_back()?;
        Err(failed)
    }

    fn keep(&self, record: &Record) -> Result<()> {
        let sql =
            "INSERT INTO orchestra_barrier_record (saga, step, iteration, op, state, result, body)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let call = self.call;
        let (saga, step, op) = (call.saga.to_bytes(), call.step.as_str(), call.op.as_str());
        let values = params![
            saga,
            step,
            call.iteration,
            op,
            record.state(),
            record.result(),
            call.body,
        ];
        self.tx
            .prepare_cached(sql)
            .and_then(|mut sql| sql.execute(values))
            .map_err(|source| self.failed("recording", source))?;
        Ok(())
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
