//! What runs containers: a port, and two implementations of it.
//!
//! [`MemoryRuntime`](memory::MemoryRuntime) runs nothing and behaves as scripted; `process::ProcessRuntime`
//! (feature `process`, Linux) runs child processes.

mod container;
pub mod memory;
#[cfg(all(feature = "process", target_os = "linux"))]
#[cfg_attr(docsrs, doc(cfg(feature = "process")))]
pub mod process;

pub use container::{
    Capabilities, Container, ContainerSpec, Enforcement, Exit, Line, Output, Stream,
};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::InstanceId;

use crate::error::Result;

/// Starts, ends and observes containers, each known by the id of its instance.
///
/// Laws, each a test of the suite that the feature `test-util` exports:
/// 1. `start` returns once the container runs, and `list` shows it;
/// 2. `start` of an id that is running is refused with `AlreadyExists`, and the running one goes on;
/// 3. a `start` that fails leaves nothing: `list` does not show it and `wait` says `NotFound`;
/// 4. `list` shows what runs and not what has ended;
/// 5. `kill` returns after the end was observed: nothing of the container runs any more;
/// 6. `kill` of what has ended answers with the same exit again;
/// 7. `kill`, `stop`, `wait` and `output` of an id never started say `NotFound`;
/// 8. `wait` answers every waiter, those that come after the end too, with the same exit;
/// 9. a `wait` that is dropped changes nothing;
/// 10. the exit tells the code with which the container ended by itself;
/// 11. `stop` lets the container end itself within the grace;
/// 12. `stop` kills what is still there after the grace, and says so in the exit;
/// 13. containers do not disturb each other;
/// 14. `output` holds what the container wrote, all of it once `wait` has returned;
/// 15. `output` is bounded: the newest lines are kept and the lost ones counted.
///
/// Every call returns some time; one that never does keeps the seat of its container taken.
///
/// Cancellation: a dropped `list`, `wait` or `output` changes nothing. A dropped `start`, `stop` or `kill` may or
/// may not take effect, wholly; what `start` began is then in `list`. An ended container is remembered for
/// `wait`, `kill` and `output` for as long as the implementation says, at least for the last hundred.
///
/// Dropping the runtime ends its containers where it can; an implementation says what it does.
#[async_trait]
pub trait ContainerRuntime: fmt::Debug + Send + Sync {
    /// Starts a container.
    async fn start(&self, spec: ContainerSpec) -> Result<Container>;

    /// Asks a container to end, kills it after `grace`, and returns when it has ended.
    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<Exit>;

    /// Ends a container at once, even one that is frozen, and returns when it has ended.
    async fn kill(&self, id: &InstanceId) -> Result<Exit>;

    /// What runs.
    async fn list(&self) -> Result<Vec<Container>>;

    /// Returns when a container has ended.
    async fn wait(&self, id: &InstanceId) -> Result<Exit>;

    /// The newest lines that a container wrote.
    async fn output(&self, id: &InstanceId) -> Result<Output>;

    /// What this runtime can do.
    fn capabilities(&self) -> Capabilities;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: ContainerRuntime + ?Sized> ContainerRuntime for $pointer<T> {
            async fn start(&self, spec: ContainerSpec) -> Result<Container> {
                (**self).start(spec).await
            }

            async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<Exit> {
                (**self).stop(id, grace).await
            }

            async fn kill(&self, id: &InstanceId) -> Result<Exit> {
                (**self).kill(id).await
            }

            async fn list(&self) -> Result<Vec<Container>> {
                (**self).list().await
            }

            async fn wait(&self, id: &InstanceId) -> Result<Exit> {
                (**self).wait(id).await
            }

            async fn output(&self, id: &InstanceId) -> Result<Output> {
                (**self).output(id).await
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }
        }
    )+};
}

forward!(Arc, Box);
