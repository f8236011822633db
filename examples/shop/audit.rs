//! Counts goods and money in the participants' own databases and compares them with the sagas.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::catalogue;

/// What the books of the four participants say.
#[derive(Debug, Default)]
pub struct Books {
    /// Sagas that hold a reservation, a charge, an order, a notification.
    pub reserved: BTreeSet<String>,
    pub charged: BTreeSet<String>,
    pub ordered: BTreeSet<String>,
    pub told: BTreeSet<String>,
    /// Pieces in stock and reserved, over all items, against what there was.
    pub pieces: (i64, i64),
    /// Cents on accounts and charged, against what there was.
    pub cents: (i64, i64),
    /// Orders whose total is not what was charged for them.
    pub wrong_totals: i64,
}

impl Books {
    pub fn read(data: &Path) -> anyhow::Result<Self> {
        let inventory = open(data, "inventory")?;
        let payment = open(data, "payment")?;
        let order = open(data, "order")?;
        let notification = open(data, "notification")?;
        order.execute(
            "ATTACH DATABASE ?1 AS payment",
            [data.join("payment.db").to_string_lossy().as_ref()],
        )?;
        let pieces = sum(&inventory, "SELECT SUM(stock) FROM items")?
            + sum(&inventory, "SELECT SUM(quantity) FROM reservations")?;
        let cents = sum(&payment, "SELECT SUM(balance) FROM accounts")?
            + sum(&payment, "SELECT SUM(amount) FROM charges")?;
        Ok(Self {
            reserved: ids(&inventory, "SELECT saga FROM reservations")?,
            charged: ids(&payment, "SELECT saga FROM charges")?,
            ordered: ids(&order, "SELECT id FROM orders")?,
            told: ids(&notification, "SELECT saga FROM sent")?,
            pieces: (pieces, catalogue::STOCK * catalogue::ITEMS.len() as i64),
            cents: (cents, catalogue::total_money()),
            wrong_totals: sum(
                &order,
                "SELECT COUNT(*) FROM orders o LEFT JOIN payment.charges c ON c.saga = o.id
                 WHERE c.amount IS NOT o.total",
            )?,
        })
    }

    pub fn goods_conserved(&self) -> bool {
        self.pieces.0 == self.pieces.1
    }

    pub fn money_conserved(&self) -> bool {
        self.cents.0 == self.cents.1 && self.wrong_totals == 0
    }

    /// Sagas whose effects are not exactly those of their end: all four for a completed one, none for a
    /// compensated one. Sagas that are still running or parked are left out.
    pub fn contradictions(
        &self,
        completed: &BTreeSet<String>,
        compensated: &BTreeSet<String>,
    ) -> Vec<String> {
        let effects = |id: &String| {
            [&self.reserved, &self.charged, &self.ordered, &self.told]
                .iter()
                .filter(|set| set.contains(id))
                .count()
        };
        let partly = completed.iter().filter(|id| effects(id) != 4);
        let leftover = compensated.iter().filter(|id| effects(id) != 0);
        partly.chain(leftover).cloned().collect()
    }
}

fn open(data: &Path, service: &str) -> anyhow::Result<Connection> {
    let path = data.join(format!("{service}.db"));
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(std::time::Duration::from_secs(2))?;
    Ok(db)
}

fn sum(db: &Connection, query: &str) -> rusqlite::Result<i64> {
    db.query_row(query, [], |row| {
        Ok(row.get::<_, Option<i64>>(0)?.unwrap_or(0))
    })
}

fn ids(db: &Connection, query: &str) -> rusqlite::Result<BTreeSet<String>> {
    db.prepare(query)?
        .query_map([], |row| row.get(0))?
        .collect()
}
