//! The stores that are measured, fresh ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestra_saga::store::postgres::Config;
use orchestra_saga::{ErrorKind, JournalStore, PostgresStore, SagaStore, SqliteStore};
use tokio_postgres::{Client, NoTls};

use crate::disk::{Scratch, file_system_of};

/// A kind of store.
#[derive(Debug, Clone)]
pub enum Kind {
    Journal,
    Sqlite,
    /// At this address.
    Postgres(String),
}

impl Kind {
    /// All that can be measured here.
    pub fn all() -> Vec<Self> {
        let mut kinds = vec![Self::Journal, Self::Sqlite];
        match std::env::var("ORCH_TEST_PG") {
            Ok(url) => kinds.push(Self::Postgres(url)),
            Err(_) => {
                eprintln!("no PostgreSQL: ORCH_TEST_PG names none, so its figures are left out")
            }
        }
        kinds
    }

    pub const fn name(&self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Sqlite => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// The place of an empty store: for PostgreSQL a database of its own.
    pub async fn make_room(&self) -> Self {
        match self {
            Self::Postgres(url) => Self::Postgres(fresh_database(url).await),
            other => other.clone(),
        }
    }

    /// Opens it, once whoever had it before is gone.
    pub async fn open(&self, scratch: &Scratch) -> Opened {
        self.open_timed(scratch).await.0
    }

    /// As [`Kind::open`], and says how long it took after it was free.
    pub async fn open_timed(&self, scratch: &Scratch) -> (Opened, Duration) {
        loop {
            let begun = Instant::now();
            match self.try_open(scratch).await {
                Ok(opened) => return (opened, begun.elapsed()),
                Err(error) if error.kind() == ErrorKind::Locked => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{} cannot be opened: {error}", self.name()),
            }
        }
    }

    async fn try_open(&self, scratch: &Scratch) -> orchestra_saga::Result<Opened> {
        Ok(match self {
            Self::Journal => Opened::Journal(JournalStore::open(scratch.path("journal")).await?),
            Self::Sqlite => Opened::Sqlite(SqliteStore::open(scratch.path("sagas.db")).await?),
            Self::Postgres(url) => {
                let config = Config::parse(url)?.timeout(Duration::from_secs(60));
                Opened::Postgres(PostgresStore::connect(config).await?)
            }
        })
    }
}

/// A store that is open.
#[derive(Debug)]
pub enum Opened {
    Journal(JournalStore),
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl Opened {
    pub fn store(&self) -> Arc<dyn SagaStore> {
        match self {
            Self::Journal(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    pub async fn close(self) {
        let closed = match self {
            Self::Journal(store) => store.close().await,
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => {
                store.close().await;
                Ok(())
            }
        };
        closed.expect("what is stored is durable");
    }
}

/// The address of an empty database on this server, which must be one that keeps what it acknowledges.
async fn fresh_database(url: &str) -> String {
    const NAME: &str = "bench_orchestra";
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("the PostgreSQL of ORCH_TEST_PG answers");
    tokio::spawn(connection);
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value = show(&client, setting).await;
        assert_eq!(
            value, "on",
            "the PostgreSQL of ORCH_TEST_PG has {setting}={value}"
        );
    }
    // On another machine it cannot be looked at.
    let directory = show(&client, "data_directory").await;
    if std::path::Path::new(&directory).exists() {
        file_system_of(directory.as_ref()).expect("its data are on a disk");
    }
    for command in [
        format!("DROP DATABASE IF EXISTS {NAME} WITH (FORCE)"),
        format!("CREATE DATABASE {NAME}"),
        // So that one side does not pay for what another left.
        "CHECKPOINT".to_owned(),
    ] {
        client
            .batch_execute(&command)
            .await
            .expect("the user of ORCH_TEST_PG may make databases");
    }
    let (server, _) = url.rsplit_once('/').expect("the address names a database");
    format!("{server}/{NAME}")
}

async fn show(client: &Client, setting: &str) -> String {
    let row = client.query_one(&format!("SHOW {setting}"), &[]).await;
    row.expect("a setting of PostgreSQL 15").get(0)
}
