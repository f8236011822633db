//! The writer's side of a resolver: what is known of each member, and the views made of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic, ServiceName};
use parking_lot::Mutex;

use super::config::Config;
use super::plan::{Eligible, Fitness, Planner, PoolKey, Subsets};
use super::view::{Census, Extra, Member, Members, Trial, View};
use super::zoning::{ZoneNumbers, Zones};
use crate::balance::{Prepared, mix};
use crate::event::Event;
use crate::health::Health;
use crate::instance::{Incarnation, Instance, Override, Status};
use crate::outlier::{self, Detector, Host, Trigger, Verdict};
use crate::reported::{self, ReportedWeight};
use crate::slab::{Follow, Free, Slab, number};
use crate::slow_start::Ramp;
use crate::source::{Change, Removal, Revision, Snapshot};

/// Housekeeping at least this often, if there are calls.
const IDLE: Duration = Duration::from_secs(1);
/// How often weights that rise are computed anew.
const RAMP_STEP: Duration = Duration::from_millis(100);
/// How often moments are brought up to date: far more often than they wrap.
const REFRESH: Duration = Duration::from_secs(3_600);

/// What is known of a member beside its instance; stands at the place of its slot.
#[derive(Debug, Clone)]
struct State {
    weight: u32,
    effective: u32,
    priority: u32,
    zone: u32,
    status: Status,
    forced: Option<Override>,
    health: Health,
    outside: bool,
    ejected: bool,
    ramp: Ramp,
}

#[derive(Debug)]
pub(super) struct Writer {
    revision: Revision,
    members: Members,
    states: Vec<Option<State>>,
    order: Arc<[u32]>,
    free: Free,
    zones: ZoneNumbers,
    detector: Detector,
    prepared: BTreeMap<PoolKey, Prepared>,
    /// The latest moment that was heard of.
    now: Monotonic,
    refreshed: Monotonic,
    weighed: Option<Monotonic>,
    /// Labels of members found no room among the subsets.
    exceeds: bool,
    /// Some weight of the view was still rising.
    is_rising: bool,
    draws: u64,
    in_panic: bool,
    events: Vec<Event>,
}

impl Writer {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            revision: Revision::default(),
            members: Members::default(),
            states: Vec::new(),
            order: Arc::default(),
            free: Free::default(),
            zones: ZoneNumbers::new(config.zoning.as_ref()),
            detector: Detector::new(config.outliers.clone()),
            prepared: BTreeMap::new(),
            now: Monotonic::ZERO,
            refreshed: Monotonic::ZERO,
            weighed: None,
            exceeds: false,
            is_rising: false,
            draws: config.seed,
            in_panic: false,
            events: Vec::new(),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn advance_time(&mut self, now: Monotonic) {
        self.now = self.now.max(now);
    }

    fn draw(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(1);
        mix(self.draws)
    }

    fn state_mut(&mut self, slot: u32) -> Option<&mut State> {
        self.states.get_mut(number(slot))?.as_mut()
    }

    /// Where the id is in the order, or would be.
    fn position(&self, order: &[u32], id: &InstanceId) -> Result<usize, usize> {
        order.binary_search_by(|&slot| match self.members.member(slot) {
            Some(member) => member.instance.id.cmp(id),
            None => std::cmp::Ordering::Less,
        })
    }

    pub(super) fn find(&self, id: &InstanceId) -> Option<&Member> {
        let at = self.position(&self.order, id).ok()?;
        self.members.member(*self.order.get(at)?)
    }

    pub(super) fn apply(&mut self, snapshot: &Snapshot, scope: &Membership<'_>) {
        self.revision = snapshot.revision();
        let mut order = Vec::with_capacity(snapshot.instances().len());
        let before = Arc::clone(&self.order);
        let mut before = before.iter().copied().peekable();
        // Both are in the order of the ids, so they are merged.
        for instance in snapshot.instances() {
            if instance.service != *scope.service {
                continue;
            }
            while let Some(slot) =
                before.next_if(|&slot| self.id(slot).is_none_or(|id| *id < instance.id))
            {
                self.drop_member(slot, scope.slab);
            }
            let held = before.next_if(|&slot| self.id(slot) == Some(&instance.id));
            order.extend(self.admit(held, instance, scope));
        }
        for slot in before {
            self.drop_member(slot, scope.slab);
        }
        self.order = order.into();
        self.reselect(scope);
    }

    fn id(&self, slot: u32) -> Option<&InstanceId> {
        Some(&self.members.member(slot)?.instance.id)
    }

    pub(super) fn advance(
        &mut self,
        revision: Revision,
        changes: &[Change],
        scope: &Membership<'_>,
    ) {
        self.revision = revision;
        let mut order = None;
        for change in changes {
            match change {
                Change::Upserted(instance) => self.upsert(&mut order, instance, scope),
                Change::Removed(removal) => self.remove(&mut order, removal, scope),
            }
        }
        if let Some(order) = order {
            self.order = order.into();
            self.reselect(scope);
        }
    }

    fn upsert(
        &mut self,
        order: &mut Option<Vec<u32>>,
        instance: &Arc<Instance>,
        scope: &Membership<'_>,
    ) {
        if instance.service != *scope.service {
            return;
        }
        let current = order.as_deref().unwrap_or(&self.order);
        match self.position(current, &instance.id) {
            Ok(at) => {
                let Some(&held) = current.get(at) else { return };
                let is_older = self
                    .members
                    .member(held)
                    .is_some_and(|member| member.instance.incarnation > instance.incarnation);
                if is_older {
                    return;
                }
                let slot = self.admit(Some(held), instance, scope);
                if slot != Some(held) {
                    let order = order.get_or_insert_with(|| self.order.to_vec());
                    order.splice(at..=at, slot);
                }
            }
            Err(at) => {
                let slot = self.admit(None, instance, scope);
                let order = order.get_or_insert_with(|| self.order.to_vec());
                order.splice(at..at, slot);
            }
        }
    }

    fn remove(&mut self, order: &mut Option<Vec<u32>>, removal: &Removal, scope: &Membership<'_>) {
        if removal.service != *scope.service {
            return;
        }
        let current = order.as_deref().unwrap_or(&self.order);
        let Ok(at) = self.position(current, &removal.id) else {
            return;
        };
        let Some(&slot) = current.get(at) else { return };
        let is_meant = self
            .members
            .member(slot)
            .is_some_and(|member| member.instance.incarnation <= removal.incarnation);
        if is_meant {
            order.get_or_insert_with(|| self.order.to_vec()).remove(at);
            self.drop_member(slot, scope.slab);
        }
    }

    /// The slot of this instance, which was in `held` before, or another under its id was.
    fn admit(
        &mut self,
        held: Option<u32>,
        instance: &Arc<Instance>,
        scope: &Membership<'_>,
    ) -> Option<u32> {
        if let Some(slot) = held {
            let member = self.members.member(slot);
            if let Some(member) = member
                && member.instance.incarnation == instance.incarnation
            {
                let mut member = member.clone();
                member.instance = Arc::clone(instance);
                self.members.set(slot, Some(member));
                self.describe(slot, instance);
                return Some(slot);
            }
            self.drop_member(slot, scope.slab);
        }
        let (slot, generation) = self.free.allocate(scope.slab)?;
        let gate = scope
            .config
            .gates
            .as_ref()
            .map(|gates| gates.bind(instance));
        let has_extra = gate.is_some() || scope.config.reported.is_some();
        let extra = has_extra.then(|| {
            Arc::new(Extra {
                gate,
                reported: Mutex::new(ReportedWeight::default()),
            })
        });
        let member = Member {
            instance: Arc::clone(instance),
            slot,
            generation,
            extra,
        };
        self.members.set(slot, Some(member));
        self.detector.insert(Host::new(slot), self.now);
        let state = State {
            weight: instance.weight,
            effective: instance.weight,
            priority: instance.priority,
            zone: 0,
            status: instance.status,
            forced: instance.forced,
            health: Health::default(),
            outside: false,
            ejected: false,
            ramp: if scope.config.require_check {
                Ramp::checked()
            } else {
                Ramp::unchecked(self.now)
            },
        };
        if self.states.len() < self.free.len() {
            if self.states.capacity() < self.free.len() {
                // By an eighth and not to twice the size: most of it would lie idle.
                self.states.reserve_exact(1 + self.free.len() / 8);
            }
            self.states.resize(self.free.len(), None);
        }
        if let Some(place) = self.states.get_mut(number(slot)) {
            *place = Some(state);
        }
        self.describe(slot, instance);
        Some(slot)
    }

    fn describe(&mut self, slot: u32, instance: &Instance) {
        let zone = self.zones.number(&instance.locality);
        if let Some(state) = self.state_mut(slot) {
            state.weight = instance.weight;
            state.effective = instance.weight;
            state.priority = instance.priority;
            state.zone = zone;
            state.status = instance.status;
            state.forced = instance.forced;
        }
    }

    fn drop_member(&mut self, slot: u32, slab: &Slab) {
        self.detector.remove(Host::new(slot));
        self.members.set(slot, None);
        if let Some(place) = self.states.get_mut(number(slot)) {
            *place = None;
        }
        self.free.release(slab, slot);
    }

    /// Which members are this client's own.
    fn reselect(&mut self, scope: &Membership<'_>) {
        let Some(subsetting) = &scope.config.subsetting else {
            return;
        };
        let ids = self.order.iter().filter_map(|&slot| self.id(slot));
        let chosen = subsetting.select(ids);
        let order = Arc::clone(&self.order);
        for &slot in order.iter() {
            if let Some(state) = self.state_mut(slot) {
                state.outside = true;
            }
        }
        for at in chosen {
            if let Some(&slot) = order.get(at)
                && let Some(state) = self.state_mut(slot)
            {
                state.outside = false;
            }
        }
    }

    pub(super) fn is_unchecked(&self, id: &InstanceId, incarnation: Incarnation) -> bool {
        let member = self
            .find(id)
            .filter(|it| it.instance.incarnation == incarnation);
        let state = member.and_then(|member| self.states.get(number(member.slot))?.as_ref());
        state.is_some_and(|state| state.health == Health::Unchecked)
    }

    /// Whether anything changed, and whether a call to the detector may follow.
    pub(super) fn set_health(
        &mut self,
        id: &InstanceId,
        incarnation: Incarnation,
        health: Health,
    ) -> bool {
        let Some(member) = self.find(id) else {
            return false;
        };
        if member.instance.incarnation != incarnation {
            return false;
        }
        let (slot, now) = (member.slot, self.now);
        let Some(state) = self.state_mut(slot) else {
            return false;
        };
        let before = std::mem::replace(&mut state.health, health);
        if before == health {
            return false;
        }
        match health {
            Health::Healthy | Health::Degraded => state.ramp.became_healthy(now),
            Health::Unhealthy => state.ramp.became_unhealthy(),
            Health::Unchecked => {}
        }
        true
    }

    /// An active check passed: it may end an ejection.
    pub(super) fn check_passed(&mut self, slot: u32, scope: &Membership<'_>) -> bool {
        let verdict = self.detector.active_check_passed(Host::new(slot), self.now);
        self.carry_out(verdict, scope)
    }

    /// A streak reached its length.
    pub(super) fn reached(&mut self, slot: u32, trigger: Trigger, scope: &Membership<'_>) -> bool {
        let draw = self.draw();
        let verdict = self
            .detector
            .reached(Host::new(slot), trigger, self.now, draw);
        if let Some(hot) = scope.slab.slot(slot) {
            hot.reset_streak(trigger);
        }
        self.carry_out(verdict, scope)
    }

    /// A trial ended; what its view said of the next one is out of date.
    pub(super) fn tried(
        &mut self,
        slot: u32,
        passed: bool,
        took: Duration,
        scope: &Membership<'_>,
    ) -> bool {
        let (host, draw) = (Host::new(slot), self.draw());
        if passed {
            let verdict = self.detector.trial_passed(host, Some(took), self.now, draw);
            self.carry_out(verdict, scope);
        } else {
            self.detector.trial_failed(host, self.now, draw);
        }
        true
    }

    fn carry_out(
        &mut self,
        verdicts: impl IntoIterator<Item = Verdict>,
        scope: &Membership<'_>,
    ) -> bool {
        let mut changed = false;
        for verdict in verdicts {
            let slot = verdict.host.number();
            let Some(member) = self.members.member(slot).cloned() else {
                continue;
            };
            let ejected = match verdict.change {
                outlier::Change::Ejected { .. } => true,
                outlier::Change::Restored => false,
                outlier::Change::Withheld { .. } => {
                    self.events.push(outlier_event(&member, verdict.change));
                    continue;
                }
            };
            let now = self.now;
            if let Some(state) = self.state_mut(slot) {
                state.ejected = ejected;
                if !ejected {
                    state.ramp.became_unhealthy();
                    state.ramp.became_healthy(now);
                }
            }
            if !ejected && let Some(hot) = scope.slab.slot(slot) {
                hot.restored();
            }
            self.events.push(outlier_event(&member, verdict.change));
            changed = true;
        }
        changed
    }

    /// Does what is due; whether a new view is needed.
    pub(super) fn tick(&mut self, scope: &Membership<'_>) -> bool {
        let mut changed = false;
        if self
            .detector
            .next_sweep()
            .is_some_and(|due| due <= self.now)
        {
            let draw = self.draw();
            let intervals = |host: Host| {
                let hot = scope.slab.slot(host.number());
                hot.map(crate::slab::Hot::take_interval).unwrap_or_default()
            };
            let thresholds = self.detector.thresholds();
            let verdicts = self.detector.sweep(self.now, draw, intervals);
            changed |= self.carry_out(verdicts, scope);
            changed |= self.detector.thresholds() != thresholds;
        }
        if self.now.since(self.refreshed) >= REFRESH {
            self.refreshed = self.now;
            for &slot in self.order.iter() {
                if let Some(hot) = scope.slab.slot(slot) {
                    hot.refresh(scope.follow, self.now);
                }
            }
        }
        changed | self.is_rising | self.weighs(scope.config)
    }

    fn weighs(&mut self, config: &Config) -> bool {
        let Some(reported) = &config.reported else {
            return false;
        };
        let due = self
            .weighed
            .is_none_or(|last| reported.next_update(last) <= self.now);
        if due {
            self.weighed = Some(self.now);
        }
        due
    }

    /// When [`tick`](Self::tick) has something to do again.
    pub(super) fn next_tick(&self, config: &Config) -> Monotonic {
        let mut next = self.now + IDLE;
        if let Some(sweep) = self.detector.next_sweep() {
            next = next.min(sweep);
        }
        if self.is_rising {
            next = next.min(self.now + RAMP_STEP);
        }
        if let (Some(reported), Some(last)) = (&config.reported, self.weighed) {
            next = next.min(reported.next_update(last));
        }
        next.max(self.now + Duration::from_millis(1))
    }

    pub(super) fn set_callers(&mut self, callers: &Snapshot) {
        let places = callers.instances().iter();
        self.zones
            .set_callers(places.map(|instance| &instance.locality));
    }

    /// The weights that the members have now.
    fn weigh(&mut self, config: &Config) {
        let mut relative = Vec::new();
        if let Some(reported) = &config.reported {
            let weight = |&slot: &u32| {
                let member = self.members.member(slot)?;
                let extra = member.extra.as_ref()?;
                extra.reported.lock().get(reported, self.now)
            };
            let weights: Vec<_> = self.order.iter().map(weight).collect();
            reported::relative(&weights, &mut relative);
        }
        let scale = match &config.slow_start {
            Some(_) => self.scale(),
            None => 1,
        };
        let (order, now) = (Arc::clone(&self.order), self.now);
        let mut is_rising = false;
        for (at, &slot) in order.iter().enumerate() {
            let Some(state) = self.state_mut(slot) else {
                continue;
            };
            let weight = match relative.get(at) {
                Some(&weight) if state.weight > 0 => weight,
                _ => state.weight,
            };
            let weight = weight.saturating_mul(scale);
            state.effective = match &config.slow_start {
                Some(slow_start) => {
                    is_rising |= state.ramp.is_rising(slow_start, now);
                    state.ramp.weight(slow_start, weight, now)
                }
                None => weight,
            };
        }
        self.is_rising = is_rising;
    }

    /// What weights are multiplied by, so that parts of them are told apart.
    fn scale(&self) -> u32 {
        let states = self.states.iter().flatten();
        let greatest = states.map(|state| state.weight).max().unwrap_or(1);
        (u32::MAX / greatest.max(1)).clamp(1, 1_000)
    }

    /// The view of what is known now.
    pub(super) fn view(&mut self, scope: &Membership<'_>) -> View {
        let config = scope.config;
        if config.slow_start.is_some() || config.reported.is_some() {
            self.weigh(config);
        }
        let mut eligible = Vec::with_capacity(self.order.len());
        let census = self.census(config, &mut eligible);
        let zones = config.zoning.as_ref().map(|zoning| Zones {
            zoning,
            numbers: &self.zones,
            overprovisioning: config.priorities.overprovisioning,
        });
        let mut planner = Planner {
            balancer: &*config.balancer,
            members: &self.members,
            priorities: &config.priorities,
            zones,
            before: &mut self.prepared,
            after: BTreeMap::new(),
        };
        let plan = planner.plan(0, &eligible);
        let subsets = config
            .subsets
            .as_ref()
            .map(|config| planner.subsets(config, &eligible));
        self.prepared = planner.after;
        self.note_panic(scope.service, plan.is_in_panic());
        self.note_subsets(
            scope.service,
            subsets.as_ref().map_or(0, Subsets::unindexed),
        );
        View {
            revision: self.revision,
            members: self.members.clone(),
            order: Arc::clone(&self.order),
            plan,
            subsets,
            trials: self.trials(),
            thresholds: self.detector.thresholds(),
            census,
        }
    }

    /// What became of each member in the view, for explanations.
    pub(super) fn fates(&self, config: &Config) -> BTreeMap<InstanceId, Fate> {
        let fate = |&slot: &u32| {
            let state = self.states.get(number(slot))?.as_ref()?;
            let mut census = Census::default();
            state.fitness(config.require_check, &mut census);
            let fate = Fate {
                weight: state.effective,
                reason: census.reason(),
            };
            Some((self.id(slot)?.clone(), fate))
        };
        self.order.iter().filter_map(fate).collect()
    }

    fn trials(&self) -> Box<[Trial]> {
        if self.detector.ejected() == 0 {
            return Box::default();
        }
        let trial = |&slot: &u32| {
            let state = self.states.get(number(slot))?.as_ref()?;
            let takes_calls = state.status == Status::Ready
                && state.effective > 0
                && !state.outside
                && state.forced.is_none()
                && state.health != Health::Unhealthy;
            let due = self.detector.trial_at(Host::new(slot))?;
            (state.ejected && takes_calls).then(|| Trial::new(slot, due))
        };
        self.order.iter().filter_map(trial).collect()
    }

    fn note_panic(&mut self, service: &ServiceName, in_panic: bool) {
        if std::mem::replace(&mut self.in_panic, in_panic) != in_panic {
            self.events.push(Event::Panic {
                service: service.clone(),
                entered: in_panic,
            });
        }
    }

    fn note_subsets(&mut self, service: &ServiceName, unindexed: u64) {
        let exceeds = unindexed > 0;
        if std::mem::replace(&mut self.exceeds, exceeds) != exceeds {
            self.events.push(Event::SubsetsExceeded {
                service: service.clone(),
                unindexed,
            });
        }
    }

    fn census(&self, config: &Config, eligible: &mut Vec<Eligible>) -> Census {
        let mut census = Census::default();
        for &slot in self.order.iter() {
            let Some(Some(state)) = self.states.get(number(slot)) else {
                continue;
            };
            census.registered += 1;
            let Some(fitness) = state.fitness(config.require_check, &mut census) else {
                continue;
            };
            eligible.push(Eligible {
                slot,
                weight: state.effective,
                priority: state.priority,
                zone: state.zone,
                fitness,
            });
        }
        census
    }
}

impl State {
    /// How fit it is for calls; `None` if it takes none whatever happens.
    fn fitness(&self, require_check: bool, census: &mut Census) -> Option<Fitness> {
        let reason = match self.status {
            _ if self.outside => &mut census.outside,
            Status::Starting => &mut census.starting,
            Status::Draining => &mut census.draining,
            Status::Ready if self.forced == Some(Override::OutOfService) => {
                &mut census.out_of_service
            }
            Status::Ready if self.effective == 0 => &mut census.zero_weight,
            Status::Ready => return Some(self.health(require_check, census)),
        };
        *reason += 1;
        None
    }

    fn health(&self, require_check: bool, census: &mut Census) -> Fitness {
        if self.forced == Some(Override::ForcedHealthy) {
            return Fitness::Healthy;
        }
        let reason = match self.health {
            Health::Unhealthy => &mut census.unhealthy,
            Health::Unchecked if require_check => &mut census.unchecked,
            _ if self.ejected => &mut census.ejected,
            Health::Degraded => return Fitness::Degraded,
            Health::Healthy | Health::Unchecked => return Fitness::Healthy,
        };
        *reason += 1;
        Fitness::Unfit
    }
}

fn outlier_event(member: &Member, change: outlier::Change) -> Event {
    Event::Outlier {
        service: member.instance.service.clone(),
        id: member.instance.id.clone(),
        incarnation: member.instance.incarnation,
        change,
    }
}

/// What became of a member in the view.
pub(super) struct Fate {
    pub(super) weight: u32,
    /// Why it takes no calls.
    pub(super) reason: Option<&'static str>,
}

/// What the writer works with and does not own.
pub(super) struct Membership<'a> {
    pub(super) service: &'a ServiceName,
    pub(super) config: &'a Config,
    pub(super) slab: &'a Slab,
    pub(super) follow: Follow,
}
