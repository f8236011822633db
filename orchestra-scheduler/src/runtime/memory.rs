//! A runtime that runs nothing and behaves as scripted.

mod body;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::InstanceId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Capabilities, Container, ContainerRuntime, ContainerSpec, Exit, Line, Output};
use crate::error::{Error, ErrorKind, Result};
use body::{Body, Order};

/// How a container of a [`MemoryRuntime`] behaves; by default it runs until it is asked to end.
///
/// ```
/// use std::time::Duration;
/// use orchestra_scheduler::runtime::{Exit, memory::Behavior};
///
/// let crashes = Behavior::new().exit_after(Duration::from_secs(1), Exit::code(3));
/// let stubborn = Behavior::new().ignore_stop();
/// # let _ = (crashes, stubborn);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Behavior {
    exit_after: Option<(Duration, Exit)>,
    stop_exit: Option<Exit>,
    ignores_stop: bool,
    dies_slowly: Duration,
    start_takes: Duration,
    fails_start: Option<String>,
    prints: Vec<Line>,
}

impl Behavior {
    /// Runs until it is asked to end, then ends at once with code zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends by itself.
    #[must_use]
    pub fn exit_after(mut self, after: Duration, exit: Exit) -> Self {
        self.exit_after = Some((after, exit));
        self
    }

    /// Ends this way when asked to.
    #[must_use]
    pub fn stop_exit(mut self, exit: Exit) -> Self {
        self.stop_exit = Some(exit);
        self
    }

    /// Does not end when asked to.
    #[must_use]
    pub fn ignore_stop(mut self) -> Self {
        self.ignores_stop = true;
        self
    }

    /// Takes this long to die after it was killed, as a process in uninterruptible sleep does.
    #[must_use]
    pub fn die_slowly(mut self, delay: Duration) -> Self {
        self.dies_slowly = delay;
        self
    }

    /// Takes this long to start.
    #[must_use]
    pub fn start_after(mut self, delay: Duration) -> Self {
        self.start_takes = delay;
        self
    }

    /// Cannot be started.
    #[must_use]
    pub fn fail_start(mut self, reason: impl Into<String>) -> Self {
        self.fails_start = Some(reason.into());
        self
    }

    /// Writes these lines when it starts.
    #[must_use]
    pub fn print(mut self, lines: impl IntoIterator<Item = Line>) -> Self {
        self.prints.extend(lines);
        self
    }
}

type Script = dyn Fn(&ContainerSpec) -> Behavior + Send + Sync;

/// A bounded runtime in memory for tests and simulations; every container follows a [`Behavior`].
///
/// It keeps the last 1024 ended containers. Dropping it ends nothing, since nothing runs; its timers stop
/// with the last clone.
///
/// ```
/// use orchestra_core::{InstanceId, ServiceName};
/// use orchestra_scheduler::runtime::{ContainerRuntime, ContainerSpec, Exit, memory::MemoryRuntime};
/// use orchestra_scheduler::Command;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = MemoryRuntime::new();
/// let id = InstanceId::new("payments-0")?;
/// let spec = ContainerSpec::new(id.clone(), ServiceName::new("payments")?, Command::new("payments"));
/// runtime.start(spec).await?;
/// assert_eq!(runtime.kill(&id).await?, Exit::signal(9).forced());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    script: Box<Script>,
    slots: Mutex<Slots>,
    tasks: TaskTracker,
    max_running: usize,
}

#[derive(Default)]
struct Slots {
    known: HashMap<InstanceId, Slot>,
    ended: VecDeque<InstanceId>,
    running: usize,
}

struct Slot {
    container: Container,
    orders: watch::Sender<Order>,
    exit: watch::Receiver<Option<Exit>>,
    output: Output,
}

const REMEMBERED: usize = 1_024;
const OUTPUT_LINES: usize = 256;

impl fmt::Debug for MemoryRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.inner.slots.lock().running;
        f.debug_struct("MemoryRuntime")
            .field("running", &running)
            .finish_non_exhaustive()
    }
}

impl Default for MemoryRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryRuntime {
    /// Every container runs until it is asked to end.
    pub fn new() -> Self {
        Self::scripted(|_| Behavior::new())
    }

    /// Each container behaves as the script says of its spec.
    pub fn scripted(script: impl Fn(&ContainerSpec) -> Behavior + Send + Sync + 'static) -> Self {
        Self::bounded(10_000, script)
    }

    /// At most `max_running` containers run at a time.
    pub fn bounded(
        max_running: usize,
        script: impl Fn(&ContainerSpec) -> Behavior + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                script: Box::new(script),
                slots: Mutex::default(),
                tasks: TaskTracker::new(),
                max_running,
            }),
        }
    }

    /// Makes a container end as if by itself, and returns when it has.
    pub async fn end(&self, id: &InstanceId, exit: Exit) -> Result<Exit> {
        self.inner.order(id, Order::End(exit))?;
        self.wait(id).await
    }

    /// Kills what runs, and returns when nothing runs and no task is left.
    pub async fn shutdown(&self) {
        let ids: Vec<_> = self.inner.slots.lock().known.keys().cloned().collect();
        for id in ids {
            // An id that was forgotten meanwhile has ended.
            let _forgotten = self.inner.order(&id, Order::Kill);
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    fn order(&self, id: &InstanceId, order: Order) -> Result<()> {
        let slots = self.slots.lock();
        let slot = slots.known.get(id).ok_or_else(|| unknown(id))?;
        slot.orders.send_if_modified(|current| current.raise(order));
        Ok(())
    }

    fn admit(self: &Arc<Self>, spec: &ContainerSpec, behavior: Behavior) -> Result<Container> {
        let mut slots = self.slots.lock();
        if slots.known.contains_key(&spec.instance) {
            let context = format!("container {} exists already", spec.instance);
            return Err(Error::new(ErrorKind::AlreadyExists, context));
        }
        if self.tasks.is_closed() {
            let context = format!("runtime is shut down, {} not started", spec.instance);
            return Err(Error::new(ErrorKind::ShutDown, context));
        }
        if slots.running >= self.max_running {
            let context = format!("{} containers run already", slots.running);
            return Err(Error::new(ErrorKind::Full, context));
        }
        let container = Container::new(spec.instance.clone(), spec.service.clone());
        let (orders, heard) = watch::channel(Order::Run);
        let (ended, exit) = watch::channel(None);
        let slot = Slot {
            container: container.clone(),
            orders,
            exit,
            output: tail(&behavior.prints),
        };
        slots.running += 1;
        slots.known.insert(spec.instance.clone(), slot);
        let body = Body::new(behavior, heard);
        // Weak: the tasks must not keep the runtime alive, its drop is what ends them.
        let (inner, id) = (Arc::downgrade(self), spec.instance.clone());
        self.tasks.spawn(async move {
            let exit = body.live().await;
            if let Some(inner) = inner.upgrade() {
                inner.forget_oldest(id);
            }
            // Every waiter may be gone; the slot keeps a receiver.
            ended.send_replace(Some(exit));
        });
        Ok(container)
    }

    fn forget_oldest(&self, id: InstanceId) {
        let mut slots = self.slots.lock();
        slots.running = slots.running.saturating_sub(1);
        slots.ended.push_back(id);
        if slots.ended.len() > REMEMBERED
            && let Some(oldest) = slots.ended.pop_front()
        {
            slots.known.remove(&oldest);
        }
    }
}

fn tail(lines: &[Line]) -> Output {
    let lost = lines.len().saturating_sub(OUTPUT_LINES);
    let kept = lines.get(lost..).unwrap_or_default().to_vec();
    Output::new(kept, lost as u64)
}

fn unknown(id: &InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, format!("container {id} is not known"))
}

#[async_trait]
impl ContainerRuntime for MemoryRuntime {
    async fn start(&self, spec: ContainerSpec) -> Result<Container> {
        let behavior = (self.inner.script)(&spec);
        tokio::time::sleep(behavior.start_takes).await;
        if let Some(reason) = &behavior.fails_start {
            let context = format!("container {} cannot be started: {reason}", spec.instance);
            return Err(Error::new(ErrorKind::Io, context));
        }
        self.inner.admit(&spec, behavior)
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<Exit> {
        self.inner.order(id, Order::Stop)?;
        if let Ok(exit) = tokio::time::timeout(grace, self.wait(id)).await {
            return exit;
        }
        self.kill(id).await
    }

    async fn kill(&self, id: &InstanceId) -> Result<Exit> {
        self.inner.order(id, Order::Kill)?;
        self.wait(id).await
    }

    async fn list(&self) -> Result<Vec<Container>> {
        let slots = self.inner.slots.lock();
        let running = slots
            .known
            .values()
            .filter(|slot| slot.exit.borrow().is_none());
        Ok(running.map(|slot| slot.container.clone()).collect())
    }

    async fn wait(&self, id: &InstanceId) -> Result<Exit> {
        let exit = self
            .inner
            .slots
            .lock()
            .known
            .get(id)
            .map(|slot| slot.exit.clone());
        let mut exit = exit.ok_or_else(|| unknown(id))?;
        let ended = exit.wait_for(Option::is_some).await;
        ended.ok().and_then(|exit| *exit).ok_or_else(|| unknown(id))
    }

    async fn output(&self, id: &InstanceId) -> Result<Output> {
        let slots = self.inner.slots.lock();
        let slot = slots.known.get(id).ok_or_else(|| unknown(id))?;
        Ok(slot.output.clone())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(OUTPUT_LINES)
    }
}
