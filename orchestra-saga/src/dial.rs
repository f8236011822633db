//! How connections to PostgreSQL are opened, as the user of the crate says.

use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_postgres::Client;

type Driver = BoxFuture<'static, ()>;
type Connecting = BoxFuture<'static, Result<(Client, Driver), tokio_postgres::Error>>;

/// Opens connections.
#[derive(Clone)]
pub(crate) struct Dial(Arc<dyn Fn() -> Connecting + Send + Sync>);

/// A connection and the task that drives it, which ends with it.
pub(crate) struct Session {
    pub(crate) client: Client,
    _driver: JoinSet<()>,
}

impl Dial {
    /// By this closure; a connection that ends badly is logged with the name of its user.
    pub(crate) fn new<F, D>(
        user: &'static str,
        connect: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(Client, D), tokio_postgres::Error>> + Send + 'static,
        D: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        Self(Arc::new(move || {
            let connecting = connect();
            let driven = async move {
                let (client, driver) = connecting.await?;
                let driver = driver.map(move |ended| {
                    if let Err(error) = ended {
                        tracing::warn!(%error, user, "a connection to PostgreSQL was lost");
                    }
                });
                Ok((client, driver.boxed()))
            };
            driven.boxed()
        }))
    }

    pub(crate) async fn open(&self) -> Result<Session, tokio_postgres::Error> {
        let (client, driver) = (self.0)().await?;
        let mut task = JoinSet::new();
        task.spawn(driver);
        Ok(Session {
            client,
            _driver: task,
        })
    }
}
