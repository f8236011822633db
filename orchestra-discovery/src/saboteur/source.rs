//! Sources that break one law each.

mod stream;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use self::stream::{Began, SabotagedWatch};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::{Incarnation, Instance};
use crate::source::{Capabilities, Change, Revision, Scope, Snapshot, Source, Watch, WatchEvent};

macro_rules! sabotages {
    ($($(#[$doc:meta])* $name:ident breaks $law:ident,)+) => {
        /// What a [`SourceSaboteur`] does wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum SourceSabotage {
            $($(#[$doc])* $name,)+
        }

        impl SourceSabotage {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The law that it breaks; it keeps all others.
            pub const fn breaks(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($law),)+
                }
            }
        }
    };
}

sabotages! {
    /// Lists what has labels without them.
    DropsLabels breaks snapshot_lists_what_is_there,
    /// Lists the last members that it had instead of none.
    KeepsTheLast breaks empty_answer_means_none,
    /// Gives every snapshot the revision of the first.
    FreezesRevisions breaks revisions_rise_with_changes,
    /// Counts snapshots for changes.
    CountsSnapshots breaks revision_stays_without_a_change,
    /// Numbers the members anew whenever there are several.
    Renumbers breaks incarnation_stays_with_the_instance,
    /// Lists every member with the same incarnation.
    ForgetsIncarnations breaks returning_instance_has_a_greater_incarnation,
    /// Says that there is nothing when asked for all services.
    HidesAllServices breaks all_services_are_covered_or_refused,
    /// Fails after a snapshot that nobody waited for.
    StaysBusy breaks cancelled_snapshot_leaves_no_trace,
    /// Does not deliver removals of members that it never brought.
    LosesRemovals breaks watch_tells_a_removal,
    /// Delivers every member with the same weight.
    FlattensWeights breaks watch_tells_an_alteration,
    /// Begins a watch with what the snapshot had.
    RepeatsSnapshots breaks watch_does_not_repeat_the_snapshot,
    /// Delivers everything twice.
    RepeatsChanges breaks watch_tells_each_change_once,
    /// Begins every watch now.
    BeginsWatchesNow breaks watch_begins_at_its_revision,
    /// A watch always says that it is where it began.
    ForgetsProgress breaks watch_resumes_where_another_ended,
    /// Delivers what it has backwards.
    ReversesChanges breaks watch_leads_to_the_last_state,
    /// Delivers the changes of all services.
    WidensScopes breaks watch_keeps_to_its_service,
    /// Loses what it has read when the reader goes away.
    LosesOnCancel breaks cancelled_wait_loses_no_change,
    /// Goes on from the present where changes were forgotten.
    SkipsTheForgotten breaks forgotten_revision_is_answered_by_resync,
    /// Goes on from the present where a revision was never given out.
    TrustsAnyRevision breaks unknown_revision_is_answered_by_resync,
    /// Says that there is nothing when it fails.
    TakesFailureForEmpty breaks failure_is_not_an_empty_answer,
    /// A watch says nothing again once it failed.
    DiesOfFailure breaks watch_goes_on_after_a_failure,
}

/// A source with one fault.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::MemoryRegistry;
/// use orchestra_discovery::saboteur::{SourceSabotage, SourceSaboteur};
///
/// let sabotage = SourceSabotage::TakesFailureForEmpty;
/// let source = SourceSaboteur::new(Arc::new(MemoryRegistry::default()), sabotage);
/// assert_eq!(sabotage.breaks(), "failure_is_not_an_empty_answer");
/// ```
pub struct SourceSaboteur {
    inner: Arc<dyn Source>,
    sabotage: SourceSabotage,
    first: Mutex<Option<Revision>>,
    /// The revision of the last snapshot.
    latest: Mutex<Option<Revision>>,
    /// The last members.
    last: Mutex<Vec<Arc<Instance>>>,
    snapshots: AtomicU64,
    /// A snapshot is being taken, or was not waited for.
    busy: AtomicBool,
}

impl SourceSaboteur {
    /// Breaks one law of a source that keeps them all.
    pub fn new(inner: Arc<dyn Source>, sabotage: SourceSabotage) -> Self {
        Self {
            inner,
            sabotage,
            first: Mutex::default(),
            latest: Mutex::default(),
            last: Mutex::default(),
            snapshots: AtomicU64::new(0),
            busy: AtomicBool::new(false),
        }
    }

    async fn read(&self, scope: &Scope) -> Result<Snapshot> {
        let read = self.inner.snapshot(scope).await;
        match read {
            Err(_) if self.sabotage == SourceSabotage::TakesFailureForEmpty => {
                let revision = self.first.lock().unwrap_or_default();
                Ok(Snapshot::new(scope.clone(), revision, Vec::new()))
            }
            read => read,
        }
    }

    /// What a snapshot has said already.
    fn repeated(&self, present: &Snapshot, after: Revision) -> Option<WatchEvent> {
        let told = *self.latest.lock() == Some(after) && !present.instances().is_empty();
        if !told || self.sabotage != SourceSabotage::RepeatsSnapshots {
            return None;
        }
        let instances = present.instances().iter();
        Some(WatchEvent::Changes {
            revision: after,
            changes: instances.cloned().map(Change::Upserted).collect(),
        })
    }

    async fn stay_busy(&self) -> Result<()> {
        if self.busy.swap(true, Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Full, "a snapshot is being taken"));
        }
        tokio::task::yield_now().await;
        self.busy.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl fmt::Debug for SourceSaboteur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceSaboteur")
            .field("sabotage", &self.sabotage)
            .finish_non_exhaustive()
    }
}

fn altered(instance: &Arc<Instance>, alter: impl FnOnce(&mut Instance)) -> Arc<Instance> {
    let mut instance = Instance::clone(instance);
    alter(&mut instance);
    Arc::new(instance)
}

#[async_trait]
impl Source for SourceSaboteur {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        if self.sabotage == SourceSabotage::StaysBusy {
            self.stay_busy().await?;
        }
        let snapshot = self.read(scope).await?;
        let mut revision = snapshot.revision();
        let mut instances = snapshot.instances().to_vec();
        let taken = self.snapshots.fetch_add(1, Ordering::Relaxed);
        let first = *self.first.lock().get_or_insert(revision);
        match self.sabotage {
            SourceSabotage::DropsLabels => {
                for instance in &mut instances {
                    *instance = altered(instance, |it| it.labels = orchestra_core::Labels::new());
                }
            }
            SourceSabotage::KeepsTheLast if instances.is_empty() => {
                instances.clone_from(&self.last.lock());
            }
            SourceSabotage::FreezesRevisions => revision = first,
            SourceSabotage::CountsSnapshots => {
                revision = Revision::new(revision.as_u64() + taken);
            }
            SourceSabotage::Renumbers if instances.len() > 1 => {
                for instance in &mut instances {
                    let number = instance.incarnation.as_u64() + taken;
                    *instance = altered(instance, |it| it.incarnation = Incarnation::new(number));
                }
            }
            SourceSabotage::ForgetsIncarnations => {
                for instance in &mut instances {
                    *instance = altered(instance, |it| it.incarnation = Incarnation::new(1));
                }
            }
            SourceSabotage::HidesAllServices if *scope == Scope::All => instances.clear(),
            _ => {}
        }
        *self.latest.lock() = Some(revision);
        if !instances.is_empty() {
            self.last.lock().clone_from(&instances);
        }
        Ok(Snapshot::new(scope.clone(), revision, instances))
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let present = self.inner.snapshot(scope).await?;
        let latest = present.revision();
        let scope = match self.sabotage {
            SourceSabotage::WidensScopes => &Scope::All,
            _ => scope,
        };
        let from = match self.sabotage {
            SourceSabotage::TrustsAnyRevision => after.min(latest),
            _ => after,
        };
        let watch = self.inner.watch(scope, from).await?;
        let again = self.inner.watch(scope, latest).await?;
        let first = self.repeated(&present, after);
        let began = Began { after, latest };
        let stream = SabotagedWatch::new(watch, again, self.sabotage, began, first);
        Ok(Watch::new(stream))
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
