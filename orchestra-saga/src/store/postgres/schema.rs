//! The tables, and the statements on them.

use std::sync::Arc;
use std::time::Duration;

use super::failure::failed;
use super::link::Session;
use crate::error::{Error, ErrorKind, Result};

/// The layout that this code reads and writes.
const LAYOUT: i32 = 1;

const TABLES: &str = include_str!("tables.sql");
const FUNCTIONS: &str = include_str!("functions.sql");

/// The statements, for one schema.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) append: Arc<str>,
    pub(super) take: Arc<str>,
    pub(super) renew: Arc<str>,
    pub(super) release: Arc<str>,
    pub(super) purge: Arc<str>,
    pub(super) load: Arc<str>,
    pub(super) snapshots: Arc<str>,
    pub(super) save_snapshot: Arc<str>,
    pub(super) find_start: Arc<str>,
    pub(super) timers: Arc<str>,
    pub(super) read: Arc<str>,
    pub(super) define: Arc<str>,
    pub(super) definition: Arc<str>,
}

impl Statements {
    pub(super) fn new(schema: &str) -> Self {
        let sql = |text: &str| Arc::from(text.replace("{schema}", schema));
        Self {
            append: sql("SELECT place, verdict, number, other FROM {schema}.append_1(
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)"),
            take: sql("SELECT {schema}.take_1($1, $2, $3, $4)"),
            renew: sql("UPDATE {schema}.partition
                SET until = clock_timestamp() + make_interval(secs => $3)
                WHERE id = $1 AND epoch = $2 AND until <> '-infinity' RETURNING epoch"),
            release: sql("UPDATE {schema}.partition SET until = '-infinity' WHERE id = $1 AND epoch = $2"),
            purge: sql("SELECT {schema}.purge_1($1, $2, $3, $4, $5)"),
            load: sql("SELECT r.n, f.version, f.epoch, f.at, f.body
                FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS r (saga, after, n)
                JOIN {schema}.frame f ON f.saga = r.saga AND f.version > r.after"),
            snapshots: sql("SELECT r.n, s.version, s.hash, s.body
                FROM unnest($1::uuid[]) WITH ORDINALITY AS r (saga, n)
                JOIN {schema}.snapshot s ON s.saga = r.saga"),
            // Only a cache of the log: it may be lost with the power, so nobody waits for the disk.
            save_snapshot: sql("WITH lazy AS MATERIALIZED (
                    SELECT set_config('synchronous_commit', 'off', true)
                ), here AS MATERIALIZED (SELECT id FROM {schema}.saga WHERE id = $1 FOR KEY SHARE)
                INSERT INTO {schema}.snapshot (saga, version, hash, body)
                SELECT here.id, $2, $3, $4 FROM here, lazy
                ON CONFLICT (saga) DO UPDATE SET
                version = excluded.version, hash = excluded.hash, body = excluded.body"),
            find_start: sql("SELECT id FROM {schema}.saga WHERE start_key = $1"),
            timers: sql("SELECT wake, id FROM {schema}.saga
                WHERE partition = $1 AND wake <= $2 ORDER BY wake, id LIMIT $3"),
            // Transactions get their numbers in another order than they commit in. Below the oldest that runs
            // nothing can appear any more, so that is how far a reader may go.
            read: sql("SELECT f.tx, f.place, f.saga, f.version, f.epoch, f.at, f.body
                FROM {schema}.frame f
                WHERE (f.tx, f.place) >= ($1, $2) AND f.tx < (
                    SELECT base + pg_snapshot_xmin(pg_current_snapshot())::text::bigint FROM {schema}.layout)
                ORDER BY f.tx, f.place LIMIT $3"),
            define: sql("INSERT INTO {schema}.definition (hash, document) VALUES ($1, $2) ON CONFLICT DO NOTHING"),
            definition: sql("SELECT document FROM {schema}.definition WHERE hash = $1"),
        }
    }
}

/// What every connection is set to. Our statements find rows by index, whatever the planner thinks of tables
/// that were empty when it last looked.
pub(super) fn settings(timeout: Duration) -> String {
    let limit = timeout
        .as_millis()
        .clamp(1, i32::MAX.cast_unsigned().into());
    format!(
        "SET client_min_messages = warning; SET jit = off; SET plan_cache_mode = force_generic_plan;
         SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
         SET enable_mergejoin = off; SET enable_material = off; SET max_parallel_workers_per_gather = 0;
         SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
         SET statement_timeout = {limit}; SET lock_timeout = 0;
         SELECT set_config('synchronous_commit', 'on', false)
         WHERE current_setting('synchronous_commit') = 'off'"
    )
}

/// Makes the tables, unless they are there. One store at a time: the others wait for it.
pub(super) async fn install(session: &Session, schema: &str) -> Result<()> {
    encoding(session).await?;
    let fail = |source| failed("making its tables", source);
    let (lock, _space) = locks(schema);
    // An error ends the connection, and with it the transaction.
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({lock})");
    session.client.batch_execute(&begin).await.map_err(fail)?;
    let sql = "SELECT to_regnamespace($1) IS NOT NULL, to_regclass($1 || '.layout') IS NOT NULL";
    let found = session.client.query_one(sql, &[&schema]).await;
    let found = found.map_err(fail)?;
    let (named, laid): (bool, bool) = (found.get(0), found.get(1));
    if !named {
        let sql = format!("CREATE SCHEMA {schema}");
        session.client.batch_execute(&sql).await.map_err(fail)?;
    }
    if !laid {
        let layout = LAYOUT.to_string();
        for text in [TABLES, FUNCTIONS] {
            let sql = text
                .replace("{schema}", schema)
                .replace("{layout}", &layout);
            session.client.batch_execute(&sql).await.map_err(fail)?;
        }
    }
    check(session, schema).await?;
    // After a move to another server transactions may count from a lower number.
    let base = format!(
        "UPDATE {schema}.layout SET
            base = CASE WHEN base + n.next > n.top THEN base ELSE n.top END,
            seen = CASE WHEN base + n.next > n.top THEN base ELSE n.top END + n.next
         FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next,
            greatest(seen, (SELECT coalesce(max(tx), 0) FROM {schema}.frame)) AS top FROM {schema}.layout) n"
    );
    session.client.batch_execute(&base).await.map_err(fail)?;
    session.client.batch_execute("COMMIT").await.map_err(fail)
}

/// Whether the tables are those that this code knows.
pub(super) async fn check(session: &Session, schema: &str) -> Result<()> {
    let sql = format!("SELECT number FROM {schema}.layout");
    let row = session.client.query_one(&sql, &[]).await;
    let found: i32 = row
        .and_then(|row| row.try_get(0))
        .map_err(|source| failed("reading its layout", source))?;
    if found != LAYOUT {
        let message = format!("saga store {schema} has layout {found}, not {LAYOUT}");
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(())
}

async fn encoding(session: &Session) -> Result<()> {
    let sql = "SELECT current_setting('server_encoding'), current_setting('fsync')";
    let row = session.client.query_one(sql, &[]).await;
    let row = row.map_err(|source| failed("reading its settings", source))?;
    let (encoding, fsync): (&str, &str) = (row.get(0), row.get(1));
    if encoding != "UTF8" {
        let message = format!("a saga store needs a database in UTF8, not {encoding}");
        return Err(Error::new(ErrorKind::Store, message));
    }
    if fsync != "on" {
        tracing::warn!(
            "the server of the saga store runs with fsync off: it may lose what it acknowledged"
        );
    }
    Ok(())
}

/// The numbers of our advisory locks: of the tables, and the first half of those of partitions. That others
/// use them too costs time only.
pub(super) fn locks(schema: &str) -> (i64, i32) {
    let hash = blake3::hash(schema.as_bytes());
    let [lock, space] = [0, 8].map(|first| {
        let bytes = hash.as_bytes().iter().skip(first).take(8);
        bytes.fold(0_i64, |number, byte| number << 8 | i64::from(*byte))
    });
    let [.., a, b, c, d] = space.to_be_bytes();
    (lock, i32::from_be_bytes([a, b, c, d]))
}
