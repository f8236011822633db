//! What holds after every event, and what holds once all is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic};
use orchestra_discovery::cache::Freshness;
use orchestra_discovery::{Incarnation, Instance, Revision, Source};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::ear::is_leased;
use super::link::{Line, Mood};
use super::plan::Feed;
use super::world::{MAX_PROBES, MAX_SERVICES, Process, TOMBSTONE, TTL, World, endpoint, id};
use super::{millis, secs};
use crate::cache::scope;

/// A link that has been up for so long has no excuse: longest wait after a failure, grace, deadline.
const SETTLED: Duration = Duration::from_secs(13);
/// A change is seen after so long: the merge window, and something for the road.
const PROMPT: Duration = Duration::from_millis(300);
/// The longest that an empty answer is doubted.
const GRACE: Duration = Duration::from_secs(5);
/// After a disturbance an instance is registered again by then: its ttl, retries, and late calls of others.
const UNDISTURBED: Duration = Duration::from_secs(20);

/// What was seen before, and when what happened.
#[derive(Default)]
pub(super) struct Seen {
    revision: Revision,
    members: BTreeSet<(InstanceId, Incarnation)>,
    /// What the registry lists.
    truth: BTreeMap<InstanceId, Arc<Instance>>,
    unsynced: Monotonic,
    lied: Monotonic,
    blank_since: Option<Monotonic>,
    up_since: Monotonic,
    emptied: Monotonic,
    pub(super) disturbed: BTreeMap<u8, Monotonic>,
    /// The numbers of processes that there were two of.
    pub(super) contested: BTreeSet<u8>,
    pub(super) dns_unsynced: Monotonic,
    pub(super) dns_changed: BTreeMap<u8, Monotonic>,
    pub(super) tombstone_checks: u64,
    frozen: Option<(Monotonic, Vec<InstanceId>, u64)>,
    is_synced: bool,
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

    /// The registry told the client what is not so.
    pub(super) fn lied(&mut self, now: Monotonic) {
        (self.lied, self.unsynced) = (now, now);
    }

    pub(super) fn restarted(&mut self, now: Monotonic) {
        self.lied(now);
        self.truth.clear();
        self.frozen = None;
        for n in 1..=super::plan::PROCESSES {
            self.disturbed.insert(n, now);
        }
    }

    pub(super) fn mood_changed(&mut self, mood: Mood, now: Monotonic) {
        self.unsynced = now;
        match mood {
            Mood::Up => self.up_since = now,
            Mood::Blank => {
                // Two lies with the truth in between, unheard, are one.
                let heard = now.since(self.up_since) >= secs(7);
                if heard || self.blank_since.is_none() {
                    self.blank_since = Some(now);
                }
            }
            _ => {}
        }
    }

    /// Of so many leases these lapsed at once, after so many holds.
    pub(super) fn frozen(&mut self, lost: Vec<InstanceId>, of: usize, holds: u64, now: Monotonic) {
        for n in 1..=super::plan::PROCESSES {
            self.disturbed.insert(n, now);
        }
        let is_mass = of >= 10 && lost.len() >= 3 && lost.len() * 100 > of * 15;
        if is_mass && self.is_synced {
            self.frozen = Some((now, lost, holds));
        }
    }
}

impl World {
    pub(super) fn listen(&mut self) {
        self.ear.listen(TTL);
    }

    pub(super) async fn check(&mut self) {
        let now = self.now();
        let truth = self.registry.backend().snapshot(&scope()).await.unwrap();
        self.listen();
        self.seen.checks += 1;
        self.note_lies(now);
        let view = self.members();
        self.check_view(&view);
        self.check_panic(&view);
        self.check_in_flight(&view);
        self.check_leases();
        self.check_truth(truth.instances(), &view, now);
        self.check_processes(now).await;
        self.check_bounds(&view);
        let members = view.values().map(|it| (it.id.clone(), it.incarnation));
        self.seen.members = members.collect();
    }

    fn note_lies(&mut self, now: Monotonic) {
        let mood = self.registry.mood();
        if mood != Mood::Up {
            self.seen.unsynced = now;
        }
        if mood == Mood::Blank
            && let Some(since) = self.seen.blank_since
            && now.since(since) + millis(50) >= GRACE
        {
            self.seen.lied = now;
        }
    }

    fn check_view(&mut self, view: &BTreeMap<InstanceId, Arc<Instance>>) {
        let revision = self.resolver.revision();
        assert!(revision >= self.seen.revision, "revisions go back");
        self.seen.revision = revision;
        let endpoints: BTreeSet<_> = view.values().map(|it| it.endpoint.to_string()).collect();
        assert_eq!(endpoints.len(), view.len(), "a double share: {view:?}");
        let spare = view.keys().filter(|id| id.as_str().starts_with('f'));
        let spare = spare.count();
        assert!(
            spare == 0 || spare == view.len(),
            "a fallback beside others"
        );
        self.seen.fallback_checks += u64::from(spare > 0);
        assert_eq!(self.resolver.is_in_panic(), self.ear.in_panic);
        assert_eq!(self.house.faults(), Vec::<String>::new());
    }

    /// In panic is who has fewer than half of the members to call, as far as probes and events tell.
    fn check_panic(&mut self, view: &BTreeMap<InstanceId, Arc<Instance>>) {
        let now = self.now();
        let takers: Vec<_> = view.values().filter(|it| it.takes_calls()).collect();
        let standing = self.standing(view);
        let settled = |it: &&Arc<Instance>| {
            let probed = self.ward.record(it).serves.is_some();
            probed && now.since(self.house.born(&it.id)) > millis(100)
        };
        if !takers.iter().all(settled) {
            return;
        }
        let fit = takers
            .iter()
            .filter(|it| self.is_fit(it, &standing, &standing));
        let in_panic = !self.setup.calm && fit.count() * 100 < takers.len() * 50;
        assert_eq!(self.ear.in_panic, in_panic, "{takers:?}");
        self.seen.panic_checks += 1;
    }

    fn check_in_flight(&mut self, view: &BTreeMap<InstanceId, Arc<Instance>>) {
        let calls = self.calls.by_life();
        for id in view.keys() {
            let life = self.house.life(id);
            let expected = calls.get(&life).copied().unwrap_or(0);
            assert_eq!(self.resolver.in_flight(id), Some(expected), "{id}");
            if !self.setup.bypass {
                assert_eq!(self.house.inside(life), expected as usize, "{id}");
            }
        }
    }

    fn check_leases(&self) {
        use orchestra_core::Clock as _;
        let now = self.registry_clock.now();
        for (id, tenure) in &self.ear.leases {
            let age = now.since(tenure.renewed);
            assert!(age <= TTL, "{id} is listed {age:?} after its renewal");
        }
    }

    fn check_truth(
        &mut self,
        truth: &[Arc<Instance>],
        view: &BTreeMap<InstanceId, Arc<Instance>>,
        now: Monotonic,
    ) {
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
        self.check_frozen(view, now);
        self.check_tombstones(view, now);
    }

    fn check_synced(&self, view: &BTreeMap<InstanceId, Arc<Instance>>, now: Monotonic) {
        let lately = |id: &InstanceId| {
            let changed = self.ear.changed.get(id);
            changed.is_some_and(|at| now.since(*at) < PROMPT)
        };
        let listed = self.seen.truth.values();
        for instance in listed.filter(|it| !lately(&it.id)) {
            let found = view.get(&instance.id);
            let same = |it: &Arc<Instance>| {
                (it.incarnation, it.status, it.forced, it.weight)
                    == (
                        instance.incarnation,
                        instance.status,
                        instance.forced,
                        instance.weight,
                    )
            };
            assert!(found.is_some_and(same), "{instance:?} is seen as {found:?}");
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
    fn check_tombstones(&mut self, view: &BTreeMap<InstanceId, Arc<Instance>>, now: Monotonic) {
        let endpoints: BTreeSet<_> = view.values().map(|it| it.endpoint.to_string()).collect();
        let excuse = self.seen.unsynced.max(self.seen.dns_unsynced);
        for n in 1..=super::plan::PROCESSES {
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

    fn check_frozen(&mut self, view: &BTreeMap<InstanceId, Arc<Instance>>, now: Monotonic) {
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

    async fn check_processes(&mut self, now: Monotonic) {
        for process in &self.processes {
            let contested = self.seen.contested.contains(&process.n);
            assert!(
                contested || !has_ended(process).await,
                "{} gave up",
                process.n
            );
            let since = self.seen.disturbed.get(&process.n).copied();
            let calm = since.is_none_or(|at| now.since(at) > UNDISTURBED);
            if !calm || process.uplink.line() != Line::Up {
                continue;
            }
            let twins = self.processes.iter().filter(|it| it.n == process.n);
            if twins.count() > 1 || has_ended(process).await {
                continue;
            }
            let (n, lease) = (process.n, process.heartbeat.lease());
            let listed = self.seen.truth.get(&id(n)).map(|it| it.incarnation);
            let held = lease.map(|lease| lease.incarnation);
            assert!(
                held.is_some() && held == listed,
                "{n}: {held:?}, {listed:?}"
            );
        }
    }

    fn check_bounds(&self, view: &BTreeMap<InstanceId, Arc<Instance>>) {
        let services = self.cache.services();
        assert!(services <= MAX_SERVICES, "{services} services");
        // Three feeds for each service, the keeper, the follower, the checker and its probes.
        let most = 3 * services + 3 + MAX_PROBES;
        let own = 2 * self.processes.len() + 3 * self.leaving.len() + self.calls.tasks();
        let late = 3 * self.processes.len();
        let alive = Handle::current().metrics().num_alive_tasks();
        assert!(alive <= most + own + late, "{alive} tasks");
        let records = self.ward.records();
        assert!(records <= view.len() + MAX_PROBES + 40, "{records} records");
    }

    /// Everything is repaired, and time passes.
    pub(super) async fn come_to_rest(&mut self) {
        for feed in [Feed::Registry, Feed::Dns, Feed::Fallback] {
            self.channel(feed).set(Mood::Up);
        }
        self.seen.mood_changed(Mood::Up, self.now());
        self.house.open_all();
        self.lines(Line::Up, |_| true);
        for _ in 0..45 {
            self.settle_due(self.now());
            while self.leaving.try_join_next().is_some() {}
            sleep(secs(1)).await;
            self.check().await;
        }
        assert!(self.leaving.is_empty(), "some never left");
        self.settle_due(self.now() + secs(60));
        self.check_rest().await;
    }

    async fn check_rest(&mut self) {
        let mut ended = Vec::new();
        for (at, process) in self.processes.iter().enumerate() {
            if has_ended(process).await {
                ended.push(at);
            }
        }
        for at in ended.into_iter().rev() {
            self.processes.remove(at);
        }
        let view = self.members();
        let truth = self.registry.backend().snapshot(&scope()).await.unwrap();
        let running = self.processes.iter().map(|it| id(it.n));
        let running: Vec<_> = running.collect::<BTreeSet<_>>().into_iter().collect();
        assert_eq!(running.len(), self.processes.len(), "two hold one id");
        let listed: Vec<_> = truth.instances().iter().map(|it| it.id.clone()).collect();
        assert_eq!(listed, running, "who runs is listed");
        for process in &self.processes {
            let instance = &view[&id(process.n)];
            assert_eq!(instance.status, process.status, "{instance:?}");
        }
        assert_eq!(
            view.keys().cloned().collect::<BTreeSet<_>>(),
            self.expected().await
        );
        assert!(self.ear.holds.is_empty(), "{:?}", self.ear.holds);
        for id in view.keys() {
            assert_eq!(self.resolver.in_flight(id), Some(0), "{id}");
        }
        let service = crate::common::service();
        let answer = timeout(millis(1), self.cache.lookup(&service)).await;
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.freshness, Freshness::Fresh);
        self.call(40);
    }

    /// Those of the registry, those of DNS at other addresses, and the fallback's if there are none.
    async fn expected(&self) -> BTreeSet<InstanceId> {
        let mut expected = BTreeMap::new();
        for feed in [Feed::Registry, Feed::Dns, Feed::Fallback] {
            if feed == Feed::Fallback && !expected.is_empty() {
                break;
            }
            let listed = self
                .channel(feed)
                .backend()
                .snapshot(&scope())
                .await
                .unwrap();
            for instance in listed.instances() {
                let endpoint = instance.endpoint.to_string();
                expected
                    .entry(endpoint)
                    .or_insert_with(|| instance.id.clone());
            }
        }
        expected.into_values().collect()
    }
}

/// Its id was taken by another.
async fn has_ended(process: &Process) -> bool {
    timeout(Duration::ZERO, process.heartbeat.ended())
        .await
        .is_ok()
}
