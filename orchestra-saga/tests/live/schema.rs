//! A schema of one's own in the PostgreSQL of the run.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls};

use crate::variable;

/// Where the tables of a test are.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) config: Config,
    connections: JoinSet<()>,
}

impl Schema {
    pub(crate) async fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("saga_{}_{number}", std::process::id());
        let mut config: Config = variable("ORCH_TEST_PG").parse().unwrap();
        let mut schema = Self {
            config: config.clone(),
            connections: JoinSet::new(),
        };
        let client = schema.connect().await;
        let sql = format!("DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}");
        client.batch_execute(&sql).await.unwrap();
        config.options(format!("-c search_path={name}"));
        schema.config = config;
        schema
    }

    pub(crate) async fn connect(&mut self) -> Client {
        let (client, connection) = self.config.connect(NoTls).await.unwrap();
        self.connections.spawn(async move {
            // Whoever uses the client hears of it.
            let _gone = connection.await.is_err();
        });
        client
    }
}
