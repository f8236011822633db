//! A barrier in the participant's own PostgreSQL database.
//!
//! The same two tables as in SQLite. The row of the saga is inserted or updated first, which locks it:
//! of two calls of a saga that arrive at once, the second waits in its `INSERT … ON CONFLICT` until the
//! first has committed or rolled back, and only then reads the records, in a statement (and so, under
//! `READ COMMITTED`, a snapshot) of its own. Under stricter isolation the second fails to serialize
//! instead, which is [`ErrorKind::Busy`]: roll back and repeat, or answer `503`
//! with `Retry-After`.
//!
//! [`Barrier::transact`] is all that most need; in a transaction of your own, ask [`Barrier::run`] and commit.
//!
//! Ask the barrier before you lock rows of your own: a transaction that holds them and then waits for
//! the saga's row can be in a deadlock with one that goes the other way. (PostgreSQL ends one of the two,
//! which is `Busy` again.)

use std::pin::pin;
use std::time::SystemTime;

use futures_util::future::try_join;
use orchestra_core::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, GenericClient, Row, Transaction};
use uuid::Uuid;

use super::BarrierCall;
pub use super::Barriered;
use super::verdict::{self, Kept, Record, Seen, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::id::Epoch;
use crate::sql;

/// Two that install at once would both find nothing there, hence the lock.
const TABLES: &str = "
SELECT pg_advisory_xact_lock(hashtext('orchestra_barrier'));
CREATE TABLE IF NOT EXISTS orchestra_barrier_saga (
    saga UUID PRIMARY KEY,
    epoch BIGINT NOT NULL,
    touched TIMESTAMPTZ NOT NULL
);
CREATE INDEX IF NOT EXISTS orchestra_barrier_saga_touched ON orchestra_barrier_saga (touched);
CREATE TABLE IF NOT EXISTS orchestra_barrier_record (
    saga UUID NOT NULL,
    step TEXT NOT NULL,
    iteration INTEGER NOT NULL DEFAULT 0,
    op TEXT NOT NULL,
    state TEXT NOT NULL,
    result TEXT NOT NULL,
    body BYTEA,
    PRIMARY KEY (saga, step, iteration, op)
);
-- Tables of before the bodies were compared have no room for their hashes. Only those are locked.
DO $$ BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'orchestra_barrier_record'::regclass AND attname = 'body' AND NOT attisdropped
    ) THEN
        ALTER TABLE orchestra_barrier_record ADD COLUMN body BYTEA;
    END IF;
END $$;";

/// Why the participant's own work did not happen.
pub type Abort = super::Abort<tokio_postgres::Error>;

/// Lets each operation of a step take effect at most once, and none after its compensation; the laws
/// are those of [`barrier`](super).
///
/// ```no_run
/// use orchestra_saga::BarrierCall;
/// use orchestra_saga::barrier::postgres::{Barrier, Barriered};
///
/// # async fn serve(
/// #     db: &mut tokio_postgres::Client,
/// #     headers: http::HeaderMap,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// Barrier::install(db).await?;
/// let call = BarrierCall::from_headers(&headers)?;
///
/// let answer: Barriered<i64> = Barrier::transact(db, &call, async |tx| {
///     let sql = "UPDATE account SET balance = balance - 30 RETURNING balance";
///     Ok(tx.query_one(sql, &[]).await?.get(0))
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Barrier;

impl Barrier {
    /// Creates the barrier's tables unless they are there, and adds to older ones what they lack.
    pub async fn install(db: &impl GenericClient) -> Result<()> {
        db.batch_execute(TABLES)
            .await
            .map_err(|source| failed("installing the tables", source))
    }

    /// Does the work of a call, or says why not, in a transaction of its own that is over when this returns:
    /// what [`respond`](super::layer::respond) makes of the result is the answer to give.
    ///
    /// An error says that nothing happened, unless it comes of the commit: then nobody knows, and it is
    /// [`ErrorKind::Store`], never [`ErrorKind::Busy`].
    ///
    /// Cancel: before the commit it is rolled back; within it nobody knows.
    pub async fn transact<T: Serialize + DeserializeOwned>(
        db: &mut Client,
        call: &BarrierCall,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, Abort>,
    ) -> Result<Barriered<T>> {
        let tx = db
            .transaction()
            .await
            .map_err(|source| failed("beginning a transaction", source).of(call.saga))?;
        let answer = match Self::run(&tx, call, work(&tx)).await {
            Ok(answer) => answer,
            Err(error) => {
                // Its locks are gone when this returns. What failed is what the caller must hear of.
                let _gone = tx.rollback().await.is_err();
                return Err(error);
            }
        };
        tx.commit().await.map_err(|source| {
            let message = "barrier: whether the transaction was committed is not known";
            Error::new(ErrorKind::Store, message)
                .of(call.saga)
                .caused_by(source)
        })?;
        Ok(answer)
    }

    /// Does the work of a call, or says why not. The future is polled only if the work is to be done,
    /// inside a savepoint of `tx`; the caller commits `tx` and answers only then.
    ///
    /// Cancel: the savepoint stays open, so roll the transaction back (dropping it does).
    pub async fn run<T: Serialize + DeserializeOwned>(
        tx: &Transaction<'_>,
        call: &BarrierCall,
        work: impl Future<Output = Result<T, Abort>>,
    ) -> Result<Barriered<T>> {
        let rows = Rows { tx, call };
        match verdict::decide(call, &rows.see().await?) {
            Verdict::Answer(answer) => answer.read(call),
            Verdict::Bury => {
                rows.keep(&Record::Tombstone).await?;
                Ok(verdict::buried(call.op))
            }
            Verdict::Work => rows.apply(work).await,
        }
    }

    /// Forgets at most `limit` sagas whose last call came before that moment, by the clock of the
    /// database, and says how many; see [`barrier`](super) for what that risks. Sagas with a call in
    /// progress are left alone.
    pub async fn prune(db: &impl GenericClient, before: Timestamp, limit: u32) -> Result<u64> {
        let sql = "
            WITH old AS (
                SELECT saga FROM orchestra_barrier_saga WHERE touched < $1
                ORDER BY touched LIMIT $2 FOR UPDATE SKIP LOCKED
            ), records AS (
                DELETE FROM orchestra_barrier_record AS record USING old
                WHERE record.saga = old.saga
            )
            DELETE FROM orchestra_barrier_saga AS seen USING old WHERE seen.saga = old.saga";
        let before = SystemTime::UNIX_EPOCH + before.since(Timestamp::UNIX_EPOCH);
        db.execute_typed(
            sql,
            &[
                (&before, Type::TIMESTAMPTZ),
                (&i64::from(limit), Type::INT8),
            ],
        )
        .await
        .map_err(|source| failed("pruning", source))
    }
}

fn failed(what: &str, source: tokio_postgres::Error) -> Error {
    Error::new(
        sql::postgres_kind(&source),
        format!("barrier: {what} failed"),
    )
    .caused_by(source)
}

/// The rows of a call.
struct Rows<'a> {
    tx: &'a Transaction<'a>,
    call: &'a BarrierCall,
}

impl Rows<'_> {
    /// Locks the saga and reads; both statements travel together, and the second begins when the first
    /// has the lock.
    async fn see(&self) -> Result<Seen> {
        let (epoch, kept) = try_join(self.touch(), self.kept()).await?;
        Ok(Seen { epoch, kept })
    }

    /// Says that the saga was here, and returns the highest epoch that ever was.
    async fn touch(&self) -> Result<Epoch> {
        let sql = "INSERT INTO orchestra_barrier_saga AS seen (saga, epoch, touched)
                   VALUES ($1, $2, now())
                   ON CONFLICT (saga) DO UPDATE
                   SET epoch = greatest(seen.epoch, excluded.epoch), touched = excluded.touched
                   RETURNING epoch";
        let epoch = i64::try_from(self.call.epoch.0).unwrap_or(i64::MAX);
        let row = self
            .tx
            .query_typed_one(sql, &[(&self.saga(), Type::UUID), (&epoch, Type::INT8)])
            .await
            .and_then(|row| row.try_get::<_, i64>(0));
        let highest = row.map_err(|source| self.failed("fencing", source))?;
        Ok(Epoch(u64::try_from(highest).unwrap_or_default()))
    }

    async fn kept(&self) -> Result<Vec<Kept>> {
        let sql = "SELECT op, state, result, body FROM orchestra_barrier_record
                   WHERE saga = $1 AND step = $2 AND iteration = $3";
        let (saga, step) = (self.saga(), self.call.step.as_str());
        let iteration = self.iteration();
        let rows = self
            .tx
            .query_typed(
                sql,
                &[
                    (&saga, Type::UUID),
                    (&step, Type::TEXT),
                    (&iteration, Type::INT4),
                ],
            )
            .await
            .map_err(|source| self.failed("reading the record", source))?;
        let unread = |source| self.failed("reading the record", source);
        let text = |row: &Row, column: usize| row.try_get::<_, String>(column).map_err(unread);
        rows.iter()
            .map(|row| {
                let texts = (text(row, 0)?, &*text(row, 1)?, text(row, 2)?);
                Kept::read(self.call, texts, row.try_get(3).map_err(unread)?)
            })
            .collect()
    }

    /// Does the work inside a savepoint and records it.
    async fn apply<T: Serialize>(
        &self,
        work: impl Future<Output = Result<T, Abort>>,
    ) -> Result<Barriered<T>> {
        self.batch("SAVEPOINT orchestra_barrier").await?;
        let failed = match pin!(work).await {
            Ok(value) => match verdict::done(self.call, &value) {
                // Statements go in order, so the savepoint is released after the record is there.
                Ok(record) => {
                    let release = self.batch("RELEASE orchestra_barrier");
                    match try_join(self.keep(&record), release).await {
                        Ok(_done) => return Ok(Barriered::Applied(value)),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            },
            Err(Abort::Rejected(reason)) => {
                self.roll_back().await?;
                if let Some(record) = verdict::refusal(self.call.op, &reason) {
                    self.keep(&record).await?;
                }
                return Ok(Barriered::Rejected(reason));
            }
            Err(Abort::Retryable(reason)) => Error::new(ErrorKind::Busy, reason).of(self.call.saga),
            Err(Abort::Database(source)) => self.failed("the work", source),
        };
        // What failed is what the caller must hear of, also when the connection is gone.
        let _gone = self.roll_back().await.is_err();
        Err(failed)
    }

    async fn keep(&self, record: &Record) -> Result<()> {
        let sql =
            "INSERT INTO orchestra_barrier_record (saga, step, op, state, result, iteration, body)
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let (saga, iteration) = (self.saga(), self.iteration());
        let texts = [
            self.call.step.as_str(),
            self.call.op.as_str(),
            record.state(),
            record.result(),
        ];
        let mut values: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&saga, Type::UUID)];
        values.extend(texts.iter().map(|text| {
            let text: &(dyn ToSql + Sync) = text;
            (text, Type::TEXT)
        }));
        values.push((&iteration, Type::INT4));
        let body = self.call.body.as_ref().map(|hash| &hash[..]);
        values.push((&body, Type::BYTEA));
        self.tx
            .execute_typed(sql, &values)
            .await
            .map_err(|source| self.failed("recording", source))?;
        Ok(())
    }

    async fn roll_back(&self) -> Result<()> {
        self.batch("ROLLBACK TO orchestra_barrier; RELEASE orchestra_barrier")
            .await
    }

    async fn batch(&self, sql: &str) -> Result<()> {
        self.tx
            .batch_execute(sql)
            .await
            .map_err(|source| self.failed("a savepoint", source))
    }

    fn iteration(&self) -> i32 {
        i32::try_from(self.call.iteration).unwrap_or(i32::MAX)
    }

    fn saga(&self) -> Uuid {
        Uuid::from_bytes(self.call.saga.to_bytes())
    }

    fn failed(&self, what: &str, source: tokio_postgres::Error) -> Error {
        failed(what, source).of(self.call.saga)
    }
}
