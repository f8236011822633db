use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::Config;
use crate::definition::Definition;
use crate::error::{Error, ErrorKind, Result};
use crate::store::SagaStore;

/// Definitions that are named to one who asks for another.
const TOLD: usize = 8;

/// The definitions that an executor was given, and those that its store kept.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    /// What documents in the store go by where they say nothing.
    config: Config,
    /// By id and version.
    given: HashMap<(Arc<str>, Arc<str>), Arc<Definition>>,
    latest: HashMap<Arc<str>, Arc<Definition>>,
    by_hash: Mutex<HashMap<Arc<str>, Arc<Definition>>>,
}

impl Definitions {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Adds one; false if there is one of its id and version.
    pub(super) fn add(&mut self, definition: &Arc<Definition>) -> bool {
        let (id, version) = (Arc::clone(&definition.id), Arc::clone(&definition.version));
        let hash = Arc::clone(&definition.hash);
        self.latest.insert(Arc::clone(&id), Arc::clone(definition));
        self.by_hash.get_mut().insert(hash, Arc::clone(definition));
        let before = self.given.insert((id, version), Arc::clone(definition));
        before.is_none()
    }

    pub(super) fn given(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.given.values()
    }

    /// For a start: of this version, or the one that was given last.
    pub(super) fn start(&self, id: &str, version: Option<&str>) -> Result<Arc<Definition>> {
        let found = match version {
            Some(version) => self.given.get(&(Arc::from(id), Arc::from(version))),
            None => self.latest.get(id),
        };
        found.map(Arc::clone).ok_or_else(|| {
            let wanted = format!("{id} {}", version.unwrap_or_default());
            let message = format!("no saga definition {}; {}", wanted.trim_end(), self.told());
            Error::new(ErrorKind::UnknownDefinition, message)
        })
    }

    /// What there is, for one who asked for something else.
    fn told(&self) -> String {
        let mut known: Vec<_> = self.given.keys().collect();
        known.sort();
        let known: Vec<_> = known
            .iter()
            .take(TOLD)
            .map(|(id, version)| format!("{id} {version}"))
            .collect();
        match self.given.len() {
            0 => "this executor has none".to_owned(),
            all if all > TOLD => format!("this executor has {all}, also {}", known.join(", ")),
            _ => format!("this executor has {}", known.join(", ")),
        }
    }

    /// For a saga in flight: the definition that it began with. One that was read from a document is in the
    /// store; one in code must have been given with the content that it had.
    pub(crate) async fn of(
        &self,
        store: &dyn SagaStore,
        (id, version, hash): (&Arc<str>, &Arc<str>, &Arc<str>),
    ) -> Result<Arc<Definition>> {
        let known = self.by_hash.lock().get(hash).map(Arc::clone);
        if let Some(known) = known {
            return Ok(known);
        }
        if let Some(kept) = store.definition(hash).await?
            && let Ok(kept) = Definition::of_blueprint(&kept, &self.config)
        {
            let kept = Arc::new(kept);
            let mut by_hash = self.by_hash.lock();
            by_hash.insert(Arc::clone(hash), Arc::clone(&kept));
            return Ok(kept);
        }
        let given = self.given.get(&(Arc::clone(id), Arc::clone(version)));
        Err(match given {
            Some(_) => Error::new(
                ErrorKind::DefinitionChanged,
                format!(
                    "saga definition {id} {version} has changed since the start: give a change \
                     another version, and the executor both until the sagas of the old one have ended"
                ),
            ),
            None => Error::new(
                ErrorKind::UnknownDefinition,
                format!("no saga definition {id} {version}; {}", self.told()),
            ),
        })
    }
}
