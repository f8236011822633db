//! The tables, and what is done with them inside a transaction.
//!
//! A key has a row as long as it has something to send, so looking for work costs what there is to do,
//! however much waits behind a key that fails.

use std::sync::Arc;

use orchestra_core::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::failed;
use crate::error::Result;
use crate::outbox::{Batch, Lane, Message, MessageId, Next, Parked, Settled};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS orchestra_outbox_message (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL,
    topic TEXT NOT NULL,
    headers TEXT NOT NULL,
    payload BLOB NOT NULL,
    parked INTEGER,
    error TEXT
);
CREATE INDEX IF NOT EXISTS orchestra_outbox_message_next
    ON orchestra_outbox_message (key, seq) WHERE parked IS NULL;
CREATE INDEX IF NOT EXISTS orchestra_outbox_message_parked
    ON orchestra_outbox_message (parked) WHERE parked IS NOT NULL;
CREATE TABLE IF NOT EXISTS orchestra_outbox_lane (
    key TEXT PRIMARY KEY,
    due INTEGER,
    leased_until INTEGER NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    failures INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS orchestra_outbox_lane_due ON orchestra_outbox_lane (due);";

/// The milliseconds since 1970, by the machine.
const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

pub(super) fn add(tx: &Connection, messages: &[Message]) -> rusqlite::Result<()> {
    let insert = "INSERT INTO orchestra_outbox_message (id, key, topic, headers, payload)
                  VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO NOTHING";
    let open = format!(
        "INSERT INTO orchestra_outbox_lane (key, due) VALUES (?1, {NOW}) ON CONFLICT DO NOTHING"
    );
    let (mut insert, mut open) = (tx.prepare_cached(insert)?, tx.prepare_cached(&open)?);
    for message in messages {
        let values = params![
            message.id().as_str(),
            message.key(),
            message.topic(),
            message.headers_json(),
            &**message.payload(),
        ];
        if insert.execute(values)? > 0 {
            open.execute([message.key()])?;
        }
    }
    Ok(())
}

const DUE: &str = "FROM orchestra_outbox_lane WHERE due <= ?1 AND leased_until <= ?1";

fn now(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached(&format!("SELECT {NOW}"))?
        .query_row([], |row| row.get(0))
}

pub(super) fn is_due(db: &Connection) -> Result<bool> {
    let due = || {
        let sql = format!("SELECT EXISTS (SELECT 1 {DUE})");
        db.prepare_cached(&sql)?
            .query_row([now(db)?], |row| row.get(0))
    };
    due().map_err(|source| failed("looking", source))
}

pub(super) fn lend(tx: &Connection, batch: &Batch) -> Result<Vec<Lane>> {
    let keys = keys(tx, batch).map_err(|source| failed("lending", source))?;
    keys.into_iter()
        .map(|(key, token, failures)| {
            let messages = first(tx, &key, batch)?;
            Ok(Lane::new(key, token, failures, messages))
        })
        .collect()
}

/// Takes the keys that have waited longest.
fn keys(tx: &Connection, batch: &Batch) -> rusqlite::Result<Vec<(Arc<str>, i64, u32)>> {
    let now = now(tx)?;
    let term = i64::try_from(batch.term.as_millis()).unwrap_or(i64::MAX);
    let sql = format!("SELECT key {DUE} ORDER BY due, key LIMIT ?2");
    let keys: Vec<String> = tx
        .prepare_cached(&sql)?
        .query_map([now, i64::from(batch.lanes)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let take = "UPDATE orchestra_outbox_lane
                SET leased_until = ?2, token = random(), owner = ?3
                WHERE key = ?1 RETURNING token, failures";
    let mut take = tx.prepare_cached(take)?;
    let mut taken = Vec::with_capacity(keys.len());
    for key in keys {
        let values = params![key, now.saturating_add(term), &*batch.owner];
        let (token, failures) = take.query_row(values, |row| Ok((row.get(0)?, row.get(1)?)))?;
        taken.push((Arc::from(key), token, failures));
    }
    Ok(taken)
}

/// The next messages of a key, up to the bytes of a batch.
fn first(tx: &Connection, key: &Arc<str>, batch: &Batch) -> Result<Vec<Message>> {
    let sql = "SELECT id, topic, headers, payload FROM orchestra_outbox_message
               WHERE key = ?1 AND parked IS NULL ORDER BY seq LIMIT ?2";
    let failed = |source| failed("reading", source);
    let mut sql = tx.prepare_cached(sql).map_err(failed)?;
    let mut rows = sql.query(params![&**key, batch.messages]).map_err(failed)?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    let limit = usize::try_from(batch.bytes).unwrap_or(usize::MAX);
    while bytes < limit {
        let Some(row) = rows.next().map_err(failed)? else {
            break;
        };
        let message = message(row, key)?;
        bytes += message.payload().len();
        messages.push(message);
    }
    Ok(messages)
}

fn message(row: &Row<'_>, key: &Arc<str>) -> Result<Message> {
    let text = |column: usize| {
        row.get::<_, String>(column)
            .map_err(|source| failed("reading", source))
    };
    let payload = row.get(3).map_err(|source| failed("reading", source))?;
    Message::from_row(&text(0)?, &text(1)?, key, &text(2)?, payload)
}

/// Does with a key as it is told; false if the loan is over.
pub(super) fn settle(tx: &Connection, settled: &Settled) -> rusqlite::Result<bool> {
    let now = now(tx)?;
    let (due, failures) = match &settled.next {
        Next::After { delay, failures } => {
            let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
            (Some(now.saturating_add(delay)), *failures)
        }
        Next::Park { holds: true, .. } => (None, 0),
        Next::Due | Next::Park { .. } => (Some(now), 0),
    };
    let sql = "UPDATE orchestra_outbox_lane
               SET leased_until = 0, owner = NULL, due = ?4, failures = ?5
               WHERE key = ?1 AND token = ?2 AND leased_until > ?3";
    let key = &*settled.key;
    let values = params![key, settled.token, now, due, failures];
    if tx.prepare_cached(sql)?.execute(values)? == 0 {
        return Ok(false);
    }
    let mut forget = tx.prepare_cached("DELETE FROM orchestra_outbox_message WHERE id = ?1")?;
    for id in &settled.sent {
        forget.execute([id.as_str()])?;
    }
    if let Next::Park { id, error, .. } = &settled.next {
        let sql = "UPDATE orchestra_outbox_message SET parked = ?2, error = ?3 WHERE id = ?1";
        tx.prepare_cached(sql)?
            .execute(params![id.as_str(), now, error])?;
    }
    close(tx, key)?;
    Ok(true)
}

/// Forgets a key that has nothing to send and nothing that it waits for.
fn close(tx: &Connection, key: &str) -> rusqlite::Result<()> {
    let sql = "DELETE FROM orchestra_outbox_lane
               WHERE key = ?1 AND due IS NOT NULL AND leased_until = 0 AND NOT EXISTS (
                   SELECT 1 FROM orchestra_outbox_message WHERE key = ?1 AND parked IS NULL
               )";
    tx.prepare_cached(sql)?.execute([key])?;
    Ok(())
}

pub(super) fn parked(db: &Connection, limit: u32) -> Result<Vec<Parked>> {
    let sql = "SELECT id, topic, headers, payload, key, error, parked
               FROM orchestra_outbox_message
               WHERE parked IS NOT NULL ORDER BY parked, seq LIMIT ?1";
    let failed = |source| failed("listing", source);
    let mut sql = db.prepare_cached(sql).map_err(failed)?;
    let mut rows = sql.query([limit]).map_err(failed)?;
    let mut parked = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let key = Arc::from(row.get::<_, String>(4).map_err(failed)?);
        let error: Option<String> = row.get(5).map_err(failed)?;
        let at: i64 = row.get(6).map_err(failed)?;
        let at = u64::try_from(at).unwrap_or_default();
        let at = Timestamp::from_unix_nanos(at.saturating_mul(1_000_000));
        parked.push(Parked::new(
            message(row, &key)?,
            error.unwrap_or_default(),
            at,
        ));
    }
    Ok(parked)
}

pub(super) fn retry(tx: &Connection, id: &MessageId) -> rusqlite::Result<bool> {
    let sql = "UPDATE orchestra_outbox_message SET parked = NULL, error = NULL
               WHERE id = ?1 AND parked IS NOT NULL RETURNING key";
    let key: Option<String> = tx
        .prepare_cached(sql)?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?;
    let Some(key) = key else {
        return Ok(false);
    };
    let sql = format!(
        "INSERT INTO orchestra_outbox_lane AS lane (key, due) VALUES (?1, {NOW})
         ON CONFLICT (key) DO UPDATE
         SET due = min(coalesce(lane.due, excluded.due), excluded.due), failures = 0"
    );
    tx.prepare_cached(&sql)?.execute([key])?;
    Ok(true)
}

pub(super) fn discard(tx: &Connection, id: &MessageId) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM orchestra_outbox_message
               WHERE id = ?1 AND parked IS NOT NULL RETURNING key";
    let key: Option<String> = tx
        .prepare_cached(sql)?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?;
    let Some(key) = key else {
        return Ok(false);
    };
    let sql =
        format!("UPDATE orchestra_outbox_lane SET due = {NOW} WHERE key = ?1 AND due IS NULL");
    tx.prepare_cached(&sql)?.execute([&key])?;
    close(tx, &key)?;
    Ok(true)
}
