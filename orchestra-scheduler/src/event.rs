//! What the crate reports as it happens.

use orchestra_core::{InstanceId, NodeId, ServiceName};

use crate::runtime::{Exit, Line};
use crate::schedule::Unschedulable;

/// Why an instance is killed before it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FenceReason {
    /// Its lease lapsed: nobody knows whether it still works.
    LeaseLapsed,
    /// It did not become ready in time.
    StartTimeout,
    /// Its node is thought dead.
    NodeLost,
}

/// One thing that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// An instance was given a node.
    Placed {
        /// The instance.
        instance: InstanceId,
        /// Its service.
        service: ServiceName,
        /// Its node.
        node: NodeId,
    },
    /// No node can carry a replica; reported once until the answer changes.
    Unschedulable(Unschedulable),
    /// An instance runs, and is not ready yet.
    Started {
        /// The instance.
        instance: InstanceId,
        /// Its service.
        service: ServiceName,
        /// Its process, if it is one.
        pid: Option<u32>,
    },
    /// An instance could not be started.
    StartFailed {
        /// The instance.
        instance: InstanceId,
        /// Its service.
        service: ServiceName,
        /// What the runtime said, with its causes.
        reason: String,
    },
    /// An instance serves.
    Ready {
        /// The instance.
        instance: InstanceId,
        /// Its service.
        service: ServiceName,
    },
    /// An instance is asked to end.
    Stopping {
        /// The instance.
        instance: InstanceId,
        /// Its service.
        service: ServiceName,
    },
    /// An instance is being killed, so that it can be replaced.
    Fenced {
        /// The instance.
        instance: InstanceId,
        /// Its service.
        service: ServiceName,
        /// Why.
        reason: FenceReason,
    },
    /// The end of an instance was observed, whoever wanted it.
    Exited {
        /// The instance.
        instance: InstanceId,
        /// Its service.
        service: ServiceName,
        /// How it ended; `None` if the runtime does not know the instance any more.
        exit: Option<Exit>,
    },
    /// An instance takes the place of one that ended.
    Replaced {
        /// The service of both.
        service: ServiceName,
        /// The one that ended.
        old: InstanceId,
        /// The one that takes its place.
        new: InstanceId,
    },
    /// A runtime refused to stop or kill an instance; it is asked again.
    StopFailed {
        /// The instance.
        instance: InstanceId,
        /// What the runtime said, with its causes.
        reason: String,
    },
    /// A container wrote a line.
    Output {
        /// The instance.
        instance: InstanceId,
        /// The line.
        line: Line,
    },
    /// The runtime cannot enforce limits; reported once.
    LimitsUnenforced {
        /// Why.
        reason: String,
    },
    /// A process that a dead platform left behind was killed.
    LeftoverKilled {
        /// The instance it was.
        instance: InstanceId,
        /// Its process group.
        pid: u32,
    },
}
