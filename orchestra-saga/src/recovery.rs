//! From a store back to a machine: the last snapshot that is intact, and the log after it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::executor::definitions::Definitions;
use crate::id::{SagaId, Version};
use crate::machine::{Machine, State};
use crate::store::{SagaStore, Snapshot};

/// What a snapshot holds: enough to refuse it under another definition.
#[derive(Serialize, Deserialize)]
struct Kept<S> {
    definition: Arc<str>,
    version: Arc<str>,
    hash: Arc<str>,
    /// Another name than in earlier versions, whose states had other fields: theirs are not read.
    folded: S,
}

/// A snapshot of the machine.
pub(crate) fn snapshot(machine: &Machine) -> Option<Snapshot> {
    let definition = machine.definition();
    let kept = Kept {
        definition: Arc::clone(&definition.id),
        version: Arc::clone(&definition.version),
        hash: Arc::clone(&definition.hash),
        folded: machine.state(),
    };
    let bytes = serde_json::to_vec(&kept).ok()?;
    Some(Snapshot::new(machine.version(), bytes))
}

/// Folds the log of a saga.
pub(crate) async fn load(
    store: &dyn SagaStore,
    saga: SagaId,
    definitions: &Definitions,
) -> Result<Machine> {
    if let Some(machine) = from_snapshot(store, saga, definitions).await? {
        return catch_up(store, machine).await;
    }
    let log = store.load(saga, Version(0)).await?;
    let Some(first) = log.first() else {
        return Err(Error::new(ErrorKind::NotFound, "no such saga").of(saga));
    };
    let Event::SagaStarted(begun) = &first.event else {
        return Err(Error::corrupt("the log does not begin with saga_started").of(saga));
    };
    let named = (&begun.definition, &begun.version, &begun.hash);
    let definition = definitions.of(store, named).await;
    let definition = definition.map_err(|error| error.of(saga))?;
    let mut machine = Machine::new(definition, saga);
    for recorded in &log {
        machine.apply(recorded)?;
    }
    Ok(machine)
}

async fn from_snapshot(
    store: &dyn SagaStore,
    saga: SagaId,
    definitions: &Definitions,
) -> Result<Option<Machine>> {
    let Some(snapshot) = store.load_snapshot(saga).await? else {
        return Ok(None);
    };
    Ok(revive(store, &snapshot, saga, definitions).await)
}

/// The snapshot as a machine, if it is intact and of this very definition; the log is read otherwise.
async fn revive(
    store: &dyn SagaStore,
    snapshot: &Snapshot,
    saga: SagaId,
    definitions: &Definitions,
) -> Option<Machine> {
    if !snapshot.is_intact() {
        return None;
    }
    let kept: Kept<State> = serde_json::from_slice(&snapshot.bytes).ok()?;
    let named = (&kept.definition, &kept.version, &kept.hash);
    let definition = definitions.of(store, named).await.ok()?;
    let fits = kept.folded.version == snapshot.version
        && kept.folded.steps.len() == definition.steps.len();
    fits.then(|| Machine::resume(definition, saga, kept.folded))
}

async fn catch_up(store: &dyn SagaStore, mut machine: Machine) -> Result<Machine> {
    for recorded in store.load(machine.saga(), machine.version()).await? {
        machine.apply(&recorded)?;
    }
    Ok(machine)
}
