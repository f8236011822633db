use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Shared;
use super::table::Page;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Revision, Scope, WatchEvent, WatchStream};

/// tokio's timer has a resolution of a millisecond; a shorter sleep would only spin.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

pub(super) struct MemoryWatch {
    shared: Arc<Shared>,
    scope: Scope,
    after: Revision,
    lost: bool,
    latest: tokio::sync::watch::Receiver<Revision>,
}

impl MemoryWatch {
    pub(super) fn new(shared: Arc<Shared>, scope: Scope, after: Revision) -> Self {
        let latest = shared.latest.subscribe();
        Self {
            shared,
            scope,
            after,
            lost: false,
            latest,
        }
    }

    /// What there is to say now, and else how long until something may lapse.
    fn poll(&mut self) -> Result<WatchEvent, Option<Duration>> {
        let (page, next) = self.shared.act(|table, now| {
            let page = table.changes(&self.scope, self.after);
            (page, table.next_deadline().map(|moment| moment.since(now)))
        });
        match page {
            Page::Forgotten => {
                self.lost = true;
                Ok(WatchEvent::Resync)
            }
            Page::Changes { upto, changes } => {
                self.after = upto;
                if changes.is_empty() {
                    return Err(next.map(|sleep| sleep.max(SHORTEST_SLEEP)));
                }
                Ok(WatchEvent::Changes {
                    revision: upto,
                    changes,
                })
            }
        }
    }
}

#[async_trait]
impl WatchStream for MemoryWatch {
    async fn next(&mut self) -> Result<WatchEvent> {
        if self.lost {
            return Ok(WatchEvent::Resync);
        }
        loop {
            let until = match self.poll() {
                Ok(event) => return Ok(event),
                Err(until) => until,
            };
            // It returns at once if anything changed since it last did, so nothing slips in between.
            let changed = self.latest.changed();
            let ended = match until {
                Some(sleep) => tokio::time::timeout(sleep, changed)
                    .await
                    .is_ok_and(|woken| woken.is_err()),
                None => changed.await.is_err(),
            };
            if ended {
                return Err(Error::new(ErrorKind::Closed, "the registry is gone"));
            }
        }
    }

    fn revision(&self) -> Revision {
        self.after
    }
}
