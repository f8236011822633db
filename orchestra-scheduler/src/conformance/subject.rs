use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, ServiceName};

use super::Violation;
use crate::runtime::memory::{Behavior, MemoryRuntime};
use crate::runtime::{ContainerRuntime, ContainerSpec, Exit, Line, Stream};
use crate::workload::Command;

/// What a container of the suite does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Script {
    /// Writes `ready`, runs until it is asked to end, and then ends with code 7.
    Serve,
    /// Writes `ready`, and does not end when it is asked to.
    Stubborn,
    /// Ends at once with this code.
    Exit(i32),
    /// Writes `line 0`, `line 1` and so on, this many, and ends with code 0.
    Print(usize),
    /// Cannot be started.
    Missing,
}

impl Script {
    /// The script as a command, for a runtime that can run a POSIX shell.
    pub fn command(self) -> Command {
        let script = match self {
            Self::Serve => {
                "trap 'exit 7' TERM; echo ready; while :; do sleep 60 & wait; done".into()
            }
            Self::Stubborn => "trap '' TERM; echo ready; while :; do sleep 60; done".into(),
            Self::Exit(code) => format!("exit {code}"),
            Self::Print(lines) => {
                format!("i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); done")
            }
            Self::Missing => return Command::new("/no/such/program"),
        };
        Command::new("sh").args(["-c".to_owned(), script])
    }

    fn behavior(self) -> Behavior {
        let ready = || [Line::new(Stream::Out, "ready")];
        let at_once = Duration::ZERO;
        // A killed process is seldom gone at once; a runtime that does not wait for that is found out.
        let behavior = Behavior::new().die_slowly(Duration::from_millis(20));
        match self {
            Self::Serve => behavior.print(ready()).stop_exit(Exit::code(7)),
            Self::Stubborn => behavior.print(ready()).ignore_stop(),
            Self::Exit(code) => behavior.exit_after(at_once, Exit::code(code)),
            Self::Print(count) => {
                let lines = (0..count).map(|n| Line::new(Stream::Out, format!("line {n}")));
                behavior.print(lines).exit_after(at_once, Exit::code(0))
            }
            Self::Missing => behavior.fail_start("no such program"),
        }
    }
}

type MakeSpec = dyn Fn(InstanceId, Script) -> ContainerSpec + Send + Sync;

/// A fresh runtime, and how to ask it for containers.
pub struct Subject {
    runtime: Arc<dyn ContainerRuntime>,
    spec: Box<MakeSpec>,
    kept: Option<Box<dyn Send + Sync>>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subject").field(&self.runtime).finish()
    }
}

impl Subject {
    /// A runtime, and what to tell it so that a container follows a script.
    pub fn new(
        runtime: Arc<dyn ContainerRuntime>,
        spec: impl Fn(InstanceId, Script) -> ContainerSpec + Send + Sync + 'static,
    ) -> Self {
        Self {
            runtime,
            spec: Box::new(spec),
            kept: None,
        }
    }

    /// A runtime that can run a POSIX shell.
    pub fn of_shells(runtime: Arc<dyn ContainerRuntime>) -> Self {
        Self::new(runtime, |id, script| spec(id, script.command()))
    }

    /// A [`MemoryRuntime`], seen through `wrap`.
    pub fn of_memory(wrap: impl FnOnce(MemoryRuntime) -> Arc<dyn ContainerRuntime>) -> Self {
        let runtime = MemoryRuntime::scripted(|spec| {
            let scripted = parse(&spec.command.program);
            scripted.map_or_else(Behavior::new, Script::behavior)
        });
        Self::new(wrap(runtime), |id, script| {
            spec(id, Command::new(format!("{script:?}")))
        })
    }

    /// Keeps something, such as a temporary directory, for as long as the subject.
    #[must_use]
    pub fn keep(mut self, thing: impl Send + Sync + 'static) -> Self {
        self.kept = Some(Box::new(thing));
        self
    }

    pub(super) fn runtime(&self) -> &dyn ContainerRuntime {
        &*self.runtime
    }

    pub(super) async fn start(&self, id: &str, script: Script) -> Result<InstanceId, Violation> {
        let id = name(id)?;
        self.runtime.start((self.spec)(id.clone(), script)).await?;
        Ok(id)
    }

    pub(super) fn spec(&self, id: &InstanceId, script: Script) -> ContainerSpec {
        (self.spec)(id.clone(), script)
    }

    /// Starts a container and returns once it has written `ready`.
    pub(super) async fn serving(&self, id: &str, script: Script) -> Result<InstanceId, Violation> {
        let id = self.start(id, script).await?;
        for _ in 0..1_000 {
            let output = self.runtime.output(&id).await?;
            if output.lines.iter().any(|line| line.text == "ready") {
                return Ok(id);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Violation::new(format!(
            "container {id} never wrote `ready`"
        )))
    }
}

pub(super) fn name(id: &str) -> Result<InstanceId, Violation> {
    InstanceId::new(id).map_err(|error| Violation::new(error.to_string()))
}

fn spec(id: InstanceId, command: Command) -> ContainerSpec {
    #[expect(clippy::expect_used, reason = "the name is written here")]
    let service = ServiceName::new("suite").expect("a valid name");
    ContainerSpec::new(id, service, command)
}

/// The script that a program of a memory runtime is named after.
fn parse(text: &str) -> Option<Script> {
    let argument = |name: &str| {
        text.strip_prefix(name)?
            .strip_prefix('(')?
            .strip_suffix(')')
    };
    match text {
        "Serve" => Some(Script::Serve),
        "Stubborn" => Some(Script::Stubborn),
        "Missing" => Some(Script::Missing),
        _ => None,
    }
    .or_else(|| argument("Exit")?.parse().ok().map(Script::Exit))
    .or_else(|| argument("Print")?.parse().ok().map(Script::Print))
}
