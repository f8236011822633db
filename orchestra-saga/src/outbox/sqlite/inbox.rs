use orchestra_core::Timestamp;
use rusqlite::{Connection, params};

use crate::error::{Error, ErrorKind, Result};
use crate::outbox::MessageId;
use crate::sql;

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS orchestra_inbox (
    consumer TEXT NOT NULL,
    id TEXT NOT NULL,
    seen INTEGER NOT NULL,
    PRIMARY KEY (consumer, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS orchestra_inbox_seen ON orchestra_inbox (seen);";

/// Drops messages that were consumed before, in the transaction that consumes them.
///
/// The row is committed with the effect, so a message has its effect once, for as long as its row is
/// kept and the effect is in this database.
///
/// ```
/// use orchestra_saga::outbox::MessageId;
/// use orchestra_saga::outbox::sqlite::Inbox;
///
/// let mut db = rusqlite::Connection::open_in_memory()?;
/// Inbox::install(&db)?;
/// let id = MessageId::new("order-7-paid")?;
/// for expected in [true, false] {
///     let tx = db.transaction()?;
///     let is_new = Inbox::accept(&tx, "mailer", &id)?;
///     assert_eq!(is_new, expected);
///     // If it is new: have the effect here. Then commit, and acknowledge the message to the broker.
///     tx.commit()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Inbox;

impl Inbox {
    /// Creates the table of the inbox unless it is there.
    pub fn install(db: &Connection) -> Result<()> {
        db.execute_batch(TABLE)
            .map_err(|source| failed("installing the table", source))
    }

    /// Whether this consumer sees the message for the first time.
    pub fn accept(tx: &Connection, consumer: &str, id: &MessageId) -> Result<bool> {
        if tx.is_autocommit() {
            let message = "an inbox needs the transaction that has the effect";
            return Err(Error::new(ErrorKind::NoTransaction, message));
        }
        let sql = "INSERT INTO orchestra_inbox (consumer, id, seen)
                   VALUES (?1, ?2, CAST(unixepoch('subsec') * 1000 AS INTEGER))
                   ON CONFLICT DO NOTHING";
        tx.prepare_cached(sql)
            .and_then(|mut sql| sql.execute([consumer, id.as_str()]))
            .map(|rows| rows > 0)
            .map_err(|source| failed("accepting a message", source))
    }

    /// Forgets at most `limit` messages that were seen before that moment, by the clock of the machine,
    /// and says how many. One that is delivered again later has its effect again: keep them longer than
    /// the broker and the outbox may hold a repetition back.
    pub fn prune(db: &Connection, before: Timestamp, limit: u32) -> Result<usize> {
        let before = i64::try_from(before.as_unix_millis()).unwrap_or(i64::MAX);
        let sql = "DELETE FROM orchestra_inbox WHERE (consumer, id) IN (
                       SELECT consumer, id FROM orchestra_inbox WHERE seen < ?1
                       ORDER BY seen LIMIT ?2
                   )";
        db.execute(sql, params![before, limit])
            .map_err(|source| failed("pruning", source))
    }
}

fn failed(what: &str, source: rusqlite::Error) -> Error {
    Error::new(sql::sqlite_kind(&source), format!("inbox: {what} failed")).caused_by(source)
}
