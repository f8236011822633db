//! Who is a member: what registries tell.

use std::sync::Arc;

use parking_lot::Mutex;

use super::state::State;
use super::{Membership, Writer};
use crate::health::Health;
use crate::instance::Instance;
use crate::outlier::Host;
use crate::reported::ReportedWeight;
use crate::resolver::view::{Extra, Member};
use crate::slab::{Slab, number};
use crate::slow_start::Ramp;
use crate::source::{Change, Removal, Revision, Snapshot};

impl Writer {
    pub(in crate::resolver) fn apply(&mut self, snapshot: &Snapshot, scope: &Membership<'_>) {
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

    pub(in crate::resolver) fn advance(
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

    pub(super) fn upsert(
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

    pub(super) fn remove(
        &mut self,
        order: &mut Option<Vec<u32>>,
        removal: &Removal,
        scope: &Membership<'_>,
    ) {
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
    pub(super) fn admit(
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
        self.begins_to_rise(slot, scope.config);
        self.describe(slot, instance);
        Some(slot)
    }

    pub(super) fn describe(&mut self, slot: u32, instance: &Instance) {
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

    pub(super) fn drop_member(&mut self, slot: u32, slab: &Slab) {
        self.detector.remove(Host::new(slot));
        self.members.set(slot, None);
        if let Some(place) = self.states.get_mut(number(slot)) {
            *place = None;
        }
        self.free.release(slab, slot);
    }

    /// Which members are this client's own.
    pub(super) fn reselect(&mut self, scope: &Membership<'_>) {
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
}
