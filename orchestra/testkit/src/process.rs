//! Child processes that can be killed, frozen, listened to and counted.
//!
//! A [`Process`] leads a process group of its own, so a signal reaches what it started too, and the
//! group dies with the value. Its standard input is a pipe held by the value: a child that reads it
//! sees the end of file when the value, or the whole test, is gone.
//!
//! Time limits here are real ones: do not use them in a runtime whose time is paused.

mod output;
mod survey;

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdin, Command};

use output::Transcript;
pub use output::{Line, Stream};
pub use survey::{count_matching, find_matching};

/// A running child and everything that it starts in its process group.
///
/// Dropping it kills the group. The output is kept (the last [`Process::MAX_LINES`] lines).
///
/// ```
/// use std::process::Command;
/// use std::time::Duration;
/// use orchestra_testkit::Process;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let mut command = Command::new("/bin/sh");
/// command.args(["-c", "echo listening on 8080; exec sleep 60"]);
/// let mut service = Process::spawn(command)?;
///
/// let line = service.wait_for_line(|line| line.contains("listening"), Duration::from_secs(5)).await?;
/// assert_eq!(line.text(), "listening on 8080");
/// service.kill()?;
/// assert!(!service.wait().await?.success());
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Pid,
    stdin: Option<ChildStdin>,
    transcript: Transcript,
}

impl Process {
    /// How many lines of output are kept.
    pub const MAX_LINES: usize = output::MAX_LINES;

    /// Starts a command in a process group of its own, with its three standard streams piped.
    ///
    /// Must be called within a tokio runtime that has I/O enabled.
    pub fn spawn(command: impl Into<Command>) -> io::Result<Self> {
        let mut command = command.into();
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| named(&command, &error))?;
        Ok(Self {
            group: group_led_by(&child)?,
            stdin: child.stdin.take(),
            transcript: Transcript::record(child.stdout.take(), child.stderr.take()),
            child,
        })
    }

    /// The id of the process, which is that of its group.
    pub fn pid(&self) -> u32 {
        self.group.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends SIGKILL to the group; nothing can catch it, and a frozen process dies as well.
    ///
    /// Like all signals here it succeeds when nobody is left to receive it.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends SIGTERM to the group: the polite request to end.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends SIGINT to the group, as Ctrl-C in a terminal does.
    pub fn interrupt(&self) -> io::Result<()> {
        self.signal(Signal::INT)
    }

    /// Freezes the group (SIGSTOP): it stays alive, holds its sockets and answers nothing.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen group go on (SIGCONT).
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match kill_process_group(self.group, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the leader of the group to end. Cancelling it changes nothing; asked again, the answer
    /// is the same.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        // tokio closes a pipe to the child here, if it still has it; ours was taken out and stays open.
        self.child.wait().await
    }

    /// Waits for the leader of the group to end, and fails with [`io::ErrorKind::TimedOut`] if it is
    /// still running after `limit`.
    pub async fn wait_within(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => status,
            Err(_elapsed) => Err(self.late("running", limit)),
        }
    }

    /// How the leader of the group ended; `None` while it runs.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Takes the write end of the standard input; dropping it is the end of file for the child.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// The lines printed so far, of both streams as they arrived.
    pub fn lines(&self) -> Vec<Line> {
        self.transcript.lines()
    }

    /// Waits for a line that satisfies `wanted`; lines printed before the call count.
    ///
    /// Fails with [`io::ErrorKind::TimedOut`] after `limit`, and with
    /// [`io::ErrorKind::UnexpectedEof`] as soon as the output ended without such a line. The message
    /// carries the last lines.
    pub async fn wait_for_line(
        &self,
        wanted: impl Fn(&str) -> bool,
        limit: Duration,
    ) -> io::Result<Line> {
        match tokio::time::timeout(limit, self.transcript.find(wanted)).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(self.failure(
                io::ErrorKind::UnexpectedEof,
                "ended its output without the line",
            )),
            Err(_elapsed) => Err(self.late("without the line", limit)),
        }
    }

    fn late(&self, state: &str, limit: Duration) -> io::Error {
        self.failure(
            io::ErrorKind::TimedOut,
            &format!("is still {state} after {limit:?}"),
        )
    }

    fn failure(&self, kind: io::ErrorKind, what: &str) -> io::Error {
        let tail = self.transcript.tail();
        io::Error::new(
            kind,
            format!("process {} {what}; its last lines:\n{tail}", self.pid()),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group outlives a leader that has ended; `kill_on_drop` reaps the leader.
        let _best_effort = self.kill();
    }
}

fn named(command: &Command, error: &io::Error) -> io::Error {
    let program = command.as_std().get_program().display();
    io::Error::new(error.kind(), format!("cannot start {program}: {error}"))
}

fn group_led_by(child: &Child) -> io::Result<Pid> {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    id.and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("the child has no process id"))
}
