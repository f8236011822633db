use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::Sabotage;
use crate::error::Result;
use crate::instance::{Incarnation, Instance};
use crate::source::{Change, RemovalReason, Revision, Watch, WatchEvent, WatchStream};

/// Counts down where the registry counts up; twice is the identity.
pub(super) fn turned(incarnation: Incarnation) -> Incarnation {
    Incarnation::new(u64::MAX - incarnation.as_u64())
}

pub(super) fn turned_instance(instance: &Arc<Instance>) -> Arc<Instance> {
    let mut instance = Instance::clone(instance);
    instance.incarnation = turned(instance.incarnation);
    Arc::new(instance)
}

pub(super) fn without_override(instance: &Arc<Instance>) -> Arc<Instance> {
    let mut instance = Instance::clone(instance);
    instance.forced = None;
    Arc::new(instance)
}

pub(super) struct SabotagedWatch {
    inner: Watch,
    /// A watch from the present, for those who skip what they should not.
    again: Option<Watch>,
    sabotage: Sabotage,
    began: Revision,
    is_past: bool,
    repeat: Option<WatchEvent>,
    told: BTreeSet<Incarnation>,
}

impl SabotagedWatch {
    pub(super) fn new(
        inner: Watch,
        again: Watch,
        sabotage: Sabotage,
        began: Revision,
        is_past: bool,
    ) -> Self {
        Self {
            inner,
            again: Some(again),
            sabotage,
            began,
            is_past,
            repeat: None,
            told: BTreeSet::new(),
        }
    }

    /// What this fault makes of the changes; `None` if nothing is left of them.
    fn spoil(&mut self, revision: Revision, mut changes: Vec<Change>) -> Option<WatchEvent> {
        let lost = match self.sabotage {
            Sabotage::LosesDeregistrations => Some(RemovalReason::Deregistered),
            Sabotage::LosesExpiries => Some(RemovalReason::Expired),
            Sabotage::LosesReplacements => Some(RemovalReason::Replaced),
            _ => None,
        };
        changes.retain(|change| match change {
            Change::Removed(removal) => Some(removal.reason) != lost,
            Change::Upserted(instance) => {
                let is_new = self.told.insert(instance.incarnation);
                is_new || instance.forced.is_none() || self.sabotage != Sabotage::LosesOverrides
            }
        });
        match self.sabotage {
            Sabotage::ReversesChanges => changes.reverse(),
            Sabotage::LowersIncarnations => changes.iter_mut().for_each(turn),
            _ => {}
        }
        (!changes.is_empty()).then_some(WatchEvent::Changes { revision, changes })
    }
}

fn turn(change: &mut Change) {
    match change {
        Change::Upserted(instance) => *instance = turned_instance(instance),
        Change::Removed(removal) => removal.incarnation = turned(removal.incarnation),
    }
}

#[async_trait]
impl WatchStream for SabotagedWatch {
    async fn next(&mut self) -> Result<WatchEvent> {
        if let Some(event) = self.repeat.take() {
            return Ok(event);
        }
        loop {
            let event = self.inner.next().await?;
            if self.sabotage == Sabotage::LosesOnCancel {
                tokio::task::yield_now().await;
            }
            let spoilt = match event {
                WatchEvent::Changes { revision, changes } => self.spoil(revision, changes),
                WatchEvent::Resync
                    if self.is_past && self.sabotage == Sabotage::SkipsTheForgotten =>
                {
                    match self.again.take() {
                        Some(again) => {
                            self.inner = again;
                            None
                        }
                        None => Some(WatchEvent::Resync),
                    }
                }
                WatchEvent::Resync => Some(WatchEvent::Resync),
            };
            if let Some(event) = spoilt {
                if self.sabotage == Sabotage::RepeatsChanges {
                    self.repeat = Some(event.clone());
                }
                return Ok(event);
            }
        }
    }

    fn revision(&self) -> Revision {
        if self.sabotage == Sabotage::ForgetsProgress {
            self.began
        } else {
            self.inner.revision()
        }
    }
}
