//! The index in an SQLite file.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::Timestamp;
use parking_lot::Mutex;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{Found, Line, Query, Search};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SagaId;
use crate::projection::View;
use crate::sql;
use crate::store::{Entry, Position};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS orchestra_search_place (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    position BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS orchestra_search_saga (
    saga BLOB PRIMARY KEY,
    status TEXT NOT NULL,
    definition TEXT NOT NULL,
    started INTEGER NOT NULL,
    line TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS orchestra_search_status ON orchestra_search_saga (status, saga);
CREATE INDEX IF NOT EXISTS orchestra_search_definition ON orchestra_search_saga (definition, saga);
CREATE TABLE IF NOT EXISTS orchestra_search_attribute (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    saga BLOB NOT NULL,
    PRIMARY KEY (name, value, saga)
) WITHOUT ROWID;";

/// An index in an SQLite file, its place in the stream beside it in the same transactions.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use orchestra_saga::projection::search::{Query, Search, sqlite::SqliteIndex};
///
/// let directory = tempfile::tempdir()?;
/// let index = SqliteIndex::open(directory.path().join("search.db")).await?;
/// assert!(index.search(&Query::default()).await?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SqliteIndex {
    connection: Arc<Mutex<Connection>>,
}

impl fmt::Debug for SqliteIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteIndex").finish_non_exhaustive()
    }
}

impl SqliteIndex {
    /// Opens or creates the file.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let open = move || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.execute_batch(TABLES)?;
            Ok(connection)
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(lost)?;
        let connection = opened.map_err(|source| failed("opening it", source))?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    async fn with<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.connection);
        let done = tokio::task::spawn_blocking(move || work(&mut connection.lock())).await;
        done.map_err(lost)?.map_err(|trouble| match trouble {
            Trouble::Database(source) => failed(what, source),
            Trouble::Line(source) => {
                Error::corrupt(format!("search index: {what} failed")).caused_by(source)
            }
        })
    }
}

/// What goes wrong in the file.
enum Trouble {
    Database(rusqlite::Error),
    Line(serde_json::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(source: rusqlite::Error) -> Self {
        Self::Database(source)
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(source: serde_json::Error) -> Self {
        Self::Line(source)
    }
}

fn failed(what: &str, source: rusqlite::Error) -> Error {
    let kind = sql::sqlite_kind(&source);
    Error::new(kind, format!("search index: {what} failed")).caused_by(source)
}

fn lost(source: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Store, "search index: its work was lost").caused_by(source)
}

fn place(db: &Connection) -> rusqlite::Result<Position> {
    let found: Option<[u8; 16]> = db
        .prepare_cached("SELECT position FROM orchestra_search_place")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(found.map_or(Position::START, |bytes| {
        Position::from_u128(u128::from_be_bytes(bytes))
    }))
}

fn apply(tx: &Transaction<'_>, entries: &[Entry]) -> Result<(), Trouble> {
    let before = place(tx)?;
    let mut lines: BTreeMap<SagaId, Option<Line>> = BTreeMap::new();
    let mut last = before;
    for entry in entries.iter().filter(|entry| entry.position > before) {
        last = entry.position;
        if let Some(line) = Line::begin(&entry.recorded) {
            keep_attributes(tx, entry.saga, &line)?;
            lines.insert(entry.saga, Some(line));
            continue;
        }
        let line = match lines.entry(entry.saga) {
            Slot::Occupied(known) => known.into_mut(),
            Slot::Vacant(new) => new.insert(read(tx, entry.saga)?),
        };
        if let Some(line) = line {
            line.apply(&entry.recorded);
        }
    }
    let sql = "INSERT INTO orchestra_search_saga (saga, status, definition, started, line)
               VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (saga) DO UPDATE SET
               status = excluded.status, line = excluded.line";
    for (saga, line) in lines {
        let Some(line) = line else { continue };
        let text = serde_json::to_string(&line)?;
        let status = line.status().as_str();
        let values = params![
            saga.to_bytes(),
            status,
            &*line.definition,
            nanos(line.started),
            text
        ];
        tx.prepare_cached(sql)?.execute(values)?;
    }
    let sql = "INSERT INTO orchestra_search_place (only, position) VALUES (1, ?1)
               ON CONFLICT (only) DO UPDATE SET position = excluded.position";
    tx.prepare_cached(sql)?
        .execute([last.as_u128().to_be_bytes()])?;
    Ok(())
}

fn keep_attributes(tx: &Transaction<'_>, saga: SagaId, line: &Line) -> rusqlite::Result<()> {
    let sql = "INSERT INTO orchestra_search_attribute (name, value, saga) VALUES (?1, ?2, ?3)
               ON CONFLICT DO NOTHING";
    let mut insert = tx.prepare_cached(sql)?;
    for (name, value) in &line.attributes {
        insert.execute(params![name, value, saga.to_bytes()])?;
    }
    Ok(())
}

fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_unix_nanos()).unwrap_or(i64::MAX)
}

fn read(db: &Connection, saga: SagaId) -> Result<Option<Line>, Trouble> {
    let text: Option<String> = db
        .prepare_cached("SELECT line FROM orchestra_search_saga WHERE saga = ?1")?
        .query_row([saga.to_bytes()], |row| row.get(0))
        .optional()?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
}

fn search(db: &Connection, query: &Query) -> Result<Vec<Found>, Trouble> {
    let mut sql = "SELECT saga, line FROM orchestra_search_saga WHERE saga > ?".to_owned();
    let after = query.after.map(|saga| saga.to_bytes().to_vec());
    let mut values = vec![Value::Blob(after.unwrap_or_default())];
    let mut also = |clause: &str, value: Value| {
        sql.push_str(clause);
        values.push(value);
    };
    if let Some(status) = query.status {
        also(" AND status = ?", Value::Text(status.as_str().to_owned()));
    }
    if let Some(definition) = &query.definition {
        also(" AND definition = ?", Value::Text(definition.clone()));
    }
    if let Some(since) = query.since {
        also(" AND started >= ?", Value::Integer(nanos(since)));
    }
    if let Some(until) = query.until {
        also(" AND started < ?", Value::Integer(nanos(until)));
    }
    for (name, value) in &query.attributes {
        let with = " AND saga IN (SELECT saga FROM orchestra_search_attribute WHERE name = ?";
        also(with, Value::Text(name.clone()));
        also(" AND value = ?)", Value::Text(value.clone()));
    }
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    also(" ORDER BY saga LIMIT ?", Value::Integer(limit));
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
        Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (saga, text) = row?;
        let line: Line = serde_json::from_str(&text)?;
        found.push(line.found(SagaId::from_bytes(saga)));
    }
    Ok(found)
}

#[async_trait]
impl View for SqliteIndex {
    async fn checkpoint(&self) -> Result<Position> {
        self.with("reading the place", |db| Ok(place(db)?)).await
    }

    async fn apply(&self, entries: &[Entry]) -> Result<()> {
        let entries = entries.to_vec();
        self.with("applying events", move |db| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            apply(&tx, &entries)?;
            Ok(tx.commit()?)
        })
        .await
    }

    async fn reset(&self) -> Result<()> {
        self.with("resetting", |db| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute_batch(
                "DELETE FROM orchestra_search_attribute; DELETE FROM orchestra_search_saga;
                 DELETE FROM orchestra_search_place",
            )?;
            Ok(tx.commit()?)
        })
        .await
    }
}

#[async_trait]
impl Search for SqliteIndex {
    async fn search(&self, query: &Query) -> Result<Vec<Found>> {
        let query = query.clone();
        self.with("searching", move |db| search(db, &query)).await
    }
}
