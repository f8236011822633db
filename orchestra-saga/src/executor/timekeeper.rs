//! Continues the sagas that were left unfinished, and wakes those that sleep.

use std::sync::Arc;
use std::time::Duration;

use orchestra_core::Timestamp;

use super::drive::{Letter, Ticket};
use super::shared::Shared;
use crate::error::Result;
use crate::id::SagaId;
use crate::machine::Input;
use crate::store::Filter;

/// Sagas read at a time.
const PAGE: usize = 256;
/// How often ended sagas are purged at least.
const PURGE: Duration = Duration::from_secs(10);
/// How many of them at a time.
const PIECE: usize = 10_000;

pub(super) fn spawn(shared: &Arc<Shared>) {
    let recovering = Arc::clone(shared);
    shared.track(async move {
        let stop = recovering.stop.clone();
        let mut after = None;
        loop {
            match page(&recovering, after).await {
                Ok(None) => return,
                Ok(last) => after = last,
                Err(error) => {
                    tracing::warn!(%error, "unfinished sagas cannot be listed");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(recovering.poll) => {}
                    }
                }
            }
        }
    });
    if let Some(retention) = shared.retention {
        spawn_purging(shared, retention);
    }
    let stopping = Arc::clone(shared);
    shared.track(async move {
        stopping.stop.cancelled().await;
        stopping.rouse_all();
    });
    let waking = Arc::clone(shared);
    shared.track(async move {
        let stop = waking.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(waking.poll) => {}
            }
            if let Err(error) = wake(&waking).await {
                tracing::warn!(%error, "timers of sagas cannot be read");
            }
        }
    });
}

/// Forgets sagas that ended longer ago than they are kept.
fn spawn_purging(shared: &Arc<Shared>, retention: Duration) {
    let purging = Arc::clone(shared);
    shared.track(async move {
        let stop = purging.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PURGE.min(retention.max(purging.poll))) => {}
            }
            let kept = u64::try_from(retention.as_nanos()).unwrap_or(u64::MAX);
            let before = purging.now().as_unix_nanos().saturating_sub(kept);
            let before = Timestamp::from_unix_nanos(before);
            // What is left is purged in the next round, so that appends are not held up for long.
            match purging.store.purge(purging.claim, before, PIECE).await {
                Ok(0) => {}
                Ok(purged) => tracing::debug!(purged, "ended sagas are forgotten"),
                Err(error) => tracing::warn!(%error, "ended sagas cannot be purged"),
            }
        }
    });
}

/// Continues a page of sagas and returns the last of them; none when there are no more.
async fn page(shared: &Arc<Shared>, after: Option<SagaId>) -> Result<Option<SagaId>> {
    let filter = Filter::open()
        .partition(shared.claim.partition)
        .after(after)
        .limit(PAGE);
    let found = shared.store.list(&filter).await?;
    for summary in &found {
        revive(shared, summary.saga).await;
    }
    Ok(found.last().map(|summary| summary.saga))
}

async fn wake(shared: &Arc<Shared>) -> Result<()> {
    let partition = shared.claim.partition;
    // Those that run or cannot be continued come first for ever; nobody may starve behind them.
    let limit = PAGE + shared.awake();
    for timer in shared.store.timers(partition, shared.now(), limit).await? {
        revive(shared, timer.saga).await;
    }
    Ok(())
}

/// Gives a saga without a task a new one, as soon as there is room.
async fn revive(shared: &Arc<Shared>, saga: SagaId) {
    if !shared.is_asleep(saga) {
        return;
    }
    let ticket = if shared.is_part(saga) {
        Ticket::NotNeeded
    } else {
        match shared.permit().await {
            Some(permit) => Ticket::Held(permit),
            None => return,
        }
    };
    // A full mailbox means that the saga runs.
    drop(shared.deliver(saga, Letter::silent(Input::Wake), ticket));
}
