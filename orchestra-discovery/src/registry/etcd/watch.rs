use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Event, EventType, KeyValue, ResponseHeader, WatchOptions, WatchResponse};
use orchestra_core::{Backoff, Jitter};

use super::change::{self, Before, Blind, Seen};
use super::snapshot::unsigned;
use super::{Shared, fault};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Revision, Scope, WatchEvent, WatchStream};

/// How long a watch waits before it connects again after the second failure in a row, and so on.
const RECONNECT: Backoff = Backoff::exponential(Duration::from_millis(50), 2.0)
    .cap(Duration::from_secs(2))
    .jitter(Jitter::Equal);

type Opening = Pin<Box<dyn Future<Output = Result<Option<Opened>>> + Send>>;

struct Opened {
    stream: etcd_client::WatchStream,
    cluster: u64,
}

enum State {
    Closed,
    /// Kept here, so that a wait that is dropped does not begin to connect anew.
    Opening(Opening),
    Open(Box<Opened>),
    Lost,
}

pub(super) struct EtcdWatch {
    shared: Arc<Shared>,
    scope: Scope,
    after: Revision,
    /// The cluster that the revisions are of.
    cluster: Option<u64>,
    state: State,
    failures: u32,
    rng: fastrand::Rng,
}

impl EtcdWatch {
    pub(super) fn new(shared: Arc<Shared>, scope: Scope, after: Revision) -> Self {
        Self {
            shared,
            scope,
            after,
            cluster: None,
            state: State::Closed,
            failures: 0,
            rng: fastrand::Rng::new(),
        }
    }

    fn connect(&mut self) -> Opening {
        let (shared, scope, after) = (Arc::clone(&self.shared), self.scope.clone(), self.after);
        let wait = match self.failures {
            // The first attempt after a working connection does not wait.
            0 | 1 => Duration::ZERO,
            failures => RECONNECT.delay(failures - 1, Duration::ZERO, self.rng.u64(..)),
        };
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            shared.open(&scope, after).await
        })
    }

    fn opened(&mut self, opened: Option<Opened>) {
        self.state = match opened {
            Some(opened) if *self.cluster.get_or_insert(opened.cluster) == opened.cluster => {
                State::Open(Box::new(opened))
            }
            _ => State::Lost,
        };
    }

    fn failed(&mut self, error: Error) -> Error {
        self.failures = self.failures.saturating_add(1);
        self.state = State::Closed;
        error
    }

    /// Nothing if there is nothing to tell.
    fn digest(&mut self, response: &WatchResponse) -> Result<Option<WatchEvent>> {
        self.failures = 0;
        if response.canceled() {
            return match cancelled(response) {
                Some(error) => Err(self.failed(error)),
                None => Ok(Some(self.lost())),
            };
        }
        let mut changes = Vec::new();
        for event in response.events() {
            match seen(event).map(|seen| change::changes(&self.shared.keys, seen)) {
                Some(Ok(told)) => changes.extend(told),
                Some(Err(Blind)) => return Ok(Some(self.lost())),
                None => {}
            }
        }
        let last = response.events().iter().filter_map(Event::kv);
        let last = last.map(KeyValue::mod_revision).max();
        // Without events it is a notification that all up to its revision has been sent.
        let header = response.header().map(ResponseHeader::revision);
        if let Some(revision) = last.or(header) {
            self.after = self.after.max(Revision::new(unsigned(revision)));
        }
        let revision = self.after;
        let told = !changes.is_empty();
        Ok(told.then_some(WatchEvent::Changes { revision, changes }))
    }

    fn lost(&mut self) -> WatchEvent {
        self.state = State::Lost;
        WatchEvent::Resync
    }
}

#[async_trait]
impl WatchStream for EtcdWatch {
    async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            match &mut self.state {
                State::Lost => return Ok(WatchEvent::Resync),
                State::Closed => self.state = State::Opening(self.connect()),
                State::Opening(opening) => match opening.await {
                    Ok(opened) => self.opened(opened),
                    Err(error) => return Err(self.failed(error)),
                },
                State::Open(open) => match open.stream.message().await {
                    Ok(Some(response)) => {
                        if let Some(event) = self.digest(&response)? {
                            return Ok(event);
                        }
                    }
                    Ok(None) => return Err(self.failed(ended())),
                    // It would be as large at the next attempt.
                    Err(fault) if fault::is_too_large(&fault) => return Ok(self.lost()),
                    Err(fault) => {
                        let message = format!("the watch of {} at etcd broke", self.scope);
                        return Err(self.failed(fault::error(fault, message)));
                    }
                },
            }
        }
    }

    fn revision(&self) -> Revision {
        self.after
    }
}

impl Shared {
    /// Nothing if what follows `after` is not known.
    async fn open(&self, scope: &Scope, after: Revision) -> Result<Option<Opened>> {
        let next = after.as_u64().checked_add(1);
        let Some(start) = next.and_then(|next| i64::try_from(next).ok()) else {
            return Ok(None);
        };
        let (first, end) = self.keys.range(scope);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(start)
            .with_prev_key()
            .with_progress_notify();
        let (created, stream) = self
            .link
            .call("begin a watch", |mut peer| {
                let (first, options) = (first.clone(), options.clone());
                async move {
                    let mut stream = peer.watch.watch(first, Some(options)).await?;
                    Ok((stream.message().await?, stream))
                }
            })
            .await?;
        let Some(created) = created else {
            return Err(ended());
        };
        if created.canceled() {
            return cancelled(&created).map_or(Ok(None), Err);
        }
        let (latest, cluster) = created.header().map_or((0, 0), |header| {
            (unsigned(header.revision()), header.cluster_id())
        });
        // etcd would wait until the revision exists. The member may merely be behind the others, though.
        if after.as_u64() > latest && after > self.latest().await? {
            return Ok(None);
        }
        Ok(Some(Opened { stream, cluster }))
    }
}

fn seen(event: &Event) -> Option<Seen<'_>> {
    let kv = event.kv()?;
    let put = event.event_type() == EventType::Put;
    let created = put && kv.create_revision() == kv.mod_revision();
    let before = match event.prev_kv() {
        Some(before) => Before::Was((before.value(), unsigned(before.mod_revision()))),
        None if created => Before::Nothing,
        None => Before::Unknown,
    };
    Some(Seen {
        key: kv.key(),
        put: put.then(|| (kv.value(), unsigned(kv.mod_revision()))),
        before,
    })
}

/// Why the server ended a watch; nothing if what it needs was compacted.
fn cancelled(response: &WatchResponse) -> Option<Error> {
    if response.compact_revision() != 0 {
        return None;
    }
    let reason = response.cancel_reason();
    let kind = if reason.contains("permission denied") || reason.contains("auth token") {
        ErrorKind::Unauthorized
    } else {
        ErrorKind::Unavailable
    };
    Some(Error::new(kind, format!("etcd ended the watch: {reason}")))
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "etcd ended the watch")
}
