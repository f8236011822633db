//! The store in PostgreSQL.

mod contending;
mod fencing;
mod laying;
mod likeness;
mod outage;
pub(crate) mod server;
mod streaming;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use orchestra_core::{IdempotencyKey, Timestamp};
use orchestra_saga::event::Started;
use orchestra_saga::store::postgres::Config;
use orchestra_saga::{Append, Event, Payload, PostgresStore, SagaId, Version};

use crate::variable;

mod laws {
    orchestra_saga::saga_store_suite!(|| async { (super::fresh().await, ()) });
}

/// A name that no other test has, nor a former run on the same server.
fn schema() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    format!("saga_{}_{}_{number}", std::process::id(), now.as_nanos())
}

fn config(schema: &str) -> Config {
    let config = Config::parse(&variable("ORCH_TEST_PG")).unwrap();
    config.schema(schema).unwrap()
}

async fn open(schema: &str) -> PostgresStore {
    PostgresStore::connect(config(schema)).await.unwrap()
}

/// A store that nobody has written to.
async fn fresh() -> PostgresStore {
    open(&schema()).await
}

/// The driver itself, for what an operator or a stranger does.
async fn raw() -> tokio_postgres::Client {
    raw_at(&variable("ORCH_TEST_PG")).await
}

async fn raw_at(address: &str) -> tokio_postgres::Client {
    let connecting = tokio_postgres::connect(address, tokio_postgres::NoTls);
    let (client, connection) = connecting.await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the client")]
    drop(tokio::spawn(async move { drop(connection.await) }));
    client
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_nanos(second * 1_000_000_000)
}

fn saga(number: u64) -> SagaId {
    SagaId::from_parts(at(1_000 + number), u128::from(number))
}

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(text).unwrap()
}

fn start(saga: SagaId) -> Append {
    let started = Started::new("d", "1", "h", Payload::default());
    let started = Event::SagaStarted(Arc::new(started));
    Append::new(saga, Version(0), at(1), vec![started])
}

fn note(reason: &str) -> Event {
    let reason = reason.to_owned();
    Event::SagaCancelRequested { reason }
}

/// One event after that version.
fn more(saga: SagaId, expected: u64, reason: &str) -> Append {
    Append::new(saga, Version(expected), at(2), vec![note(reason)])
}
