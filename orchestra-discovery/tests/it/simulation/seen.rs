//! What was seen before, and what excuses there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic};
use orchestra_discovery::{Incarnation, Instance, Revision};

use super::link::Mood;
use super::plan::PROCESSES;
use super::secs;

/// A link that has been up for so long has no excuse: longest wait after a failure, grace, deadline.
pub(super) const SETTLED: Duration = Duration::from_secs(13);
/// A change is seen after so long: the merge window, and something for the road.
pub(super) const PROMPT: Duration = Duration::from_millis(300);
/// The longest that an empty answer is doubted.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// After a disturbance an instance is registered again by then: its ttl, retries, and late calls of others.
pub(super) const UNDISTURBED: Duration = Duration::from_secs(20);

/// What was seen before, and when what happened.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) revision: Revision,
    pub(super) members: BTreeSet<(InstanceId, Incarnation)>,
    /// What the registry lists.
    pub(super) truth: BTreeMap<InstanceId, Arc<Instance>>,
    pub(super) unsynced: Monotonic,
    pub(super) lied: Monotonic,
    pub(super) blank_since: Option<Monotonic>,
    pub(super) up_since: Option<Monotonic>,
    pub(super) emptied: Monotonic,
    pub(super) disturbed: BTreeMap<u8, Monotonic>,
    /// The numbers of processes that there were two of.
    pub(super) contested: BTreeSet<u8>,
    pub(super) dns_unsynced: Monotonic,
    pub(super) dns_changed: BTreeMap<u8, Monotonic>,
    pub(super) tombstone_checks: u64,
    pub(super) frozen: Option<(Monotonic, Vec<InstanceId>, u64)>,
    pub(super) is_synced: bool,
    pub(super) checks: u64,
    pub(super) synced_checks: u64,
    pub(super) mass_checks: u64,
    pub(super) panic_checks: u64,
    pub(super) fallback_checks: u64,
}

impl Seen {
    pub(super) fn unsynced(&mut self, now: Monotonic) {
        self.unsynced = now;
    }

    /// The client reads what was so, which may be that there was nobody.
    pub(super) fn lagged(&mut self, now: Monotonic) {
        self.lied(now);
        self.up_since = self.up_since.map(|_| now);
        self.blank_since.get_or_insert(now);
    }

    /// The registry told the client what is not so.
    pub(super) fn lied(&mut self, now: Monotonic) {
        (self.lied, self.unsynced) = (now, now);
    }

    pub(super) fn restarted(&mut self, now: Monotonic) {
        self.lied(now);
        self.truth.clear();
        self.frozen = None;
        for n in 1..=PROCESSES {
            self.disturbed.insert(n, now);
        }
    }

    pub(super) fn mood_changed(&mut self, mood: Mood, now: Monotonic) {
        self.unsynced = now;
        // Two empty answers without the truth in between confirm each other, however long it takes.
        let was_up = self.up_since.take();
        if was_up.is_some_and(|since| now.since(since) >= secs(7)) {
            self.blank_since = None;
        }
        match mood {
            Mood::Up => self.up_since = Some(now),
            Mood::Blank => _ = self.blank_since.get_or_insert(now),
            _ => {}
        }
    }

    /// Of so many leases these lapsed at once, after so many holds.
    pub(super) fn frozen(&mut self, lost: Vec<InstanceId>, of: usize, holds: u64, now: Monotonic) {
        for n in 1..=PROCESSES {
            self.disturbed.insert(n, now);
        }
        let is_mass = of >= 10 && lost.len() >= 3 && lost.len() * 100 > of * 15;
        if is_mass && self.is_synced {
            self.frozen = Some((now, lost, holds));
        }
    }
}
