//! Two-phase commit with a real PostgreSQL.

mod branch;
mod death;
mod proxy;
mod resolving;
mod saga;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use orchestra_saga::two_phase::postgres::{Abort, Branch, Database, Working};
use orchestra_saga::{
    Call, Definition, Executor, MemoryStore, Operation, Participant, Payload, SagaId, Start,
    StepName,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio_postgres::{Client, Config, Transaction};

use crate::schema::Schema;

/// A namespace that no other test has, nor a former run on the same server.
fn namespace() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    format!("test.{}.{}.{number}", std::process::id(), now.as_nanos())
}

async fn open(config: Config, namespace: &str) -> Database {
    let database = Database::builder(namespace).connect(config).await.unwrap();
    database.install().await.unwrap();
    database
}

/// A database with a table of bookings, and another connection that looks at it.
struct Bank {
    database: Database,
    namespace: String,
    eyes: Client,
    schema: Schema,
}

impl Bank {
    async fn fresh() -> Self {
        let mut schema = Schema::fresh().await;
        let namespace = namespace();
        let database = open(schema.config.clone(), &namespace).await;
        let eyes = schema.connect().await;
        create(&eyes).await;
        Self {
            database,
            namespace,
            eyes,
            schema,
        }
    }

    /// What is booked and seen.
    async fn booked(&self) -> Vec<i64> {
        booked(&self.eyes).await
    }

    async fn in_doubt(&self) -> usize {
        self.database.in_doubt().await.unwrap().len()
    }
}

async fn create(db: &Client) {
    let sql = "CREATE TABLE booking (number BIGSERIAL, cents BIGINT NOT NULL)";
    db.batch_execute(sql).await.unwrap();
}

async fn booked(db: &Client) -> Vec<i64> {
    let sql = "SELECT cents FROM booking ORDER BY number";
    let rows = db.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Books what the input says, and returns the number of the booking, which is another each time.
fn book<'a>(tx: &'a Transaction<'_>, cents: i64) -> Working<'a> {
    Box::pin(async move {
        let sql = "INSERT INTO booking (cents) VALUES ($1) RETURNING number";
        let number: i64 = tx.query_one(sql, &[&cents]).await?.get(0);
        if cents == 0 {
            return Err(Abort::rejected("nothing is not booked"));
        }
        Ok(Payload::from(json!(number)))
    })
}

fn branch(database: &Database) -> Branch {
    database.branch(|tx, call| book(tx, call.input.read().unwrap()))
}

/// A call as an executor makes it.
async fn call(number: u8, cents: i64) -> Call {
    let seen = Arc::new(Mutex::new(None));
    let eye = Arc::clone(&seen);
    let mut d = Definition::builder("capture", "1");
    let input = d.input::<i64>();
    d.step("take", input, move |call: Call, _: i64| {
        *eye.lock() = Some(call);
        async { Ok(()) }
    })
    .read_only();
    let executor = Executor::builder(MemoryStore::default()).definition(d.build().unwrap());
    let executor = executor.build().await.unwrap();
    let start = Start::of("capture").input(&cents).unwrap();
    executor.run(start).await.unwrap();
    let mut call = seen.lock().take().unwrap();
    call.edit().saga = SagaId::from_bytes([number; 16]);
    call
}

/// The second phase of a call.
fn second(call: &Call) -> Call {
    let mut second = call.clone();
    second.edit().step = StepName::new(format!("{}.confirm", call.step)).unwrap();
    second
}

fn undo(call: &Call) -> Call {
    let mut undo = call.clone();
    undo.edit().op = Operation::Compensation;
    undo
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(waited.is_ok(), "not in 20 seconds: {what}");
}
