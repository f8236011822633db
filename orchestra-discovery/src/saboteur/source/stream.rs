use std::collections::BTreeSet;

use async_trait::async_trait;
use orchestra_core::InstanceId;

use super::{SourceSabotage, altered};
use crate::error::{Error, Result};
use crate::instance::Incarnation;
use crate::source::{Change, Revision, Watch, WatchEvent, WatchStream};

pub(super) struct SabotagedWatch {
    inner: Watch,
    /// A watch from the present, for those who skip what they should not.
    again: Option<Watch>,
    sabotage: SourceSabotage,
    began: Began,
    /// What is said before anything else is read.
    first: Option<WatchEvent>,
    told: BTreeSet<InstanceId>,
    dead: bool,
}

/// Where a watch began.
#[derive(Clone, Copy)]
pub(super) struct Began {
    pub(super) after: Revision,
    /// That of the last change then.
    pub(super) latest: Revision,
}

impl SabotagedWatch {
    pub(super) fn new(
        inner: Watch,
        again: Watch,
        sabotage: SourceSabotage,
        began: Began,
        first: Option<WatchEvent>,
    ) -> Self {
        Self {
            inner,
            again: Some(again),
            sabotage,
            began,
            first,
            told: BTreeSet::new(),
            dead: false,
        }
    }

    /// What this fault makes of the changes; `None` if nothing is left of them.
    fn spoil(&mut self, revision: Revision, mut changes: Vec<Change>) -> Option<WatchEvent> {
        let sabotage = self.sabotage;
        changes.retain(|change| match change {
            Change::Upserted(instance) => {
                self.told.insert(instance.id.clone());
                true
            }
            Change::Removed(removal) => {
                sabotage != SourceSabotage::LosesRemovals || self.told.contains(&removal.id)
            }
        });
        match sabotage {
            SourceSabotage::ReversesChanges => changes.reverse(),
            SourceSabotage::FlattensWeights => changes.iter_mut().for_each(flatten),
            SourceSabotage::ForgetsIncarnations => changes.iter_mut().for_each(forget),
            _ => {}
        }
        (!changes.is_empty()).then_some(WatchEvent::Changes { revision, changes })
    }

    /// Goes on from the present instead of saying this.
    fn skips(&mut self, event: &WatchEvent) -> bool {
        let past = self.began.after < self.began.latest;
        let skips = match event {
            WatchEvent::Resync => past && self.sabotage == SourceSabotage::SkipsTheForgotten,
            WatchEvent::Changes { .. } => past && self.sabotage == SourceSabotage::BeginsWatchesNow,
        };
        if skips && let Some(again) = self.again.take() {
            self.inner = again;
            return true;
        }
        false
    }

    fn fail(&mut self, error: Error) -> Error {
        self.dead = self.sabotage == SourceSabotage::DiesOfFailure;
        error
    }
}

fn flatten(change: &mut Change) {
    if let Change::Upserted(instance) = change {
        *instance = altered(instance, |it| it.weight = 1);
    }
}

fn forget(change: &mut Change) {
    match change {
        Change::Upserted(instance) => {
            *instance = altered(instance, |it| it.incarnation = Incarnation::new(1));
        }
        Change::Removed(removal) => removal.incarnation = Incarnation::new(1),
    }
}

#[async_trait]
impl WatchStream for SabotagedWatch {
    async fn next(&mut self) -> Result<WatchEvent> {
        if let Some(event) = self.first.take() {
            return Ok(event);
        }
        while !self.dead {
            let read = self.inner.next().await;
            let event = read.map_err(|error| self.fail(error))?;
            if self.sabotage == SourceSabotage::LosesOnCancel {
                tokio::task::yield_now().await;
            }
            if self.skips(&event) {
                continue;
            }
            let spoilt = match event {
                WatchEvent::Changes { revision, changes } => self.spoil(revision, changes),
                WatchEvent::Resync => Some(WatchEvent::Resync),
            };
            if let Some(event) = spoilt {
                if self.sabotage == SourceSabotage::RepeatsChanges {
                    self.first = Some(event.clone());
                }
                return Ok(event);
            }
        }
        std::future::pending().await
    }

    fn revision(&self) -> Revision {
        if self.sabotage == SourceSabotage::ForgetsProgress {
            self.began.after
        } else {
            self.inner.revision()
        }
    }
}
