use std::time::SystemTime;

use orchestra_core::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};

use crate::error::{Error, Result};
use crate::outbox::MessageId;
use crate::sql;

const TABLE: &str = "
SELECT pg_advisory_xact_lock(hashtext('orchestra_inbox'));
CREATE TABLE IF NOT EXISTS orchestra_inbox (
    consumer TEXT NOT NULL,
    id TEXT NOT NULL,
    seen TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, id)
);
CREATE INDEX IF NOT EXISTS orchestra_inbox_seen ON orchestra_inbox (seen);";

/// Drops messages that were consumed before, in the transaction that consumes them.
///
/// The row is committed with the effect, so a message has its effect once, for as long as its row is
/// kept and the effect is in this database. Of two deliveries at once the second waits until the first
/// has committed or rolled back.
///
/// ```no_run
/// use orchestra_saga::outbox::MessageId;
/// use orchestra_saga::outbox::postgres::Inbox;
///
/// # async fn consume(
/// #     db: &mut tokio_postgres::Client,
/// #     id: MessageId,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// Inbox::install(db).await?;
/// let tx = db.transaction().await?;
/// if Inbox::accept(&tx, "mailer", &id).await? {
///     tx.execute("INSERT INTO mail (text) VALUES ('paid')", &[]).await?;
/// }
/// tx.commit().await?; // then acknowledge the message to the broker
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Inbox;

impl Inbox {
    /// Creates the table of the inbox unless it is there.
    pub async fn install(db: &impl GenericClient) -> Result<()> {
        db.batch_execute(TABLE)
            .await
            .map_err(|source| failed("installing the table", source))
    }

    /// Whether this consumer sees the message for the first time.
    pub async fn accept(tx: &Transaction<'_>, consumer: &str, id: &MessageId) -> Result<bool> {
        let sql = "INSERT INTO orchestra_inbox (consumer, id) VALUES ($1, $2)
                   ON CONFLICT DO NOTHING";
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&consumer, Type::TEXT), (&id.as_str(), Type::TEXT)];
        tx.execute_typed(sql, &values)
            .await
            .map(|rows| rows > 0)
            .map_err(|source| failed("accepting a message", source))
    }

    /// Forgets at most `limit` messages that were seen before that moment, by the clock of the database,
    /// and says how many. One that is delivered again later has its effect again: keep them longer than
    /// the broker and the outbox may hold a repetition back.
    pub async fn prune(db: &impl GenericClient, before: Timestamp, limit: u32) -> Result<u64> {
        let sql = "DELETE FROM orchestra_inbox WHERE (consumer, id) IN (
                       SELECT consumer, id FROM orchestra_inbox WHERE seen < $1
                       ORDER BY seen LIMIT $2 FOR UPDATE SKIP LOCKED
                   )";
        let before = SystemTime::UNIX_EPOCH + before.since(Timestamp::UNIX_EPOCH);
        db.execute_typed(
            sql,
            &[
                (&before, Type::TIMESTAMPTZ),
                (&i64::from(limit), Type::INT8),
            ],
        )
        .await
        .map_err(|source| failed("pruning", source))
    }
}

fn failed(what: &str, source: tokio_postgres::Error) -> Error {
    Error::new(sql::postgres_kind(&source), format!("inbox: {what} failed")).caused_by(source)
}
