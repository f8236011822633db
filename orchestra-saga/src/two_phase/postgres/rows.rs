//! What is kept of a transaction, and the statements that look for it.

use std::time::{Duration, SystemTime};

use orchestra_core::Timestamp;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, GenericClient, Row};

use super::gid::{Key, Namespace};

/// `orchestra_two_phase` is written inside the prepared transaction, so it is seen exactly if that was
/// committed, and whoever writes the same key waits until it is known; or it says in a transaction of its
/// own why there will never be one. `orchestra_two_phase_output` is committed before the transaction is
/// prepared: a repeated `prepare` cannot look into it. Two that install at once would both find nothing
/// there, hence the lock.
pub(super) const TABLES: &str = "
SELECT pg_advisory_xact_lock(hashtext('orchestra_two_phase'));
CREATE TABLE IF NOT EXISTS orchestra_two_phase (
    namespace TEXT NOT NULL,
    saga UUID NOT NULL,
    step TEXT NOT NULL,
    iteration INTEGER NOT NULL,
    state TEXT NOT NULL,
    output TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, saga, step, iteration)
);
CREATE INDEX IF NOT EXISTS orchestra_two_phase_at ON orchestra_two_phase (at);
CREATE TABLE IF NOT EXISTS orchestra_two_phase_output (
    namespace TEXT NOT NULL,
    saga UUID NOT NULL,
    step TEXT NOT NULL,
    iteration INTEGER NOT NULL,
    xid TEXT NOT NULL,
    output TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, saga, step, iteration, xid)
);
CREATE INDEX IF NOT EXISTS orchestra_two_phase_output_at ON orchestra_two_phase_output (at);";

/// What the record of a key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// It was committed; what the work returned.
    Committed(String),
    /// It was rolled back, and is not to be prepared any more.
    RolledBack,
    /// The work was refused, and why.
    Refused(String),
}

impl Record {
    fn read(row: &Row) -> Result<Self, Error> {
        let output = row.try_get(1)?;
        Ok(match row.try_get(0)? {
            "committed" => Self::Committed(output),
            "refused" => Self::Refused(output),
            _ => Self::RolledBack,
        })
    }

    const fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Committed(output) => ("committed", output.as_str()),
            Self::RolledBack => ("rolled_back", ""),
            Self::Refused(reason) => ("refused", reason.as_str()),
        }
    }
}

/// A transaction that is prepared.
pub(super) struct Listed {
    pub(super) key: Key,
    pub(super) age: Duration,
}

/// The rows of a namespace.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, C> {
    pub(super) db: &'a C,
    pub(super) namespace: &'a Namespace,
}

type Value<'v> = (&'v (dyn ToSql + Sync), Type);

impl<C: GenericClient> Rows<'_, C> {
    async fn about(&self, sql: &str, key: &Key, more: &[&str]) -> Result<Vec<Row>, Error> {
        let (space, saga) = (self.namespace.as_str(), key.uuid());
        let (step, iteration) = (key.step.as_str(), key.number());
        let mut values: Vec<Value<'_>> = vec![
            (&space, Type::TEXT),
            (&saga, Type::UUID),
            (&step, Type::TEXT),
            (&iteration, Type::INT4),
        ];
        values.extend(more.iter().map(|text| -> Value<'_> { (text, Type::TEXT) }));
        self.db.query_typed(sql, &values).await
    }

    /// Makes the key this transaction's, whose number it returns; none if there is a record. Waits for
    /// whoever has it.
    pub(super) async fn take(&self, key: &Key) -> Result<Option<String>, Error> {
        let sql =
            "INSERT INTO orchestra_two_phase (namespace, saga, step, iteration, state, output)
                   VALUES ($1, $2, $3, $4, 'committed', '') ON CONFLICT DO NOTHING
                   RETURNING pg_current_xact_id()::xid::text";
        let rows = self.about(sql, key, &[]).await?;
        rows.first().map(|row| row.try_get(0)).transpose()
    }

    /// Writes what the transaction of the key will have been.
    pub(super) async fn keep(&self, key: &Key, record: &Record) -> Result<(), Error> {
        let sql = "UPDATE orchestra_two_phase SET state = $5, output = $6
                   WHERE namespace = $1 AND saga = $2 AND step = $3 AND iteration = $4";
        let (state, output) = record.parts();
        self.about(sql, key, &[state, output]).await?;
        Ok(())
    }

    pub(super) async fn record(&self, key: &Key) -> Result<Option<Record>, Error> {
        let sql = "SELECT state, output FROM orchestra_two_phase
                   WHERE namespace = $1 AND saga = $2 AND step = $3 AND iteration = $4";
        let rows = self.about(sql, key, &[]).await?;
        rows.first().map(Record::read).transpose()
    }

    /// The record of the last iteration up to the key's that has one.
    pub(super) async fn last_record(&self, key: &Key) -> Result<Option<Record>, Error> {
        let sql = "SELECT state, output FROM orchestra_two_phase
                   WHERE namespace = $1 AND saga = $2 AND step = $3 AND iteration <= $4
                   ORDER BY iteration DESC LIMIT 1";
        let rows = self.about(sql, key, &[]).await?;
        rows.first().map(Record::read).transpose()
    }

    /// Keeps what the work returned for those who ask while its transaction is prepared.
    pub(super) async fn put_output(&self, key: &Key, xid: &str, output: &str) -> Result<(), Error> {
        let sql = "INSERT INTO orchestra_two_phase_output
                       (namespace, saga, step, iteration, xid, output)
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        self.about(sql, key, &[xid, output]).await?;
        Ok(())
    }

    pub(super) async fn drop_outputs(&self, key: &Key) -> Result<(), Error> {
        let sql = "DELETE FROM orchestra_two_phase_output
                   WHERE namespace = $1 AND saga = $2 AND step = $3 AND iteration = $4";
        self.about(sql, key, &[]).await?;
        Ok(())
    }

    /// Whether a transaction of the key is prepared, and what its work returned.
    pub(super) async fn prepared(&self, key: &Key) -> Result<Option<Option<String>>, Error> {
        let sql = "SELECT kept.output FROM pg_prepared_xacts AS prepared
                   LEFT JOIN orchestra_two_phase_output AS kept
                   ON kept.namespace = $1 AND kept.saga = $2 AND kept.step = $3
                       AND kept.iteration = $4 AND kept.xid = prepared.transaction::text
                   WHERE prepared.gid = $5 AND prepared.database = current_database()";
        let gid = self.namespace.gid(key);
        let rows = self.about(sql, key, &[&gid]).await?;
        rows.first().map(|row| row.try_get(0)).transpose()
    }

    /// The transactions of the namespace that are prepared in this database, the oldest first.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, Error> {
        let sql = "SELECT gid,
                       floor(extract(epoch FROM clock_timestamp() - prepared) * 1000)::bigint
                   FROM pg_prepared_xacts
                   WHERE database = current_database() AND starts_with(gid, $1)
                   ORDER BY prepared";
        let prefix = self.namespace.prefix();
        let rows = self.db.query_typed(sql, &[(&prefix, Type::TEXT)]).await?;
        let listed = rows.iter().map(|row| {
            let Some(key) = self.namespace.read(row.try_get(0)?) else {
                return Ok(None);
            };
            let age = u64::try_from(row.try_get::<_, i64>(1)?).unwrap_or_default();
            let age = Duration::from_millis(age);
            Ok(Some(Listed { key, age }))
        });
        listed.filter_map(Result::transpose).collect()
    }

    /// The last iteration of the key's step that is prepared.
    pub(super) async fn last_prepared(&self, key: &Key) -> Result<Option<Key>, Error> {
        let listed = self.list().await?.into_iter().map(|listed| listed.key);
        let same = listed.filter(|other| other.saga == key.saga && other.step == key.step);
        Ok(same.max_by_key(|other| other.iteration))
    }

    pub(super) async fn prune(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let before = SystemTime::UNIX_EPOCH + before.since(Timestamp::UNIX_EPOCH);
        let (limit, space) = (i64::from(limit), self.namespace.as_str());
        let values: [Value<'_>; 3] = [
            (&space, Type::TEXT),
            (&before, Type::TIMESTAMPTZ),
            (&limit, Type::INT8),
        ];
        let outputs = "
            DELETE FROM orchestra_two_phase_output WHERE ctid = ANY (ARRAY(
                SELECT old.ctid FROM orchestra_two_phase_output AS old
                WHERE namespace = $1 AND at < $2 AND NOT EXISTS (
                    SELECT FROM pg_prepared_xacts AS prepared
                    WHERE prepared.transaction::text = old.xid)
                LIMIT $3))";
        self.db.execute_typed(outputs, &values).await?;
        let records = "
            DELETE FROM orchestra_two_phase WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM orchestra_two_phase WHERE namespace = $1 AND at < $2
                ORDER BY at LIMIT $3 FOR UPDATE SKIP LOCKED))";
        self.db.execute_typed(records, &values).await
    }
}

/// What became of a second phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    /// There is no such transaction: somebody was faster, or it never was.
    Absent,
    /// Somebody is about to end it.
    Busy,
}

async fn end(db: &Client, verb: &str, gid: &str) -> Result<Ended, Error> {
    let ended = db.batch_execute(&format!("{verb} PREPARED '{gid}'")).await;
    match ended {
        Ok(()) => Ok(Ended::Done),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(Ended::Absent),
        Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
            Ok(Ended::Busy)
        }
        Err(error) => Err(error),
    }
}

impl Rows<'_, Client> {
    pub(super) async fn commit(&self, key: &Key) -> Result<Ended, Error> {
        end(self.db, "COMMIT", &self.namespace.gid(key)).await
    }

    pub(super) async fn roll_back(&self, key: &Key) -> Result<Ended, Error> {
        end(self.db, "ROLLBACK", &self.namespace.gid(key)).await
    }
}

/// Whether the server waited for a lock as long as it was allowed to.
pub(super) fn is_lock_timeout(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}
