use std::collections::BTreeMap;

use orchestra_core::{InstanceId, Monotonic, NodeId, ServiceName};

pub use super::seat::Seat;
use super::{Phase, Tuning};
use crate::event::{Event, FenceReason};
use crate::runtime::Exit;
use crate::schedule::Unschedulable;
use crate::workload::{Readiness, Workload};

/// One instance, from its placement until its end was observed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replica {
    /// Its service.
    pub service: ServiceName,
    /// Its seat.
    pub ordinal: u32,
    /// Its node.
    pub node: NodeId,
    /// How far it has come.
    pub phase: Phase,
    /// The revision of the workload it was made from.
    pub revision: u64,
    /// When it entered its phase.
    pub since: Monotonic,
    /// Its process, once it is known to run as one.
    pub pid: Option<u32>,
    /// The call of `start` has not returned yet: whether it runs is not known, so it cannot be ended.
    pub(super) is_launching: bool,
    /// A call of `stop` or `kill` is under way.
    pub(super) is_ending: bool,
    pub(super) retry_at: Monotonic,
    pub(super) workload: Workload,
    was_stable: bool,
}

impl Replica {
    /// The workload as it was when the instance was placed.
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// When it will have taken too long to become ready; `None` unless it is starting.
    pub(super) fn start_deadline(&self) -> Option<Monotonic> {
        (self.phase == Phase::Starting).then(|| self.since + self.workload.template.start_grace)
    }

    fn enter(&mut self, phase: Phase, tuning: &Tuning, now: Monotonic) {
        if self.phase == Phase::Ready {
            self.was_stable = now.since(self.since) >= tuning.stable_after;
        }
        self.phase = phase;
        self.since = now;
    }
}

/// A workload and its seats.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) workload: Workload,
    pub(super) revision: u64,
    pub(super) seats: BTreeMap<u32, Seat>,
}

/// All that decisions depend on. Inputs change it; [`plan`](super::plan) reads it.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub(super) services: BTreeMap<ServiceName, Service>,
    pub(super) replicas: BTreeMap<InstanceId, Replica>,
    tuning: Tuning,
    events: Vec<Event>,
}

impl State {
    /// Nothing wanted, nothing running.
    pub fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            ..Self::default()
        }
    }

    /// The events since the last call, oldest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The workloads that are wanted, or not quite gone.
    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.services.values().map(|service| &service.workload)
    }

    /// The workload of a service.
    pub fn workload(&self, service: &ServiceName) -> Option<&Workload> {
        self.services.get(service).map(|service| &service.workload)
    }

    /// The seats of a service that are wanted or still held.
    pub fn seats(&self, service: &ServiceName) -> impl Iterator<Item = (u32, &Seat)> {
        let seats = self.services.get(service).map(|service| &service.seats);
        seats.into_iter().flatten().map(|(&at, seat)| (at, seat))
    }

    /// The instances whose end was not observed yet.
    pub fn replicas(&self) -> impl ExactSizeIterator<Item = (&InstanceId, &Replica)> {
        self.replicas.iter()
    }

    /// One instance.
    pub fn replica(&self, id: &InstanceId) -> Option<&Replica> {
        self.replicas.get(id)
    }

    /// Wants this workload; replicas of an unequal template are replaced one after the other.
    pub fn set_workload(&mut self, workload: Workload) {
        let wanted = workload.replicas;
        let name = workload.name.clone();
        let service = self.services.entry(name).or_insert_with(|| Service {
            workload: workload.clone(),
            revision: 0,
            seats: BTreeMap::new(),
        });
        if service.workload.template != workload.template {
            service.revision += 1;
            service.seats.values_mut().for_each(Seat::forgive);
        }
        service.workload = workload;
        for ordinal in 0..wanted {
            service.seats.entry(ordinal).or_default();
        }
        service.drop_empty_seats();
    }

    /// Wants no replica of a service any more; whether there was such a workload.
    pub fn remove_workload(&mut self, name: &ServiceName) -> bool {
        let Some(service) = self.services.get_mut(name) else {
            return false;
        };
        service.workload.replicas = 0;
        service.drop_empty_seats();
        self.drop_if_empty(name);
        true
    }

    /// Wants nothing any more.
    pub fn remove_all(&mut self) {
        let names: Vec<_> = self.services.keys().cloned().collect();
        for name in names {
            self.remove_workload(&name);
        }
    }

    fn drop_if_empty(&mut self, name: &ServiceName) {
        let gone = |service: &Service| service.workload.replicas == 0 && service.seats.is_empty();
        if self.services.get(name).is_some_and(gone) {
            self.services.remove(name);
        }
    }

    /// An instance was given a node and takes an empty seat; `false`, and no change, if it cannot.
    pub fn placed(
        &mut self,
        service: &ServiceName,
        ordinal: u32,
        id: InstanceId,
        node: NodeId,
        now: Monotonic,
    ) -> bool {
        let Some(entry) = self.services.get_mut(service) else {
            return false;
        };
        let Some(seat) = entry.seats.get_mut(&ordinal) else {
            return false;
        };
        if seat.holder.is_some() || self.replicas.contains_key(&id) {
            return false;
        }
        seat.unschedulable = None;
        seat.holder = Some(id.clone());
        let former = seat.former.replace(id.clone());
        self.events.push(Event::Placed {
            instance: id.clone(),
            service: service.clone(),
            node: node.clone(),
        });
        if let Some(old) = former {
            let (service, new) = (service.clone(), id.clone());
            self.events.push(Event::Replaced { service, old, new });
        }
        let replica = Replica {
            service: service.clone(),
            ordinal,
            node,
            phase: Phase::Starting,
            revision: entry.revision,
            since: now,
            pid: None,
            is_launching: true,
            is_ending: false,
            retry_at: Monotonic::ZERO,
            workload: entry.workload.clone(),
            was_stable: false,
        };
        self.replicas.insert(id, replica);
        true
    }

    /// No node can carry the next instance of a seat.
    pub fn unschedulable(&mut self, ordinal: u32, answer: Unschedulable, now: Monotonic) {
        let Some(service) = self.services.get_mut(&answer.service) else {
            return;
        };
        let Some(seat) = service.seats.get_mut(&ordinal) else {
            return;
        };
        seat.not_before = now + self.tuning.retry;
        if seat.unschedulable.as_ref() != Some(&answer) {
            self.events.push(Event::Unschedulable(answer.clone()));
            seat.unschedulable = Some(answer);
        }
    }

    /// Room was made: seats that found no node need not wait.
    pub fn room_was_made(&mut self) {
        let seats = self
            .services
            .values_mut()
            .flat_map(|s| s.seats.values_mut());
        for seat in seats.filter(|seat| seat.unschedulable.is_some()) {
            seat.not_before = Monotonic::ZERO;
        }
    }

    /// The call of `start` returned: the instance runs.
    pub fn started(&mut self, id: &InstanceId, pid: Option<u32>, now: Monotonic) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        replica.is_launching = false;
        replica.pid = pid;
        let service = replica.service.clone();
        let is_ready = replica.workload.template.readiness == Readiness::Started;
        let instance = id.clone();
        self.events.push(Event::Started {
            instance,
            service,
            pid,
        });
        if is_ready {
            self.ready(id, now);
        }
    }

    /// The call of `start` failed: there is no instance.
    pub fn start_failed(&mut self, id: &InstanceId, reason: String, now: Monotonic, draw: u64) {
        if let Some(replica) = self.vacate(id, now, draw) {
            self.events.push(Event::StartFailed {
                instance: id.clone(),
                service: replica.service,
                reason,
            });
        }
    }

    /// The instance serves. Says nothing of one that is not starting.
    pub fn ready(&mut self, id: &InstanceId, now: Monotonic) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        if replica.phase != Phase::Starting {
            return;
        }
        replica.enter(Phase::Ready, &self.tuning, now);
        let (instance, service) = (id.clone(), replica.service.clone());
        self.events.push(Event::Ready { instance, service });
    }

    /// The instance must end before anything takes its seat. Final: nothing makes it serve again.
    pub fn fence(&mut self, id: &InstanceId, reason: FenceReason, now: Monotonic) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        if replica.phase == Phase::Fenced {
            return;
        }
        // A stop under way may take its whole grace; the kill goes out beside it.
        replica.is_ending = false;
        replica.retry_at = Monotonic::ZERO;
        replica.enter(Phase::Fenced, &self.tuning, now);
        let (instance, service) = (id.clone(), replica.service.clone());
        self.events.push(Event::Fenced {
            instance,
            service,
            reason,
        });
    }

    /// Fences everything on a node.
    pub fn fence_node(&mut self, node: &NodeId, now: Monotonic) {
        let there = self.replicas.iter().filter(|(_, r)| r.node == *node);
        let ids: Vec<_> = there.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.fence(&id, FenceReason::NodeLost, now);
        }
    }

    /// Fences what took too long to become ready.
    pub fn tick(&mut self, now: Monotonic) {
        let late = |r: &Replica| r.start_deadline().is_some_and(|deadline| deadline <= now);
        let late = self.replicas.iter().filter(|(_, r)| late(r));
        let ids: Vec<_> = late.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.fence(&id, FenceReason::StartTimeout, now);
        }
    }

    /// A call of `stop` or `kill` is on its way.
    pub fn ending(&mut self, id: &InstanceId, now: Monotonic) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        replica.is_ending = true;
        if matches!(replica.phase, Phase::Starting | Phase::Ready) {
            replica.enter(Phase::Stopping, &self.tuning, now);
            let (instance, service) = (id.clone(), replica.service.clone());
            self.events.push(Event::Stopping { instance, service });
        }
    }

    /// The call of `stop` (in [`Phase::Stopping`]) or `kill` (in [`Phase::Fenced`]) failed, and says
    /// nothing of the instance: it is made again.
    pub fn ending_failed(&mut self, id: &InstanceId, call: Phase, reason: String, now: Monotonic) {
        let Some(replica) = self.replicas.get_mut(id) else {
            return;
        };
        if replica.phase == call {
            replica.is_ending = false;
            replica.retry_at = now + self.tuning.retry;
        }
        let instance = id.clone();
        self.events.push(Event::StopFailed { instance, reason });
    }

    /// The end of an instance was observed: its seat is free. `None` if that is known already.
    pub fn exited(
        &mut self,
        id: &InstanceId,
        exit: Option<Exit>,
        now: Monotonic,
        draw: u64,
    ) -> Option<Replica> {
        let replica = self.vacate(id, now, draw)?;
        self.events.push(Event::Exited {
            instance: id.clone(),
            service: replica.service.clone(),
            exit,
        });
        Some(replica)
    }

    fn vacate(&mut self, id: &InstanceId, now: Monotonic, draw: u64) -> Option<Replica> {
        let mut replica = self.replicas.remove(id)?;
        let was_asked = replica.phase == Phase::Stopping;
        replica.enter(replica.phase, &self.tuning, now);
        if let Some(service) = self.services.get_mut(&replica.service) {
            if let Some(seat) = service.seats.get_mut(&replica.ordinal) {
                seat.holder = None;
                if !was_asked && replica.revision == service.revision {
                    seat.fail(&self.tuning, replica.was_stable, now, draw);
                }
            }
            service.drop_empty_seats();
        }
        self.drop_if_empty(&replica.service);
        Some(replica)
    }
}

impl Service {
    pub(super) fn wants(&self, ordinal: u32) -> bool {
        ordinal < self.workload.replicas
    }

    fn drop_empty_seats(&mut self) {
        let wanted = self.workload.replicas;
        self.seats
            .retain(|&ordinal, seat| ordinal < wanted || seat.holder.is_some());
    }
}
