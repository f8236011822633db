use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::Client;

use super::failed;
use crate::dial::{Dial, Session};
use crate::error::{Error, ErrorKind, Result};

/// Connections that are made when they are needed.
pub(super) struct Pool {
    dial: Dial,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
    /// For what has to be there before a transaction is prepared.
    aside: tokio::sync::Mutex<Option<Arc<Session>>>,
}

impl Pool {
    pub(super) fn new<F, D>(
        connections: NonZeroUsize,
        connect: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(Client, D), tokio_postgres::Error>> + Send + 'static,
        D: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        Self {
            dial: Dial::new("two-phase commit", connect),
            idle: Mutex::default(),
            permits: Semaphore::new(connections.get().min(Semaphore::MAX_PERMITS)),
            aside: tokio::sync::Mutex::default(),
        }
    }

    async fn open(&self) -> Result<Session> {
        let opened = self.dial.open().await;
        opened.map_err(|source| failed("connecting", source))
    }

    /// A connection for one caller. It is closed at the end unless it is given back.
    pub(super) async fn lease(&self) -> Result<Lease<'_>> {
        let permit = self.permits.acquire().await;
        let permit = permit.map_err(|source| {
            let message = "two-phase commit: the connections are closed";
            Error::new(ErrorKind::Store, message).caused_by(source)
        })?;
        let open = loop {
            let next = self.idle.lock().pop();
            match next {
                Some(session) if session.client.is_closed() => {}
                found => break found,
            }
        };
        let session = match open {
            Some(session) => session,
            None => self.open().await?,
        };
        Ok(Lease {
            pool: self,
            session,
            _permit: permit,
        })
    }

    /// The connection whose commits do not wait for the disk.
    pub(super) async fn aside(&self) -> Result<Arc<Session>> {
        let mut aside = self.aside.lock().await;
        if let Some(open) = aside.as_ref().filter(|open| !open.client.is_closed()) {
            return Ok(Arc::clone(open));
        }
        *aside = None;
        let session = self.open().await?;
        let set = session.client.batch_execute("SET synchronous_commit = off");
        set.await.map_err(|source| failed("connecting", source))?;
        let session = Arc::new(session);
        *aside = Some(Arc::clone(&session));
        Ok(session)
    }
}

/// A connection while it is in use.
pub(super) struct Lease<'p> {
    pool: &'p Pool,
    pub(super) session: Session,
    _permit: SemaphorePermit<'p>,
}

impl Lease<'_> {
    /// Gives it back. Only outside a transaction: one that was left open ends with its connection.
    pub(super) fn keep(self) {
        self.pool.idle.lock().push(self.session);
    }
}
