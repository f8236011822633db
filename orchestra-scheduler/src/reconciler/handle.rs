use std::fmt;
use std::sync::Arc;

use orchestra_core::{Clock, InstanceId, NodeId, ServiceName};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::status::Status;
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::event::FenceReason;
use crate::node::{Availability, Node};
use crate::reconcile::{State, Tuning};
use crate::workload::Workload;

/// What the handles and the loop share.
pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    pub(super) wake: Notify,
    pub(super) clock: Arc<dyn Clock>,
    changes: watch::Receiver<u64>,
}

/// The state of the decisions.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) state: State,
    pub(super) cluster: Cluster,
    pub(super) is_ending: bool,
}

impl Shared {
    pub(super) fn new(
        tuning: Tuning,
        clock: Arc<dyn Clock>,
        changes: watch::Receiver<u64>,
    ) -> Self {
        let core = Core {
            state: State::new(tuning),
            cluster: Cluster::new(),
            is_ending: false,
        };
        Self {
            core: Mutex::new(core),
            wake: Notify::new(),
            clock,
            changes,
        }
    }
}

/// Changes what is wanted, tells what was seen, and shows what runs. Its methods return at once.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.shared.core.lock();
        f.debug_struct("Handle")
            .field("instances", &core.state.replicas().len())
            .field("nodes", &core.cluster.view().len())
            .finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Core) -> T) -> T {
        let result = change(&mut self.shared.core.lock());
        self.shared.wake.notify_one();
        result
    }

    /// Wants this many replicas of this service, made from this template. Running replicas of another
    /// template are replaced one after the other, each once all others are ready.
    ///
    /// After [`Reconciler::shutdown`](super::Reconciler::shutdown) began it does nothing.
    pub fn set_workload(&self, workload: Workload) {
        self.change(|core| {
            if !core.is_ending {
                core.state.set_workload(workload);
            }
        });
    }

    /// Stops all replicas of a service and forgets it; whether it was known.
    pub fn remove_workload(&self, service: &ServiceName) -> bool {
        self.change(|core| core.state.remove_workload(service))
    }

    /// Says that an instance serves. Unknown, stopping and fenced instances are left as they are.
    pub fn ready(&self, id: &InstanceId) {
        let now = self.shared.clock.now();
        self.change(|core| core.state.ready(id, now));
    }

    /// Says that the lease of an instance lapsed: it is killed and its end observed, then replaced.
    pub fn lapsed(&self, id: &InstanceId) {
        let now = self.shared.clock.now();
        self.change(|core| core.state.fence(id, FenceReason::LeaseLapsed, now));
    }

    /// Adds a node; [`ErrorKind::AlreadyExists`] if its id is known.
    pub fn add_node(&self, node: Node) -> Result<()> {
        self.change(|core| {
            core.cluster.add_node(node)?;
            core.state.room_was_made();
            Ok(())
        })
    }

    /// Removes a node that carries nothing; [`ErrorKind::InUse`] if it carries something.
    pub fn remove_node(&self, id: &NodeId) -> Result<Node> {
        self.change(|core| core.cluster.remove_node(id))
    }

    /// Lets a node keep what it runs and take nothing new.
    pub fn cordon(&self, id: &NodeId) -> Result<()> {
        self.change(|core| core.cluster.set_availability(id, Availability::Cordoned))
    }

    /// Lets a cordoned or lost node take replicas again.
    pub fn uncordon(&self, id: &NodeId) -> Result<()> {
        self.change(|core| {
            core.cluster.set_availability(id, Availability::Ready)?;
            core.state.room_was_made();
            Ok(())
        })
    }

    /// Says that a node is thought dead: it takes nothing new, and what ran there is fenced.
    pub fn lost(&self, id: &NodeId) -> Result<()> {
        let now = self.shared.clock.now();
        self.change(|core| {
            // First nothing new goes there, then what was there is replaced.
            core.cluster.set_availability(id, Availability::Lost)?;
            core.state.fence_node(id, now);
            Ok(())
        })
    }

    /// What is wanted and what runs.
    pub fn status(&self) -> Status {
        let core = self.shared.core.lock();
        Status::of(&core.state, &core.cluster)
    }

    /// Returns the first status that the condition likes; [`ErrorKind::ShutDown`] if the loop ended
    /// before. A status that lasts for less than one turn of the loop may be missed.
    pub async fn until(&self, condition: impl Fn(&Status) -> bool) -> Result<Status> {
        let mut changes = self.shared.changes.clone();
        loop {
            changes.mark_unchanged();
            let status = self.status();
            if condition(&status) {
                return Ok(status);
            }
            if changes.changed().await.is_err() {
                return Err(Error::new(ErrorKind::ShutDown, "reconciler is shut down"));
            }
        }
    }

    pub(super) fn begin_shutdown(&self) {
        self.change(|core| {
            core.is_ending = true;
            core.state.remove_all();
        });
    }
}
