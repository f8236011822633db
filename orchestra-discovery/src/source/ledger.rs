//! What a source that is read whole held lately: the difference of two readings, numbered and remembered.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use orchestra_core::{InstanceId, ServiceName, SystemWallClock, WallClock};

use super::{Change, Removal, RemovalReason, Revision, Scope, Snapshot};
use crate::instance::{Incarnation, Instance};

/// The changes between two readings, told under one revision, so nobody sees half of a new reading.
#[derive(Debug)]
struct Act {
    revision: Revision,
    changes: Vec<Change>,
}

/// What follows a revision.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// The revision was never given out here, or is too old.
    Forgotten,
    /// What follows in scope, up to and with `upto`.
    Changes {
        upto: Revision,
        changes: Vec<Change>,
    },
}

type Key = (ServiceName, InstanceId);

/// The members of the last reading, and the changes that led to them.
#[derive(Debug)]
pub(super) struct Ledger {
    members: BTreeMap<Key, Arc<Instance>>,
    log: VecDeque<Act>,
    /// How many changes the log holds.
    logged: usize,
    max_changes: usize,
    /// The revision that the log begins after.
    base: Revision,
}

impl Ledger {
    /// Nothing, at `start`.
    pub(super) fn new(start: Revision, max_changes: NonZeroUsize) -> Self {
        Self {
            members: BTreeMap::new(),
            log: VecDeque::new(),
            logged: 0,
            max_changes: max_changes.get(),
            base: start,
        }
    }

    /// That of the last change.
    pub(super) fn revision(&self) -> Revision {
        self.log.back().map_or(self.base, |act| act.revision)
    }

    /// Takes a new reading, with each id of a service once, and numbers what it changes with `next`.
    ///
    /// The incarnations of the reading do not count: an id that is new has that of the change, and keeps it
    /// for as long as it is read at the same endpoint. At another endpoint it is another instance.
    ///
    /// Whether anything changed.
    pub(super) fn replace(&mut self, next: Revision, reading: Vec<Instance>) -> bool {
        let mut former = std::mem::take(&mut self.members);
        let mut changes = Vec::new();
        for mut read in reading {
            let key = (read.service.clone(), read.id.clone());
            let held = former.remove(&key);
            read.incarnation = Incarnation::new(next.as_u64());
            let member = match held {
                Some(held) if held.endpoint == read.endpoint => {
                    read.incarnation = held.incarnation;
                    if *held == read {
                        held
                    } else {
                        upserted(read, &mut changes)
                    }
                }
                Some(held) => {
                    changes.push(removed(&held, RemovalReason::Replaced));
                    upserted(read, &mut changes)
                }
                None => upserted(read, &mut changes),
            };
            self.members.insert(key, member);
        }
        let gone = former.values();
        changes.extend(gone.map(|held| removed(held, RemovalReason::Deregistered)));
        if changes.is_empty() {
            return false;
        }
        self.record(next, changes);
        true
    }

    fn record(&mut self, revision: Revision, changes: Vec<Change>) {
        self.logged += changes.len();
        self.log.push_back(Act { revision, changes });
        while self.logged > self.max_changes
            && let Some(act) = self.log.pop_front()
        {
            self.logged -= act.changes.len();
            self.base = act.revision;
        }
    }

    /// The members in scope.
    pub(super) fn snapshot(&self, scope: &Scope) -> Snapshot {
        let members = self.members.values();
        let covered = members.filter(|member| scope.covers(&member.service));
        Snapshot::new(
            scope.clone(),
            self.revision(),
            covered.map(Arc::clone).collect(),
        )
    }

    /// The changes in scope after `after`.
    pub(super) fn changes(&self, scope: &Scope, after: Revision) -> Page {
        let skip = if after == self.base {
            0
        } else {
            match self.log.binary_search_by_key(&after, |act| act.revision) {
                Ok(at) => at + 1,
                Err(_) => return Page::Forgotten,
            }
        };
        let acts = self.log.iter().skip(skip);
        let changes = acts.flat_map(|act| &act.changes);
        let covered = changes.filter(|change| scope.covers(service(change)));
        Page::Changes {
            upto: self.revision(),
            changes: covered.cloned().collect(),
        }
    }
}

fn upserted(read: Instance, changes: &mut Vec<Change>) -> Arc<Instance> {
    let member = Arc::new(read);
    changes.push(Change::Upserted(Arc::clone(&member)));
    member
}

fn removed(held: &Instance, reason: RemovalReason) -> Change {
    Change::Removed(Removal {
        service: held.service.clone(),
        id: held.id.clone(),
        incarnation: held.incarnation,
        reason,
    })
}

fn service(change: &Change) -> &ServiceName {
    match change {
        Change::Upserted(instance) => &instance.service,
        Change::Removed(removal) => &removal.service,
    }
}

/// Where the revisions of this process begin: after those of a process before it, so that a watch from its
/// time is told to take a snapshot, and incarnations go on rising.
pub(super) fn first_revision() -> Revision {
    Revision::new(SystemWallClock.wall().as_unix_millis() << 20)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance(service: &str, id: u8, host: u8, weight: u32) -> Instance {
        let endpoint = format!("10.0.0.{host}:80").parse().unwrap();
        let id = format!("i{id}").parse().unwrap();
        let mut instance =
            Instance::new(service.parse().unwrap(), id, Incarnation::new(0), endpoint);
        instance.weight = weight;
        instance
    }

    fn ledger(max_changes: usize) -> Ledger {
        Ledger::new(Revision::new(10), NonZeroUsize::new(max_changes).unwrap())
    }

    #[test]
    fn instance_keeps_its_incarnation_until_its_endpoint_changes() {
        let mut ledger = ledger(9);
        assert!(ledger.replace(Revision::new(11), vec![instance("a", 1, 1, 1)]));
        assert!(ledger.replace(Revision::new(12), vec![instance("a", 1, 1, 5)]));
        let kept = ledger.snapshot(&Scope::All);
        let of = |snapshot: &Snapshot| snapshot.instances()[0].incarnation.as_u64();
        assert_eq!(of(&kept), 11);
        assert!(ledger.replace(Revision::new(13), vec![instance("a", 1, 2, 5)]));
        assert_eq!(of(&ledger.snapshot(&Scope::All)), 13);
        let Page::Changes { upto, changes } = ledger.changes(&Scope::All, kept.revision()) else {
            panic!("forgotten");
        };
        assert_eq!(upto, Revision::new(13));
        assert!(
            matches!(&*changes, [Change::Removed(gone), Change::Upserted(_)]
            if gone.reason == RemovalReason::Replaced && gone.incarnation.as_u64() == 11)
        );
    }

    #[test]
    fn same_reading_is_no_change() {
        let mut ledger = ledger(9);
        assert!(ledger.replace(Revision::new(11), vec![instance("a", 1, 1, 1)]));
        assert!(!ledger.replace(Revision::new(12), vec![instance("a", 1, 1, 1)]));
        assert_eq!(ledger.revision(), Revision::new(11));
    }

    #[test]
    fn what_does_not_fit_the_log_is_forgotten() {
        let mut ledger = ledger(2);
        let three = (1..=3).map(|id| instance("a", id, id, 1)).collect();
        assert!(ledger.replace(Revision::new(11), three));
        assert_eq!(
            ledger.changes(&Scope::All, Revision::new(10)),
            Page::Forgotten
        );
        let changes = Vec::new();
        let upto = Revision::new(11);
        assert_eq!(
            ledger.changes(&Scope::All, upto),
            Page::Changes { upto, changes }
        );
    }

    #[test]
    fn numbers_that_were_never_given_out_are_unknown() {
        let mut ledger = ledger(9);
        ledger.replace(Revision::new(15), vec![instance("a", 1, 1, 1)]);
        for unknown in [0, 9, 12, 16] {
            let page = ledger.changes(&Scope::All, Revision::new(unknown));
            assert_eq!(page, Page::Forgotten, "{unknown}");
        }
    }

    fn readings() -> impl Strategy<Value = Vec<Vec<Instance>>> {
        let member = (0..2_u8, 0..4_u8, 0..3_u8, 1..3_u32);
        let reading = prop::collection::vec(member, 0..6).prop_map(|members| {
            let distinct: BTreeMap<_, _> = members
                .into_iter()
                .map(|(service, id, host, weight)| {
                    let service = if service == 0 { "a" } else { "b" };
                    ((service, id), instance(service, id, host, weight))
                })
                .collect();
            distinct.into_values().collect()
        });
        prop::collection::vec(reading, 1..12)
    }

    proptest! {
        /// Whoever follows the changes from any revision has what a snapshot has, in every scope.
        #[test]
        fn changes_lead_to_the_same_members(readings in readings(), all in any::<bool>()) {
            let scope = if all { Scope::All } else { Scope::Service("a".parse().unwrap()) };
            let mut ledger = ledger(30);
            let mut followers = Vec::new();
            for (revision, reading) in (11..).zip(readings) {
                followers.push(ledger.snapshot(&scope));
                ledger.replace(Revision::new(revision), reading);
            }
            let latest = ledger.snapshot(&scope);
            for mut follower in followers {
                if let Page::Changes { upto, changes } = ledger.changes(&scope, follower.revision()) {
                    follower.advance(upto, &changes);
                    prop_assert_eq!(&follower, &latest);
                }
            }
            prop_assert!(ledger.logged <= 30);
        }
    }
}
