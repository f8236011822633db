use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::{failed, signed};
use crate::error::{Error, ErrorKind, Result};

/// The layout that this code reads and writes.
const LAYOUT: i64 = 2;

/// An append is one row of `frame`, whose body is the JSON array of its events, and a change in place of
/// the row of its saga, which names the last frame; each frame names the one before it. So a log is read
/// without an index on frames, and frames are only ever added at the end.
///
/// Every index is partial or of a column that is set once, so the usual append touches none.
const TABLES: &str = "
BEGIN;
CREATE TABLE partition (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    owner TEXT NOT NULL
);
CREATE TABLE saga (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL UNIQUE,
    partition INTEGER NOT NULL,
    status INTEGER NOT NULL,
    version INTEGER NOT NULL,
    frame INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    wake INTEGER,
    ended INTEGER,
    definition TEXT NOT NULL,
    start_key TEXT
);
CREATE UNIQUE INDEX saga_start ON saga (start_key) WHERE start_key IS NOT NULL;
CREATE INDEX saga_wake ON saga (partition, wake, uuid) WHERE wake IS NOT NULL;
CREATE INDEX saga_open ON saga (uuid) WHERE ended IS NULL;
CREATE INDEX saga_ended ON saga (partition, ended) WHERE ended IS NOT NULL;
CREATE TABLE frame (
    position INTEGER PRIMARY KEY,
    saga INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE snapshot (
    saga INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE definition (
    hash TEXT PRIMARY KEY,
    document TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    next INTEGER NOT NULL
);
PRAGMA user_version = 2;
COMMIT;
";

/// Memory of the writer for pages, in KiB: what one group changes has room, so nothing is written twice.
const WRITER_PAGES: i64 = 16 * 1024;
/// Memory of each reader for pages, in KiB.
const READER_PAGES: i64 = 4 * 1024;

/// How far the write-ahead log is laid out in advance.
const LAID_OUT: u64 = 8 << 20;

const PATIENCE: Duration = Duration::from_secs(5);

/// The writer's connection, its tables in place.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let fail = |source| failed(&format!("opening {}", path.display()), source);
    let connection = Connection::open(path).map_err(fail)?;
    prepare(&connection).map_err(fail)?;
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(fail)?;
    match found {
        0 => connection.execute_batch(TABLES).map_err(fail)?,
        LAYOUT => {}
        other => {
            let path = path.display();
            let message = format!("saga store {path} has layout {other}, not {LAYOUT}");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
    }
    lay_out(&connection, path).map_err(fail)?;
    Ok(connection)
}

/// A reader's connection.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let fail = |source| failed(&format!("opening {}", path.display()), source);
    let connection = Connection::open(path).map_err(fail)?;
    let set = || {
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "cache_size", -READER_PAGES)?;
        connection.pragma_update(None, "query_only", true)
    };
    set().map_err(fail)?;
    Ok(connection)
}

/// A connection that copies the write-ahead log into the file.
pub(super) fn open_copier(path: &Path) -> Result<Connection> {
    let fail = |source| failed(&format!("opening {}", path.display()), source);
    let connection = Connection::open(path).map_err(fail)?;
    // The copy is only of use if the pages are on the disk before their log is overwritten.
    let set = connection.pragma_update(None, "synchronous", "FULL");
    set.map_err(fail)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -WRITER_PAGES)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Writes over the first part of the write-ahead log once. A commit that makes a file longer makes the
/// disk write the length as well, which takes it half as long again.
fn lay_out(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    if std::fs::metadata(log_of(path)).is_ok_and(|log| log.len() >= LAID_OUT) {
        return Ok(());
    }
    // Pages that have no room in memory go to the log before the transaction ends; it is taken back.
    connection.pragma_update(None, "cache_size", 8)?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let sql = "INSERT INTO snapshot VALUES (-1, 0, zeroblob(0), zeroblob(?1))";
    let filled = connection.execute(sql, [signed(LAID_OUT)]);
    connection.execute_batch("ROLLBACK")?;
    connection.pragma_update(None, "cache_size", -WRITER_PAGES)?;
    filled.map(drop)
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.to_owned().into_os_string();
    log.push("-wal");
    PathBuf::from(log)
}
