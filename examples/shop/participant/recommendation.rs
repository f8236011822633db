use orchestra::saga::barrier::sqlite::Abort;
use rusqlite::Connection;
use serde_json::Value;

use super::Participant;
use super::books::refuse;

/// What else one might buy: the items that the user has not bought yet, by what the order service knows.
pub struct Recommendation;

impl Participant for Recommendation {
    fn open(&self, _: &Connection) -> rusqlite::Result<()> {
        Ok(())
    }

    fn act(&self, _: &Connection, _: &Value) -> Result<Value, Abort> {
        Err(refuse("no_step", "recommendations take no part in sagas"))
    }

    fn undo(&self, _: &Connection, _: &Value) -> Result<Value, Abort> {
        Ok(Value::Null)
    }

    fn read(&self, _: &Connection, _: &str) -> rusqlite::Result<Option<Value>> {
        Ok(None)
    }
}
