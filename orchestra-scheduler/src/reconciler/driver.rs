use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Listener, Monotonic, ServiceName};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use super::handle::{Core, Shared};
use super::launch::{Launch, Placed, PlacementListener};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, FenceReason};
use crate::reconcile::{Action, Phase, Replica, plan};
use crate::runtime::{Container, ContainerRuntime, ContainerSpec, Exit};
use crate::schedule::Scheduler;

/// What the loop acts through.
pub(super) struct Ports {
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) scheduler: Scheduler,
    pub(super) listener: Arc<dyn Listener<Event>>,
    pub(super) placements: Arc<dyn PlacementListener>,
    pub(super) launch: Arc<dyn Launch>,
}

/// A call of the runtime under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Start,
    Stop,
    Kill,
    Wait,
}

/// What a call of the runtime said.
enum Answer {
    Started(Result<Container>),
    Ended(Result<Exit>),
}

/// The loop.
pub(super) struct Driver {
    shared: Arc<Shared>,
    ports: Ports,
    draws: fastrand::Rng,
    suffixes: fastrand::Rng,
    version: watch::Sender<u64>,
    calls: JoinSet<Answer>,
    pending: HashMap<Id, (InstanceId, Call)>,
}

/// How long an observation that failed waits for the next try.
const WAIT_AGAIN: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        ports: Ports,
        draws: fastrand::Rng,
        version: watch::Sender<u64>,
    ) -> Self {
        Self {
            shared,
            ports,
            draws,
            suffixes: fastrand::Rng::new(),
            version,
            calls: JoinSet::new(),
            pending: HashMap::new(),
        }
    }

    /// Runs until shutdown was asked for and nothing is left.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let (wake, is_done) = self.turn();
            self.report();
            if is_done {
                break;
            }
            tokio::select! {
                () = shared.wake.notified() => {}
                Some(answer) = self.calls.join_next_with_id() => self.take(answer),
                () = sleep_until(wake, shared.clock.now()) => {}
            }
        }
        // What is left observes ends that are known already.
        self.calls.shutdown().await;
    }

    /// Decides and begins what is to be done.
    fn turn(&mut self) -> (Option<Monotonic>, bool) {
        let shared = Arc::clone(&self.shared);
        let mut core = shared.core.lock();
        let now = shared.clock.now();
        core.state.tick(now);
        for action in plan(&core.state, now).0 {
            match action {
                Action::Start { service, ordinal } => self.start(&mut core, &service, ordinal, now),
                Action::Stop { id, grace } => {
                    core.state.ending(&id, now);
                    self.stop(id, grace);
                }
                Action::Kill { id } => {
                    core.state.ending(&id, now);
                    self.kill(id);
                }
            }
        }
        // What was begun has deadlines of its own.
        let (_, wake) = plan(&core.state, now);
        (wake, core.is_ending && core.state.replicas().len() == 0)
    }

    fn start(&mut self, core: &mut Core, service: &ServiceName, at: u32, now: Monotonic) {
        let Some(workload) = core.state.workload(service).cloned() else {
            return;
        };
        let Some(id) = self.fresh_id(core, service, at) else {
            return;
        };
        let draw = self.draws.u64(..);
        let scheduler = &self.ports.scheduler;
        let node = match scheduler.place(&mut core.cluster, &workload, id.clone(), draw) {
            Ok(placement) => placement.node,
            Err(answer) => {
                core.state.unschedulable(at, answer, now);
                return;
            }
        };
        if !core.state.placed(service, at, id.clone(), node, now) {
            core.cluster.release(&id);
            return;
        }
        if let Some(replica) = core.state.replica(&id) {
            self.launch(id, replica);
        }
    }

    /// An id that was never used: services may restart with the same seed and the same directory.
    fn fresh_id(&mut self, core: &Core, service: &ServiceName, ordinal: u32) -> Option<InstanceId> {
        const LONGEST_PREFIX: usize = 200;
        let name = service.as_str();
        let name = name.get(..LONGEST_PREFIX).unwrap_or(name);
        loop {
            let suffix = self.suffixes.u64(..) & 0xffff_ffff_ffff;
            let id = InstanceId::new(format!("{name}-{ordinal}-{suffix:012x}")).ok()?;
            if core.state.replica(&id).is_none() && core.cluster.reservation(&id).is_none() {
                return Some(id);
            }
        }
    }

    fn launch(&mut self, id: InstanceId, replica: &Replica) {
        let placed = placed(&id, replica);
        let template = &replica.workload().template;
        let mut spec = ContainerSpec::from_template(id.clone(), replica.service.clone(), template);
        spec.node = Some(replica.node.clone());
        let (runtime, launch) = (
            Arc::clone(&self.ports.runtime),
            Arc::clone(&self.ports.launch),
        );
        self.call(id, Call::Start, async move {
            let spec = launch.complete(&placed, spec);
            Answer::Started(runtime.start(spec).await)
        });
    }

    fn stop(&mut self, id: InstanceId, grace: Duration) {
        let (runtime, subject) = (Arc::clone(&self.ports.runtime), id.clone());
        self.call(id, Call::Stop, async move {
            Answer::Ended(runtime.stop(&subject, grace).await)
        });
    }

    fn kill(&mut self, id: InstanceId) {
        let (runtime, subject) = (Arc::clone(&self.ports.runtime), id.clone());
        self.call(id, Call::Kill, async move {
            Answer::Ended(runtime.kill(&subject).await)
        });
    }

    fn wait(&mut self, id: InstanceId, delay: Duration) {
        let (runtime, subject) = (Arc::clone(&self.ports.runtime), id.clone());
        self.call(id, Call::Wait, async move {
            tokio::time::sleep(delay).await;
            Answer::Ended(runtime.wait(&subject).await)
        });
    }

    fn call(
        &mut self,
        id: InstanceId,
        call: Call,
        work: impl Future<Output = Answer> + Send + 'static,
    ) {
        let task = self.calls.spawn(work);
        self.pending.insert(task.id(), (id, call));
    }

    fn take(&mut self, answer: Result<(Id, Answer), JoinError>) {
        let task = match &answer {
            Ok((task, _)) => *task,
            Err(error) => error.id(),
        };
        let Some((id, call)) = self.pending.remove(&task) else {
            return;
        };
        match (call, answer) {
            (_, Ok((_, Answer::Started(Ok(container))))) => self.started(&id, container.pid),
            (_, Ok((_, Answer::Started(Err(error))))) => self.start_failed(&id, &error),
            (_, Ok((_, Answer::Ended(result)))) => self.ended(&id, call, result),
            (Call::Start, Err(_)) => self.start_panicked(&id),
            (_, Err(error)) => {
                let context = format!("runtime panicked over container {id}");
                self.ended(
                    &id,
                    call,
                    Err(Error::new(ErrorKind::Io, context).with_source(error)),
                );
            }
        }
    }

    fn started(&mut self, id: &InstanceId, pid: Option<u32>) {
        let shared = Arc::clone(&self.shared);
        let mut core = shared.core.lock();
        core.state.started(id, pid, shared.clock.now());
        let placed = core.state.replica(id).map(|replica| placed(id, replica));
        drop(core);
        self.wait(id.clone(), Duration::ZERO);
        if let Some(placed) = placed {
            self.ports.placements.started(&placed);
        }
    }

    fn start_failed(&mut self, id: &InstanceId, error: &Error) {
        let (now, draw) = (self.shared.clock.now(), self.draws.u64(..));
        let mut core = self.shared.core.lock();
        core.state.start_failed(id, chain(error), now, draw);
        core.cluster.release(id);
        core.state.room_was_made();
    }

    /// Whether the instance runs is not known, so it is fenced.
    fn start_panicked(&mut self, id: &InstanceId) {
        self.started(id, None);
        let now = self.shared.clock.now();
        let mut core = self.shared.core.lock();
        core.state.fence(id, FenceReason::StartTimeout, now);
    }

    fn ended(&mut self, id: &InstanceId, call: Call, result: Result<Exit>) {
        match result {
            Ok(exit) => self.exited(id, Some(exit)),
            Err(error) if error.kind() == ErrorKind::NotFound => self.exited(id, None),
            Err(_) if call == Call::Wait => self.wait(id.clone(), WAIT_AGAIN),
            Err(error) => {
                let phase = if call == Call::Stop {
                    Phase::Stopping
                } else {
                    Phase::Fenced
                };
                let now = self.shared.clock.now();
                let mut core = self.shared.core.lock();
                core.state.ending_failed(id, phase, chain(&error), now);
            }
        }
    }

    fn exited(&mut self, id: &InstanceId, exit: Option<Exit>) {
        let (now, draw) = (self.shared.clock.now(), self.draws.u64(..));
        let mut core = self.shared.core.lock();
        let Some(replica) = core.state.exited(id, exit, now, draw) else {
            return;
        };
        core.cluster.release(id);
        core.state.room_was_made();
        drop(core);
        self.ports.placements.stopped(&placed(id, &replica));
    }

    fn report(&mut self) {
        let events = self.shared.core.lock().state.take_events();
        for event in &events {
            self.ports.listener.on_event(event);
        }
        self.version
            .send_modify(|version| *version = version.wrapping_add(1));
    }
}

fn placed(id: &InstanceId, replica: &Replica) -> Placed {
    Placed {
        instance: id.clone(),
        service: replica.service.clone(),
        ordinal: replica.ordinal,
        node: replica.node.clone(),
        labels: replica.workload().template.labels.clone(),
    }
}

/// An error with its causes, for an event that is read by people.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

async fn sleep_until(moment: Option<Monotonic>, now: Monotonic) {
    match moment {
        Some(moment) => tokio::time::sleep(moment.since(now)).await,
        None => std::future::pending().await,
    }
}
