//! What is to run: a service, how many replicas of it, and how each is made.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use orchestra_core::{Labels, Selector, ServiceName};

use crate::resources::{Limits, Resources};

/// Environment variables; `Debug` shows the names alone, since values hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(transparent)
)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Sets a variable, replacing its former value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// The value of a variable.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The variables in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A program and its arguments; no shell reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Command {
    /// A path, or a name looked up in `PATH`.
    pub program: String,
    /// The arguments after the program's name.
    #[cfg_attr(feature = "serde", serde(default))]
    pub args: Vec<String>,
}

impl Command {
    /// A program without arguments.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item: Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}

/// When a replica counts as ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Readiness {
    /// When somebody says so, within the start grace; usually because it registered itself.
    #[default]
    Reported,
    /// As soon as it runs.
    Started,
}

/// How each replica of a workload is made. Replicas made from an unequal template are outdated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Template {
    /// What is started.
    pub command: Command,
    /// Its environment; nothing else is inherited but what the runtime documents.
    #[cfg_attr(feature = "serde", serde(default))]
    pub env: Environment,
    /// Its working directory; the runtime's own by default.
    #[cfg_attr(feature = "serde", serde(default))]
    pub directory: Option<PathBuf>,
    /// What is set aside on the node.
    #[cfg_attr(feature = "serde", serde(default))]
    pub resources: Resources,
    /// What the runtime enforces.
    #[cfg_attr(feature = "serde", serde(default))]
    pub limits: Limits,
    /// Carried to whoever registers the replica.
    #[cfg_attr(feature = "serde", serde(default))]
    pub labels: Labels,
    /// Which nodes will do.
    #[cfg_attr(feature = "serde", serde(default))]
    pub node_selector: Selector,
    /// When it counts as ready.
    #[cfg_attr(feature = "serde", serde(default))]
    pub readiness: Readiness,
    /// How long a replica may take to end after it was asked to, before it is killed.
    #[cfg_attr(feature = "serde", serde(default = "default_stop_grace"))]
    pub stop_grace: Duration,
    /// How long a replica may take to become ready, before it counts as failed.
    #[cfg_attr(feature = "serde", serde(default = "default_start_grace"))]
    pub start_grace: Duration,
}

const fn default_stop_grace() -> Duration {
    Duration::from_secs(10)
}

const fn default_start_grace() -> Duration {
    Duration::from_secs(30)
}

impl Template {
    /// A template with no requests, no limits, ten seconds to stop and thirty to start.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            env: Environment::default(),
            directory: None,
            resources: Resources::new(),
            limits: Limits::new(),
            labels: Labels::new(),
            node_selector: Selector::everything(),
            readiness: Readiness::Reported,
            stop_grace: default_stop_grace(),
            start_grace: default_start_grace(),
        }
    }

    /// With this environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.set(name, value);
        self
    }

    /// In this working directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// With this much set aside on the node.
    #[must_use]
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// With these limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// With these labels.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// On nodes with such labels alone.
    #[must_use]
    pub fn node_selector(mut self, selector: Selector) -> Self {
        self.node_selector = selector;
        self
    }

    /// Ready under this condition.
    #[must_use]
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// With this much time to end.
    #[must_use]
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.stop_grace = grace;
        self
    }

    /// With this much time to become ready.
    #[must_use]
    pub fn start_grace(mut self, grace: Duration) -> Self {
        self.start_grace = grace;
        self
    }
}

/// A service and how many replicas of it are to run.
///
/// ```
/// use orchestra_core::ServiceName;
/// use orchestra_scheduler::{Command, Resources, Template, Workload};
///
/// let template = Template::new(Command::new("/usr/bin/payments").arg("--serve"))
///     .env("LOG", "info")
///     .resources(Resources::new().cpu(250));
/// let payments = Workload::new(ServiceName::new("payments")?, template).replicas(2);
/// assert_eq!(payments.replicas, 2);
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Workload {
    /// The service, which names the workload.
    pub name: ServiceName,
    /// How many replicas are to run.
    #[cfg_attr(feature = "serde", serde(default = "one"))]
    pub replicas: u32,
    /// How each is made.
    pub template: Template,
}

#[cfg(feature = "serde")]
const fn one() -> u32 {
    1
}

impl Workload {
    /// One replica of a service.
    pub fn new(name: ServiceName, template: Template) -> Self {
        Self {
            name,
            replicas: 1,
            template,
        }
    }

    /// With this many replicas.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }
}
