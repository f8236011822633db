use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::failed;
use crate::error::{Error, ErrorKind, Result};

/// The layout that this code reads and writes.
const LAYOUT: i64 = 1;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS partition (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    owner TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS saga (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL UNIQUE,
    partition INTEGER NOT NULL,
    definition TEXT NOT NULL,
    status TEXT NOT NULL,
    ended INTEGER NOT NULL,
    version INTEGER NOT NULL,
    wake INTEGER,
    updated INTEGER NOT NULL,
    start_key TEXT UNIQUE
);
CREATE INDEX IF NOT EXISTS saga_wake ON saga (partition, wake) WHERE wake IS NOT NULL;
CREATE INDEX IF NOT EXISTS saga_open ON saga (uuid) WHERE ended = 0;
CREATE INDEX IF NOT EXISTS saga_status ON saga (status, uuid);
CREATE TABLE IF NOT EXISTS event (
    saga INTEGER NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (saga, version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshot (
    saga INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL
);
";

/// The writer's connection, its tables in place.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let fail = |source| failed(&format!("opening {}", path.display()), source);
    let connection = Connection::open(path).map_err(fail)?;
    prepare(&connection).map_err(fail)?;
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(fail)?;
    match found {
        0 => {
            connection.execute_batch(TABLES).map_err(fail)?;
            let set = connection.pragma_update(None, "user_version", LAYOUT);
            set.map_err(fail)?;
        }
        LAYOUT => {}
        other => {
            let path = path.display();
            let message = format!("saga store {path} has layout {other}, not {LAYOUT}");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
    }
    Ok(connection)
}

/// A reader's connection.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let fail = |source| failed(&format!("opening {}", path.display()), source);
    let connection = Connection::open(path).map_err(fail)?;
    connection
        .busy_timeout(Duration::from_secs(5))
        .map_err(fail)?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(fail)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}
