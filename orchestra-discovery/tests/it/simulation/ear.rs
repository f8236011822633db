//! Listens to every component, and knows which events must come in pairs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use orchestra_core::{Clock, InstanceId, Listener, Monotonic, ServiceName};
use orchestra_discovery::cache::Freshness;
use orchestra_discovery::{
    ErrorKind, Event, Incarnation, Instance, RemovalReason, outlier::Change as Decided,
};
use parking_lot::Mutex;

use super::link::Stepped;
use super::setup::TTL;
use super::ward::Gatehouse;
use crate::common::service;

struct Word {
    /// By the registry's clock.
    at: Monotonic,
    /// By the client's.
    now: Monotonic,
    /// Which life of the member an outlier event is about.
    life: u64,
    event: Event,
}

/// A lease as the registry's events tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenure {
    pub(super) incarnation: Incarnation,
    pub(super) renewed: Monotonic,
    /// By the client's clock.
    begun: Monotonic,
}

#[derive(Default)]
pub(super) struct Ear {
    words: Arc<Mutex<Vec<Word>>>,
    /// Which life of the registry counts.
    life: Arc<AtomicU32>,
    pub(super) in_panic: bool,
    /// Which holds of which source are on.
    pub(super) holds: BTreeSet<(Arc<str>, Option<ServiceName>)>,
    pub(super) holds_left: u64,
    ejected: BTreeMap<InstanceId, u64>,
    pub(super) suppressed: BTreeSet<InstanceId>,
    failures: BTreeMap<Arc<str>, u32>,
    source_failures: u32,
    pub(super) leases: BTreeMap<InstanceId, Tenure>,
    /// When the registry last changed or dropped what it lists under an id.
    pub(super) changed: BTreeMap<InstanceId, Monotonic>,
    /// Who gave its lease back, when, and how long it had had it.
    pub(super) given_back: BTreeMap<InstanceId, (Monotonic, Duration)>,
    pub(super) stale: Option<Freshness>,
    pub(super) trial: bool,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Ear {
    /// What is handed to the components.
    pub(super) fn listener(
        &self,
        clock: &Arc<Stepped>,
        house: &Gatehouse,
    ) -> Arc<dyn Listener<Event>> {
        let (words, clock, house) = (Arc::clone(&self.words), Arc::clone(clock), house.clone());
        let (present, born) = (Arc::clone(&self.life), self.life.load(Ordering::Relaxed));
        Arc::new(move |event: &Event| {
            if is_of_registry(event) && present.load(Ordering::Relaxed) != born {
                return;
            }
            let life = match event {
                Event::Outlier { id, .. } => house.life(id),
                _ => 0,
            };
            let (at, now, event) = (clock.now(), clock.0.now(), event.clone());
            words.lock().push(Word {
                at,
                now,
                life,
                event,
            });
        })
    }

    /// What the registry says from here on is of another life.
    pub(super) fn begin_life(&mut self) {
        self.listen();
        self.leases.clear();
        self.life.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the present life of this member is ejected.
    pub(super) fn is_ejected(&self, id: &InstanceId, house: &Gatehouse) -> bool {
        self.ejected.get(id) == Some(&house.life(id))
    }

    pub(super) fn is_holding(&self, source: &str) -> bool {
        self.holds.iter().any(|(name, _)| &**name == source)
    }

    /// Takes in what was said since.
    pub(super) fn listen(&mut self) {
        let words = std::mem::take(&mut *self.words.lock());
        for word in words {
            *self.counts.entry(kind(&word.event)).or_default() += 1;
            self.registry(&word);
            self.take(word);
        }
    }

    fn registry(&mut self, word: &Word) {
        let renewed = word.at;
        let id = match &word.event {
            Event::Registered(it) | Event::StatusChanged(it) | Event::Overridden(it) => {
                Some(&it.id)
            }
            Event::Removed(removal) => Some(&removal.id),
            _ => None,
        };
        if let Some(id) = id {
            self.changed.insert(id.clone(), word.now);
        }
        match &word.event {
            Event::Registered(instance) if is_leased(instance) => {
                let incarnation = instance.incarnation;
                let tenure = Tenure {
                    incarnation,
                    renewed,
                    begun: word.now,
                };
                self.given_back.remove(&instance.id);
                let former = self.leases.insert(instance.id.clone(), tenure);
                let rose = former.is_none_or(|former| former.incarnation < incarnation);
                assert!(rose, "{former:?} was followed by {instance:?}");
            }
            Event::Renewed {
                id, incarnation, ..
            } => {
                let tenure = self.leases.get_mut(id).unwrap();
                assert_eq!(tenure.incarnation, *incarnation, "a ghost renewed");
                tenure.renewed = renewed;
            }
            Event::Removed(removal) => {
                let Some(tenure) = self.leases.get(&removal.id).copied() else {
                    return;
                };
                assert_eq!(tenure.incarnation, removal.incarnation);
                match removal.reason {
                    RemovalReason::Expired => {
                        let lasted = renewed.since(tenure.renewed);
                        assert!(lasted >= TTL, "{removal:?} after {lasted:?}");
                        self.leases.remove(&removal.id);
                    }
                    RemovalReason::Deregistered => {
                        self.leases.remove(&removal.id);
                        let age = word.now.since(tenure.begun);
                        let back = (word.now, age);
                        self.given_back.insert(removal.id.clone(), back);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn take(&mut self, Word { life, event, .. }: Word) {
        match event {
            Event::Panic { entered, .. } => {
                assert_ne!(self.in_panic, entered, "panic begins or ends twice");
                self.in_panic = entered;
            }
            Event::PreservationEntered {
                source, service, ..
            } => assert!(self.holds.insert((source, service)), "held twice"),
            Event::PreservationLeft {
                source, service, ..
            } => {
                self.holds_left += 1;
                assert!(self.holds.remove(&(source, service)), "never held");
            }
            Event::Outlier { id, change, .. } => match change {
                Decided::Ejected { .. } => {
                    let before = self.ejected.insert(id.clone(), life);
                    assert_ne!(before, Some(life), "{id} is ejected twice");
                }
                Decided::Restored => {
                    let before = self.ejected.remove(&id);
                    assert_eq!(before, Some(life), "{id} was not ejected");
                }
                _ => {}
            },
            Event::FlapSuppressed { id, .. } => {
                assert!(self.suppressed.insert(id.clone()), "{id} twice");
            }
            Event::FlapReleased { id, .. } => {
                assert!(self.suppressed.remove(&id), "{id} was not suppressed");
            }
            Event::UpstreamFailed {
                service: of,
                source,
                failures,
                ..
            } if of == service() => {
                let before = self.failures.insert(Arc::clone(&source), failures);
                let next = before.unwrap_or(0) + 1;
                // A fallback that is left is forgotten, its failures too.
                let anew = failures == 1 && &*source == "fallback";
                assert!(failures == next || anew, "{source}: {before:?}, {failures}");
            }
            Event::UpstreamRecovered {
                service: of,
                source,
            } if of == service() => {
                let before = self.failures.remove(&source);
                assert!(before.is_some(), "{source} had not failed");
            }
            Event::SourceFailed { failures, .. } => {
                self.source_failures += 1;
                assert_eq!(failures, self.source_failures);
            }
            Event::SourceRecovered { .. } => {
                assert!(std::mem::take(&mut self.source_failures) > 0);
            }
            Event::StaleServed {
                service: of,
                freshness,
                ..
            } if of == service() => {
                self.stale = Some(freshness);
            }
            Event::Picked { trial, .. } => self.trial = trial,
            _ => {}
        }
    }
}

/// Whether it is registered by a process, and not a record of DNS.
pub(super) fn is_leased(instance: &Instance) -> bool {
    instance.id.as_str().starts_with('i')
}

fn is_of_registry(event: &Event) -> bool {
    matches!(
        event,
        Event::Registered(_)
            | Event::Renewed { .. }
            | Event::StatusChanged(_)
            | Event::Overridden(_)
            | Event::Removed(_)
    )
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Registered(_) => "registered",
        Event::Renewed { .. } => "renewed",
        Event::StatusChanged(_) => "status",
        Event::Overridden(_) => "overridden",
        Event::Removed(removal) => match removal.reason {
            RemovalReason::Expired => "expired",
            RemovalReason::Deregistered => "deregistered",
            _ => "replaced",
        },
        Event::HeartbeatFailed { kind, .. } if *kind == ErrorKind::Replaced => "heartbeat replaced",
        Event::HeartbeatFailed { .. } => "heartbeat failed",
        Event::Picked { trial: true, .. } => "trial",
        Event::Picked { .. } => "picked",
        Event::NotPicked(_) => "not picked",
        Event::GateBypassed { .. } => "gate bypassed",
        Event::Outlier { change, .. } => match change {
            Decided::Ejected { .. } => "ejected",
            Decided::Restored => "restored",
            _ => "withheld",
        },
        Event::Panic { .. } => "panic",
        Event::StaleServed { .. } => "stale",
        Event::UpstreamFailed { .. } => "upstream failed",
        Event::UpstreamRecovered { .. } => "upstream recovered",
        Event::PreservationEntered { .. } => "preserved",
        Event::PreservationLeft { .. } => "released",
        Event::OlderUnconfirmed { .. } => "older unconfirmed",
        Event::EmptyUnconfirmed { .. } => "empty unconfirmed",
        Event::NegativeCached { .. } => "negative",
        Event::HealthChanged { .. } => "health",
        Event::FlapSuppressed { .. } => "suppressed",
        _ => "other",
    }
}
