use orchestra::saga::barrier::sqlite::Abort;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::Participant;
use super::books::{number, refuse, text};
use crate::catalogue;

/// What there is to sell: pieces move from `stock` to `reserved` and back.
pub struct Inventory;

impl Participant for Inventory {
    fn open(&self, db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS items (
               sku TEXT PRIMARY KEY, price INTEGER NOT NULL, stock INTEGER NOT NULL CHECK (stock >= 0)
             ) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS reservations (
               saga TEXT PRIMARY KEY, sku TEXT NOT NULL, quantity INTEGER NOT NULL
             ) WITHOUT ROWID",
        )?;
        for (sku, price) in catalogue::ITEMS {
            db.execute(
                "INSERT OR IGNORE INTO items VALUES (?1, ?2, ?3)",
                params![sku, price, catalogue::STOCK],
            )?;
        }
        Ok(())
    }

    fn act(&self, db: &Connection, input: &Value) -> Result<Value, Abort> {
        let (saga, sku) = (text(input, "order")?, text(input, "item")?);
        let quantity = number(input, "quantity")?;
        let row = db
            .query_row(
                "SELECT price, stock FROM items WHERE sku = ?1",
                params![sku],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
            )
            .optional()?;
        let Some((price, stock)) = row else {
            return Err(refuse("unknown_item", format!("there is no item {sku:?}")));
        };
        if stock < quantity {
            return Err(refuse(
                "out_of_stock",
                format!("{stock} of {sku} left, {quantity} ordered"),
            ));
        }
        db.execute(
            "UPDATE items SET stock = stock - ?2 WHERE sku = ?1",
            params![sku, quantity],
        )?;
        db.execute(
            "INSERT INTO reservations VALUES (?1, ?2, ?3)",
            params![saga, sku, quantity],
        )?;
        Ok(json!({ "item": sku, "quantity": quantity, "total": price * quantity }))
    }

    fn undo(&self, db: &Connection, input: &Value) -> Result<Value, Abort> {
        let saga = text(input, "order")?;
        db.execute(
            "UPDATE items SET stock = stock + r.quantity FROM reservations r
             WHERE r.saga = ?1 AND items.sku = r.sku",
            params![saga],
        )?;
        let released = db.execute("DELETE FROM reservations WHERE saga = ?1", params![saga])?;
        Ok(json!({ "released": released }))
    }

    fn read(&self, _: &Connection, _: &str) -> rusqlite::Result<Option<Value>> {
        Ok(None)
    }
}
