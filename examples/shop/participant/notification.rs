use orchestra::saga::barrier::sqlite::Abort;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::Participant;
use super::books::text;

/// Who was told what. A notification is never taken back: its step is repeated until it is done.
pub struct Notification;

impl Participant for Notification {
    fn open(&self, db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS sent (saga TEXT PRIMARY KEY, user TEXT NOT NULL) WITHOUT ROWID",
        )
    }

    fn act(&self, db: &Connection, input: &Value) -> Result<Value, Abort> {
        let (saga, user) = (text(input, "order")?, text(input, "user")?);
        db.execute("INSERT INTO sent VALUES (?1, ?2)", params![saga, user])?;
        Ok(json!({ "told": user }))
    }

    fn undo(&self, _: &Connection, _: &Value) -> Result<Value, Abort> {
        Ok(Value::Null)
    }

    fn read(&self, _: &Connection, _: &str) -> rusqlite::Result<Option<Value>> {
        Ok(None)
    }
}
