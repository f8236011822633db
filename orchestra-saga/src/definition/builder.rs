use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::Backoff;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::children::TypedChildren;
use super::step::{Draft, StepBuilder};
use super::{Body, Definition, Handle, InputCheck, Inputs, Kind, Source, Unwind, check, count};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::Start;
use crate::payload::Payload;
use crate::step::{Call, Failure, Own, Step, StepCall, TypedAction};

/// The longest that a step waits for sagas of its own unless it says otherwise.
const CHILDREN: Duration = Duration::from_secs(300);
/// How slowly parked steps are tried again.
const PARKING: Backoff = Backoff::exponential(Duration::from_secs(30), 2.0)
    .cap(Duration::from_secs(900))
    .jitter(orchestra_core::Jitter::Equal);

/// Collects the steps of a [`Definition`]; mistakes are reported by [`Builder::build`].
#[derive(Debug)]
pub struct Builder {
    id: Arc<str>,
    version: Arc<str>,
    mark: u64,
    config: Config,
    drafts: Vec<Draft>,
    confirmations: Vec<Draft>,
    /// Names of steps that were begun, of whose kind nothing was said yet.
    begun: Vec<String>,
    timeout: Option<Duration>,
    unwind: Unwind,
    parking: Backoff,
    inputs: Vec<InputCheck>,
    pub(super) document: Option<Arc<str>>,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "handles are copied, and tuples of them read best by value"
)]
impl Builder {
    pub(super) fn new(id: &str, version: &str) -> Self {
        let config = Config::default();
        Self {
            id: Arc::from(id),
            version: Arc::from(version),
            mark: mark(id, version),
            drafts: Vec::new(),
            confirmations: Vec::new(),
            begun: Vec::new(),
            timeout: config.execution.timeout,
            unwind: config.compensation.unwind(),
            config,
            parking: PARKING,
            inputs: Vec::new(),
            document: None,
        }
    }

    /// What the saga, and the steps that follow here, go by unless they say otherwise.
    #[must_use]
    pub fn config(mut self, config: &Config) -> Self {
        self.timeout = config.execution.timeout;
        self.unwind = config.compensation.unwind();
        self.config = *config;
        self
    }

    /// The input of the saga, read as `T`. A start with another input is refused.
    pub fn input<T: DeserializeOwned>(&mut self) -> Handle<T> {
        fn check<T: DeserializeOwned>(input: &Payload) -> Result<(), serde_json::Error> {
            input.read::<T>().map(drop)
        }
        self.inputs.push(check::<T>);
        Handle::new(Source::Input, self.mark)
    }

    /// A step that runs a closure.
    pub fn step<I, T, F, Fut>(&mut self, name: &str, inputs: I, act: F) -> StepBuilder<'_, I, T>
    where
        I: Inputs,
        T: Serialize + Send + 'static,
        F: Fn(Call, I::Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let step = TypedAction::<I::Value, T, F>::new(act);
        self.draft(name, &inputs, Body::Code(Arc::new(step)))
    }

    /// A step that runs an implementation of [`Step`], whose output is read as `T`.
    pub fn step_with<T, I: Inputs>(
        &mut self,
        name: &str,
        inputs: I,
        step: impl Step + 'static,
    ) -> StepBuilder<'_, I, T> {
        self.draft(name, &inputs, Body::Code(Arc::new(Own(step))))
    }

    /// A step that sends a request through the executor's [`Caller`](crate::Caller); its answer is read
    /// as `T`.
    pub fn call<T, I: Inputs>(
        &mut self,
        name: &str,
        inputs: I,
        request: StepCall,
    ) -> StepBuilder<'_, I, T> {
        self.draft(name, &inputs, Body::Request(request))
    }

    /// A step that starts other sagas and waits until all have ended: `starts` says which, and may say so
    /// by the step's input. Its output has an object for each, of the outputs of its steps. If one of them
    /// went back, the step is refused.
    ///
    /// Each is started once, under a key of its own; `starts` must answer the same for the same input. With
    /// [`StepBuilder::revocable`] the children are taken back when the saga goes back.
    pub fn children<I, F>(
        &mut self,
        name: &str,
        inputs: I,
        starts: F,
    ) -> StepBuilder<'_, I, Vec<serde_json::Value>>
    where
        I: Inputs,
        F: Fn(&Call, I::Value) -> Result<Vec<Start>, Failure> + Send + Sync + 'static,
    {
        let children = TypedChildren::<I::Value, F>::new(starts);
        let body = Body::Children(Arc::new(children));
        self.draft(name, &inputs, body).timeout(CHILDREN)
    }

    pub(crate) fn body<I: Inputs, T>(
        &mut self,
        name: &str,
        inputs: &I,
        action: Body,
    ) -> StepBuilder<'_, I, T> {
        self.draft(name, inputs, action)
    }

    fn draft<I: Inputs, T>(
        &mut self,
        name: &str,
        inputs: &I,
        action: Body,
    ) -> StepBuilder<'_, I, T> {
        let draft = Draft::new(name, inputs.edges(), action, &self.config);
        self.begun.push(name.to_owned());
        StepBuilder::new(self, draft)
    }

    /// A step that comes after everything that can fail.
    pub(super) fn confirm(&mut self, draft: Draft) {
        self.confirmations.push(draft);
    }

    pub(super) fn defaults(&self) -> &Config {
        &self.config
    }

    /// What its handles are told by.
    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    pub(super) fn push(&mut self, draft: Draft) -> (Source, u64) {
        if self.begun.last().is_some_and(|name| *name == draft.name) {
            self.begun.pop();
        }
        self.drafts.push(draft);
        (Source::Step(count(self.drafts.len() - 1)), self.mark)
    }

    /// The time after which a saga before its point of no return goes back. Five minutes by default, whatever
    /// it waits for: one that waits for people needs more, or `None`, and one that sleeps for as long before a step that
    /// can fail is refused by [`build`](Self::build).
    #[must_use]
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.timeout = limit.into();
        self
    }

    /// The order of compensations among independent branches.
    #[must_use]
    pub fn unwind(mut self, unwind: Unwind) -> Self {
        self.unwind = unwind;
        self
    }

    /// How slowly parked steps are tried again. From 30 s to 15 min by default.
    #[must_use]
    pub fn parking(mut self, backoff: Backoff) -> Self {
        self.parking = backoff;
        self
    }

    /// Checks the rules and freezes the graph.
    pub fn build(self) -> Result<Definition> {
        let definition = self.freeze()?;
        let checked = check::sleeps(&definition).and_then(|()| check::ends(&definition));
        checked.map_err(|reason| invalid(&definition.id, &reason))?;
        Ok(definition)
    }

    /// As [`build`](Self::build), for sagas that began: what would surprise at the start is no error any more.
    pub(super) fn freeze(mut self) -> Result<Definition> {
        self.place_confirmations();
        let fail = |reason: String| invalid(&self.id, &reason);
        for (what, text) in [("id", &self.id), ("version", &self.version)] {
            check::name(what, text).map_err(fail)?;
        }
        if let Some(name) = self.begun.first() {
            return Err(fail(format!(
                "step {name} has no kind: end it with compensate, pivot, retriable or read_only"
            )));
        }
        let steps = check::steps(self.drafts, self.mark).map_err(fail)?;
        check::unwind(self.unwind, &steps).map_err(fail)?;
        Ok(Definition {
            hash: check::hash(&self.id, &self.version, &steps),
            id: self.id,
            version: self.version,
            numbers: check::numbers(&steps),
            pivot: check::pivot(&steps),
            steps,
            timeout: self.timeout,
            unwind: self.unwind,
            parking: self.parking,
            inputs: self.inputs,
            document: self.document,
        })
    }
}

impl Builder {
    /// Confirmations follow everything that can fail.
    fn place_confirmations(&mut self) {
        let numbered = (0..).zip(&self.drafts);
        let fallible = numbered.filter(|(_, draft)| draft.kind != Kind::Retriable);
        let origins: Vec<_> = fallible
            .map(|(number, _)| (Source::Step(number), self.mark))
            .collect();
        for mut draft in std::mem::take(&mut self.confirmations) {
            draft.origins.extend(&origins);
            self.drafts.push(draft);
        }
    }
}

fn invalid(id: &str, reason: &str) -> Error {
    let message = format!("saga definition {id:?} is not valid: {reason}");
    Error::new(ErrorKind::InvalidDefinition, message)
}

/// Tells handles of one definition from those of another.
fn mark(id: &str, version: &str) -> u64 {
    let hash = blake3::hash(format!("{id}\n{version}").as_bytes());
    let first = hash.as_bytes().first_chunk().copied();
    u64::from_be_bytes(first.unwrap_or_default())
}
