//! Real child processes, on Linux.
//!
//! Every child leads a process group of its own, and signals go to the group. Its environment holds what
//! the spec gives and `PATH`. Its standard input is the *lifeline*: a pipe whose other end the platform
//! holds and never writes to once the child runs, so that end of file means that the platform died; a child
//! that watches for it never outlives its platform. What does not watch is killed by the next platform that
//! opens the same state directory: see [`ProcessRuntime::open`]. (A child that is frozen when the platform
//! dies is sent HUP and CONT by the kernel, as every orphaned group with a stopped member is, and most
//! programs die of that.)
//!
//! A child begins as a shell that waits for a line on the lifeline and then becomes the program. Until that
//! line is sent its record is synced to disk and it is put into its cgroup, so no instruction of the program
//! runs unrecorded or unlimited; and if the platform dies before, the shell reads end of file and ends.
//! A variable that a shell would not hand on, since its name has other characters than letters, digits and
//! `_` or is the shell's own, is refused by `start`.
//!
//! The end of a child is seen through a pidfd, before it is reaped: while the zombie holds its number, what
//! is left of the group is killed, and no signal can meet a stranger with the same number.

mod cgroup;
mod child;
mod leftover;
mod lock;
mod options;
mod output;
mod procfs;
mod record;
mod slots;
mod supervise;

pub use options::Options;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::{InstanceId, Listener};
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Capabilities, Container, ContainerRuntime, ContainerSpec, Exit, Output};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use cgroup::Cgroups;
use lock::DirectoryLock;
use slots::{Slot, Slots};

/// Runs containers as child processes of this one.
///
/// The last 1024 ended processes are remembered. [`ProcessRuntime::shutdown`] kills what runs and waits for
/// it; dropping the runtime kills what runs without waiting.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::{InstanceId, ServiceName};
/// use orchestra_scheduler::runtime::{ContainerRuntime, ContainerSpec, process::ProcessRuntime};
/// use orchestra_scheduler::Command;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let runtime = ProcessRuntime::open(directory.path()).await?;
/// let id = InstanceId::new("greeter-0")?;
/// let command = Command::new("echo").arg("hello");
/// runtime.start(ContainerSpec::new(id.clone(), ServiceName::new("greeter")?, command)).await?;
///
/// assert!(runtime.wait(&id).await?.is_success());
/// assert_eq!(runtime.output(&id).await?.lines[0].text, "hello");
/// runtime.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ProcessRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    /// Held until the last task is done with the directory.
    _lock: DirectoryLock,
    cgroups: Result<Cgroups, String>,
    warned: AtomicBool,
    listener: Arc<dyn Listener<Event>>,
    output_lines: usize,
    slots: Mutex<Slots>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("directory", &self.directory)
            .field("cgroups", &self.cgroups)
            .field("running", &self.slots.lock().running().count())
            .finish_non_exhaustive()
    }
}

impl ProcessRuntime {
    /// Opens a state directory with the default [`Options`].
    ///
    /// It locks the directory, and fails with [`ErrorKind::DirectoryInUse`] naming the owner's process if
    /// another runtime holds it. It then kills what a dead platform left running, before it returns: a
    /// process is known by its number, its start time and the boot it started in, so a stranger that was
    /// given the same number is left alone.
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(directory).await
    }

    /// Chooses more than the directory.
    pub fn options() -> Options {
        Options::default()
    }

    /// Kills what runs, and returns when nothing runs, no task is left and the directory is free.
    pub async fn shutdown(self) {
        self.inner.close();
        self.inner.tasks.wait().await;
    }
}

impl Drop for ProcessRuntime {
    fn drop(&mut self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        for slot in self.slots.lock().running() {
            slot.group.force();
        }
    }

    fn slot(&self, id: &InstanceId) -> Result<Slot> {
        self.slots.lock().known(id).ok_or_else(|| unknown(id))
    }
}

fn unknown(id: &InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, format!("container {id} is not known"))
}

#[async_trait]
impl ContainerRuntime for ProcessRuntime {
    async fn start(&self, spec: ContainerSpec) -> Result<Container> {
        let id = spec.instance.clone();
        let claim = slots::Claim::new(&self.inner, &id)?;
        // On a task of its own: a caller that goes away must not leave half a start behind.
        let started = self.inner.tasks.spawn(supervise::start(claim, spec));
        started.await.unwrap_or_else(|error| {
            let context = format!("start of container {id} was cut short");
            Err(Error::io(context, error))
        })
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<Exit> {
        let slot = self.inner.slot(id)?;
        slot.group.signal(Signal::TERM);
        // A frozen process takes no notice of TERM until it goes on.
        slot.group.signal(Signal::CONT);
        if let Ok(exit) = tokio::time::timeout(grace, slot.ended()).await {
            return exit;
        }
        slot.group.force();
        slot.ended().await
    }

    async fn kill(&self, id: &InstanceId) -> Result<Exit> {
        let slot = self.inner.slot(id)?;
        slot.group.force();
        slot.ended().await
    }

    async fn list(&self) -> Result<Vec<Container>> {
        let slots = self.inner.slots.lock();
        Ok(slots.running().map(|slot| slot.container.clone()).collect())
    }

    async fn wait(&self, id: &InstanceId) -> Result<Exit> {
        self.inner.slot(id)?.ended().await
    }

    async fn output(&self, id: &InstanceId) -> Result<Output> {
        Ok(self.inner.slot(id)?.output.lock().read())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.inner.output_lines);
        if let Ok(cgroups) = &self.inner.cgroups {
            capabilities.cpu_limit = cgroups.cpu_limit();
            capabilities.memory_limit = cgroups.memory_limit();
        }
        capabilities
    }
}

impl Inner {
    /// Says once that limits are not enforced.
    fn warn_unenforced(&self, reason: &str) {
        if self.warned.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(reason, "limits of containers are not enforced");
        let reason = reason.to_owned();
        self.listener.on_event(&Event::LimitsUnenforced { reason });
    }
}
