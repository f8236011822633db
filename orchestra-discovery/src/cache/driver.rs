use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Monotonic, ServiceName};
use tokio::sync::watch;

use super::shared::{Feed, Shared};
use super::view::Verdict;
use crate::coalesce::Coalescer;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Change, Revision, Scope, Watch, WatchEvent};
use crate::task::Stop;

/// tokio's timer has a resolution of a millisecond; a shorter sleep would only spin.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// Feeds one service from one source.
pub(super) struct Driver {
    shared: Arc<Shared>,
    service: ServiceName,
    at: usize,
    scope: Scope,
    rng: fastrand::Rng,
    changes: Coalescer,
    failures: u32,
    /// The revision that the source told last.
    heard: Revision,
    /// Snapshots since the last change.
    barren: u32,
}

/// Why a round ended without a failure.
enum Round {
    /// The source wants to be asked anew at once.
    Resync,
    /// It is time to ask anew.
    Over,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        service: ServiceName,
        at: usize,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            changes: Coalescer::new(shared.config.coalesce),
            scope: Scope::Service(service.clone()),
            shared,
            service,
            at,
            rng,
            failures: 0,
            heard: Revision::default(),
            barren: 0,
        }
    }

    pub(super) async fn run(mut self, mut stop: Stop) {
        let shared = Arc::clone(&self.shared);
        let Some(feed) = shared.feeds.get(self.at) else {
            return;
        };
        // Reading leaves no trace, so it may be dropped anywhere.
        tokio::select! {
            biased;
            () = stop.asked() => {}
            () = self.feed(feed) => {}
        }
    }

    async fn feed(&mut self, feed: &Feed) {
        if feed.tier == 0 {
            return self.follow(feed).await;
        }
        let Some(depth) = self.depth() else { return };
        let (mut wanted, mut unwanted) = (depth.clone(), depth);
        loop {
            if wanted.wait_for(|depth| *depth >= feed.tier).await.is_err() {
                return;
            }
            tokio::select! {
                biased;
                over = unwanted.wait_for(|depth| *depth < feed.tier) => {
                    if over.is_err() {
                        return;
                    }
                }
                () = self.follow(feed) => {}
            }
            self.changes.clear();
            self.heard = Revision::default();
            self.shared
                .act(|table, _| table.leave(&self.service, self.at));
        }
    }

    fn depth(&self) -> Option<watch::Receiver<usize>> {
        self.shared.act(|table, _| {
            let entry = table.entry(&self.service)?;
            Some(entry.progress.subscribe())
        })
    }

    async fn follow(&mut self, feed: &Feed) {
        loop {
            match self.once(feed).await {
                Ok(Round::Over) => {}
                Ok(Round::Resync) => self.resynced().await,
                Err(error) => self.failed(feed, &error).await,
            }
        }
    }

    /// From a snapshot until another one is due.
    async fn once(&mut self, feed: &Feed) -> Result<Round> {
        let snapshot = within(
            feed,
            "snapshot",
            &self.scope,
            feed.source.snapshot(&self.scope),
        );
        let snapshot = snapshot.await?;
        self.failures = 0;
        self.barren = self.barren.saturating_add(1);
        let older = snapshot.revision() < self.heard;
        let verdict = self.shared.act_on(&self.service, |table, now| {
            table.accept(&self.service, self.at, (&snapshot, older), now)
        });
        if let Verdict::Doubted(wait) = verdict {
            tokio::time::sleep(wait.max(SHORTEST_SLEEP)).await;
            return Ok(Round::Over);
        }
        let refresh = self.refresh();
        let after = snapshot.revision();
        self.heard = after;
        let watch = feed.source.watch(&self.scope, after);
        match within(feed, "watch", &self.scope, watch).await {
            Ok(watch) => {
                self.shared
                    .act(|table, _| table.watching(&self.service, self.at));
                self.watch(watch, refresh).await
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                tokio::time::sleep(refresh).await;
                Ok(Round::Over)
            }
            Err(error) => Err(error),
        }
    }

    fn refresh(&mut self) -> Duration {
        let refresh = self.shared.config.refresh.max(SHORTEST_SLEEP);
        refresh + (refresh / 10).mul_f64(self.rng.f64())
    }

    async fn watch(&mut self, watch: Watch, refresh: Duration) -> Result<Round> {
        let ended = self.listen(watch, refresh).await;
        // What was told counts: the next snapshot may be long in coming, and does not say why who is missing left.
        let batch = self.changes.flush(self.shared.clock.now());
        self.apply(&batch);
        ended
    }

    async fn listen(&mut self, mut watch: Watch, refresh: Duration) -> Result<Round> {
        let over = tokio::time::sleep(refresh);
        tokio::pin!(over);
        loop {
            let gathered = self.gathered();
            let event = tokio::select! {
                biased;
                () = &mut over => return Ok(Round::Over),
                event = watch.next() => Some(event),
                () = gathered => None,
            };
            match event {
                Some(Ok(WatchEvent::Changes { revision, changes })) => {
                    self.barren = 0;
                    self.heard = revision;
                    self.changes.offer(changes);
                }
                Some(Ok(WatchEvent::Resync)) => return Ok(Round::Resync),
                Some(Err(error)) => return Err(error),
                None => {}
            }
            let batch = self.changes.take(self.shared.clock.now());
            self.apply(&batch);
        }
    }

    /// Returns when the changes that wait are due.
    fn gathered(&self) -> impl Future<Output = ()> + Send + use<> {
        let now = self.shared.clock.now();
        let wait = self.changes.due().map(|due: Monotonic| due.since(now));
        async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait.max(SHORTEST_SLEEP)).await,
                None => std::future::pending().await,
            }
        }
    }

    fn apply(&self, batch: &[Change]) {
        if !batch.is_empty() {
            self.shared.act_on(&self.service, |table, now| {
                table.apply(&self.service, self.at, batch, now);
            });
        }
    }

    async fn failed(&mut self, feed: &Feed, error: &Error) {
        self.failures = self.failures.saturating_add(1);
        let (service, source) = (&self.service, &feed.name);
        tracing::warn!(%service, %source, %error, failures = self.failures, "source failed");
        self.shared.act_on(&self.service, |table, now| {
            table.fail(&self.service, self.at, error, now);
        });
        let asked = error.class().retry_after().unwrap_or_default();
        let wait = self.delay(self.failures.max(self.barren)).max(asked);
        tokio::time::sleep(wait).await;
    }

    /// A source that says nothing but `Resync` must not be asked in a tight loop.
    async fn resynced(&mut self) {
        if self.barren > 1 {
            tokio::time::sleep(self.delay(self.barren - 1)).await;
        }
    }

    fn delay(&mut self, retry: u32) -> Duration {
        let draw = self.rng.u64(..);
        let backoff = self.shared.config.backoff;
        backoff.delay(retry, Duration::ZERO, draw)
    }
}

async fn within<T>(
    feed: &Feed,
    what: &str,
    scope: &Scope,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let deadline = feed.options.deadline;
    match tokio::time::timeout(deadline, call).await {
        Ok(result) => result,
        Err(elapsed) => {
            let message = format!("no {what} of {scope} within {deadline:?}");
            Err(Error::new(ErrorKind::Timeout, message).with_source(elapsed))
        }
    }
}
