use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use orchestra_core::{InstanceId, Monotonic, ServiceName};
use tokio::sync::watch;

use super::answer::{Answer, Origins, SourceReport};
use super::freshness::{Freshness, Limits};
use super::log::Log;
use super::table::Upstream;
use super::view::View;
use crate::error::{Error, ErrorKind, Result};
use crate::instance::Instance;
use crate::merge::{self, Merged, Provenance, Statement, merge};
use crate::source::{Change, Removal, RemovalReason, Revision, Scope, Snapshot};

/// One service: what each source says of it, and what is published out of that.
#[derive(Debug)]
pub(super) struct Entry {
    service: ServiceName,
    /// In the order of the sources.
    pub(super) views: Vec<View>,
    pub(super) published: Arc<Snapshot>,
    pub(super) log: Log,
    /// Why instances went, until that is published.
    pub(super) reasons: BTreeMap<InstanceId, RemovalReason>,
    pub(super) used: u64,
    /// Watches and waiting calls: it is not dropped under them.
    pub(super) pins: usize,
    pub(super) watchers: usize,
    /// Until when it is known to have no members.
    pub(super) barren_until: Option<Monotonic>,
    /// The freshness that was served last.
    pub(super) told: Freshness,
    /// The tier that is asked; sent anew with every answer and failure.
    pub(super) progress: watch::Sender<usize>,
}

impl Entry {
    pub(super) fn new(
        service: ServiceName,
        views: Vec<View>,
        floor: Revision,
        most: usize,
    ) -> Self {
        let scope = Scope::Service(service.clone());
        Self {
            service,
            views,
            published: Arc::new(Snapshot::new(scope, floor, Vec::new())),
            log: Log::new(floor, most),
            reasons: BTreeMap::new(),
            used: 0,
            pins: 0,
            watchers: 0,
            barren_until: None,
            told: Freshness::Fresh,
            progress: watch::Sender::new(0),
        }
    }

    pub(super) fn is_barren(&self) -> bool {
        self.watchers == 0 && self.published.instances().is_empty()
    }

    fn parts<'a>(
        &'a self,
        upstreams: &'a [Upstream],
    ) -> impl Iterator<Item = (&'a View, &'a Upstream)> + Clone {
        self.views.iter().zip(upstreams)
    }

    /// The first tier that has something or has not been heard yet; the last one if none is left.
    pub(super) fn depth(&self, upstreams: &[Upstream], limits: &Limits, now: Monotonic) -> usize {
        let last = upstreams.last().map_or(0, |upstream| upstream.tier);
        let hopeful = self.parts(upstreams).filter(|(view, upstream)| {
            !view.settled || view.is_servable(limits, now) && view.serves_any(&upstream.wide)
        });
        let tiers = hopeful.map(|(_, upstream)| upstream.tier);
        tiers.min().unwrap_or(last)
    }

    fn statements(
        &self,
        upstreams: &[Upstream],
        limits: &Limits,
        now: Monotonic,
    ) -> Vec<Statement> {
        let depth = self.depth(upstreams, limits, now);
        let servable = self
            .parts(upstreams)
            .filter(|(view, upstream)| upstream.tier <= depth && view.is_servable(limits, now));
        let statements = servable.map(|(view, upstream)| Statement {
            source: Arc::clone(&upstream.name),
            leases: upstream.leases,
            instances: view.served(&upstream.wide).cloned().collect(),
        });
        statements.collect()
    }

    pub(super) fn provenance(
        &self,
        upstreams: &[Upstream],
        limits: &Limits,
        now: Monotonic,
        id: &InstanceId,
    ) -> Option<Provenance> {
        let statements = self.statements(upstreams, limits, now);
        let merged = merge(&statements);
        let found = merged.iter().find(|merged| merged.id() == Some(id));
        found.map(Merged::provenance)
    }

    /// The same of all instances, and what the sources are like; merged once.
    pub(super) fn origins(
        &self,
        upstreams: &[Upstream],
        limits: &Limits,
        now: Monotonic,
    ) -> Origins {
        let statements = self.statements(upstreams, limits, now);
        let merged = merge(&statements);
        let keyed = merged
            .iter()
            .filter_map(|merged| Some((merged.id()?.clone(), merged.provenance())));
        Origins {
            sources: self.reports(upstreams, limits, now),
            provenance: keyed.collect(),
        }
    }

    /// What changes when the views are merged anew; nothing while nobody knows.
    pub(super) fn changes(
        &mut self,
        upstreams: &[Upstream],
        limits: &Limits,
        now: Monotonic,
    ) -> (Vec<Change>, Vec<Arc<Instance>>) {
        for (view, upstream) in self.views.iter_mut().zip(upstreams) {
            view.forget(&self.service, &upstream.wide);
            view.was_servable = view.is_servable(limits, now);
        }
        let statements = self.statements(upstreams, limits, now);
        let depth = self.depth(upstreams, limits, now);
        let empty = statements.iter().all(|said| said.instances.is_empty());
        let unheard = self
            .parts(upstreams)
            .any(|(view, upstream)| upstream.tier <= depth && !view.settled);
        if statements.is_empty() || empty && unheard {
            return (Vec::new(), self.published.instances().to_vec());
        }
        let new = merge::instances(statements);
        let reasons = std::mem::take(&mut self.reasons);
        diff(self.published.instances(), new, &reasons)
    }

    /// What is served at `now`; `None` while it is too early to say.
    pub(super) fn answer(
        &self,
        upstreams: &[Upstream],
        limits: &Limits,
        now: Monotonic,
    ) -> Option<Result<Answer>> {
        let depth = self.depth(upstreams, limits, now);
        let asked = self
            .parts(upstreams)
            .filter(move |(_, upstream)| upstream.tier <= depth);
        let servable = |(view, _): &(&View, &Upstream)| view.is_servable(limits, now);
        let serving = asked
            .clone()
            .filter(servable)
            .any(|(view, upstream)| view.serves_any(&upstream.wide));
        if serving {
            let contributing = asked
                .clone()
                .filter(servable)
                .filter(|(view, upstream)| view.serves_any(&upstream.wide));
            return Some(Ok(self.assemble(upstreams, contributing, limits, now)));
        }
        if asked.clone().any(|(view, _)| !view.settled) {
            return None;
        }
        // An empty answer means that there are none, and a source that failed has not said so.
        if asked.clone().all(|part| servable(&part)) {
            return Some(Ok(self.assemble(upstreams, asked, limits, now)));
        }
        Some(Err(self.reasons_of(asked)))
    }

    fn assemble<'a>(
        &self,
        upstreams: &[Upstream],
        contributing: impl Iterator<Item = (&'a View, &'a Upstream)> + Clone,
        limits: &Limits,
        now: Monotonic,
    ) -> Answer {
        let freshness = contributing
            .clone()
            .filter_map(|(view, _)| view.freshness(limits, now));
        let age = contributing.map(|(view, _)| view.age(now));
        Answer {
            snapshot: Arc::clone(&self.published),
            freshness: freshness.max().unwrap_or(Freshness::Expired),
            age: age.max().unwrap_or_default(),
            sources: self.reports(upstreams, limits, now),
        }
    }

    fn reports(
        &self,
        upstreams: &[Upstream],
        limits: &Limits,
        now: Monotonic,
    ) -> Vec<SourceReport> {
        let reports = self.parts(upstreams).map(|(view, upstream)| SourceReport {
            name: Arc::clone(&upstream.name),
            freshness: view.freshness(limits, now),
            age: view.age(now),
            instances: view.serves(&upstream.wide),
            failures: view.failure.as_ref().map_or(0, |failure| failure.count),
            error: view.failure.as_ref().map(|failure| failure.message.clone()),
        });
        reports.collect()
    }

    fn reasons_of<'a>(&self, asked: impl Iterator<Item = (&'a View, &'a Upstream)>) -> Error {
        let mut message = format!("no source knows the members of {}", self.service);
        let mut kind = None;
        for (view, upstream) in asked {
            let name = &upstream.name;
            let told = match &view.failure {
                Some(failure) => {
                    kind = kind.or(Some(failure.kind));
                    write!(message, "; {name}: {}", failure.message)
                }
                None => write!(message, "; {name}: has none"),
            };
            debug_assert!(told.is_ok(), "a string takes all");
        }
        let retryable = matches!(kind, Some(ErrorKind::Timeout));
        let kind = if retryable {
            ErrorKind::Timeout
        } else {
            ErrorKind::Unavailable
        };
        Error::new(kind, message)
    }
}

/// What leads from one list to the other, both in the order of their ids; of equal instances the old one stays.
fn diff(
    old: &[Arc<Instance>],
    new: Vec<Arc<Instance>>,
    reasons: &BTreeMap<InstanceId, RemovalReason>,
) -> (Vec<Change>, Vec<Arc<Instance>>) {
    let (mut changes, mut kept) = (Vec::new(), Vec::with_capacity(new.len()));
    let mut old = old.iter().peekable();
    for instance in new {
        while let Some(gone) = old.next_if(|held| held.id < instance.id) {
            changes.push(removed(gone, reason(reasons, gone)));
        }
        match old.next_if(|held| held.id == instance.id) {
            Some(held) if Arc::ptr_eq(held, &instance) || **held == *instance => {
                kept.push(Arc::clone(held));
                continue;
            }
            Some(held) if held.incarnation != instance.incarnation => {
                changes.push(removed(held, RemovalReason::Replaced));
            }
            _ => {}
        }
        changes.push(Change::Upserted(Arc::clone(&instance)));
        kept.push(instance);
    }
    changes.extend(old.map(|gone| removed(gone, reason(reasons, gone))));
    (changes, kept)
}

/// Who is missing without a reason is taken to have lapsed.
fn reason(reasons: &BTreeMap<InstanceId, RemovalReason>, gone: &Instance) -> RemovalReason {
    let told = reasons.get(&gone.id).copied();
    told.unwrap_or(RemovalReason::Expired)
}

fn removed(gone: &Instance, reason: RemovalReason) -> Change {
    Change::Removed(Removal {
        service: gone.service.clone(),
        id: gone.id.clone(),
        incarnation: gone.incarnation,
        reason,
    })
}
