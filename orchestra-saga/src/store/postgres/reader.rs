//! The connections that read logs: each takes all that were asked for, and reads them in one round trip.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_postgres::Row;

use super::failure::{Outage, Remedy, late, remedy};
use super::link::{Link, Session, Site};
use super::queue::{Queue, Waiting};
use super::schema::Statements;
use super::values::{Frame, asked, signed, uuid_of};
use crate::error::{Error, Result};
use crate::event::Recorded;
use crate::id::{SagaId, Version};

/// Logs that are read at once. All of them are in memory then.
const MOST: usize = 128;

/// What somebody wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Log,
    Snapshot,
}

/// Who wants to read what. The rows are made sense of by whoever wanted them, so that it is done in parallel.
pub(super) struct Wish {
    pub(super) what: What,
    pub(super) saga: SagaId,
    /// For a log: what is known already.
    pub(super) after: Version,
    pub(super) reply: oneshot::Sender<Result<Vec<Row>>>,
}

impl Waiting for Wish {
    fn saga(&self) -> SagaId {
        self.saga
    }

    fn weight(&self) -> usize {
        0
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

pub(super) fn queue() -> Queue<Wish> {
    Queue::new(MOST, 0)
}

/// One connection for logs.
pub(super) struct Reader {
    pub(super) queue: Arc<Queue<Wish>>,
    pub(super) site: Arc<Site>,
    pub(super) statements: Arc<Statements>,
}

impl Reader {
    /// Until the queue is closed and empty.
    pub(super) async fn run(self) {
        let link = Link::new(Arc::clone(&self.site));
        while self.queue.ready().await {
            match link.session().await {
                Ok(Some(session)) => self.serve(&link, &session).await,
                Ok(None) => return,
                Err(error) if error.is_retryable() => self.queue.sweep(),
                Err(error) => refuse(self.queue.clear(), &Outage::from(&error)),
            }
        }
    }

    async fn serve(&self, link: &Link, session: &Arc<Session>) {
        let wishes = self.queue.take().into_iter();
        let (logs, snapshots): (Vec<_>, Vec<_>) = wishes.partition(|wish| wish.what == What::Log);
        let reading = async {
            // The second goes out before the first is answered.
            tokio::join!(
                self.logs(session, &logs),
                self.snapshots(session, &snapshots)
            )
        };
        let found = tokio::time::timeout(self.site.config.timeout, reading).await;
        let Ok((log_rows, snapshot_rows)) = found else {
            link.discard(session).await;
            let outage = Outage::from(&late("reading logs"));
            refuse(logs.into_iter().chain(snapshots), &outage);
            return;
        };
        for (wishes, rows) in [(logs, log_rows), (snapshots, snapshot_rows)] {
            match rows {
                Ok(rows) => answer(wishes, rows),
                Err(error) => {
                    if remedy(&error) == Remedy::Reconnect {
                        link.discard(session).await;
                    }
                    refuse(wishes, &Outage::of("reading logs", &error));
                }
            }
        }
    }

    async fn logs(
        &self,
        session: &Session,
        wishes: &[Wish],
    ) -> std::result::Result<Vec<Row>, tokio_postgres::Error> {
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let sagas: Vec<_> = wishes.iter().map(|wish| uuid_of(wish.saga)).collect();
        let after: Vec<_> = wishes.iter().map(|wish| signed(wish.after.0)).collect();
        let statement = session.prepare(&self.statements.load).await?;
        session.client.query(&statement, &[&sagas, &after]).await
    }

    async fn snapshots(
        &self,
        session: &Session,
        wishes: &[Wish],
    ) -> std::result::Result<Vec<Row>, tokio_postgres::Error> {
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let sagas: Vec<_> = wishes.iter().map(|wish| uuid_of(wish.saga)).collect();
        let statement = session.prepare(&self.statements.snapshots).await?;
        session.client.query(&statement, &[&sagas]).await
    }
}

fn refuse(wishes: impl IntoIterator<Item = Wish>, outage: &Outage) {
    for wish in wishes {
        // Whoever gave up wants no answer.
        let _gone = wish.reply.send(Err(outage.error().of(wish.saga)));
    }
}

/// Hands out the rows, of which each says whom it answers.
fn answer(wishes: Vec<Wish>, rows: Vec<Row>) {
    let mut parts: Vec<Vec<Row>> = wishes.iter().map(|_| Vec::new()).collect();
    for row in rows {
        let part = asked(&row).and_then(|number| parts.get_mut(number));
        if let Some(part) = part {
            part.push(row);
        }
    }
    for (wish, rows) in wishes.into_iter().zip(parts) {
        let _gone = wish.reply.send(Ok(rows));
    }
}

/// The events of a log after that version.
pub(super) fn log(saga: SagaId, after: Version, rows: &[Row]) -> Result<Vec<Recorded>> {
    let mut log = Vec::with_capacity(rows.len() * 2);
    for row in rows {
        let frame = Frame::of(row, 1, saga)?;
        // The first may have begun before.
        log.extend(frame.recorded().filter(|recorded| recorded.version > after));
    }
    log.sort_unstable_by_key(|recorded| recorded.version);
    let mut numbered = (after.0 + 1..).zip(&log);
    if numbered.any(|(number, recorded)| recorded.version.0 != number) {
        return Err(Error::corrupt("the log has a gap").of(saga));
    }
    Ok(log)
}
