//! Connections that come back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use orchestra_core::{Backoff, Jitter};
use parking_lot::Mutex;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Socket, Statement};
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::failure::{Remedy, closed, failed, late, remedy};
use super::schema;
use crate::error::Result;

/// How fast a server that is away is asked again.
const AGAIN: Backoff = Backoff::exponential(Duration::from_millis(20), 2.0)
    .cap(Duration::from_secs(2))
    .jitter(Jitter::Equal);

type Driven = (Client, BoxFuture<'static, ()>);

/// Opens a connection, and hides by what TLS.
#[async_trait]
pub(super) trait Dial: Send + Sync {
    async fn dial(
        &self,
        server: &tokio_postgres::Config,
    ) -> std::result::Result<Driven, tokio_postgres::Error>;
}

pub(super) struct Dialer<T>(pub(super) T);

#[async_trait]
impl<T> Dial for Dialer<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    async fn dial(
        &self,
        server: &tokio_postgres::Config,
    ) -> std::result::Result<Driven, tokio_postgres::Error> {
        let (client, connection) = server.connect(self.0.clone()).await?;
        let driver = async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "a connection of the saga store broke");
            }
        };
        Ok((client, Box::pin(driver)))
    }
}

/// What the connections of a store have in common.
pub(super) struct Site {
    pub(super) config: Config,
    pub(super) dialer: Box<dyn Dial>,
    pub(super) tasks: TaskTracker,
}

impl Site {
    pub(super) fn new(config: Config, dialer: Box<dyn Dial>) -> Self {
        Self {
            config,
            dialer,
            tasks: TaskTracker::new(),
        }
    }

    /// A connection that is ready for our statements. It ends when its session is dropped.
    pub(super) async fn connect(&self) -> Result<Session> {
        let fail = |source| failed("connecting", source);
        let (client, driver) = self.dialer.dial(&self.config.server).await.map_err(fail)?;
        drop(self.tasks.spawn(driver));
        let session = Session {
            client,
            statements: Mutex::default(),
        };
        let settings = schema::settings(self.config.timeout);
        let prepared = session.client.batch_execute(&settings).await;
        prepared.map_err(fail)?;
        Ok(session)
    }
}

/// One connection and the statements it has prepared.
pub(super) struct Session {
    pub(super) client: Client,
    statements: Mutex<HashMap<Arc<str>, Statement>>,
}

impl Session {
    pub(super) async fn prepare(
        &self,
        sql: &Arc<str>,
    ) -> std::result::Result<Statement, tokio_postgres::Error> {
        let known = self.statements.lock().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        self.statements
            .lock()
            .insert(Arc::clone(sql), statement.clone());
        Ok(statement)
    }
}

/// A connection that is opened when it is needed, and again when it broke.
pub(super) struct Link {
    site: Arc<Site>,
    current: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    failures: u32,
    closed: bool,
}

impl Link {
    pub(super) fn new(site: Arc<Site>) -> Self {
        Self {
            site,
            current: tokio::sync::Mutex::default(),
        }
    }

    /// The connection, or why there is none; nothing once the store is closed. One that fails is tried again
    /// only after a while, which the callers spend here.
    pub(super) async fn session(&self) -> Result<Option<Arc<Session>>> {
        let mut state = self.current.lock().await;
        if state.closed {
            return Ok(None);
        }
        if let Some(session) = &state.session {
            if !session.client.is_closed() {
                return Ok(Some(Arc::clone(session)));
            }
            state.session = None;
        }
        if state.failures > 0 {
            let delay = AGAIN.delay(state.failures, Duration::ZERO, fastrand::u64(..));
            tokio::time::sleep(delay).await;
        }
        // Counted before, since whoever asks may be dropped in the midst of it.
        state.failures = state.failures.saturating_add(1);
        let connecting = async {
            let session = self.site.connect().await?;
            schema::check(&session, &self.site.config.schema).await?;
            Ok(session)
        };
        let connected = tokio::time::timeout(self.site.config.timeout, connecting).await;
        let session = Arc::new(connected.map_err(|_elapsed| late("connecting"))??);
        if state.failures > 1 {
            tracing::info!(
                failures = state.failures - 1,
                "the saga store is connected again"
            );
        }
        state.failures = 0;
        state.session = Some(Arc::clone(&session));
        Ok(Some(session))
    }

    /// Lets go of a connection that is of no more use.
    pub(super) async fn discard(&self, session: &Arc<Session>) {
        let mut state = self.current.lock().await;
        let same = |held: &Arc<Session>| Arc::ptr_eq(held, session);
        if state.session.as_ref().is_some_and(same) {
            state.session = None;
        }
    }

    pub(super) async fn close(&self) {
        let mut state = self.current.lock().await;
        state.closed = true;
        state.session = None;
    }

    /// Runs a query, within the time that operations may take.
    pub(super) async fn run<T, F>(
        &self,
        what: &str,
        query: impl FnOnce(Arc<Session>) -> F + Send,
    ) -> Result<T>
    where
        F: Future<Output = std::result::Result<T, tokio_postgres::Error>> + Send,
    {
        let (mut used, mut last) = (None, None);
        let work = async {
            let session = loop {
                match self.session().await {
                    Ok(Some(session)) => break session,
                    Ok(None) => return Err(closed()),
                    Err(error) if error.is_retryable() => last = Some(error),
                    Err(error) => return Err(error),
                }
            };
            used = Some(Arc::clone(&session));
            let answer = query(Arc::clone(&session)).await;
            if let Err(error) = &answer
                && remedy(error) == Remedy::Reconnect
            {
                self.discard(&session).await;
            }
            answer.map_err(|source| failed(what, source))
        };
        let answer = tokio::time::timeout(self.site.config.timeout, work).await;
        match (answer, used, last) {
            (Ok(answer), ..) => answer,
            (Err(_elapsed), Some(silent), _) => {
                self.discard(&silent).await;
                Err(late(what))
            }
            (Err(_elapsed), None, Some(error)) => Err(error),
            (Err(_elapsed), None, None) => Err(late(what)),
        }
    }
}
