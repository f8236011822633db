//! Keeps what is wanted running: the driver of [`reconcile`](crate::reconcile).
//!
//! One task owns the loop; calls of the runtime run beside it, each in a task that the loop owns.
//! A [`Handle`] changes what is wanted and tells what was seen from outside; it never waits for the loop.

mod builder;
mod driver;
mod handle;
mod launch;
mod status;

pub use builder::Builder;
pub use handle::Handle;
pub use launch::{Launch, Placed, PlacementListener};
pub use status::{InstanceStatus, NodeStatus, Status, WorkloadStatus};

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::runtime::ContainerRuntime;

/// Keeps the wanted replicas of all workloads running.
///
/// Liveness comes from outside: whoever knows that an instance serves says [`Handle::ready`], and whoever
/// sees its lease lapse says [`Handle::lapsed`]. A lapsed instance is killed, and its end observed, before
/// its replacement starts; so is one that does not become ready in time, or whose node is lost.
///
/// Dropping it aborts the loop and leaves the containers to the runtime; [`Reconciler::shutdown`] ends them.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::{NodeId, ServiceName};
/// use orchestra_scheduler::runtime::memory::MemoryRuntime;
/// use orchestra_scheduler::workload::Readiness;
/// use orchestra_scheduler::{Command, Node, Reconciler, Resources, Template, Workload};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let reconciler = Reconciler::builder(Arc::new(MemoryRuntime::new())).start();
/// let handle = reconciler.handle();
/// handle.add_node(Node::new(NodeId::new("node-1")?, Resources::new().cpu(4_000)))?;
///
/// let payments = ServiceName::new("payments")?;
/// let template = Template::new(Command::new("payments")).readiness(Readiness::Started);
/// handle.set_workload(Workload::new(payments.clone(), template).replicas(2));
///
/// let status = handle.until(|status| status.ready(&payments) == 2).await?;
/// assert_eq!(status.instances().count(), 2);
/// reconciler.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reconciler {
    handle: Handle,
    task: JoinSet<()>,
}

impl Reconciler {
    /// Chooses the runtime; everything else has a default.
    pub fn builder(runtime: Arc<dyn ContainerRuntime>) -> Builder {
        Builder::new(runtime)
    }

    /// What changes and observes it; cheap to clone.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops every instance with its grace, kills what is left, and returns when nothing runs.
    ///
    /// It insists: a runtime that refuses to kill is asked again until the end was observed, so a caller
    /// that must not wait for ever sets its own timeout. Dropping the future leaves the loop aborted and
    /// the containers to the runtime.
    pub async fn shutdown(mut self) {
        self.handle.begin_shutdown();
        while self.task.join_next().await.is_some() {}
    }
}
