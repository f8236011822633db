//! What holds after every event, and what holds once all is quiet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Clock, Monotonic};
use orchestra_discovery::{Instance, Source};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::link::Mood;
use super::millis;
use super::seen::{GRACE, UNDISTURBED};
use super::setup::{MAX_PROBES, MAX_SERVICES, TTL};
use super::uplink::Line;
use super::world::{Process, View, World, id};
use crate::cache::scope;

impl World {
    pub(super) fn listen(&mut self) {
        self.ear.listen();
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
        if self.registry.take_lagged() {
            self.seen.lagged(now);
        }
        if self.dns.mood() != Mood::Up {
            self.seen.dns_unsynced = now;
        }
        let mood = self.registry.mood();
        if mood != Mood::Up {
            self.seen.unsynced = now;
        }
        if mood == Mood::Blank
            && let Some(since) = self.seen.doubted_since
            && now.since(since) + millis(50) >= GRACE
        {
            self.seen.lied = now;
        }
    }

    fn check_view(&mut self, view: &View) {
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
    fn check_panic(&mut self, view: &View) {
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

    fn check_in_flight(&mut self, view: &View) {
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
        let now = self.registry_clock.now();
        for (id, tenure) in &self.ear.leases {
            let age = now.since(tenure.renewed);
            assert!(age <= TTL, "{id} is listed {age:?} after its renewal");
        }
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

    fn check_bounds(&self, view: &View) {
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
}

/// Its id was taken by another.
pub(super) async fn has_ended(process: &Process) -> bool {
    timeout(Duration::ZERO, process.heartbeat.ended())
        .await
        .is_ok()
}
