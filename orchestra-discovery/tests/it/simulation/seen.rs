//! What was seen before, and what excuses there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic};
use orchestra_discovery::{Incarnation, Instance, Revision};

use super::link::Mood;
use super::plan::PROCESSES;
use super::{millis, secs};

/// A link that has been up for so long has no excuse: longest wait after a failure, grace for an empty and for an
/// older answer, deadline.
pub(super) const SETTLED: Duration = Duration::from_secs(18);
/// A change is seen after so long: the merge window, and something for the road.
pub(super) const PROMPT: Duration = Duration::from_millis(300);
/// After so long a change has reached a client whose link is up.
pub(super) const HEARD: Duration = Duration::from_millis(4);
/// The longest that an empty answer is doubted.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// After a disturbance an instance is registered again by then: its ttl, retries, and late calls of others.
pub(super) const UNDISTURBED: Duration = Duration::from_secs(20);

/// Who is listed, and who is not any more.
pub(super) type Heard = (Vec<Arc<Instance>>, Vec<InstanceId>);

/// What was seen before, and when what happened.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) revision: Revision,
    pub(super) members: BTreeSet<(InstanceId, Incarnation)>,
    /// What the registry lists.
    pub(super) truth: BTreeMap<InstanceId, Arc<Instance>>,
    pub(super) unsynced: Monotonic,
    pub(super) lied: Monotonic,
    pub(super) doubted_since: Option<Monotonic>,
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
    /// The greatest incarnation that the client has seen of each id.
    pub(super) newest: BTreeMap<InstanceId, Incarnation>,
    /// When the link was cut, and what the client had heard by then.
    pub(super) cut: Option<(Monotonic, Heard)>,
    pub(super) cut_checks: u64,
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

    /// The client has read what is out of date.
    pub(super) fn lagged(&mut self, now: Monotonic) {
        self.forgive(now);
        self.up_since = self.up_since.map(|_| now);
        self.unsynced = now;
        let since = *self.doubted_since.get_or_insert(now);
        if now.since(since) + millis(50) >= GRACE {
            self.lied = now;
        }
    }

    /// The truth was heard: who doubted before does not any more.
    fn forgive(&mut self, now: Monotonic) {
        if self
            .up_since
            .is_some_and(|since| now.since(since) >= secs(7))
        {
            self.doubted_since = None;
        }
    }

    /// The registry told the client what is not so.
    pub(super) fn lied(&mut self, now: Monotonic) {
        (self.lied, self.unsynced) = (now, now);
    }

    pub(super) fn restarted(&mut self, now: Monotonic) {
        self.lied(now);
        self.cut = None;
        self.newest.clear();
        self.truth.clear();
        self.frozen = None;
        for n in 1..=PROCESSES {
            self.disturbed.insert(n, now);
        }
    }

    pub(super) fn mood_changed(&mut self, mood: Mood, now: Monotonic) {
        self.unsynced = now;
        let cut = matches!(mood, Mood::Refusing | Mood::Hanging);
        self.cut = self.cut.take().filter(|(at, _)| cut && *at == now);
        // Two empty answers without the truth in between confirm each other, however long it takes.
        self.forgive(now);
        self.up_since = None;
        match mood {
            Mood::Up => self.up_since = Some(now),
            Mood::Blank => _ = self.doubted_since.get_or_insert(now),
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
