//! Runtimes that break one law each, to prove that the suite notices.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_core::InstanceId;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{Capabilities, Container, ContainerRuntime, ContainerSpec, Exit, Output};

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident => $law:literal,)+) => {
        /// A way to break one law.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[$doc])* $fault,)+
        }

        impl Fault {
            /// Every fault.
            pub const ALL: &[Self] = &[$(Self::$fault,)+];

            /// The law that it breaks, by its name in [`LAWS`](crate::conformance::LAWS).
            pub const fn law(self) -> &'static str {
                match self {
                    $(Self::$fault => $law,)+
                }
            }
        }
    };
}

faults! {
    /// Shows nothing.
    HidesRunning => "start_is_shown_by_list",
    /// Says that a second start of the same id succeeded.
    AcceptsTwice => "a_running_id_is_refused",
    /// Shows what could not be started.
    ListsFailedStarts => "a_failed_start_leaves_nothing",
    /// Shows what has ended.
    ListsEnded => "list_drops_the_ended",
    /// Returns from `kill` before the end.
    KillsEarly => "kill_returns_after_the_end",
    /// Knows a container no more once it was killed.
    KillsOnce => "kill_is_idempotent",
    /// Says that it killed what was never there.
    KillsGhosts => "unknown_ids_are_not_found",
    /// Answers one waiter alone.
    AnswersOnce => "wait_answers_every_waiter",
    /// Kills what nobody waits for any more.
    KillsUnawaited => "a_dropped_wait_changes_nothing",
    /// Reports success, whatever the code.
    LosesCode => "the_exit_code_is_reported",
    /// Kills what it was asked to stop.
    StopsHard => "stop_lets_the_container_end_itself",
    /// Says that it killed what did not stop, and lets it run.
    StopsSoftly => "stop_kills_after_the_grace",
    /// Kills everything.
    KillsNeighbors => "containers_do_not_disturb_each_other",
    /// Loses the last line of several.
    LosesLines => "output_holds_what_was_written",
    /// Does not say how many lines it dropped.
    HidesLoss => "output_is_bounded",
}

/// A runtime with a [`Fault`].
///
/// ```
/// use std::sync::Arc;
/// use orchestra_scheduler::conformance::{LAWS, Subject};
/// use orchestra_scheduler::saboteur::{Fault, Saboteur};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let subject = Subject::of_memory(|inner| Arc::new(Saboteur::new(Arc::new(inner), Fault::LosesCode)));
/// let law = LAWS.iter().find(|law| law.name == Fault::LosesCode.law()).expect("every fault has a law");
/// assert!(law.check(&subject).await.is_err());
/// # }
/// ```
#[derive(Debug)]
pub struct Saboteur {
    inner: Arc<dyn ContainerRuntime>,
    fault: Fault,
    marked: Mutex<HashSet<InstanceId>>,
    phantoms: Mutex<Vec<Container>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Saboteur {
    /// A sound runtime, with a fault.
    pub fn new(inner: Arc<dyn ContainerRuntime>, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            marked: Mutex::default(),
            phantoms: Mutex::default(),
            tasks: Arc::default(),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// Whether the id was marked for the first time.
    fn mark(&self, id: &InstanceId) -> bool {
        self.marked.lock().insert(id.clone())
    }

    fn kill_later(&self, id: &InstanceId) -> KillOnDrop {
        KillOnDrop {
            inner: Arc::clone(&self.inner),
            id: Some(id.clone()),
            tasks: Arc::clone(&self.tasks),
        }
    }
}

fn forgotten(id: &InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, format!("container {id} is not known"))
}

struct KillOnDrop {
    inner: Arc<dyn ContainerRuntime>,
    id: Option<InstanceId>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let inner = Arc::clone(&self.inner);
        if let Some(id) = self.id.take() {
            self.tasks.lock().spawn(async move {
                let _killed = inner.kill(&id).await;
            });
        }
    }
}

#[async_trait]
impl ContainerRuntime for Saboteur {
    async fn start(&self, spec: ContainerSpec) -> Result<Container> {
        let container = Container::new(spec.instance.clone(), spec.service.clone());
        let started = self.inner.start(spec).await;
        match &started {
            Err(error)
                if self.has(Fault::AcceptsTwice) && error.kind() == ErrorKind::AlreadyExists =>
            {
                return Ok(container);
            }
            Err(_) if self.has(Fault::ListsFailedStarts) => self.phantoms.lock().push(container),
            Ok(_) if self.has(Fault::ListsEnded) => self.phantoms.lock().push(container),
            _ => {}
        }
        started
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<Exit> {
        match self.fault {
            Fault::StopsHard => self.inner.kill(id).await,
            Fault::StopsSoftly => {
                let patient = self.inner.stop(id, Duration::from_secs(3_600));
                let stopped = tokio::time::timeout(grace, patient).await;
                stopped.unwrap_or(Ok(Exit::signal(9).forced()))
            }
            _ => self.inner.stop(id, grace).await,
        }
    }

    async fn kill(&self, id: &InstanceId) -> Result<Exit> {
        match self.fault {
            Fault::KillsEarly => {
                self.inner.output(id).await?;
                drop(self.kill_later(id));
                Ok(Exit::signal(9).forced())
            }
            Fault::KillsOnce if !self.mark(id) => Err(forgotten(id)),
            Fault::KillsGhosts => {
                let killed = self.inner.kill(id).await;
                Ok(killed.unwrap_or(Exit::signal(9).forced()))
            }
            Fault::KillsNeighbors => {
                for neighbor in self.inner.list().await? {
                    self.inner.kill(&neighbor.instance).await?;
                }
                self.inner.kill(id).await
            }
            _ => self.inner.kill(id).await,
        }
    }

    async fn list(&self) -> Result<Vec<Container>> {
        let mut list = self.inner.list().await?;
        let marked = self.marked.lock();
        let phantoms = self.phantoms.lock();
        match self.fault {
            Fault::HidesRunning => list.clear(),
            Fault::ListsFailedStarts => list.extend(phantoms.iter().cloned()),
            // Those whose end somebody waited for.
            Fault::ListsEnded => {
                let ended = phantoms.iter().filter(|c| marked.contains(&c.instance));
                list.extend(ended.cloned());
            }
            _ => {}
        }
        Ok(list)
    }

    async fn wait(&self, id: &InstanceId) -> Result<Exit> {
        let mut guard = self.has(Fault::KillsUnawaited).then(|| self.kill_later(id));
        let exit = self.inner.wait(id).await?;
        if let Some(guard) = &mut guard {
            guard.id = None;
        }
        match self.fault {
            Fault::LosesCode => Ok(Exit::code(0)),
            Fault::AnswersOnce if !self.mark(id) => Err(forgotten(id)),
            Fault::ListsEnded => {
                self.mark(id);
                Ok(exit)
            }
            _ => Ok(exit),
        }
    }

    async fn output(&self, id: &InstanceId) -> Result<Output> {
        let mut output = self.inner.output(id).await?;
        if self.has(Fault::LosesLines) && output.lost == 0 && output.lines.len() > 1 {
            output.lines.pop();
        }
        if self.has(Fault::HidesLoss) {
            output.lost = 0;
        }
        Ok(output)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}
