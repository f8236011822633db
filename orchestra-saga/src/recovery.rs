//! From a store back to a machine: the last snapshot that is intact, and the log after it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::definition::Definition;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{SagaId, Version};
use crate::machine::{Machine, State};
use crate::store::{SagaStore, Snapshot};

/// What a snapshot holds: enough to refuse it under another definition.
#[derive(Serialize, Deserialize)]
struct Kept {
    definition: Arc<str>,
    version: Arc<str>,
    hash: Arc<str>,
    state: State,
}

/// A snapshot of the machine.
pub(crate) fn snapshot(machine: &Machine) -> Option<Snapshot> {
    let definition = machine.definition();
    let kept = Kept {
        definition: Arc::clone(&definition.id),
        version: Arc::clone(&definition.version),
        hash: Arc::clone(&definition.hash),
        state: machine.state().clone(),
    };
    let bytes = serde_json::to_vec(&kept).ok()?;
    Some(Snapshot::new(machine.version(), bytes))
}

/// Folds the log of a saga. `find` looks a definition up by id and version.
pub(crate) async fn load(
    store: &dyn SagaStore,
    saga: SagaId,
    find: impl Fn(&str, &str) -> Option<Arc<Definition>>,
) -> Result<Machine> {
    if let Some(machine) = from_snapshot(store, saga, &find).await? {
        return catch_up(store, machine).await;
    }
    let log = store.load(saga, Version(0)).await?;
    let Some(first) = log.first() else {
        return Err(Error::new(ErrorKind::NotFound, "no such saga").of(saga));
    };
    let Event::SagaStarted {
        definition,
        version,
        ..
    } = &first.event
    else {
        return Err(Error::corrupt("the log does not begin with saga_started").of(saga));
    };
    let definition = find(definition, version).ok_or_else(|| {
        let message = format!("no saga definition {definition} {version}");
        Error::new(ErrorKind::UnknownDefinition, message).of(saga)
    })?;
    let mut machine = Machine::new(definition, saga);
    for recorded in &log {
        machine.apply(recorded)?;
    }
    Ok(machine)
}

async fn from_snapshot(
    store: &dyn SagaStore,
    saga: SagaId,
    find: &impl Fn(&str, &str) -> Option<Arc<Definition>>,
) -> Result<Option<Machine>> {
    let Some(snapshot) = store.load_snapshot(saga).await? else {
        return Ok(None);
    };
    Ok(revive(&snapshot, saga, find))
}

/// The snapshot as a machine, if it is intact and of this very definition; the log is read otherwise.
fn revive(
    snapshot: &Snapshot,
    saga: SagaId,
    find: &impl Fn(&str, &str) -> Option<Arc<Definition>>,
) -> Option<Machine> {
    if !snapshot.is_intact() {
        return None;
    }
    let kept: Kept = serde_json::from_slice(&snapshot.bytes).ok()?;
    let definition = find(&kept.definition, &kept.version)?;
    let fits = definition.hash == kept.hash
        && kept.state.version == snapshot.version
        && kept.state.steps.len() == definition.steps.len();
    fits.then(|| Machine::resume(definition, saga, kept.state))
}

async fn catch_up(store: &dyn SagaStore, mut machine: Machine) -> Result<Machine> {
    for recorded in store.load(machine.saga(), machine.version()).await? {
        machine.apply(&recorded)?;
    }
    Ok(machine)
}
