//! The pure part: what is registered, until when, and what changed lately.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic, ServiceName};

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::instance::{Incarnation, Instance, Override, Registration, Status};
use crate::registry::Lease;
use crate::source::{Change, Removal, RemovalReason, Revision, Scope, Snapshot};

/// The most changes that a watch is given at once, so that a page stays small on the wire.
const PAGE: usize = 256;
/// The longest text of labels, locality and probe together, so that the number of instances bounds the memory.
const MAX_TEXT: usize = 4 * 1024;

#[derive(Debug)]
struct Held {
    instance: Arc<Instance>,
    ttl: Duration,
    expires: Monotonic,
}

/// One act: a replacement is two changes under one revision, so nobody sees the id missing.
#[derive(Debug)]
struct Act {
    service: ServiceName,
    changes: Vec<Change>,
}

pub(super) enum Page {
    /// The revision is unknown here: too old, or of another life.
    Forgotten,
    /// What follows, in scope, up to and with `upto`.
    Changes {
        upto: Revision,
        changes: Vec<Change>,
    },
}

type Key = (ServiceName, InstanceId);

#[derive(Debug)]
pub(super) struct Table {
    max_instances: usize,
    max_changes: usize,
    max_ttl: Duration,
    services: BTreeMap<ServiceName, BTreeMap<InstanceId, Held>>,
    /// One entry per instance held, so its length is their number.
    deadlines: BTreeSet<(Monotonic, Key)>,
    /// The last acts; the last one has `revision`, and revisions have no gaps.
    log: VecDeque<Act>,
    revision: u64,
    /// What operators decided, by id, whether it is held or not.
    overrides: BTreeMap<Key, Override>,
    events: Vec<Event>,
}

impl Table {
    pub(super) fn new(
        max_instances: NonZeroUsize,
        max_changes: NonZeroUsize,
        max_ttl: Duration,
        start: Revision,
    ) -> Self {
        Self {
            max_instances: max_instances.get(),
            max_changes: max_changes.get(),
            max_ttl,
            services: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            log: VecDeque::new(),
            revision: start.as_u64(),
            overrides: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        Revision::new(self.revision)
    }

    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        self.deadlines.first().map(|(moment, _)| *moment)
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Removes every lease whose ttl has passed at `now`.
    pub(super) fn expire(&mut self, now: Monotonic) {
        while let Some((moment, _)) = self.deadlines.first()
            && *moment <= now
        {
            if let Some((_, (service, id))) = self.deadlines.pop_first()
                && let Some(held) = self.take(&service, &id)
            {
                let removal = removal(&held.instance, RemovalReason::Expired);
                self.removed(removal);
            }
        }
    }

    pub(super) fn register(&mut self, asked: &Registration, now: Monotonic) -> Result<Lease> {
        self.check(asked)?;
        let replaced = self.take(&asked.service, &asked.id);
        let incarnation = Incarnation::new(self.revision.saturating_add(1));
        let mut instance = asked.instance(incarnation);
        let key = (asked.service.clone(), asked.id.clone());
        instance.forced = self.overrides.get(&key).copied();
        let instance = Arc::new(instance);
        let mut changes = Vec::with_capacity(2);
        if let Some(ghost) = replaced {
            let removal = removal(&ghost.instance, RemovalReason::Replaced);
            self.events.push(Event::Removed(removal.clone()));
            changes.push(Change::Removed(removal));
        }
        changes.push(Change::Upserted(Arc::clone(&instance)));
        self.put(Held {
            instance: Arc::clone(&instance),
            ttl: asked.ttl,
            expires: now + asked.ttl,
        });
        self.record(&asked.service, changes);
        self.events.push(Event::Registered(instance));
        let (service, id) = (asked.service.clone(), asked.id.clone());
        Ok(Lease::new(service, id, incarnation, asked.ttl))
    }

    fn check(&self, asked: &Registration) -> Result<()> {
        let Registration {
            service, id, ttl, ..
        } = asked;
        if ttl.is_zero() || *ttl > self.max_ttl {
            let message = format!(
                "ttl of instance {id} of service {service} is {ttl:?}, not in 0..={:?}",
                self.max_ttl
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let path = asked.probe.path.as_deref().map_or(0, str::len);
        let text = asked.labels.to_string().len() + asked.locality.to_string().len() + path;
        if text > MAX_TEXT {
            let message = format!(
                "labels, locality and probe of instance {id} of service {service} take {text} bytes of {MAX_TEXT}"
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let held = self.held(service, id).is_some();
        if !held && self.deadlines.len() >= self.max_instances {
            let message = format!(
                "no room for instance {id} of service {service}: {} are registered",
                self.max_instances
            );
            return Err(Error::new(ErrorKind::Full, message));
        }
        Ok(())
    }

    pub(super) fn renew(&mut self, lease: &Lease, now: Monotonic) -> Result<()> {
        self.owned(lease)?;
        let Some(mut held) = self.take(&lease.service, &lease.id) else {
            return Err(lost(lease));
        };
        held.expires = now + held.ttl;
        self.put(held);
        self.events.push(Event::Renewed {
            service: lease.service.clone(),
            id: lease.id.clone(),
            incarnation: lease.incarnation,
        });
        Ok(())
    }

    pub(super) fn set_status(&mut self, lease: &Lease, status: Status) -> Result<()> {
        if self.owned(lease)?.status == status {
            return Ok(());
        }
        let Some(mut held) = self.take(&lease.service, &lease.id) else {
            return Err(lost(lease));
        };
        let mut instance = Instance::clone(&held.instance);
        instance.status = status;
        held.instance = Arc::new(instance);
        let instance = Arc::clone(&held.instance);
        self.put(held);
        self.record(
            &lease.service,
            vec![Change::Upserted(Arc::clone(&instance))],
        );
        self.events.push(Event::StatusChanged(instance));
        Ok(())
    }

    pub(super) fn set_override(
        &mut self,
        service: &ServiceName,
        id: &InstanceId,
        forced: Option<Override>,
    ) -> Result<()> {
        let key = (service.clone(), id.clone());
        let held = match forced {
            Some(forced) if self.overrides.len() < self.max_instances => {
                self.overrides.insert(key, forced)
            }
            Some(_) => {
                let message = format!(
                    "no room for an override of instance {id} of service {service}: {} are set",
                    self.max_instances
                );
                return Err(Error::new(ErrorKind::Full, message));
            }
            None => self.overrides.remove(&key),
        };
        if held != forced
            && let Some(mut held) = self.take(service, id)
        {
            let mut instance = Instance::clone(&held.instance);
            instance.forced = forced;
            held.instance = Arc::new(instance);
            let instance = Arc::clone(&held.instance);
            self.put(held);
            self.record(service, vec![Change::Upserted(Arc::clone(&instance))]);
            self.events.push(Event::Overridden(instance));
        }
        Ok(())
    }

    pub(super) fn deregister(&mut self, lease: &Lease) {
        if self.owned(lease).is_ok()
            && let Some(held) = self.take(&lease.service, &lease.id)
        {
            let removal = removal(&held.instance, RemovalReason::Deregistered);
            self.removed(removal);
        }
    }

    pub(super) fn snapshot(&self, scope: &Scope) -> Snapshot {
        let instances = match scope {
            Scope::Service(name) => self.services.get(name).map_or_else(Vec::new, instances),
            Scope::All => self.services.values().flat_map(instances).collect(),
        };
        Snapshot::new(scope.clone(), self.revision(), instances)
    }

    pub(super) fn changes(&self, scope: &Scope, after: Revision) -> Page {
        let Some(missing) = self.revision.checked_sub(after.as_u64()) else {
            return Page::Forgotten;
        };
        let missing = usize::try_from(missing).unwrap_or(usize::MAX);
        let Some(skip) = self.log.len().checked_sub(missing) else {
            return Page::Forgotten;
        };
        let mut upto = after.as_u64();
        let mut changes = Vec::new();
        for act in self.log.iter().skip(skip) {
            upto += 1;
            if scope.covers(&act.service) {
                changes.extend(act.changes.iter().cloned());
            }
            if changes.len() >= PAGE {
                break;
            }
        }
        Page::Changes {
            upto: Revision::new(upto),
            changes,
        }
    }

    /// The instance that the lease holds.
    fn owned(&self, lease: &Lease) -> Result<&Arc<Instance>> {
        let held = self
            .held(&lease.service, &lease.id)
            .ok_or_else(|| lost(lease))?;
        let current = held.instance.incarnation;
        if current == lease.incarnation {
            return Ok(&held.instance);
        }
        let message = format!(
            "incarnation {} of instance {} of service {} was replaced by {current}",
            lease.incarnation, lease.id, lease.service
        );
        Err(Error::new(ErrorKind::Replaced, message))
    }

    fn held(&self, service: &ServiceName, id: &InstanceId) -> Option<&Held> {
        self.services.get(service)?.get(id)
    }

    fn take(&mut self, service: &ServiceName, id: &InstanceId) -> Option<Held> {
        let of_service = self.services.get_mut(service)?;
        let held = of_service.remove(id)?;
        if of_service.is_empty() {
            self.services.remove(service);
        }
        let key = (service.clone(), id.clone());
        self.deadlines.remove(&(held.expires, key));
        Some(held)
    }

    fn put(&mut self, held: Held) {
        let (service, id) = (held.instance.service.clone(), held.instance.id.clone());
        self.deadlines
            .insert((held.expires, (service.clone(), id.clone())));
        self.services.entry(service).or_default().insert(id, held);
    }

    fn removed(&mut self, removal: Removal) {
        let service = removal.service.clone();
        self.events.push(Event::Removed(removal.clone()));
        self.record(&service, vec![Change::Removed(removal)]);
    }

    fn record(&mut self, service: &ServiceName, changes: Vec<Change>) {
        self.revision = self.revision.saturating_add(1);
        if self.log.len() >= self.max_changes {
            self.log.pop_front();
        }
        self.log.push_back(Act {
            service: service.clone(),
            changes,
        });
    }
}

fn instances(of_service: &BTreeMap<InstanceId, Held>) -> Vec<Arc<Instance>> {
    let held = of_service.values();
    held.map(|held| Arc::clone(&held.instance)).collect()
}

fn removal(instance: &Instance, reason: RemovalReason) -> Removal {
    Removal {
        service: instance.service.clone(),
        id: instance.id.clone(),
        incarnation: instance.incarnation,
        reason,
    }
}

fn lost(lease: &Lease) -> Error {
    let message = format!(
        "the lease of instance {} of service {} is gone",
        lease.id, lease.service
    );
    Error::new(ErrorKind::LeaseLost, message)
}
