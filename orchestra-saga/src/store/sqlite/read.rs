//! Queries, on connections that only read.

use std::path::PathBuf;
use std::sync::Arc;

use orchestra_core::{IdempotencyKey, Timestamp};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{failed, schema, signed, unsigned};
use crate::error::{Error, Result};
use crate::event::Recorded;
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::status::Status;
use crate::store::{Filter, Open, Snapshot, Summary, Timer};

/// Idle connections that are kept.
const IDLE: usize = 4;

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
        }
    }

    pub(super) fn with<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        let result = query(&connection);
        let mut idle = self.idle.lock();
        if idle.len() < IDLE {
            idle.push(connection);
        }
        result
    }
}

pub(super) fn load(db: &Connection, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
    let fail = |source| failed("reading a log", source).of(saga);
    let sql = "SELECT version, epoch, at, body FROM event
               WHERE saga = (SELECT id FROM saga WHERE uuid = ?1) AND version > ?2
               ORDER BY version";
    let mut sql = db.prepare_cached(sql).map_err(fail)?;
    let rows = sql.query_map(params![saga.to_bytes(), signed(after.0)], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    });
    let rows: Vec<(i64, i64, i64, String)> = rows.and_then(Iterator::collect).map_err(fail)?;
    rows.into_iter()
        .map(|(version, epoch, at, body)| {
            let event = serde_json::from_str(&body).map_err(|source| {
                Error::corrupt(format!("event {version} cannot be read"))
                    .of(saga)
                    .caused_by(source)
            })?;
            let at = Timestamp::from_unix_nanos(unsigned(at));
            let (version, epoch) = (Version(unsigned(version)), Epoch(unsigned(epoch)));
            Ok(Recorded::new(version, epoch, at, event))
        })
        .collect()
}

pub(super) fn find_start(db: &Connection, key: &IdempotencyKey) -> Result<Option<SagaId>> {
    let found: Option<[u8; 16]> = db
        .prepare_cached("SELECT uuid FROM saga WHERE start_key = ?1")
        .and_then(|mut sql| sql.query_row([key.as_str()], |row| row.get(0)).optional())
        .map_err(|source| failed("looking a start key up", source))?;
    Ok(found.map(SagaId::from_bytes))
}

pub(super) fn timers(
    db: &Connection,
    partition: Partition,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Timer>> {
    let sql = "SELECT wake, uuid FROM saga WHERE partition = ?1 AND wake <= ?2
               ORDER BY wake, uuid LIMIT ?3";
    let values = params![
        partition.0,
        signed(now.as_unix_nanos()),
        signed(limit as u64)
    ];
    let timer = |row: &Row<'_>| {
        let (at, saga): (i64, [u8; 16]) = (row.get(0)?, row.get(1)?);
        Ok(Timer {
            at: Timestamp::from_unix_nanos(unsigned(at)),
            saga: SagaId::from_bytes(saga),
        })
    };
    db.prepare_cached(sql)
        .and_then(|mut sql| sql.query_map(values, timer)?.collect())
        .map_err(|source| failed("reading timers", source))
}

pub(super) fn list(db: &Connection, filter: &Filter) -> Result<Vec<Summary>> {
    let mut sql = "SELECT uuid, definition, status, version, wake, updated FROM saga
                   WHERE uuid > ?1"
        .to_owned();
    if filter.open == Open::Only {
        sql.push_str(" AND ended = 0");
    }
    // Absent values match everything.
    sql.push_str(
        " AND (?2 IS NULL OR status = ?2) AND (?3 IS NULL OR partition = ?3)
          ORDER BY uuid LIMIT ?4",
    );
    let after = filter.after.map(|saga| saga.to_bytes().to_vec());
    let values = params![
        after.unwrap_or_default(),
        filter.status.map(Status::as_str),
        filter.partition.map(|partition| partition.0),
        signed(filter.limit as u64),
    ];
    let rows: Vec<(Summary, String)> = db
        .prepare_cached(&sql)
        .and_then(|mut sql| sql.query_map(values, summary)?.collect())
        .map_err(|source| failed("listing sagas", source))?;
    rows.into_iter()
        .map(|(summary, text)| {
            let status = Status::ALL
                .into_iter()
                .find(|status| status.as_str() == text);
            let status = status.ok_or_else(|| {
                Error::corrupt(format!("status {text:?} is unknown")).of(summary.saga)
            })?;
            Ok(Summary { status, ..summary })
        })
        .collect()
}

fn summary(row: &Row<'_>) -> rusqlite::Result<(Summary, String)> {
    let saga: [u8; 16] = row.get(0)?;
    let definition: String = row.get(1)?;
    let wake: Option<i64> = row.get(4)?;
    let at = |nanos: i64| Timestamp::from_unix_nanos(unsigned(nanos));
    let summary = Summary {
        saga: SagaId::from_bytes(saga),
        definition: Arc::from(definition),
        status: Status::Started,
        version: Version(unsigned(row.get(3)?)),
        wake: wake.map(at),
        updated: at(row.get(5)?),
    };
    Ok((summary, row.get(2)?))
}

pub(super) fn snapshot(db: &Connection, saga: SagaId) -> Result<Option<Snapshot>> {
    let sql = "SELECT version, hash, body FROM snapshot
               WHERE saga = (SELECT id FROM saga WHERE uuid = ?1)";
    let found: Option<(i64, [u8; 32], Vec<u8>)> = db
        .prepare_cached(sql)
        .and_then(|mut sql| {
            let row = sql.query_row([saga.to_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            });
            row.optional()
        })
        .map_err(|source| failed("reading a snapshot", source).of(saga))?;
    Ok(found.map(|(version, hash, bytes)| Snapshot {
        version: Version(unsigned(version)),
        hash,
        bytes,
    }))
}
