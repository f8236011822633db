//! The stores that are put to the test.

use std::path::Path;
use std::sync::Arc;

use orchestra_saga::store::journal;
use orchestra_saga::{JournalStore, SagaStore, SqliteStore};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Journal,
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
}

impl Kind {
    /// Whether several workers share it.
    pub(crate) fn is_shared(self) -> bool {
        match self {
            Self::Journal | Self::Sqlite => false,
            #[cfg(feature = "postgres")]
            Self::Postgres => true,
        }
    }
}

/// An open store, which may have to be closed.
#[derive(Debug, Clone)]
pub(crate) enum Opened {
    Journal(JournalStore),
    Sqlite(SqliteStore),
    #[cfg(feature = "postgres")]
    Postgres(orchestra_saga::PostgresStore),
}

impl Opened {
    /// The store of a batch: in its directory, or in a schema of the name of the directory.
    pub(crate) async fn open(kind: Kind, directory: &Path) -> orchestra_saga::Result<Self> {
        match kind {
            Kind::Journal => {
                // Small enough for segments to fill and to be compacted within a batch.
                let config = journal::Config::default()
                    .segment_bytes(256 << 10)
                    .checkpoint_bytes(512 << 10);
                let store = JournalStore::open_with(directory.join("journal"), config);
                Ok(Self::Journal(store.await?))
            }
            Kind::Sqlite => {
                let store = SqliteStore::open(directory.join("sagas.db"));
                Ok(Self::Sqlite(store.await?))
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres => {
                let url = postgres_url().expect("a PostgreSQL");
                let config = orchestra_saga::store::postgres::Config::parse(&url)?;
                let config = config.schema(schema_of(directory))?;
                let store = orchestra_saga::PostgresStore::connect(config);
                Ok(Self::Postgres(store.await?))
            }
        }
    }

    pub(crate) fn store(&self) -> Arc<dyn SagaStore> {
        match self {
            Self::Journal(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Journal(store) => store.close().await.expect("closed"),
            Self::Sqlite(store) => store.close().await.expect("closed"),
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => store.close().await,
        }
    }
}

#[cfg(feature = "postgres")]
pub(crate) fn postgres_url() -> Option<String> {
    std::env::var("ORCH_TEST_PG")
        .ok()
        .filter(|url| !url.is_empty())
}

#[cfg(feature = "postgres")]
fn schema_of(directory: &Path) -> String {
    let name = directory.file_name().expect("a name").to_string_lossy();
    name.to_ascii_lowercase().replace(['.', '-'], "_")
}

/// Forgets a store that is not in its directory.
#[cfg(feature = "postgres")]
pub(crate) async fn drop_schema(directory: &Path) {
    let url = postgres_url().expect("a PostgreSQL");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .expect("connected");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", schema_of(directory));
    client.batch_execute(&sql).await.expect("dropped");
}
