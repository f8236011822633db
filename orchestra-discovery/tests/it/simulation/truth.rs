//! What the client sees, beside what the registry lists.

use std::collections::BTreeSet;
use std::sync::Arc;

use orchestra_core::{InstanceId, Monotonic};
use orchestra_discovery::{Instance, Source};

use super::ear::is_leased;
use super::link::Mood;
use super::plan::PROCESSES;
use super::seen::{HEARD, PROMPT, SETTLED};
use super::setup::TOMBSTONE;
use super::world::{View, World, endpoint, id};
use crate::cache::scope;

fn is_same(a: &Instance, b: &Instance) -> bool {
    let part = |it: &Instance| (it.incarnation, it.status, it.forced, it.weight);
    part(a) == part(b)
}

impl World {
    pub(super) fn check_truth(&mut self, truth: &[Arc<Instance>], view: &View, now: Monotonic) {
        let lease = |it: &Arc<Instance>| self.ear.leases.get(&it.id).map(|it| it.incarnation);
        for instance in truth {
            assert_eq!(lease(instance), Some(instance.incarnation));
        }
        assert_eq!(truth.len(), self.ear.leases.len());
        let before = std::mem::take(&mut self.seen.truth);
        for instance in truth {
            let known = before.get(&instance.id);
            let listed = Arc::clone(instance);
            self.seen.truth.insert(instance.id.clone(), listed);
            // Who is there and was seen there stays, unless the registry itself denies it for long.
            let key = (instance.id.clone(), instance.incarnation);
            let stays = self.seen.members.contains(&key)
                && known.is_some_and(|it| it.incarnation == instance.incarnation)
                && now.since(self.seen.lied) > SETTLED;
            let found = view.get(&instance.id);
            assert!(
                !stays || found.is_some_and(|it| it.incarnation == instance.incarnation),
                "{instance:?} disappeared"
            );
        }
        if truth.is_empty() {
            self.seen.emptied = now;
        }
        let excuse = self.seen.unsynced.max(self.seen.emptied);
        self.seen.is_synced = now.since(excuse) > SETTLED;
        if self.seen.is_synced {
            self.seen.synced_checks += 1;
            self.check_synced(view, now);
        }
        for (id, instance) in view.iter().filter(|(_, it)| is_leased(it)) {
            let newest = self.seen.newest.get(id).copied().unwrap_or_default();
            let lied = now.since(self.seen.lied) <= SETTLED;
            assert!(
                newest <= instance.incarnation || lied,
                "a ghost: {instance:?}"
            );
            // What it has of the registry's former life may be greater.
            let listed = self.seen.truth.get(id).map(|it| it.incarnation);
            if listed == Some(instance.incarnation) {
                self.seen.newest.insert(id.clone(), instance.incarnation);
            }
        }
        self.check_frozen(view, now);
        self.check_cut(view, now);
        self.check_tombstones(view, now);
    }

    /// The link is about to be cut: what the client has heard of until now counts.
    pub(super) async fn note_cut(&mut self) {
        self.listen();
        let now = self.now();
        if !self.seen.is_synced || self.registry.mood() != Mood::Up {
            return;
        }
        let listed = self.registry.backend().snapshot(&scope()).await.unwrap();
        let changed = &self.ear.changed;
        let heard = |id: &InstanceId| changed.get(id).is_some_and(|at| now.since(*at) > HEARD);
        let there = listed.instances().iter().filter(|it| heard(&it.id));
        let leases = &self.ear.leases;
        let gone = changed
            .keys()
            .filter(|id| heard(id) && !leases.contains_key(*id));
        self.seen.cut = Some((now, (there.cloned().collect(), gone.cloned().collect())));
    }

    fn check_cut(&mut self, view: &View, now: Monotonic) {
        let cut = self.seen.cut.take_if(|(at, _)| now.since(*at) >= PROMPT);
        let Some((at, (there, gone))) = cut else {
            return;
        };
        if self.seen.lied > at {
            return;
        }
        for instance in there {
            let found = view.get(&instance.id);
            let same = found.is_some_and(|it| is_same(it, &instance));
            assert!(same, "{instance:?} was known, not {found:?}");
        }
        let holds = self.ear.is_holding("registry");
        let lives_on = gone.iter().find(|id| !holds && view.contains_key(*id));
        assert_eq!(lives_on, None, "it was known to be gone");
        self.seen.cut_checks += 1;
    }

    fn check_synced(&self, view: &View, now: Monotonic) {
        let lately = |id: &InstanceId| {
            let changed = self.ear.changed.get(id);
            changed.is_some_and(|at| now.since(*at) < PROMPT)
        };
        let listed = self.seen.truth.values();
        for instance in listed.filter(|it| !lately(&it.id)) {
            let found = view.get(&instance.id);
            let same = found.is_some_and(|it| is_same(it, instance));
            assert!(same, "{instance:?} is seen as {found:?}");
        }
        if self.ear.is_holding("registry") {
            return;
        }
        for instance in view.values().filter(|it| is_leased(it)) {
            let listed = self.seen.truth.contains_key(&instance.id);
            assert!(listed || lately(&instance.id), "{instance:?} is gone");
        }
    }

    /// Who gave its lease back does not live on in DNS.
    fn check_tombstones(&mut self, view: &View, now: Monotonic) {
        let endpoints: BTreeSet<_> = view.values().map(|it| it.endpoint.to_string()).collect();
        let excuse = self.seen.unsynced.max(self.seen.dns_unsynced);
        for n in 1..=PROCESSES {
            let Some(&(at, lasted)) = self.ear.given_back.get(&id(n)) else {
                continue;
            };
            let age = now.since(at);
            let changed = self.seen.dns_changed.get(&n).copied().unwrap_or_default();
            let is_heard = at.since(excuse) > SETTLED && at.since(changed) > PROMPT;
            // The client may not have noticed one that came and went, and knows no address then.
            let is_heard = is_heard && lasted > PROMPT;
            if is_heard && age > PROMPT && age < TOMBSTONE {
                assert!(!endpoints.contains(&endpoint(n)), "{n} lives on");
                self.seen.tombstone_checks += 1;
            }
        }
    }

    fn check_frozen(&mut self, view: &View, now: Monotonic) {
        let Some((at, lost, holds_left)) = &self.seen.frozen else {
            return;
        };
        if now.since(*at) < PROMPT {
            return;
        }
        // Another hold may just have ended, and these with it.
        let ended = self.ear.holds_left > *holds_left;
        for id in lost.iter().filter(|_| !ended) {
            let given_back = self.ear.given_back.get(id).is_some_and(|it| it.0 >= *at);
            assert!(view.contains_key(id) || given_back, "{id} is not held");
        }
        self.seen.mass_checks += 1;
        self.seen.frozen = None;
    }
}
