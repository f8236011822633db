use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use super::line::{Client, Line};
use super::reply::{self, Page};
use crate::error::Result;
use crate::source::{Revision, Scope, WatchEvent, WatchStream};

/// The most changes that are read at once.
const PAGE: u64 = 256;

/// What a step leaves: the connection while it is sound, and the page, if the log goes on.
type Step = (Option<Line>, Result<Option<Page>>);

pub(super) struct RedisWatch {
    client: Arc<Client>,
    scope: Scope,
    after: Revision,
    lost: bool,
    line: Option<Line>,
    /// A step that a caller stopped waiting for. It stays: its request is on the way, and a second one would
    /// queue behind it.
    pending: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
}

impl RedisWatch {
    pub(super) fn new(client: Arc<Client>, scope: Scope, after: Revision) -> Self {
        Self {
            client,
            scope,
            after,
            lost: false,
            line: None,
            pending: None,
        }
    }

    async fn step(&mut self) -> Result<Option<Page>> {
        let pending = self.pending.get_or_insert_with(|| {
            let client = Arc::clone(&self.client);
            let (scope, after, line) = (self.scope.clone(), self.after, self.line.take());
            Box::pin(async move { step(&client, &scope, after, line).await })
        });
        let (line, page) = pending.await;
        self.pending = None;
        self.line = line;
        page
    }
}

/// Reads a page; when there is nothing new, waits until there may be and reads again.
async fn step(client: &Client, scope: &Scope, after: Revision, line: Option<Line>) -> Step {
    let line = match line {
        Some(line) => line,
        None => match client.open().await {
            Ok(line) => line,
            Err(error) => return (None, Err(error)),
        },
    };
    let page = match read(client, &line, scope, after).await {
        Ok(Some(page)) if page.looked_at == 0 => page,
        Ok(page) => return (Some(line), Ok(page)),
        Err(error) => return (None, Err(error)),
    };
    let hold = client.config.hold;
    let limit = page.next_due.map_or(hold, |due| due.min(hold));
    if let Err(error) = client.wait(&line, after.as_u64(), limit).await {
        return (None, Err(error));
    }
    match read(client, &line, scope, after).await {
        Ok(page) => (Some(line), Ok(page)),
        Err(error) => (None, Err(error)),
    }
}

async fn read(
    client: &Client,
    line: &Line,
    scope: &Scope,
    after: Revision,
) -> Result<Option<Page>> {
    let arguments = [
        &*after.to_string(),
        reply::service(scope),
        &*PAGE.to_string(),
    ];
    let script = &client.scripts.changes;
    let answer = client.call_on(line, script, &arguments).await?;
    reply::page(after, &answer)
}

#[async_trait]
impl WatchStream for RedisWatch {
    async fn next(&mut self) -> Result<WatchEvent> {
        while !self.lost {
            let Some(page) = self.step().await? else {
                self.lost = true;
                self.line = None;
                break;
            };
            self.after = page.upto;
            if !page.changes.is_empty() {
                return Ok(WatchEvent::Changes {
                    revision: page.upto,
                    changes: page.changes,
                });
            }
        }
        Ok(WatchEvent::Resync)
    }

    fn revision(&self) -> Revision {
        self.after
    }
}
