use orchestra::saga::barrier::sqlite::Abort;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::Participant;
use super::books::{number, refuse, text};
use crate::catalogue;

/// Who has how much: cents move from `accounts` to `charges` and back.
pub struct Payment;

impl Participant for Payment {
    fn open(&self, db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS accounts (
               user TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0)
             ) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS charges (
               saga TEXT PRIMARY KEY, user TEXT NOT NULL, amount INTEGER NOT NULL
             ) WITHOUT ROWID",
        )?;
        for number in 1..=catalogue::USERS {
            db.execute(
                "INSERT OR IGNORE INTO accounts VALUES (?1, ?2)",
                params![catalogue::user(number), catalogue::opening_balance(number)],
            )?;
        }
        Ok(())
    }

    fn act(&self, db: &Connection, input: &Value) -> Result<Value, Abort> {
        let (saga, user) = (text(input, "order")?, text(input, "user")?);
        let amount = number(input, "amount")?;
        let balance: Option<i64> = db
            .query_row(
                "SELECT balance FROM accounts WHERE user = ?1",
                params![user],
                |row| row.get(0),
            )
            .optional()?;
        if balance.is_none_or(|balance| balance < amount) {
            return Err(refuse(
                "payment_declined",
                format!("the account of {user} does not cover it"),
            ));
        }
        db.execute(
            "UPDATE accounts SET balance = balance - ?2 WHERE user = ?1",
            params![user, amount],
        )?;
        db.execute(
            "INSERT INTO charges VALUES (?1, ?2, ?3)",
            params![saga, user, amount],
        )?;
        Ok(json!({ "charged": amount }))
    }

    fn undo(&self, db: &Connection, input: &Value) -> Result<Value, Abort> {
        let saga = text(input, "order")?;
        db.execute(
            "UPDATE accounts SET balance = balance + c.amount FROM charges c
             WHERE c.saga = ?1 AND accounts.user = c.user",
            params![saga],
        )?;
        let refunded = db.execute("DELETE FROM charges WHERE saga = ?1", params![saga])?;
        Ok(json!({ "refunded": refunded }))
    }

    fn read(&self, _: &Connection, _: &str) -> rusqlite::Result<Option<Value>> {
        Ok(None)
    }
}
