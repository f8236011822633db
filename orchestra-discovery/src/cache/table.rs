//! The pure part: what is known of each service, what is published, and what may be forgotten.

use std::collections::HashMap;
use std::sync::Arc;
#[cfg(feature = "serde")]
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic, ServiceName};

use super::answer::{Answer, Origins};
use super::config::Config;
use super::entry::Entry;
use super::freshness::Freshness;
use super::log::Page;
use super::view::{Failure, Verdict, View, Wide};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::instance::Instance;
use crate::merge::Provenance;
use crate::preserve::{Preservation, Transition};
use crate::source::{Change, RemovalReason, Revision, Scope, Snapshot};

/// What the table knows of a source.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) name: Arc<str>,
    pub(super) tier: usize,
    pub(super) leases: bool,
    pub(super) wide: Wide,
}

impl Upstream {
    pub(super) fn new(name: Arc<str>, tier: usize, leases: bool, config: &Config) -> Self {
        Self {
            name,
            tier,
            leases,
            wide: Preservation::new(config.preserve),
        }
    }
}

#[derive(Debug)]
pub(super) struct Table {
    config: Config,
    upstreams: Vec<Upstream>,
    entries: HashMap<ServiceName, Entry>,
    revision: u64,
    /// Counts calls, so that the least recently used service is known.
    uses: u64,
    events: Vec<Event>,
    /// Since when there is something that the file lacks.
    #[cfg(feature = "serde")]
    pub(super) dirty: Option<Monotonic>,
}

impl Table {
    pub(super) fn new(config: Config, upstreams: Vec<Upstream>) -> Self {
        Self {
            revision: config.start.as_u64(),
            config,
            upstreams,
            entries: HashMap::new(),
            uses: 0,
            events: Vec::new(),
            #[cfg(feature = "serde")]
            dirty: None,
        }
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn entry(&mut self, service: &ServiceName) -> Option<&mut Entry> {
        self.entries.get_mut(service)
    }

    /// What each source contributes to each service that has members.
    #[cfg(feature = "serde")]
    pub(super) fn served(&self) -> super::disk::Services {
        let with_members = self
            .entries
            .iter()
            .filter(|(_, it)| !it.published.instances().is_empty());
        let services = with_members.map(|(service, entry)| {
            let parts = self
                .upstreams
                .iter()
                .zip(&entry.views)
                .map(|(upstream, view)| {
                    let served = view.served(&upstream.wide).cloned();
                    (Arc::clone(&upstream.name), served.collect())
                });
            (service.clone(), parts.collect())
        });
        services.collect()
    }

    /// The file could not be written: what it lacks, it still lacks.
    #[cfg(feature = "serde")]
    pub(super) fn unsaved(&mut self, reason: String, now: Monotonic) {
        self.events.push(Event::DiskFailed { reason });
        self.dirty.get_or_insert(now);
    }

    fn next_revision(&mut self) -> Revision {
        self.revision = self.revision.saturating_add(1);
        Revision::new(self.revision)
    }

    /// Makes an entry unless there is one; says whether it is new and who had to go for it.
    pub(super) fn ensure(&mut self, service: &ServiceName) -> Result<(bool, Option<ServiceName>)> {
        self.uses += 1;
        let uses = self.uses;
        if let Some(entry) = self.entries.get_mut(service) {
            entry.used = uses;
            return Ok((false, None));
        }
        let evicted = self.make_room(service)?;
        // Greater than any revision that this service has had in a former entry.
        let floor = self.next_revision();
        let upstreams = self.upstreams.iter();
        let views = upstreams.map(|upstream| View::new(upstream.leases, self.config.preserve));
        let most = self.config.max_changes.get();
        let mut entry = Entry::new(service.clone(), views.collect(), floor, most);
        entry.used = uses;
        self.entries.insert(service.clone(), entry);
        self.events.push(Event::CacheMiss {
            service: service.clone(),
        });
        Ok((true, evicted))
    }

    fn make_room(&mut self, wanted: &ServiceName) -> Result<Option<ServiceName>> {
        let barren = self.entries.values().filter(|it| it.is_barren()).count();
        let crowded = barren >= self.config.max_negative.get();
        if !crowded && self.entries.len() < self.config.max_services.get() {
            return Ok(None);
        }
        // Names that nobody serves never push out a service with members.
        let free = self.entries.iter().filter(|(_, it)| it.pins == 0);
        let free = free.filter(|(_, it)| !crowded || it.is_barren());
        let oldest = free.min_by_key(|(_, it)| (!it.is_barren(), it.used));
        let Some(oldest) = oldest.map(|(service, _)| service.clone()) else {
            let message = format!("the cache has no room for service {wanted}");
            return Err(Error::new(ErrorKind::Full, message));
        };
        self.drop_entry(&oldest);
        Ok(Some(oldest))
    }

    fn drop_entry(&mut self, service: &ServiceName) {
        if let Some(mut entry) = self.entries.remove(service) {
            for (view, upstream) in entry.views.iter_mut().zip(&mut self.upstreams) {
                view.reset(self.config.preserve, &mut upstream.wide);
            }
        }
    }

    #[cfg(feature = "serde")]
    pub(super) fn seed(
        &mut self,
        service: &ServiceName,
        source: &str,
        instances: Vec<Arc<Instance>>,
        now: Monotonic,
    ) {
        let at = self.upstreams.iter().position(|it| &*it.name == source);
        let entry = self.entries.get_mut(service);
        if let (Some(at), Some(entry)) = (at, entry)
            && let Some(view) = entry.views.get_mut(at)
        {
            let scope = Scope::Service(service.clone());
            let snapshot = Snapshot::new(scope, Revision::default(), instances);
            view.seed(snapshot.instances().iter().cloned(), now);
        }
    }

    /// A source answered with all that it lists, as of an older revision than it told before or not.
    pub(super) fn accept(
        &mut self,
        service: &ServiceName,
        at: usize,
        (snapshot, older): (&Snapshot, bool),
        now: Monotonic,
    ) -> Verdict {
        let (grace, empty) = (self.config.grace, snapshot.instances().is_empty());
        let mut anew = Vec::new();
        let Some((view, upstream)) = self.view(service, at) else {
            return Verdict::Believed;
        };
        let verdict = view.weigh(empty, older, grace, now);
        let doubted_now = view.is_doubted_since(now);
        let failed = view.failure.take().is_some();
        let name = Arc::clone(&upstream.name);
        if verdict == Verdict::Believed {
            view.replace(snapshot, &mut upstream.wide, now);
            upstream.wide.confirm(now);
            if upstream.leases {
                anew.extend_from_slice(snapshot.instances());
            }
        }
        if failed {
            self.events.push(Event::UpstreamRecovered {
                service: service.clone(),
                source: Arc::clone(&name),
            });
        }
        if doubted_now {
            let (service, source) = (service.clone(), name);
            self.events.push(if empty {
                Event::EmptyUnconfirmed { service, source }
            } else {
                Event::OlderUnconfirmed { service, source }
            });
        }
        self.came(service, at, &anew);
        self.settle(service, at, now);
        verdict
    }

    fn view(&mut self, service: &ServiceName, at: usize) -> Option<(&mut View, &mut Upstream)> {
        let view = self.entries.get_mut(service)?.views.get_mut(at)?;
        Some((view, self.upstreams.get_mut(at)?))
    }

    /// A source that holds leases lists these: they are given back no longer.
    fn came(&mut self, service: &ServiceName, at: usize, instances: &[Arc<Instance>]) {
        if let Some(entry) = self.entries.get_mut(service) {
            let others = entry.views.iter_mut().enumerate();
            for (_, view) in others.filter(|(other, _)| *other != at) {
                for instance in instances {
                    view.unmute(instance);
                }
            }
        }
    }

    /// A source told changes.
    pub(super) fn apply(
        &mut self,
        service: &ServiceName,
        at: usize,
        changes: &[Change],
        now: Monotonic,
    ) {
        for change in changes {
            match change {
                Change::Upserted(instance) if instance.service == *service => {
                    if let Some((view, upstream)) = self.view(service, at) {
                        view.upsert(instance, &mut upstream.wide);
                        if upstream.leases {
                            self.came(service, at, std::slice::from_ref(instance));
                        }
                    }
                }
                Change::Removed(removal) if removal.service == *service => {
                    let upto = removal.incarnation.as_u64();
                    self.remove(service, at, &removal.id, upto, removal.reason, now);
                }
                _ => {}
            }
        }
        self.settle(service, at, now);
    }

    fn remove(
        &mut self,
        service: &ServiceName,
        at: usize,
        id: &InstanceId,
        upto: u64,
        reason: RemovalReason,
        now: Monotonic,
    ) {
        let Some((view, upstream)) = self.view(service, at) else {
            return;
        };
        let Some(gone) = view.take(id, upto) else {
            return;
        };
        if reason == RemovalReason::Expired {
            view.lapse(gone, &mut upstream.wide, now);
            return;
        }
        view.give_up(&gone, &mut upstream.wide);
        if reason == RemovalReason::Deregistered && upstream.leases {
            self.mute(service, at, &gone, now);
        }
        if let Some(entry) = self.entries.get_mut(service) {
            entry.reasons.insert(id.clone(), reason);
        }
    }

    /// What was given back must not live on because another source has not heard of it.
    fn mute(&mut self, service: &ServiceName, at: usize, gone: &Instance, now: Monotonic) {
        let until = now + self.config.tombstone;
        if let Some(entry) = self.entries.get_mut(service) {
            let parts = entry.views.iter_mut().zip(&mut self.upstreams).enumerate();
            for (_, (view, upstream)) in parts.filter(|(other, _)| *other != at) {
                view.mute(gone, &mut upstream.wide, until);
            }
        }
    }

    /// A watch of the source is up.
    pub(super) fn watching(&mut self, service: &ServiceName, at: usize) {
        if let Some((view, _)) = self.view(service, at) {
            view.watching();
        }
    }

    /// A source failed.
    pub(super) fn fail(&mut self, service: &ServiceName, at: usize, error: &Error, now: Monotonic) {
        let before = self.depth(service, now);
        let Some((view, upstream)) = self.view(service, at) else {
            return;
        };
        let first = !view.settled;
        view.fail(now);
        let count = view.failure.as_ref().map_or(0, |failure| failure.count);
        let failure = Failure {
            kind: error.kind(),
            message: error.to_string(),
            count: count.saturating_add(1),
        };
        view.failure = Some(failure.clone());
        let event = Event::UpstreamFailed {
            service: service.clone(),
            source: Arc::clone(&upstream.name),
            kind: failure.kind,
            message: failure.message,
            failures: failure.count,
        };
        self.events.push(event);
        // One more failure of many changes nothing.
        if first || before != self.depth(service, now) {
            self.settle(service, at, now);
        }
    }

    fn depth(&self, service: &ServiceName, now: Monotonic) -> Option<usize> {
        let entry = self.entries.get(service)?;
        Some(entry.depth(&self.upstreams, &self.config.limits, now))
    }

    /// A fallback is not asked any longer.
    pub(super) fn leave(&mut self, service: &ServiceName, at: usize) {
        let preserve = self.config.preserve;
        if let Some((view, upstream)) = self.view(service, at) {
            view.reset(preserve, &mut upstream.wide);
        }
    }

    fn settle(&mut self, service: &ServiceName, at: usize, now: Monotonic) {
        self.judge(service, at, now);
        let affected = self.judge_wide(at, now);
        for other in affected.iter().filter(|other| *other != service) {
            self.publish(other, now);
        }
        self.publish(service, now);
    }

    /// Whether leases of this service are held from now on, or no longer.
    fn judge(&mut self, service: &ServiceName, at: usize, now: Monotonic) -> bool {
        let Some((view, upstream)) = self.view(service, at) else {
            return false;
        };
        let transition = view.preservation.judge(view.live(), now);
        let name = Arc::clone(&upstream.name);
        let Some(transition) = transition else {
            return false;
        };
        self.events
            .push(preservation(name, Some(service.clone()), &transition));
        true
    }

    /// The same for all leases of the source: the services that are affected.
    fn judge_wide(&mut self, at: usize, now: Monotonic) -> Vec<ServiceName> {
        let Some(upstream) = self.upstreams.get_mut(at) else {
            return Vec::new();
        };
        if upstream.wide.lapsed().next().is_none() && !upstream.wide.is_holding() {
            return Vec::new();
        }
        let views = self.entries.values().filter_map(|it| it.views.get(at));
        let live = views.map(View::live).sum();
        let Some(transition) = upstream.wide.judge(live, now) else {
            return Vec::new();
        };
        let mut affected: Vec<ServiceName> = match &transition {
            Transition::Entered { .. } => {
                let lapsed = upstream.wide.lapsed();
                lapsed.map(|(service, _)| service.clone()).collect()
            }
            Transition::Left { released, .. } => released
                .iter()
                .map(|(service, _)| service.clone())
                .collect(),
        };
        affected.dedup();
        let name = Arc::clone(&upstream.name);
        self.events.push(preservation(name, None, &transition));
        affected
    }

    fn publish(&mut self, service: &ServiceName, now: Monotonic) {
        let next = Revision::new(self.revision.saturating_add(1));
        let limits = self.config.limits;
        let Some(entry) = self.entries.get_mut(service) else {
            return;
        };
        let (changes, members) = entry.changes(&self.upstreams, &limits, now);
        if !changes.is_empty() {
            self.revision = next.as_u64();
            let scope = Scope::Service(service.clone());
            entry.published = Arc::new(Snapshot::new(scope, next, members));
            entry.log.push(next, changes);
            #[cfg(feature = "serde")]
            self.dirty.get_or_insert(now);
        }
        let depth = entry.depth(&self.upstreams, &limits, now);
        entry.progress.send_replace(depth);
    }

    /// Remembers for how long a service without members is not asked for anew; says so if it is new.
    pub(super) fn note_barren(&mut self, service: &ServiceName, draw: u64, now: Monotonic) {
        let limits = self.config.limits;
        let (ttl, half) = (self.config.negative_ttl, self.config.negative_ttl / 2);
        let Some(entry) = self.entries.get_mut(service) else {
            return;
        };
        if !entry.published.instances().is_empty() {
            entry.barren_until = None;
            return;
        }
        if entry.barren_until.is_some() {
            return;
        }
        let Some(answer) = entry.answer(&self.upstreams, &limits, now) else {
            return;
        };
        let wait = ttl + half.mul_f64(draw as f64 / u64::MAX as f64);
        entry.barren_until = Some(now + wait);
        if answer.is_ok() {
            self.events.push(Event::NegativeCached {
                service: service.clone(),
                ttl: wait,
            });
        }
    }

    pub(super) fn answer(
        &mut self,
        service: &ServiceName,
        now: Monotonic,
    ) -> Option<Result<Answer>> {
        let limits = self.config.limits;
        let entry = self.entries.get_mut(service)?;
        let answer = entry.answer(&self.upstreams, &limits, now)?;
        if let Ok(answer) = &answer {
            let stale = answer.freshness > Freshness::Fresh;
            if stale && entry.told != answer.freshness {
                self.events.push(Event::StaleServed {
                    service: service.clone(),
                    freshness: answer.freshness,
                    age: answer.age,
                });
            }
            entry.told = answer.freshness;
        }
        Some(answer)
    }

    /// Tells that a call was answered at once.
    pub(super) fn note_hit(&mut self, service: &ServiceName, freshness: Freshness) {
        self.events.push(Event::CacheHit {
            service: service.clone(),
            freshness,
        });
    }

    pub(super) fn provenance(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        now: Monotonic,
    ) -> Option<Provenance> {
        let entry = self.entries.get(service)?;
        entry.provenance(&self.upstreams, &self.config.limits, now, id)
    }

    pub(super) fn origins(&self, service: &ServiceName, now: Monotonic) -> Option<Origins> {
        let entry = self.entries.get(service)?;
        Some(entry.origins(&self.upstreams, &self.config.limits, now))
    }

    pub(super) fn page(&self, service: &ServiceName, after: Revision) -> Page {
        let entry = self.entries.get(service);
        entry.map_or(Page::Forgotten, |entry| entry.log.after(after))
    }

    /// Whatever time alone changes; the services that were dropped.
    pub(super) fn tick(&mut self, now: Monotonic) -> Vec<ServiceName> {
        let limits = self.config.limits;
        let mut affected: Vec<ServiceName> = Vec::new();
        for at in 0..self.upstreams.len() {
            affected.extend(self.judge_wide(at, now));
        }
        let services: Vec<ServiceName> = self.entries.keys().cloned().collect();
        for service in services {
            let mut moved = false;
            for at in 0..self.upstreams.len() {
                moved |= self.judge(&service, at, now);
                if let Some((view, _)) = self.view(&service, at) {
                    moved |= view.unmute_due(now);
                    moved |= view.was_servable && !view.is_servable(&limits, now);
                }
            }
            if moved {
                affected.push(service);
            }
        }
        affected.sort_unstable();
        affected.dedup();
        for service in &affected {
            self.publish(service, now);
        }
        self.drop_barren(now)
    }

    fn drop_barren(&mut self, now: Monotonic) -> Vec<ServiceName> {
        // What was given back must stay so while another source lists it.
        let over = |entry: &Entry| {
            entry.barren_until.is_some_and(|until| until <= now)
                && !entry.views.iter().any(View::is_muting)
        };
        let idle = self.entries.iter().filter(|(_, entry)| {
            entry.pins == 0 && entry.published.instances().is_empty() && over(entry)
        });
        let dropped: Vec<ServiceName> = idle.map(|(service, _)| service.clone()).collect();
        for service in &dropped {
            self.drop_entry(service);
        }
        dropped
    }

    /// What the file said is published.
    #[cfg(feature = "serde")]
    pub(super) fn warmed(&mut self, service: &ServiceName, now: Monotonic) {
        let dirty = self.dirty;
        self.publish(service, now);
        self.dirty = dirty;
    }

    /// Answers at once, if that is possible, and counts as use.
    pub(super) fn touch(
        &mut self,
        service: &ServiceName,
        now: Monotonic,
    ) -> Option<Result<Answer>> {
        self.uses += 1;
        let uses = self.uses;
        self.entries.get_mut(service)?.used = uses;
        self.answer(service, now)
    }

    /// Everyone who waits learns that nothing comes any more.
    pub(super) fn hang_up(&mut self) {
        self.entries.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(feature = "serde")]
    pub(super) fn debounced(&mut self, debounce: Duration, now: Monotonic) -> bool {
        let due = self.dirty.is_some_and(|since| since + debounce <= now);
        if due {
            self.dirty = None;
        }
        due
    }
}

fn preservation<K>(
    source: Arc<str>,
    service: Option<ServiceName>,
    transition: &Transition<K>,
) -> Event {
    match transition {
        Transition::Entered { held } => Event::PreservationEntered {
            source,
            service,
            held: *held,
        },
        Transition::Left { end, released } => Event::PreservationLeft {
            source,
            service,
            end: *end,
            released: released.len(),
        },
    }
}
