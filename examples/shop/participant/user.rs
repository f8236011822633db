use orchestra::saga::barrier::sqlite::Abort;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::Participant;
use super::books::{refuse, text};
use crate::catalogue;

/// Who may buy.
pub struct User;

impl Participant for User {
    fn open(&self, db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch("CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY) WITHOUT ROWID")?;
        for number in 1..=catalogue::USERS {
            db.execute(
                "INSERT OR IGNORE INTO users VALUES (?1)",
                params![catalogue::user(number)],
            )?;
        }
        Ok(())
    }

    fn act(&self, db: &Connection, input: &Value) -> Result<Value, Abort> {
        let user = text(input, "user")?;
        match self.read(db, &format!("users/{user}")) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(refuse("unknown_user", format!("there is no user {user:?}"))),
            Err(error) => Err(error.into()),
        }
    }

    fn undo(&self, _: &Connection, _: &Value) -> Result<Value, Abort> {
        Ok(Value::Null)
    }

    fn read(&self, db: &Connection, path: &str) -> rusqlite::Result<Option<Value>> {
        let Some(user) = path.strip_prefix("users/") else {
            return Ok(None);
        };
        db.query_row("SELECT id FROM users WHERE id = ?1", params![user], |row| {
            Ok(json!({ "user": row.get::<_, String>(0)? }))
        })
        .optional()
    }
}
