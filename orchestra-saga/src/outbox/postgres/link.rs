use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::failed;
use crate::error::{Error, ErrorKind, Result};

type Driver = BoxFuture<'static, ()>;
type Connecting = BoxFuture<'static, Result<(Client, Driver), tokio_postgres::Error>>;

/// A connection that is made when it is needed, and made again when it is lost.
pub(super) struct Link {
    connect: Arc<dyn Fn() -> Connecting + Send + Sync>,
    open: Mutex<Option<Open>>,
}

/// A connection and the task that drives it, which ends with it.
struct Open {
    client: Client,
    _driver: JoinSet<()>,
}

impl Link {
    pub(super) fn new<F, D>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(Client, D), tokio_postgres::Error>> + Send + 'static,
        D: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let connect = move || {
            let connecting = connect();
            let driven = async move {
                let (client, driver) = connecting.await?;
                let driver = driver.map(|ended| {
                    if let Err(error) = ended {
                        tracing::warn!(%error, "the connection of the outbox was lost");
                    }
                });
                Ok((client, driver.boxed()))
            };
            driven.boxed()
        };
        Self {
            connect: Arc::new(connect),
            open: Mutex::default(),
        }
    }

    /// The connection, for one caller at a time: transactions need it alone.
    pub(super) async fn client(&self) -> Result<Held<'_>> {
        let mut open = self.open.lock().await;
        if open.as_ref().is_none_or(|open| open.client.is_closed()) {
            *open = None;
            let connected = (self.connect)().await;
            let (client, driver) = connected.map_err(|source| failed("connecting", source))?;
            let mut task = JoinSet::new();
            task.spawn(driver);
            *open = Some(Open {
                client,
                _driver: task,
            });
        }
        Ok(Held(open))
    }
}

/// The connection while it is in use.
pub(super) struct Held<'a>(MutexGuard<'a, Option<Open>>);

impl Held<'_> {
    pub(super) fn client(&mut self) -> Result<&mut Client> {
        let open = self.0.as_mut().map(|open| &mut open.client);
        open.ok_or_else(|| Error::new(ErrorKind::Store, "outbox: there is no connection"))
    }
}
