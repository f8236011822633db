use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio_postgres::{Client, Config, NoTls};

use super::gid::Namespace;
use super::pool::Pool;
use super::{Database, Inner};
use crate::error::{Error, ErrorKind, Result};

/// How a [`Database`] is reached.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    namespace: String,
    connections: NonZeroUsize,
}

impl Builder {
    pub(super) const fn new(namespace: String) -> Self {
        Self {
            namespace,
            connections: NonZeroUsize::MIN.saturating_add(7),
        }
    }

    /// The most connections at a time, 8 unless told otherwise, and one beside them. A `prepare` has one from its
    /// beginning to its end; what is prepared has none.
    pub const fn connections(mut self, most: NonZeroUsize) -> Self {
        self.connections = most;
        self
    }

    /// Connects without TLS, and finds out whether the server prepares transactions:
    /// [`ErrorKind::CannotPrepare`] if it does not.
    pub async fn connect(self, config: Config) -> Result<Database> {
        let config = Arc::new(config);
        self.connecting(move || {
            let config = Arc::clone(&config);
            async move { config.connect(NoTls).await }
        })
        .await
    }

    /// As [`connect`](Self::connect), by connections that this makes, as [`Config::connect`] does.
    pub async fn connecting<F, D>(
        self,
        connect: impl Fn() -> F + Send + Sync + 'static,
    ) -> Result<Database>
    where
        F: Future<Output = Result<(Client, D), tokio_postgres::Error>> + Send + 'static,
        D: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let namespace = Namespace::new(&self.namespace).ok_or_else(|| {
            let message = format!(
                "{:?} is not a namespace of prepared transactions",
                self.namespace
            );
            Error::new(ErrorKind::InvalidInput, message)
        })?;
        let pool = Pool::new(self.connections, connect);
        let database = Database(Arc::new(Inner { pool, namespace }));
        database.check().await?;
        Ok(database)
    }
}
