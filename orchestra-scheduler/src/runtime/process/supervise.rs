//! Follows one child from its start to its end.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::InstanceId;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process, test_kill_process_group};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Inner;
use super::child::{self, Born};
use super::output::{Ring, Sink};
use super::procfs;
use super::slots::{Claim, Group, Slot};
use crate::error::{Error, Result};
use crate::runtime::{Container, ContainerSpec, Exit, Stream};

/// How long output may still come after the end: descendants that left the group may hold the pipes.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long killed members of the group may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(2);

/// Starts a child and leaves a task behind that follows it.
pub(super) async fn start(claim: Claim, spec: ContainerSpec) -> Result<Container> {
    let inner = Arc::clone(&claim.inner);
    let id = spec.instance.clone();
    let service = spec.service.clone();
    let born = {
        let inner = Arc::clone(&inner);
        tokio::task::spawn_blocking(move || child::bear(&inner, &spec))
    };
    let born = born
        .await
        .map_err(|error| Error::io(format!("start of {id} was cut short"), error))??;
    let container = Container::new(id.clone(), service).pid(born.child.id());
    let output = Arc::new(Mutex::new(Ring::new(inner.output_lines)));
    let (exit, seen) = watch::channel(None);
    let slot = Slot {
        container: container.clone(),
        group: Arc::clone(&born.group),
        output: Arc::clone(&output),
        exit: seen,
    };
    claim.fill(slot);
    let vigil = Vigil {
        inner: Arc::clone(&inner),
        id,
        born,
        output,
    };
    inner.tasks.spawn(vigil.keep(exit));
    Ok(container)
}

struct Vigil {
    inner: Arc<Inner>,
    id: InstanceId,
    born: Born,
    output: Arc<Mutex<Ring>>,
}

impl Vigil {
    async fn keep(self, exit: watch::Sender<Option<Exit>>) {
        let Self {
            inner,
            id,
            born,
            output,
        } = self;
        let Born {
            mut child,
            group,
            pidfd,
            lifeline,
            out,
            err,
            leaf,
            record,
            last: _last,
        } = born;
        let mut streams = JoinSet::new();
        for (stream, pipe) in [(Stream::Out, out), (Stream::Err, err)] {
            let sink = Sink {
                instance: id.clone(),
                stream,
                ring: Arc::clone(&output),
                listener: Arc::clone(&inner.listener),
            };
            drain(&mut streams, sink, pipe);
        }
        ended(&inner, &group, pidfd).await;
        let number = child.id();
        group.finish();
        let status = child.wait();
        // The lifeline was held until here: it says that the platform lives.
        drop(lifeline);
        await_empty(number).await;
        // Before the cgroup goes, and with it the count.
        let was_starved = leaf.out_of_memory_kills() > 0;
        remove_leaf(&leaf).await;
        let drained = async { while streams.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WORDS, drained).await.is_err() {
            streams.shutdown().await;
        }
        if let Err(error) = std::fs::remove_file(&record) {
            tracing::warn!(%error, path = %record.display(), "record of an ended child not removed");
        }
        inner.slots.lock().ended(id);
        exit.send_replace(Some(verdict(status, &group, was_starved)));
    }
}

fn drain(streams: &mut JoinSet<()>, sink: Sink, pipe: OwnedFd) {
    match Receiver::from_owned_fd(pipe) {
        Ok(pipe) => {
            streams.spawn(sink.drain(pipe));
        }
        Err(error) => tracing::warn!(%error, "output of a child is not readable"),
    }
}

/// Returns once the leader is a zombie.
async fn ended(inner: &Inner, group: &Group, pidfd: OwnedFd) {
    let observed = match observe(pidfd) {
        Ok(pidfd) => pidfd,
        Err(error) => {
            // It cannot be followed, so it cannot be let run.
            tracing::error!(%error, "a child cannot be observed and is killed");
            return group.force();
        }
    };
    let closing = async {
        inner.closing.cancelled().await;
        group.force();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = observed.readable() => {}
        () = closing => {}
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe and asks for what an OwnedFd guarantees: it stays the same open file"
)]
fn observe(pidfd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// Returns once no member of a killed group is left. The number may be reused meanwhile, which does no
/// harm: nothing is sent to it.
async fn await_empty(number: u32) {
    let Some(leader) = i32::try_from(number).ok().and_then(Pid::from_raw) else {
        return;
    };
    let mut waited = Duration::ZERO;
    while test_kill_process_group(leader).is_ok() && waited < PATIENCE {
        // Zombies count as members, and where nobody adopts orphans they stay for ever.
        if !procfs::has_living_member(number) {
            return;
        }
        tokio::time::sleep(STEP).await;
        waited += STEP;
    }
}

/// Kills what left the group but not the cgroup, and removes the cgroup.
async fn remove_leaf(leaf: &super::cgroup::Leaf) {
    let mut waited = Duration::ZERO;
    while !leaf.remove() && waited < PATIENCE {
        for process in leaf.processes() {
            if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
                let _gone = kill_process(process, Signal::KILL);
            }
        }
        tokio::time::sleep(STEP).await;
        waited += STEP;
    }
}

fn verdict(status: std::io::Result<ExitStatus>, group: &Group, was_starved: bool) -> Exit {
    const KILL: i32 = 9;
    let exit = match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => Exit::code(code),
        Ok((None, Some(signal))) => Exit::signal(signal),
        // Somebody else reaped it, which the kernel lets a parent do alone.
        Ok((None, None)) | Err(_) => Exit::signal(KILL),
    };
    if group.was_forced() && exit.exit_signal() == Some(KILL) {
        exit.forced()
    } else if was_starved && !exit.is_success() {
        // A shell reports the death of its child as a code.
        exit.out_of_memory()
    } else {
        exit
    }
}
