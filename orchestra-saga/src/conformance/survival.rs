use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::IdempotencyKey;
use serde_json::json;

use super::Violation;
use super::laws::{HERE, at, claim, expect, more, refused, saga, start};
use crate::error::{ErrorKind, Result};
use crate::event::Recorded;
use crate::id::{SagaId, Version};
use crate::status::Status;
use crate::store::{Blueprint, Claim, Filter, Position, SagaStore};

type Checked = std::result::Result<(), Violation>;
type Store = Arc<dyn SagaStore>;

/// How long a store that was dropped may keep its lock.
const LOCKED: (u32, Duration) = (500, Duration::from_millis(10));

/// Whether everything that a store acknowledged is there when it is opened again, which the laws of one
/// opening cannot tell: logs, epochs, start keys, timers, statuses, definitions, places in the stream, and
/// that what was purged stays so. Snapshots and leases need not be.
///
/// `open` opens the same place each time, an empty one at first. The store is dropped before it is opened
/// again, without having been closed; while that is [`ErrorKind::Locked`], it is tried again for five
/// seconds. That it also outlives a kill and the loss of power, no test inside one process can tell.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use orchestra_saga::JournalStore;
/// use orchestra_saga::conformance::survives;
///
/// let directory = tempfile::tempdir()?;
/// survives(|| JournalStore::open(directory.path())).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn survives<S, F, Fut>(open: F) -> Checked
where
    S: SagaStore + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Result<S>>,
{
    let before = write(opened(&open).await?).await?;
    let store = opened(&open).await?;
    before.is_read(&store).await?;
    before.binds(&store).await?;
    drop(store);
    is_purged(opened(&open).await?).await
}

async fn opened<S, F, Fut>(open: &F) -> Result<Store>
where
    S: SagaStore + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Result<S>>,
{
    let (tries, pause) = LOCKED;
    for _ in 1..tries {
        match open().await {
            Err(error) if error.kind() == ErrorKind::Locked => tokio::time::sleep(pause).await,
            answer => return answer.map(|store| Arc::new(store) as Store),
        }
    }
    open().await.map(|store| Arc::new(store) as Store)
}

/// What the first opening acknowledged.
struct Before {
    claim: Claim,
    key: IdempotencyKey,
    log: Vec<Recorded>,
    blueprint: Blueprint,
    /// The end of the stream.
    position: Position,
}

const OPEN: u64 = 1;
const ENDED: u64 = 2;

async fn write(store: Store) -> std::result::Result<Before, Violation> {
    // An epoch that is not the first one of any partition.
    claim(&store).await?;
    let claim = claim(&store).await?;
    let key = IdempotencyKey::new("conformance")
        .map_err(|invalid| Violation::new(invalid.to_string()))?;
    let first = start(saga(OPEN)).start_key(Some(key.clone()));
    let second = more(saga(OPEN), 1, &["a", "b"])
        .status(Status::Parked)
        .wake(Some(at(5)));
    let mut log: Vec<_> = first.recorded(claim.epoch).collect();
    log.extend(second.recorded(claim.epoch));
    store.append(claim, &first).await?;
    store.append(claim, &second).await?;
    let ended = start(saga(ENDED)).status(Status::Completed);
    store.append(claim, &ended).await?;
    let blueprint = Blueprint::new(Arc::from("hash"), json!({ "id": "kept" }).into());
    store.define(&blueprint).await?;
    let position = end_of_stream(&store, Position::START).await?.1;
    Ok(Before {
        claim,
        key,
        log,
        blueprint,
        position,
    })
}

/// The sagas of the entries after that place, and the place of the last.
async fn end_of_stream(store: &Store, mut at: Position) -> Result<(Vec<SagaId>, Position)> {
    let mut sagas = Vec::new();
    loop {
        let page = store.read(at, 100).await?;
        let Some(last) = page.last() else {
            return Ok((sagas, at));
        };
        at = last.position;
        sagas.extend(page.iter().map(|entry| entry.saga));
    }
}

impl Before {
    async fn is_read(&self, store: &Store) -> Checked {
        let log = store.load(saga(OPEN), Version(0)).await?;
        expect(log == self.log, || {
            format!("after a restart the log is {log:?}, not {:?}", self.log)
        })?;
        let found = store.find_start(&self.key).await?;
        expect(found == Some(saga(OPEN)), || {
            format!("after a restart the start key has {found:?}")
        })?;
        let timers = store.timers(HERE, at(9), 9).await?;
        let due: Vec<_> = timers.iter().map(|timer| (timer.at, timer.saga)).collect();
        expect(due == [(at(5), saga(OPEN))], || {
            format!("after a restart the timers are {timers:?}")
        })?;
        let lines = store.list(&Filter::default()).await?;
        let listed: Vec<_> = lines.iter().map(|line| (line.saga, line.status)).collect();
        let wanted = [
            (saga(OPEN), Status::Parked),
            (saga(ENDED), Status::Completed),
        ];
        expect(listed == wanted, || {
            format!("after a restart the sagas are {lines:?}")
        })?;
        let kept = store.definition(&self.blueprint.hash).await?;
        expect(kept.as_ref() == Some(&self.blueprint), || {
            format!("after a restart the definition is {kept:?}")
        })?;
        let (stream, end) = end_of_stream(store, Position::START).await?;
        expect(stream.len() == 4 && end == self.position, || {
            format!("after a restart the stream is {stream:?} up to {end:?}")
        })
    }

    /// What was decided before still decides; ends with one saga purged.
    async fn binds(&self, store: &Store) -> Checked {
        let now = claim(store).await?;
        expect(now.epoch > self.claim.epoch, || {
            format!("after a restart {now:?} follows {:?}", self.claim)
        })?;
        let next = more(saga(OPEN), 3, &["c"]).wake(Some(at(5)));
        let late = store.append(self.claim, &next).await;
        refused(&late, ErrorKind::Fenced, "an owner of before the restart")?;
        let stale = store.append(now, &more(saga(OPEN), 1, &["c"])).await;
        refused(&stale, ErrorKind::StaleVersion, "a version of before")?;
        let again = start(saga(3)).start_key(Some(self.key.clone()));
        let again = store.append(now, &again).await;
        refused(&again, ErrorKind::DuplicateStart, "a start key of before")?;
        store.append(now, &next).await?;
        let (stream, _) = end_of_stream(store, self.position).await?;
        expect(stream == [saga(OPEN)], || {
            format!("after the place of before come {stream:?}, not one event")
        })?;
        let purged = store.purge(now, at(9), 9).await?;
        expect(purged == 1, || {
            format!("{purged} sagas were purged, not one")
        })
    }
}

async fn is_purged(store: Store) -> Checked {
    let gone = store.load(saga(ENDED), Version(0)).await?;
    let log = store.load(saga(OPEN), Version(0)).await?;
    expect(gone.is_empty() && log.len() == 4, || {
        format!("after a purge and a restart there are {gone:?} and {log:?}")
    })
}
