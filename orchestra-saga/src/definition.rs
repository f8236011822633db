//! Definitions: the graph of steps that a saga runs through.
//!
//! A step names the [`Handle`]s of earlier steps as its inputs, and those are the edges: reading the
//! output of a step that is not an ancestor cannot be written. Steps whose ancestors are done run
//! concurrently. Each step has one of four [`Kind`]s, and [`Builder::build`] checks their order
//! (Richardson, "Microservices Patterns", chapter 4): compensatable steps come before the pivot, the
//! point of no return, and retriable steps after everything that can still fail. A definition without
//! a pivot has its point of no return when all steps that are not retriable are done.

mod builder;
mod check;
mod children;
mod confirm;
mod document;
mod handle;
mod step;
mod waiting;

pub use builder::Builder;
pub(crate) use children::Children;
#[cfg(feature = "postgres")]
pub(crate) use confirm::CONFIRM;
pub use handle::{Edges, Handle, Inputs};
pub use step::StepBuilder;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::id::StepName;
use crate::payload::Payload;
use crate::retry::Effort;
use crate::step::{Code, Operation, StepCall};
use crate::store::Blueprint;

/// So many steps are looked through for a name before it is searched for.
const SHORT: usize = 8;

/// What happens to a step when the saga goes back, and whether it may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// It can be undone.
    Compensatable,
    /// The point of no return: once it is done, the saga goes forward only. At most one.
    Pivot,
    /// Tried until it is done, never undone; after everything that can still fail.
    Retriable,
    /// It changes nothing, so there is nothing to undo.
    ReadOnly,
}

/// The order of compensations among branches; dependants always come before what they depend on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unwind {
    /// Independent branches at the same time. A linear saga goes back strictly in reverse.
    #[default]
    Parallel,
    /// One after the other, in the reverse order of definition.
    Sequential,
    /// All at the same time. Every compensatable step must be
    /// [`commutative`](StepBuilder::commutative).
    Unordered,
    /// The saga never goes back: a step that fails is parked, tried again slowly and shown, and cannot
    /// be cancelled (forward recovery alone).
    Never,
}

/// The checked, immutable graph of a saga.
///
/// ```
/// use orchestra_saga::{Call, Definition, Failure};
///
/// let mut d = Definition::builder("greeting", "1");
/// let name = d.input::<String>();
/// let text = d
///     .step("compose", name, |_: Call, name: String| async move { Ok(format!("hello {name}")) })
///     .read_only();
/// d.step("send", (name, text), |_: Call, (to, text): (String, String)| async move {
///     if to.is_empty() {
///         return Err(Failure::rejected("nobody to greet"));
///     }
///     Ok(text.len())
/// })
/// .pivot();
/// let greeting = d.build()?;
/// assert_eq!(greeting.steps().count(), 2);
/// # Ok::<(), orchestra_saga::Error>(())
/// ```
#[derive(Clone)]
pub struct Definition {
    pub(crate) id: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) hash: Arc<str>,
    pub(crate) steps: Vec<Spec>,
    /// The numbers of the steps, in the order of their names.
    pub(crate) numbers: Box<[u32]>,
    pub(crate) pivot: Option<u32>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) unwind: Unwind,
    pub(crate) parking: Backoff,
    pub(crate) inputs: Vec<InputCheck>,
    /// What it was read from, if it was.
    pub(crate) document: Option<Arc<str>>,
}

/// Says why a value is not the input that a handle promised.
pub(crate) type InputCheck = fn(&Payload) -> Result<(), serde_json::Error>;

/// One step of a definition.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: StepName,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    pub(crate) parents: Vec<u32>,
    pub(crate) children: Vec<u32>,
    pub(crate) action: Body,
    pub(crate) compensation: Option<Body>,
    pub(crate) probe: Option<Body>,
    pub(crate) effort: Effort,
    pub(crate) undo: Effort,
    /// Reasons after which the action is not tried again.
    pub(crate) non_retryable: Vec<Arc<str>>,
    /// The longest silence of an attempt.
    pub(crate) heartbeat: Option<Duration>,
    /// How often the saga may go back to it and forward again.
    pub(crate) save_point: u32,
    /// Its compensation may run in any order.
    pub(crate) is_commutative: bool,
    /// The step that it makes final.
    pub(crate) confirms: Option<u32>,
}

impl Spec {
    /// Everything that it runs.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = (Operation, &Body)> {
        let bodies = [
            (Operation::Action, Some(&self.action)),
            (Operation::Compensation, self.compensation.as_ref()),
            (Operation::Probe, self.probe.as_ref()),
        ];
        bodies
            .into_iter()
            .filter_map(|(op, body)| Some((op, body?)))
    }

    /// Whether the saga may have to go back because of it.
    pub(crate) fn is_fallible(&self) -> bool {
        self.kind != Kind::Retriable
            && !matches!(self.action, Body::Timer(_) | Body::Signal(_, None))
    }
}

/// What is run.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Code(Arc<dyn Code>),
    Request(StepCall),
    /// Waits that long.
    Timer(Duration),
    /// Waits for a signal of this name.
    Signal(Arc<str>, Option<Duration>),
    /// Runs sagas of its own.
    Children(Arc<dyn Children>),
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Input,
    Step(u32),
}

/// How the sources make up the input of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    Nothing,
    One(Source),
    Tuple(Vec<Source>),
    /// An object with a member for each.
    Named(Vec<(Arc<str>, Source)>),
}

#[cfg(feature = "test-util")]
impl Shape {
    pub(crate) fn sources(&self) -> Vec<Source> {
        match self {
            Self::Nothing => Vec::new(),
            Self::One(source) => vec![*source],
            Self::Tuple(sources) => sources.clone(),
            Self::Named(sources) => sources.iter().map(|(_, source)| *source).collect(),
        }
    }
}

/// A number of steps: a definition has no more than ten thousand.
pub(crate) fn count(steps: usize) -> u32 {
    u32::try_from(steps).unwrap_or(u32::MAX)
}

impl Definition {
    /// The most steps of a definition.
    pub const MAX_STEPS: usize = 10_000;

    /// Begins a definition; a change of its graph is a new version.
    pub fn builder(id: impl AsRef<str>, version: impl AsRef<str>) -> Builder {
        Builder::new(id.as_ref(), version.as_ref())
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A BLAKE3 hash of names, kinds, edges and requests, in hex. Retries and timeouts are not part of
    /// it: they may change while sagas run.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The steps in the order of definition, each with its kind.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = (&StepName, Kind)> {
        self.steps.iter().map(|step| (&step.name, step.kind))
    }

    /// The services that its declarative steps call, each once, in the order of their names.
    pub fn services(&self) -> BTreeSet<&ServiceName> {
        let requests = self.steps.iter().flat_map(Spec::bodies);
        let services = requests.filter_map(|(_, body)| match body {
            Body::Request(request) => Some(request.service()),
            _ => None,
        });
        services.collect()
    }

    /// Whether `input` has the type that the handles of [`Builder::input`] promise.
    pub fn check_input(&self, input: &Payload) -> Result<()> {
        for check in &self.inputs {
            check(input).map_err(|source| {
                let message = format!(
                    "input of saga definition {} is not valid: {source}",
                    self.id
                );
                Error::new(ErrorKind::InvalidInput, message).caused_by(source)
            })?;
        }
        Ok(())
    }

    /// The definition as a store keeps it: so that a saga in flight goes on by the one that it began with,
    /// if that was read from a document; otherwise its graph, for people to see.
    pub fn blueprint(&self) -> Blueprint {
        let document = match self.document.as_deref().map(Payload::parse) {
            Some(Ok(document)) => document,
            _ => self.graph().into(),
        };
        Blueprint::new(Arc::clone(&self.hash), document)
    }

    /// The definition that a store kept, if it was read from a document.
    pub(crate) fn of_blueprint(blueprint: &Blueprint, config: &Config) -> Result<Self> {
        let definition = Self::kept(blueprint.document.as_str(), config)?;
        if definition.hash == blueprint.hash {
            return Ok(definition);
        }
        let message = format!(
            "saga definition {} has another hash than its own",
            definition.id
        );
        Err(Error::new(ErrorKind::Corrupt, message))
    }

    fn graph(&self) -> Value {
        let name = |&number: &u32| self.spec(number).name.as_str();
        let step = |spec: &Spec| {
            json!({
                "name": spec.name,
                "kind": spec.kind,
                "follows": spec.parents.iter().map(name).collect::<Vec<_>>(),
            })
        };
        json!({
            "id": &*self.id,
            "version": &*self.version,
            "graph": self.steps.iter().map(step).collect::<Vec<_>>(),
        })
    }

    /// Whether a completed saga can still be taken back: no step of it is final.
    pub(crate) fn is_reversible(&self) -> bool {
        let mut steps = self.steps.iter();
        self.unwind != Unwind::Never
            && steps.all(|spec| matches!(spec.kind, Kind::Compensatable | Kind::ReadOnly))
    }

    /// Whether a step is a request, for which an executor needs a caller.
    pub(crate) fn has_requests(&self) -> bool {
        let mut bodies = self.steps.iter().flat_map(Spec::bodies);
        bodies.any(|(_, body)| matches!(body, Body::Request(_)))
    }

    pub(crate) fn index_of(&self, step: &StepName) -> Option<u32> {
        // Most names are those of the definition itself, and most definitions are short.
        let mut first = (0..).zip(self.steps.iter().take(SHORT));
        if let Some((number, _)) = first.find(|(_, spec)| spec.name.is(step)) {
            return Some(number);
        }
        let name = |number: &u32| self.spec(*number).name.cmp(step);
        let found = self.numbers.binary_search_by(name).ok()?;
        self.numbers.get(found).copied()
    }

    /// All steps that depend on this one.
    pub(crate) fn descendants(&self, step: u32) -> HashSet<u32> {
        let mut found = HashSet::new();
        let mut open = vec![step];
        while let Some(next) = open.pop() {
            let new = self
                .spec(next)
                .children
                .iter()
                .filter(|&&child| found.insert(child));
            open.extend(new);
        }
        found
    }

    /// The step of a number that this definition gave out.
    #[expect(clippy::indexing_slicing, reason = "numbers are made with the steps")]
    pub(crate) fn spec(&self, step: u32) -> &Spec {
        &self.steps[step as usize]
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("hash", &self.hash)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}
