use std::future::Future;

use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::Client;

use super::failed;
use crate::dial::{Dial, Session};
use crate::error::{Error, ErrorKind, Result};

/// A connection that is made when it is needed, and made again when it is lost.
pub(super) struct Link {
    dial: Dial,
    open: Mutex<Option<Session>>,
}

impl Link {
    pub(super) fn new<F, D>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(Client, D), tokio_postgres::Error>> + Send + 'static,
        D: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        Self {
            dial: Dial::new("outbox", connect),
            open: Mutex::default(),
        }
    }

    /// The connection, for one caller at a time: transactions need it alone.
    pub(super) async fn client(&self) -> Result<Held<'_>> {
        let mut open = self.open.lock().await;
        if open.as_ref().is_none_or(|open| open.client.is_closed()) {
            *open = None;
            let opened = self.dial.open().await;
            *open = Some(opened.map_err(|source| failed("connecting", source))?);
        }
        Ok(Held(open))
    }
}

/// The connection while it is in use.
pub(super) struct Held<'a>(MutexGuard<'a, Option<Session>>);

impl Held<'_> {
    pub(super) fn client(&mut self) -> Result<&mut Client> {
        let open = self.0.as_mut().map(|open| &mut open.client);
        open.ok_or_else(|| Error::new(ErrorKind::Store, "outbox: there is no connection"))
    }
}
