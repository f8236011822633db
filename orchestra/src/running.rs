mod parts;
mod shutdown;
mod start;

use std::fmt;
use std::sync::Arc;

use orchestra_core::Clock;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::builder::Builder;

/// A running platform. A clone is the same platform.
///
/// Dropping the last clone aborts its tasks and leaves processes to their runtime;
/// [`Orchestra::shutdown`] ends everything in order.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::time::Duration;
/// use orchestra::Orchestra;
///
/// let orchestra = Orchestra::builder().build().await?;
/// let payments = orchestra.client("payments")?;
/// assert_eq!(payments.service().as_str(), "payments");
/// orchestra.shutdown(Duration::from_secs(5)).await?;
/// # Ok::<(), orchestra::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Orchestra {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
    #[cfg(feature = "discovery")]
    registry: Arc<dyn orchestra_discovery::Registry>,
    #[cfg(all(feature = "discovery", feature = "mesh"))]
    clients: crate::clients::Clients,
    #[cfg(feature = "mesh")]
    gateways: Mutex<Vec<orchestra_mesh::gateway::Serving>>,
    #[cfg(feature = "mesh")]
    mesh_events: crate::fan::Fan<orchestra_mesh::Event>,
    #[cfg(feature = "mesh")]
    seed: Option<u64>,
    #[cfg(feature = "scheduler")]
    reconciler: Mutex<Option<orchestra_scheduler::Reconciler>>,
    #[cfg(feature = "scheduler")]
    scheduler: Option<orchestra_scheduler::Handle>,
    #[cfg(feature = "saga")]
    sagas: Option<orchestra_saga::Executor>,
    #[cfg(feature = "observe")]
    metrics: orchestra_observe::Registry,
    #[cfg(feature = "observe")]
    tracer: orchestra_observe::Tracer,
}

impl fmt::Debug for Orchestra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orchestra")
            .field("stopping", &self.inner.stop.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl Orchestra {
    /// Begins to put a platform together.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The clock that all parts read.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }
}
