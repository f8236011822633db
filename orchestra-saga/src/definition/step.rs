use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::handle::Edges;
use super::{Body, Builder, Handle, Inputs, Kind, Shape, Source};
use crate::config::Config;
use crate::error::Result;
use crate::retry::{Effort, Retry};
use crate::step::{Call, Failure, StepCall, TypedCompensation, TypedProbe};

/// A step before the rules are checked.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    pub(super) origins: Vec<(Source, u64)>,
    pub(super) action: Body,
    pub(super) compensation: Option<Body>,
    pub(super) probe: Option<Body>,
    pub(super) effort: Effort,
    pub(super) undo: Effort,
    pub(super) non_retryable: Vec<Arc<str>>,
    pub(super) heartbeat: Option<Duration>,
    pub(super) save_point: u32,
    pub(super) is_commutative: bool,
    pub(super) confirms: Option<u32>,
}

impl Draft {
    pub(super) fn new(name: &str, edges: Edges, action: Body, config: &Config) -> Self {
        let (forward, back) = (&config.execution, &config.compensation);
        Self {
            name: name.to_owned(),
            kind: Kind::ReadOnly,
            shape: edges.shape,
            origins: edges.origins,
            action,
            compensation: None,
            probe: None,
            effort: effort(forward.retry, forward.step_timeout),
            undo: effort(back.retry, back.timeout),
            non_retryable: Vec::new(),
            heartbeat: None,
            save_point: 0,
            is_commutative: false,
            confirms: None,
        }
    }
}

fn effort(retry: Retry, total: Duration) -> Effort {
    Effort {
        retry,
        attempt: None,
        total,
    }
}

/// A step whose kind is still to be said: [`compensate`](Self::compensate) (or one of its forms),
/// [`pivot`](Self::pivot), [`retriable`](Self::retriable) or [`read_only`](Self::read_only) ends it.
#[derive(Debug)]
#[must_use = "a step belongs to the definition once its kind is said"]
pub struct StepBuilder<'d, I, T> {
    pub(super) builder: &'d mut Builder,
    pub(super) draft: Draft,
    types: PhantomData<fn(I) -> T>,
}

impl<'d, I: Inputs, T> StepBuilder<'d, I, T> {
    pub(super) fn new(builder: &'d mut Builder, draft: Draft) -> Self {
        Self {
            builder,
            draft,
            types: PhantomData,
        }
    }

    /// Runs after that step without reading its output.
    pub fn after<U>(mut self, step: Handle<U>) -> Self {
        self.draft.origins.push((step.source, step.definition));
        self
    }

    /// How often and how fast the action is tried again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.draft.effort.retry = retry;
        self
    }

    /// Errors after which it is not tried again: an answer that it may be, whose reason contains one of these
    /// texts, is taken for a refusal. What may not be given up is tried again all the same.
    pub fn non_retryable<'a>(mut self, reasons: impl IntoIterator<Item = &'a str>) -> Self {
        let reasons = reasons.into_iter().map(Arc::from);
        self.draft.non_retryable.extend(reasons);
        self
    }

    /// The limit of one attempt; by default an even share of [`timeout`](Self::timeout), at least 1 s.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.draft.effort.attempt = Some(limit);
        self
    }

    /// The limit of all attempts and the delays between them. 30 s by default. No attempt starts after
    /// it; a retriable step is parked then.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.draft.effort.total = limit;
        self
    }

    /// How often and how fast the compensation is tried again before the saga is parked. Two retries
    /// by default.
    pub fn compensation_retry(mut self, retry: Retry) -> Self {
        self.draft.undo.retry = retry;
        self
    }

    /// The limit of one attempt of the compensation. 20 s by default.
    pub fn compensation_timeout(mut self, limit: Duration) -> Self {
        self.draft.undo.attempt = Some(limit);
        self
    }

    /// The longest silence of an attempt: without a [`Call::heartbeat`] for so long, its outcome is unknown.
    pub fn heartbeat(mut self, limit: Duration) -> Self {
        self.draft.heartbeat = Some(limit);
        self
    }

    /// If a later step that depends on it is given up, the saga goes back only to here and forward again,
    /// at most so many times before it goes back to the start (Garcia-Molina and Salem's save-point).
    pub fn save_point(mut self, restarts: u32) -> Self {
        self.draft.save_point = restarts;
        self
    }

    /// Its compensation may run in any order with those of other steps, which
    /// [`Unwind::Unordered`](super::Unwind::Unordered) asks of all.
    pub fn commutative(mut self) -> Self {
        self.draft.is_commutative = true;
        self
    }

    /// When nobody knows whether it took effect, the saga asks this closure before it undoes the step:
    /// the output if it did, none if it did not and never will.
    pub fn probe<F, Fut>(mut self, probe: F) -> Self
    where
        T: Serialize + Send + 'static,
        F: Fn(Call, I::Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<T>, Failure>> + Send + 'static,
    {
        let step = TypedProbe::<I::Value, T, F>::new(probe);
        self.draft.probe = Some(Body::Code(Arc::new(step)));
        self
    }

    /// As [`probe`](Self::probe), by this request: an answer of success is the output of the step, a refusal
    /// says that it had no effect.
    pub fn probe_with(mut self, request: StepCall) -> Self {
        self.draft.probe = Some(Body::Request(request));
        self
    }

    /// As [`probe`](Self::probe), by its own [`Step::probe`](crate::Step::probe).
    pub fn probed(mut self) -> Self {
        if let Body::Code(step) = &self.draft.action {
            self.draft.probe = Some(Body::Code(Arc::clone(step)));
        }
        self
    }

    /// Its [`children`](super::Builder::children) are taken back when the saga goes back. Their definitions
    /// must have neither a pivot nor retriable steps.
    pub fn revocable(self) -> Handle<T> {
        let own = match &self.draft.action {
            Body::Children(children) => Some(Body::Children(Arc::clone(children))),
            _ => None,
        };
        self.end(Kind::Compensatable, own)
    }

    /// It can be undone by this closure, which is given the input, and the output if it is known that
    /// the action took effect.
    pub fn compensate<F, Fut>(self, compensate: F) -> Handle<T>
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(Call, I::Value, Option<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let step = TypedCompensation::<I::Value, T, F>::new(compensate);
        self.end(Kind::Compensatable, Some(Body::Code(Arc::new(step))))
    }

    /// It can be undone by this request.
    pub fn compensate_with(self, request: StepCall) -> Handle<T> {
        self.end(Kind::Compensatable, Some(Body::Request(request)))
    }

    /// It can be undone by its own [`Step::compensate`](crate::Step::compensate).
    pub fn compensatable(self) -> Handle<T> {
        let own = match &self.draft.action {
            Body::Code(step) => Some(Body::Code(Arc::clone(step))),
            _ => None,
        };
        self.end(Kind::Compensatable, own)
    }

    /// The point of no return. Its participant must answer a repeated key from its record, since an
    /// unknown outcome is asked for until it is known.
    pub fn pivot(self) -> Handle<T> {
        self.end(Kind::Pivot, None)
    }

    /// Tried until it is done, and never undone. Its participant must not keep a refusal under the key:
    /// what it refuses now it is asked again, slowly.
    pub fn retriable(self) -> Handle<T> {
        self.end(Kind::Retriable, None)
    }

    /// It changes nothing.
    pub fn read_only(self) -> Handle<T> {
        self.end(Kind::ReadOnly, None)
    }

    fn end(self, kind: Kind, compensation: Option<Body>) -> Handle<T> {
        let mut draft = self.draft;
        draft.kind = kind;
        draft.compensation = compensation;
        let (source, definition) = self.builder.push(draft);
        Handle::new(source, definition)
    }
}
