//! Continues the sagas that were left unfinished, and wakes those that sleep.

use std::sync::Arc;

use super::drive::{Letter, Ticket};
use super::shared::Shared;
use crate::error::Result;
use crate::id::SagaId;
use crate::machine::Input;
use crate::store::Filter;

/// Sagas read at a time.
const PAGE: usize = 256;

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
    let Some(permit) = shared.permit().await else {
        return;
    };
    // A full mailbox means that the saga runs.
    let delivered = shared.deliver(saga, Letter::silent(Input::Wake), Ticket::Held(permit));
    drop(delivered);
}
