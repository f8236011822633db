//! The laws of a [`Source`] whose members are edited by other means than a registry's calls.

mod failure;
mod registry;
mod snapshot;
mod watch;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Endpoint, Labels, Locality};

use super::{Law, Verdict, Violation, broken, expect, list, name, own, scope};
use crate::error::{ErrorKind, Result};
use crate::instance::{Incarnation, Instance, ProbeTarget, Status};
use crate::source::{Change, Revision, Scope, Snapshot, Source, Watch, WatchEvent};

type Done<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Edit = Box<dyn Fn(Vec<Instance>) -> Done<Result<()>> + Send + Sync>;
type Break = Box<dyn Fn(bool) -> Done<Result<()>> + Send + Sync>;

/// What a source can say of an instance beside its service and its endpoint.
///
/// ```
/// use orchestra_discovery::conformance::Expresses;
///
/// let records = Expresses::default().weights().priorities();
/// assert_ne!(records, Expresses::full());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what a source can say has no order"
)]
pub struct Expresses {
    /// The id; a source that derives ids need not.
    pub ids: bool,
    /// The weight, or what is in proportion to it.
    pub weights: bool,
    /// The tier.
    pub priorities: bool,
    /// Status, locality, labels and probe.
    pub details: bool,
}

impl Expresses {
    /// All of it.
    pub const fn full() -> Self {
        Self {
            ids: true,
            weights: true,
            priorities: true,
            details: true,
        }
    }

    /// Weights too.
    #[must_use]
    pub const fn weights(mut self) -> Self {
        self.weights = true;
        self
    }

    /// Priorities too.
    #[must_use]
    pub const fn priorities(mut self) -> Self {
        self.priorities = true;
        self
    }
}

/// A fresh source without members, how to edit it, and what the laws have to know of it.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use orchestra_discovery::conformance::{Expresses, SourceSubject};
/// use orchestra_discovery::{Error, ErrorKind, MemoryRegistry};
///
/// let source = Arc::new(MemoryRegistry::default());
/// let subject = SourceSubject::new(source, Duration::from_millis(1), |members| async move {
///     match members.len() {
///         0 => Ok(()),
///         _ => Err(Error::new(ErrorKind::Full, "this one holds nothing")),
///     }
/// })
/// .expresses(Expresses::full());
/// ```
pub struct SourceSubject {
    source: Arc<dyn Source>,
    edit: Edit,
    break_off: Option<Break>,
    expresses: Expresses,
    lag: Duration,
    remembers: Option<u32>,
    kept: Option<Box<dyn Any + Send + Sync>>,
}

impl SourceSubject {
    /// A source whose snapshots and watches show at most `lag` late what was edited.
    ///
    /// `edit` makes it hold exactly the given instances, of which there may be several services; their
    /// endpoints have addresses `127.0.0.1` and up and the port 9. `lag` is also how long the laws
    /// wait to see that nothing comes.
    pub fn new<E, F>(source: Arc<dyn Source>, lag: Duration, edit: E) -> Self
    where
        E: Fn(Vec<Instance>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        Self {
            source,
            edit: Box::new(move |members| Box::pin(edit(members))),
            break_off: None,
            expresses: Expresses::default(),
            lag,
            remembers: None,
            kept: None,
        }
    }

    /// It can say this of an instance.
    #[must_use]
    pub fn expresses(mut self, expresses: Expresses) -> Self {
        self.expresses = expresses;
        self
    }

    /// It can be made to fail (`true`) and to work again (`false`), each at most the lag late.
    #[must_use]
    pub fn breaks<B, F>(mut self, break_off: B) -> Self
    where
        B: Fn(bool) -> F + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.break_off = Some(Box::new(move |off| Box::pin(break_off(off))));
        self
    }

    /// It remembers at most this many changes: a watch from before them must say `Resync`.
    #[must_use]
    pub fn remembers(mut self, changes: u32) -> Self {
        self.remembers = Some(changes);
        self
    }

    /// Keeps something alive for as long as the source is tested: a server, a directory.
    #[must_use]
    pub fn keep(mut self, kept: impl Any + Send + Sync) -> Self {
        self.kept = Some(Box::new(kept));
        self
    }

    /// The same, seen through something else.
    #[must_use]
    pub fn through(mut self, wrap: impl FnOnce(Arc<dyn Source>) -> Arc<dyn Source>) -> Self {
        self.source = wrap(self.source);
        self
    }

    /// The members from now on, and time to see them.
    async fn hold(&self, members: &[Instance]) -> Result<()> {
        (self.edit)(members.to_vec()).await?;
        tokio::time::sleep(self.lag).await;
        Ok(())
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        self.source.snapshot(&scope()?).await
    }

    async fn watch(&self, after: Revision) -> Result<Watch> {
        self.source.watch(&scope()?, after).await
    }

    /// A watch of everything from now on.
    async fn watch_from_now(&self) -> Result<Watch> {
        let revision = self.snapshot().await?.revision();
        self.watch(revision).await
    }

    /// What an instance has that the source can say, to compare by.
    fn said(&self, instance: &Instance) -> Instance {
        let can = self.expresses;
        let mut said = Instance::clone(instance);
        said.incarnation = Incarnation::default();
        if !can.ids
            && let Ok(id) = "derived".parse()
        {
            said.id = id;
        }
        if !can.weights {
            said.weight = 1;
        }
        if !can.priorities {
            said.priority = 0;
        }
        if !can.details {
            said.status = Status::Ready;
            said.locality = Locality::default();
            said.labels = Labels::default();
            said.probe = None;
        }
        said
    }

    /// Whether these are the members, as far as the source can say.
    fn same(&self, found: &Snapshot, members: &[Instance]) -> Verdict {
        let order = |instance: &Instance| instance.endpoint.clone();
        let mut expected: Vec<_> = members.iter().map(|it| self.said(it)).collect();
        let mut said: Vec<_> = found.instances().iter().map(|it| self.said(it)).collect();
        expected.sort_by_key(order);
        said.sort_by_key(order);
        expect(said == expected, || {
            format!("{said:?} is listed instead of {expected:?}")
        })
    }

    /// The next changes of a watch, or that none came.
    async fn next(&self, watch: &mut Watch) -> Result<(Revision, Vec<Change>), Violation> {
        match tokio::time::timeout(self.patience(), watch.next()).await {
            Ok(event) => match event? {
                WatchEvent::Changes { revision, changes } => Ok((revision, changes)),
                WatchEvent::Resync => broken("resync without need".to_owned()),
            },
            Err(_elapsed) => broken("nothing came".to_owned()),
        }
    }

    /// Reads until a change is as wanted.
    async fn until(
        &self,
        watch: &mut Watch,
        wanted: impl Fn(&Change) -> bool,
    ) -> Result<(), Violation> {
        while !self.next(watch).await?.1.iter().any(&wanted) {}
        Ok(())
    }

    async fn is_quiet(&self, watch: &mut Watch) -> Verdict {
        match tokio::time::timeout(self.lag * 2, watch.next()).await {
            Err(_elapsed) => Ok(()),
            Ok(event) => broken(format!("{:?} came", event?)),
        }
    }

    fn patience(&self) -> Duration {
        self.lag * 8
    }
}

impl fmt::Debug for SourceSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceSubject")
            .field("breaks", &self.break_off.is_some())
            .field("expresses", &self.expresses)
            .field("lag", &self.lag)
            .field("remembers", &self.remembers)
            .field("kept", &self.kept.is_some())
            .finish_non_exhaustive()
    }
}

/// The member with this number of the service that most laws use.
fn member(number: u8) -> Result<Instance> {
    member_of("conformance-a", number)
}

fn member_of(service: &str, number: u8) -> Result<Instance> {
    Ok(Instance::new(
        name(service)?,
        format!("m{number}").parse().map_err(own)?,
        Incarnation::default(),
        endpoint(number),
    ))
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint::Tcp(([127, 0, 0, number], 9).into())
}

/// A member about which everything is said.
fn detailed(number: u8) -> Result<Instance> {
    let mut member = member(number)?;
    member.weight = 3;
    member.priority = 1;
    member.status = Status::Draining;
    member.locality = Locality::new("eu").zone("a");
    member.labels = [("tier", "backend")].try_into().map_err(own)?;
    member.probe = Some(Arc::new(ProbeTarget::default().path("/up").port(81)));
    Ok(member)
}

/// Whether a change brings the member with this number.
fn brings(change: &Change, number: u8) -> bool {
    matches!(change, Change::Upserted(instance) if instance.endpoint == endpoint(number))
}

/// One law of a source by its name.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use orchestra_discovery::MemoryRegistry;
/// use orchestra_discovery::conformance::{SOURCE_LAWS, SourceSubject};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// for law in SOURCE_LAWS {
///     let (hour, lag) = (Duration::from_secs(3_600), Duration::from_millis(2));
///     let registry = Arc::new(MemoryRegistry::default());
///     law.check(&SourceSubject::of_registry(registry, hour, lag)).await?;
/// }
/// # Ok(())
/// # }
/// ```
pub type SourceLaw = Law<SourceSubject>;

list! {
    ($) SOURCE_LAWS of SourceSubject,
    /// Stamps a module with one test per law of a [`SourceSubject`](crate::conformance::SourceSubject).
    source_suite by enforce_source:
    snapshot::snapshot_lists_what_is_there
    snapshot::empty_answer_means_none
    snapshot::revisions_rise_with_changes
    snapshot::revision_stays_without_a_change
    snapshot::incarnation_stays_with_the_instance
    snapshot::returning_instance_has_a_greater_incarnation
    snapshot::all_services_are_covered_or_refused
    snapshot::cancelled_snapshot_leaves_no_trace
    watch::watch_tells_a_removal
    watch::watch_tells_an_alteration
    watch::watch_does_not_repeat_the_snapshot
    watch::watch_tells_each_change_once
    watch::watch_begins_at_its_revision
    watch::watch_resumes_where_another_ended
    watch::watch_leads_to_the_last_state
    watch::watch_keeps_to_its_service
    watch::cancelled_wait_loses_no_change
    watch::forgotten_revision_is_answered_by_resync
    watch::unknown_revision_is_answered_by_resync
    failure::failure_is_not_an_empty_answer
    failure::watch_goes_on_after_a_failure
}
