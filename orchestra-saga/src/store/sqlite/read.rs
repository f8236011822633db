//! Queries, on connections that only read.

use std::sync::Arc;

use orchestra_core::{IdempotencyKey, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::batch::{code, nanos, status};
use super::{failed, signed, unsigned};
use crate::error::{Error, Result};
use crate::event::{Event, Recorded};
use crate::id::{Epoch, Partition, SagaId, Version};
use crate::payload::Payload;
use crate::status::Status;
use crate::store::{Blueprint, Entry, Filter, Open, Position, Snapshot, Summary, Timer};

/// The events of a saga after that version, inside a transaction.
pub(super) fn load(db: &Connection, saga: SagaId, after: Version) -> Result<Vec<Recorded>> {
    let fail = |source| failed("reading a log", source).of(saga);
    let last: Option<(i64, i64)> = db
        .prepare_cached("SELECT frame, version FROM saga WHERE uuid = ?1")
        .and_then(|mut sql| {
            let row = sql.query_row([saga.to_bytes()], |row| Ok((row.get(0)?, row.get(1)?)));
            row.optional()
        })
        .map_err(fail)?;
    let Some((mut position, version)) = last else {
        return Ok(Vec::new());
    };
    let sql = "SELECT previous, version, epoch, at, body, position FROM frame WHERE position = ?1";
    let mut sql = db.prepare_cached(sql).map_err(fail)?;
    let mut next = Version(unsigned(version) + 1);
    let mut frames = Vec::new();
    while next.0 > after.0 + 1 {
        let found = sql.query_row([position], |row| Ok((row.get(0)?, Frame::of(row))));
        let (previous, frame) = found
            .optional()
            .map_err(fail)?
            .ok_or_else(|| Error::corrupt(format!("frame {position} is missing")).of(saga))?;
        let frame = frame.map_err(|error| error.of(saga))?;
        if frame.first.0 + frame.events.len() as u64 != next.0 {
            let message = format!("frame {position} does not end before version {next}");
            return Err(Error::corrupt(message).of(saga));
        }
        (next, position) = (frame.first, previous);
        frames.push(frame);
    }
    let skipped = after.0.saturating_sub(next.0.saturating_sub(1));
    let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
    let events = frames.into_iter().rev().flat_map(Frame::recorded);
    Ok(events.skip(skipped).collect())
}

/// The events of an append.
struct Frame {
    first: Version,
    epoch: Epoch,
    at: Timestamp,
    events: Vec<Event>,
}

impl Frame {
    /// A row of version, epoch, at, body and position, after one column.
    fn of(row: &Row<'_>) -> Result<Self> {
        let number = |column| row.get(column).map(unsigned);
        let read = || -> rusqlite::Result<_> { Ok((number(1)?, number(2)?, number(3)?)) };
        let (first, epoch, at) = read().map_err(|source| failed("reading a frame", source))?;
        let text = row
            .get_ref(4)
            .map_err(|source| failed("reading a frame", source))?;
        let text = text.as_str().unwrap_or_default();
        let events = serde_json::from_str(text).map_err(|source| {
            let position: i64 = row.get(5).unwrap_or_default();
            Error::corrupt(format!("frame {position} cannot be read")).caused_by(source)
        })?;
        Ok(Self {
            first: Version(first),
            epoch: Epoch(epoch),
            at: Timestamp::from_unix_nanos(at),
            events,
        })
    }

    fn recorded(self) -> impl Iterator<Item = Recorded> {
        let Self {
            first, epoch, at, ..
        } = self;
        let numbered = (first.0..).zip(self.events);
        numbered.map(move |(number, event)| Recorded::new(Version(number), epoch, at, event))
    }
}

/// Places are numbered by the frame and, below this many bits, by the event in it from one.
const EVENT_BITS: u32 = 32;

pub(super) fn stream(db: &Connection, after: Position, limit: usize) -> Result<Vec<Entry>> {
    let fail = |source| failed("reading the stream", source);
    let first = i64::try_from(after.as_u128() >> EVENT_BITS).unwrap_or(i64::MAX);
    let sql = "SELECT saga.uuid, frame.version, frame.epoch, frame.at, frame.body, frame.position
               FROM frame CROSS JOIN saga ON saga.id = frame.saga
               WHERE frame.position >= ?1 ORDER BY frame.position";
    let mut sql = db.prepare_cached(sql).map_err(fail)?;
    let mut rows = sql.query([first]).map_err(fail)?;
    let mut entries = Vec::new();
    while entries.len() < limit
        && let Some(row) = rows.next().map_err(fail)?
    {
        let saga = SagaId::from_bytes(row.get(0).map_err(fail)?);
        let number: i64 = row.get(5).map_err(fail)?;
        let frame = Frame::of(row).map_err(|error| error.of(saga))?;
        let start = u128::from(unsigned(number)) << EVENT_BITS;
        let places = (start + 1..).map(Position::from_u128);
        let entry = |(position, recorded)| Entry::new(position, saga, recorded);
        let found = places.zip(frame.recorded()).map(entry);
        let room = limit - entries.len();
        entries.extend(found.filter(|entry| entry.position > after).take(room));
    }
    Ok(entries)
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
    let values = params![partition.0, nanos(now), signed(limit as u64)];
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
    let mut sql = "SELECT uuid, definition, status, version, wake, updated, partition FROM saga
                   WHERE uuid > ?1"
        .to_owned();
    let is_open = |status: Status| !status.is_terminal();
    if filter.open == Open::Only || filter.status.is_some_and(is_open) {
        sql.push_str(" AND ended IS NULL");
    }
    // Absent values match everything.
    sql.push_str(
        " AND (?2 IS NULL OR status = ?2) AND (?3 IS NULL OR partition = ?3)
          AND (?4 IS NULL OR definition = ?4) ORDER BY uuid LIMIT ?5",
    );
    let after = filter.after.map(|saga| saga.to_bytes().to_vec());
    let values = params![
        after.unwrap_or_default(),
        filter.status.map(code),
        filter.partition.map(|partition| partition.0),
        filter.definition.as_deref(),
        signed(filter.limit as u64),
    ];
    let rows: Vec<(Summary, i64)> = db
        .prepare_cached(&sql)
        .and_then(|mut sql| sql.query_map(values, summary)?.collect())
        .map_err(|source| failed("listing sagas", source))?;
    rows.into_iter()
        .map(|(summary, number)| {
            let status = status(number).ok_or_else(|| {
                Error::corrupt(format!("status {number} is unknown")).of(summary.saga)
            })?;
            Ok(Summary { status, ..summary })
        })
        .collect()
}

fn summary(row: &Row<'_>) -> rusqlite::Result<(Summary, i64)> {
    let saga: [u8; 16] = row.get(0)?;
    let definition: String = row.get(1)?;
    let wake: Option<i64> = row.get(4)?;
    let at = |nanos: i64| Timestamp::from_unix_nanos(unsigned(nanos));
    let summary = Summary {
        saga: SagaId::from_bytes(saga),
        partition: Partition(row.get(6)?),
        definition: Arc::from(definition),
        status: Status::Started,
        version: Version(unsigned(row.get(3)?)),
        wake: wake.map(at),
        updated: at(row.get(5)?),
    };
    Ok((summary, row.get(2)?))
}

/// Sagas of the partition that ended before that moment, those first that ended first.
pub(super) fn ended(
    db: &Connection,
    partition: Partition,
    before: i64,
    limit: usize,
) -> Result<Vec<SagaId>> {
    let sql = "SELECT uuid FROM saga WHERE partition = ?1 AND ended < ?2 ORDER BY ended LIMIT ?3";
    let values = params![partition.0, before, signed(limit as u64)];
    db.prepare_cached(sql)
        .and_then(|mut sql| {
            let rows = sql.query_map(values, |row| row.get(0).map(SagaId::from_bytes))?;
            rows.collect()
        })
        .map_err(|source| failed("looking for what has ended", source))
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

pub(super) fn definition(db: &Connection, hash: &str) -> Result<Option<Blueprint>> {
    let found: Option<String> = db
        .prepare_cached("SELECT document FROM definition WHERE hash = ?1")
        .and_then(|mut sql| sql.query_row([hash], |row| row.get(0)).optional())
        .map_err(|source| failed("looking a definition up", source))?;
    let Some(text) = found else {
        return Ok(None);
    };
    let document = Payload::parse(&text).map_err(|source| {
        Error::corrupt(format!("definition {hash} cannot be read")).caused_by(source)
    })?;
    Ok(Some(Blueprint::new(Arc::from(hash), document)))
}
