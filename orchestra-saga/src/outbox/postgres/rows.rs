//! The tables, and the statements on them.

use std::sync::Arc;
use std::time::SystemTime;

use orchestra_core::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, Transaction};

use super::failed;
use crate::error::Result;
use crate::outbox::{Batch, Lane, Message, MessageId, Next, Parked, Settled};

type Answer<T> = std::result::Result<T, tokio_postgres::Error>;

/// Two that install at once would both find nothing there, hence the lock.
pub(super) const TABLES: &str = "
SELECT pg_advisory_xact_lock(hashtext('orchestra_outbox'));
CREATE SEQUENCE IF NOT EXISTS orchestra_outbox_token;
CREATE TABLE IF NOT EXISTS orchestra_outbox_message (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL,
    topic TEXT NOT NULL,
    headers TEXT NOT NULL,
    payload BYTEA NOT NULL,
    parked TIMESTAMPTZ,
    error TEXT
);
CREATE INDEX IF NOT EXISTS orchestra_outbox_message_next
    ON orchestra_outbox_message (key, seq) WHERE parked IS NULL;
CREATE INDEX IF NOT EXISTS orchestra_outbox_message_parked
    ON orchestra_outbox_message (parked) WHERE parked IS NOT NULL;
CREATE TABLE IF NOT EXISTS orchestra_outbox_lane (
    key TEXT PRIMARY KEY,
    due TIMESTAMPTZ,
    leased_until TIMESTAMPTZ NOT NULL DEFAULT '-infinity',
    token BIGINT NOT NULL DEFAULT 0,
    owner TEXT,
    failures BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS orchestra_outbox_lane_due ON orchestra_outbox_lane (due);";

/// The first of the two numbers of our advisory locks: `orch`.
const LOCKS: i32 = 0x6f72_6368;

/// The second: 16 bits of a hash of the key.
fn bucket(key: &str) -> i32 {
    let hash = blake3::hash(key.as_bytes());
    let [high, low, ..] = *hash.as_bytes();
    i32::from(u16::from_be_bytes([high, low]))
}

/// Keeps other writers of these keys out until the end of the transaction.
async fn lock(tx: &Transaction<'_>, keys: impl Iterator<Item = &str>) -> Answer<()> {
    let mut buckets: Vec<_> = keys.map(bucket).collect();
    buckets.sort_unstable();
    buckets.dedup();
    // In this order, whatever the order of the messages: so no two wait for each other.
    let sql = "SELECT pg_advisory_xact_lock($1, bucket) FROM unnest($2) AS bucket";
    let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&LOCKS, Type::INT4), (&buckets, Type::INT4_ARRAY)];
    tx.query_typed(sql, &values).await?;
    Ok(())
}

pub(super) async fn add(tx: &Transaction<'_>, messages: &[Message]) -> Answer<()> {
    let column = |of: fn(&Message) -> &str| messages.iter().map(of).collect::<Vec<_>>();
    let ids = column(|message| message.id().as_str());
    let (keys, topics) = (column(Message::key), column(Message::topic));
    let headers: Vec<_> = messages.iter().map(Message::headers_json).collect();
    let payloads: Vec<&[u8]> = messages
        .iter()
        .map(|message| &**message.payload())
        .collect();
    lock(tx, keys.iter().copied()).await?;
    // Numbers are drawn under the lock, in the order of the messages.
    let sql = "
        WITH written AS (
            INSERT INTO orchestra_outbox_message (id, key, topic, headers, payload)
            SELECT id, key, topic, headers, payload
            FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY
                AS message (id, key, topic, headers, payload, place)
            ORDER BY place
            ON CONFLICT (id) DO NOTHING RETURNING key
        )
        INSERT INTO orchestra_outbox_lane (key, due)
        SELECT DISTINCT key, now() FROM written ORDER BY key ON CONFLICT DO NOTHING";
    tx.execute_typed(
        sql,
        &[
            (&ids, Type::TEXT_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&topics, Type::TEXT_ARRAY),
            (&headers, Type::TEXT_ARRAY),
            (&payloads, Type::BYTEA_ARRAY),
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn lend(db: &Client, batch: &Batch) -> Result<Vec<Lane>> {
    let failed = |source| failed("lending", source);
    let lanes = take(db, batch).await.map_err(failed)?;
    if lanes.is_empty() {
        return Ok(lanes);
    }
    // A statement of its own: one that began before the loan might see what was settled since.
    let rows = first(db, &lanes, batch).await.map_err(failed)?;
    fill(lanes, &rows)
}

/// Takes the keys that have waited longest.
async fn take(db: &Client, batch: &Batch) -> Answer<Vec<Lane>> {
    let sql = "
        WITH waiting AS (
            SELECT key FROM orchestra_outbox_lane WHERE due <= now() AND leased_until <= now()
            ORDER BY due LIMIT $1 FOR UPDATE SKIP LOCKED
        )
        UPDATE orchestra_outbox_lane AS lane
        SET leased_until = now() + $2 * interval '1 millisecond', owner = $3,
            token = nextval('orchestra_outbox_token')
        FROM waiting WHERE lane.key = waiting.key
        RETURNING lane.key, lane.token, lane.failures";
    let (lanes, term) = (i64::from(batch.lanes), batch.term.as_secs_f64() * 1e3);
    let rows = db
        .query_typed(
            sql,
            &[
                (&lanes, Type::INT8),
                (&term, Type::FLOAT8),
                (&&*batch.owner, Type::TEXT),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let failures = u32::try_from(row.try_get::<_, i64>(2)?).unwrap_or(u32::MAX);
            let key = Arc::from(row.try_get::<_, &str>(0)?);
            Ok(Lane::new(key, row.try_get(1)?, failures, Vec::new()))
        })
        .collect()
}

/// The next messages of these keys, up to the bytes of a batch.
async fn first(db: &Client, lanes: &[Lane], batch: &Batch) -> Answer<Vec<Row>> {
    let sql = "
        SELECT message.id, message.topic, message.headers, message.payload, lane.place
        FROM unnest($1) WITH ORDINALITY AS lane (key, place) CROSS JOIN LATERAL (
            SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq) - octet_length(payload) AS before
            FROM (
                SELECT * FROM orchestra_outbox_message
                WHERE key = lane.key AND parked IS NULL ORDER BY seq LIMIT $2
            ) AS next
        ) AS message
        WHERE message.before < $3 ORDER BY lane.place, message.seq";
    let keys: Vec<_> = lanes.iter().map(|lane| &*lane.key).collect();
    let (messages, bytes) = (i64::from(batch.messages), i64::from(batch.bytes));
    db.query_typed(
        sql,
        &[
            (&keys, Type::TEXT_ARRAY),
            (&messages, Type::INT8),
            (&bytes, Type::INT8),
        ],
    )
    .await
}

fn fill(mut lanes: Vec<Lane>, rows: &[Row]) -> Result<Vec<Lane>> {
    for row in rows {
        let place: i64 = get(row, 4)?;
        // Places count from one.
        let place = usize::try_from(place).unwrap_or_default().wrapping_sub(1);
        if let Some(lane) = lanes.get_mut(place) {
            let message = message(row, &lane.key)?;
            lane.messages.push(message);
        }
    }
    Ok(lanes)
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column)
        .map_err(|source| failed("reading", source))
}

fn message(row: &Row, key: &Arc<str>) -> Result<Message> {
    Message::from_row(get(row, 0)?, get(row, 1)?, key, get(row, 2)?, get(row, 3)?)
}

/// What is said of the keys that were lent, by columns.
#[derive(Default)]
struct Columns<'a> {
    keys: Vec<&'a str>,
    tokens: Vec<i64>,
    /// Milliseconds from now; none where it is held.
    delays: Vec<Option<f64>>,
    failures: Vec<i64>,
    sent: Vec<&'a str>,
    sent_keys: Vec<&'a str>,
    parked: Vec<&'a str>,
    parked_keys: Vec<&'a str>,
    errors: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(settled: &'a [Settled]) -> Self {
        let mut columns = Self::default();
        for one in settled {
            let (delay, failures) = match &one.next {
                Next::After { delay, failures } => (Some(delay.as_secs_f64() * 1e3), *failures),
                Next::Park { holds: true, .. } => (None, 0),
                Next::Due | Next::Park { .. } => (Some(0.0), 0),
            };
            columns.keys.push(&one.key);
            columns.tokens.push(one.token);
            columns.delays.push(delay);
            columns.failures.push(i64::from(failures));
            for id in &one.sent {
                columns.sent.push(id.as_str());
                columns.sent_keys.push(&one.key);
            }
            if let Next::Park { id, error, .. } = &one.next {
                columns.parked.push(id.as_str());
                columns.parked_keys.push(&one.key);
                columns.errors.push(error);
            }
        }
        columns
    }
}

pub(super) async fn settle(db: &mut Client, settled: &[Settled]) -> Answer<Vec<Arc<str>>> {
    let columns = Columns::of(settled);
    let tx = db.transaction().await?;
    let kept = give_back(&tx, &columns).await?;
    close(&tx, &kept).await?;
    tx.commit().await?;
    let lost = settled
        .iter()
        .filter(|one| !kept.iter().any(|key| **key == *one.key));
    Ok(lost.map(|one| Arc::clone(&one.key)).collect())
}

/// Returns the keys whose loan was not over.
async fn give_back(tx: &Transaction<'_>, columns: &Columns<'_>) -> Answer<Vec<String>> {
    let sql = "
        WITH said AS (
            SELECT * FROM unnest($1, $2, $3, $4) AS said (key, token, delay, failures)
        ), mine AS (
            SELECT lane.key FROM orchestra_outbox_lane AS lane JOIN said USING (key, token)
            WHERE lane.leased_until > now() ORDER BY lane.key FOR UPDATE OF lane
        ), sent AS (
            DELETE FROM orchestra_outbox_message AS message
            USING unnest($5, $6) AS sent (id, key) JOIN mine USING (key)
            WHERE message.id = sent.id
        ), parked AS (
            UPDATE orchestra_outbox_message AS message SET parked = now(), error = bad.error
            FROM unnest($7, $8, $9) AS bad (id, key, error) JOIN mine USING (key)
            WHERE message.id = bad.id
        )
        UPDATE orchestra_outbox_lane AS lane
        SET leased_until = '-infinity', owner = NULL, failures = said.failures,
            due = now() + said.delay * interval '1 millisecond'
        FROM said JOIN mine USING (key) WHERE lane.key = said.key
        RETURNING lane.key";
    let rows = tx
        .query_typed(
            sql,
            &[
                (&columns.keys, Type::TEXT_ARRAY),
                (&columns.tokens, Type::INT8_ARRAY),
                (&columns.delays, Type::FLOAT8_ARRAY),
                (&columns.failures, Type::INT8_ARRAY),
                (&columns.sent, Type::TEXT_ARRAY),
                (&columns.sent_keys, Type::TEXT_ARRAY),
                (&columns.parked, Type::TEXT_ARRAY),
                (&columns.parked_keys, Type::TEXT_ARRAY),
                (&columns.errors, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Forgets those keys that have nothing to send and nothing that they wait for. A key with a writer is
/// left alone: what the writer wrote is not seen yet.
async fn close<K: AsRef<str>>(tx: &Transaction<'_>, keys: &[K]) -> Answer<()> {
    let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
    let buckets: Vec<_> = keys.iter().map(|key| bucket(key)).collect();
    let sql = "SELECT key FROM unnest($2, $3) AS lane (key, bucket)
               WHERE pg_try_advisory_xact_lock($1, bucket)";
    let rows = tx
        .query_typed(
            sql,
            &[
                (&LOCKS, Type::INT4),
                (&keys, Type::TEXT_ARRAY),
                (&buckets, Type::INT4_ARRAY),
            ],
        )
        .await?;
    let quiet: Vec<&str> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Answer<_>>()?;
    // A statement that begins after the lock, so that it sees what the last writer has committed.
    let sql = "DELETE FROM orchestra_outbox_lane AS lane USING unnest($1) AS quiet (key)
               WHERE lane.key = quiet.key AND lane.due IS NOT NULL AND lane.leased_until <= now()
               AND NOT EXISTS (
                   SELECT 1 FROM orchestra_outbox_message AS message
                   WHERE message.key = lane.key AND message.parked IS NULL
               )";
    tx.execute_typed(sql, &[(&quiet, Type::TEXT_ARRAY)]).await?;
    Ok(())
}

pub(super) async fn parked(db: &Client, limit: u32) -> Result<Vec<Parked>> {
    let sql = "SELECT id, topic, headers, payload, key, coalesce(error, ''), parked
               FROM orchestra_outbox_message
               WHERE parked IS NOT NULL ORDER BY parked, seq LIMIT $1";
    let rows = db
        .query_typed(sql, &[(&i64::from(limit), Type::INT8)])
        .await
        .map_err(|source| failed("listing", source))?;
    rows.iter()
        .map(|row| {
            let key = Arc::from(get::<&str>(row, 4)?);
            let at = get::<SystemTime>(row, 6)?;
            let since = at.duration_since(SystemTime::UNIX_EPOCH);
            let at = Timestamp::UNIX_EPOCH + since.unwrap_or_default();
            Ok(Parked::new(message(row, &key)?, get(row, 5)?, at))
        })
        .collect()
}

/// What an operator decides of a parked message; the second statement lets its key go on.
pub(super) type Decision = [&'static str; 2];

pub(super) const RETRY: Decision = [
    "UPDATE orchestra_outbox_message SET parked = NULL, error = NULL
     WHERE id = $1 AND parked IS NOT NULL",
    "INSERT INTO orchestra_outbox_lane AS lane (key, due) VALUES ($1, now())
     ON CONFLICT (key) DO UPDATE SET due = least(lane.due, excluded.due), failures = 0",
];

pub(super) const DISCARD: Decision = [
    "DELETE FROM orchestra_outbox_message WHERE id = $1 AND parked IS NOT NULL",
    "UPDATE orchestra_outbox_lane SET due = now() WHERE key = $1 AND due IS NULL",
];

pub(super) async fn decide(db: &mut Client, id: &MessageId, decision: Decision) -> Answer<bool> {
    let [message, lane] = decision;
    let tx = db.transaction().await?;
    let sql = "SELECT key FROM orchestra_outbox_message WHERE id = $1 AND parked IS NOT NULL";
    let found = tx
        .query_typed_opt(sql, &[(&id.as_str(), Type::TEXT)])
        .await?;
    let Some(row) = found else {
        return Ok(false);
    };
    let key: String = row.try_get(0)?;
    // As a writer of the key, so that the row of the key is not removed meanwhile.
    lock(&tx, std::iter::once(&*key)).await?;
    let decided = tx
        .execute_typed(message, &[(&id.as_str(), Type::TEXT)])
        .await?;
    if decided > 0 {
        tx.execute_typed(lane, &[(&key, Type::TEXT)]).await?;
        close(&tx, &[&key]).await?;
    }
    tx.commit().await?;
    Ok(decided > 0)
}
