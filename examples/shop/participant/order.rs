use orchestra::saga::barrier::sqlite::Abort;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::Participant;
use super::books::{number, text};

/// What was ordered.
pub struct Order;

impl Participant for Order {
    fn open(&self, db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS orders (
               id TEXT PRIMARY KEY, user TEXT NOT NULL, item TEXT NOT NULL,
               quantity INTEGER NOT NULL, total INTEGER NOT NULL
             ) WITHOUT ROWID;
             CREATE INDEX IF NOT EXISTS orders_of_user ON orders (user)",
        )
    }

    fn act(&self, db: &Connection, input: &Value) -> Result<Value, Abort> {
        let id = text(input, "order")?;
        db.execute(
            "INSERT INTO orders VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                id,
                text(input, "user")?,
                text(input, "item")?,
                number(input, "quantity")?,
                number(input, "total")?
            ],
        )?;
        Ok(json!({ "order": id }))
    }

    fn undo(&self, db: &Connection, input: &Value) -> Result<Value, Abort> {
        let removed = db.execute(
            "DELETE FROM orders WHERE id = ?1",
            params![text(input, "order")?],
        )?;
        Ok(json!({ "removed": removed }))
    }

    fn read(&self, db: &Connection, path: &str) -> rusqlite::Result<Option<Value>> {
        if let Some(user) = path.strip_prefix("bought-by/") {
            let mut query = db
                .prepare_cached("SELECT DISTINCT item FROM orders WHERE user = ?1 ORDER BY item")?;
            let items = query.query_map(params![user], |row| row.get::<_, String>(0))?;
            return Ok(Some(json!(items.collect::<Result<Vec<_>, _>>()?)));
        }
        let Some(id) = path.strip_prefix("orders/") else {
            return Ok(None);
        };
        db.query_row(
            "SELECT user, item, quantity, total FROM orders WHERE id = ?1",
            params![id],
            |row| {
                Ok(json!({
                    "user": row.get::<_, String>(0)?, "item": row.get::<_, String>(1)?,
                    "quantity": row.get::<_, i64>(2)?, "total": row.get::<_, i64>(3)?,
                }))
            },
        )
        .optional()
    }
}
