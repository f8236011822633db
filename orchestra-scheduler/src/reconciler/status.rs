use orchestra_core::{InstanceId, NodeId, ServiceName};

use crate::cluster::Cluster;
use crate::node::Availability;
use crate::reconcile::{Phase, State};
use crate::resources::Resources;
use crate::schedule::Unschedulable;

/// What is wanted and what runs, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The workloads in the order of their names.
    pub workloads: Vec<WorkloadStatus>,
    /// The nodes.
    pub nodes: Vec<NodeStatus>,
}

/// One workload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkloadStatus {
    /// The service.
    pub service: ServiceName,
    /// How many replicas are wanted.
    pub replicas: u32,
    /// Its seats in order.
    pub instances: Vec<InstanceStatus>,
}

/// One seat of a workload and the instance that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceStatus {
    /// The seat.
    pub ordinal: u32,
    /// The instance; `None` while the seat is pending.
    pub id: Option<InstanceId>,
    /// Its node.
    pub node: Option<NodeId>,
    /// How far it has come.
    pub phase: Phase,
    /// Its process, once it is known to run as one.
    pub pid: Option<u32>,
    /// How many instances of this seat ended without being asked to.
    pub restarts: u32,
    /// Why no node can carry the next instance.
    pub unschedulable: Option<Unschedulable>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The node.
    pub id: NodeId,
    /// Whether it takes replicas.
    pub availability: Availability,
    /// What it has.
    pub capacity: Resources,
    /// What is set aside on it.
    pub reserved: Resources,
    /// How many instances it carries.
    pub instances: u32,
}

impl Status {
    pub(super) fn of(state: &State, cluster: &Cluster) -> Self {
        let workloads = state.workloads().map(|workload| WorkloadStatus {
            service: workload.name.clone(),
            replicas: workload.replicas,
            instances: seats(state, &workload.name),
        });
        Self {
            workloads: workloads.collect(),
            nodes: nodes(cluster),
        }
    }

    /// The workload of a service.
    pub fn workload(&self, service: &ServiceName) -> Option<&WorkloadStatus> {
        self.workloads.iter().find(|w| w.service == *service)
    }

    /// How many replicas of a service serve.
    pub fn ready(&self, service: &ServiceName) -> usize {
        self.workload(service).map_or(0, WorkloadStatus::ready)
    }

    /// Whether every wanted replica serves and nothing else runs.
    pub fn is_settled(&self) -> bool {
        self.workloads.iter().all(|workload| {
            let wanted = usize::try_from(workload.replicas).unwrap_or(usize::MAX);
            workload.ready() == wanted && workload.instances.len() == wanted
        })
    }

    /// The instances whose end was not observed yet.
    pub fn instances(&self) -> impl Iterator<Item = (&InstanceId, &InstanceStatus)> {
        let seats = self.workloads.iter().flat_map(|w| &w.instances);
        seats.filter_map(|seat| Some((seat.id.as_ref()?, seat)))
    }
}

impl WorkloadStatus {
    /// How many replicas serve.
    pub fn ready(&self) -> usize {
        let ready = |seat: &&InstanceStatus| seat.phase == Phase::Ready;
        self.instances.iter().filter(ready).count()
    }
}

fn seats(state: &State, service: &ServiceName) -> Vec<InstanceStatus> {
    let seats = state.seats(service).map(|(ordinal, seat)| {
        let replica = seat.holder().and_then(|id| state.replica(id));
        InstanceStatus {
            ordinal,
            id: seat.holder().cloned(),
            node: replica.map(|replica| replica.node.clone()),
            phase: replica.map_or(Phase::Pending, |replica| replica.phase),
            pid: replica.and_then(|replica| replica.pid),
            restarts: seat.restarts(),
            unschedulable: seat.unschedulable().cloned(),
        }
    });
    seats.collect()
}

fn nodes(cluster: &Cluster) -> Vec<NodeStatus> {
    let view = cluster.view();
    let nodes = view.indices().filter_map(|at| view.node(at));
    let nodes = nodes.map(|node| NodeStatus {
        id: node.id().clone(),
        availability: node.availability(),
        capacity: node.capacity(),
        reserved: node.reserved(),
        instances: node.instances(),
    });
    nodes.collect()
}
