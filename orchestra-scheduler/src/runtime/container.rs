use std::fmt;
use std::path::PathBuf;

use orchestra_core::{InstanceId, NodeId, ServiceName};

use crate::resources::Limits;
use crate::workload::{Command, Environment, Template};

/// All that a runtime is told of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerSpec {
    /// Its id, used once.
    pub instance: InstanceId,
    /// The service it is a replica of.
    pub service: ServiceName,
    /// The node it was put on, for a runtime of many nodes.
    pub node: Option<NodeId>,
    /// What is started.
    pub command: Command,
    /// Its environment.
    pub env: Environment,
    /// Its working directory; the runtime's own if `None`.
    pub directory: Option<PathBuf>,
    /// What it may use at most.
    pub limits: Limits,
}

impl ContainerSpec {
    /// A container with an empty environment and no limits.
    pub fn new(instance: InstanceId, service: ServiceName, command: Command) -> Self {
        Self {
            instance,
            service,
            node: None,
            command,
            env: Environment::default(),
            directory: None,
            limits: Limits::new(),
        }
    }

    /// A container made from a template.
    pub fn from_template(instance: InstanceId, service: ServiceName, template: &Template) -> Self {
        Self {
            env: template.env.clone(),
            directory: template.directory.clone(),
            limits: template.limits,
            ..Self::new(instance, service, template.command.clone())
        }
    }

    /// With this environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.set(name, value);
        self
    }

    /// With these limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// In this working directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// Its id.
    pub instance: InstanceId,
    /// The service it is a replica of.
    pub service: ServiceName,
    /// Its process on this machine, if it is one.
    pub pid: Option<u32>,
}

impl Container {
    /// A container that is not a process of this machine.
    pub fn new(instance: InstanceId, service: ServiceName) -> Self {
        Self {
            instance,
            service,
            pid: None,
        }
    }

    /// With its process.
    #[must_use]
    pub fn pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }
}

/// How a container ended.
///
/// ```
/// use orchestra_scheduler::runtime::Exit;
///
/// assert!(Exit::code(0).is_success());
/// assert_eq!(Exit::signal(9).forced().to_string(), "signal 9, killed by the runtime");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exit {
    status: Status,
    forced: bool,
    out_of_memory: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Status {
    Code(i32),
    Signal(i32),
}

impl Exit {
    const fn new(status: Status) -> Self {
        Self {
            status,
            forced: false,
            out_of_memory: false,
        }
    }

    /// It ended with a code.
    pub const fn code(code: i32) -> Self {
        Self::new(Status::Code(code))
    }

    /// A signal ended it.
    pub const fn signal(signal: i32) -> Self {
        Self::new(Status::Signal(signal))
    }

    /// The runtime killed it.
    #[must_use]
    pub const fn forced(mut self) -> Self {
        self.forced = true;
        self
    }

    /// It used more memory than its limit.
    #[must_use]
    pub const fn out_of_memory(mut self) -> Self {
        self.out_of_memory = true;
        self
    }

    /// The code it ended with, unless a signal ended it.
    pub const fn exit_code(&self) -> Option<i32> {
        match self.status {
            Status::Code(code) => Some(code),
            Status::Signal(_) => None,
        }
    }

    /// The signal that ended it.
    pub const fn exit_signal(&self) -> Option<i32> {
        match self.status {
            Status::Signal(signal) => Some(signal),
            Status::Code(_) => None,
        }
    }

    /// Whether it ended with code zero.
    pub fn is_success(&self) -> bool {
        self.exit_code() == Some(0)
    }

    /// Whether the runtime killed it, by `kill` or because the grace of `stop` was over.
    pub const fn is_forced(&self) -> bool {
        self.forced
    }

    /// Whether it used more memory than its limit.
    pub const fn is_out_of_memory(&self) -> bool {
        self.out_of_memory
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Status::Code(code) => write!(f, "code {code}")?,
            Status::Signal(signal) => write!(f, "signal {signal}")?,
        }
        if self.out_of_memory {
            f.write_str(", out of memory")?;
        }
        if self.forced {
            f.write_str(", killed by the runtime")?;
        }
        Ok(())
    }
}

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line that a container wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// Where it was written.
    pub stream: Stream,
    /// The line without its end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl Line {
    /// A line of a stream.
    pub fn new(stream: Stream, text: impl Into<String>) -> Self {
        Self {
            stream,
            text: text.into(),
        }
    }
}

/// The newest lines that a container wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// The lines, oldest first.
    pub lines: Vec<Line>,
    /// How many older lines are gone.
    pub lost: u64,
}

impl Output {
    /// Lines, and how many older ones are gone.
    pub fn new(lines: Vec<Line>, lost: u64) -> Self {
        Self { lines, lost }
    }
}

/// Whether a limit is more than a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Enforcement {
    /// The limit holds.
    Enforced,
    /// The limit is ignored.
    Unenforced,
}

/// What a runtime can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whether CPU limits hold.
    pub cpu_limit: Enforcement,
    /// Whether memory limits hold.
    pub memory_limit: Enforcement,
    /// How many lines of output are kept for each container.
    pub output_lines: usize,
}

impl Capabilities {
    /// No limit holds; this many lines of output are kept.
    pub const fn new(output_lines: usize) -> Self {
        Self {
            cpu_limit: Enforcement::Unenforced,
            memory_limit: Enforcement::Unenforced,
            output_lines,
        }
    }
}
