use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Call, Failure, Operation, Step, StepOutcome};
use crate::payload::Payload;

/// Reads a payload as `T`; the reason names the step and what was read.
pub(crate) trait Decode: Sized {
    fn decode(call: &Call, what: &str, payload: &Payload) -> Result<Self, StepOutcome>;
}

impl<T: DeserializeOwned> Decode for T {
    fn decode(call: &Call, what: &str, payload: &Payload) -> Result<Self, StepOutcome> {
        payload.read().map_err(|source| {
            StepOutcome::Rejected(format!(
                "{what} of step {} is not valid: {source}",
                call.step
            ))
        })
    }
}

/// A step as it is run: each call is one future, which holds what it needs.
pub(crate) trait Code: fmt::Debug + Send + Sync {
    fn run(self: Arc<Self>, call: Call) -> BoxFuture<'static, StepOutcome>;
}

/// An implementation of [`Step`].
#[derive(Debug)]
pub(crate) struct Own<S>(pub(crate) S);

impl<S: Step + 'static> Code for Own<S> {
    fn run(self: Arc<Self>, call: Call) -> BoxFuture<'static, StepOutcome> {
        async move {
            let answer = match call.op {
                Operation::Action => self.0.act(&call),
                Operation::Compensation => self.0.compensate(&call),
                Operation::Probe => self.0.probe(&call),
            };
            answer.await
        }
        .boxed()
    }
}

/// A closure as the action of a step.
pub(crate) struct TypedAction<I, T, F> {
    act: F,
    types: PhantomData<fn(I) -> T>,
}

impl<I, T, F> TypedAction<I, T, F> {
    pub(crate) fn new(act: F) -> Self {
        let types = PhantomData;
        Self { act, types }
    }
}

impl<I, T, F> fmt::Debug for TypedAction<I, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<I, T, F, Fut> Code for TypedAction<I, T, F>
where
    I: DeserializeOwned + 'static,
    T: Serialize + 'static,
    F: Fn(Call, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, Failure>> + Send,
{
    fn run(self: Arc<Self>, call: Call) -> BoxFuture<'static, StepOutcome> {
        async move {
            if call.op != Operation::Action {
                return nothing_else(&call);
            }
            let acting = match I::decode(&call, "input", &call.input) {
                Ok(input) => (self.act)(call, input),
                Err(outcome) => return outcome,
            };
            match acting.await {
                Ok(output) => done(&output),
                Err(failure) => failure.into(),
            }
        }
        .boxed()
    }
}

/// The effect happened, so an answer that cannot be written down is not a refusal.
fn done<T: Serialize>(output: &T) -> StepOutcome {
    Payload::of(output).map_or_else(
        |source| StepOutcome::Unknown(format!("output cannot be written: {source}")),
        StepOutcome::Done,
    )
}

/// A closure can be neither asked nor undone by itself.
fn nothing_else(call: &Call) -> StepOutcome {
    match call.op {
        Operation::Probe => StepOutcome::Unknown(format!("step {} cannot be asked", call.step)),
        Operation::Action | Operation::Compensation => {
            StepOutcome::Rejected(format!("step {} has no {}", call.step, call.op))
        }
    }
}

/// A closure as the compensation of a step.
pub(crate) struct TypedCompensation<I, T, F> {
    compensate: F,
    types: PhantomData<fn(I, T)>,
}

impl<I, T, F> TypedCompensation<I, T, F> {
    pub(crate) fn new(compensate: F) -> Self {
        let types = PhantomData;
        Self { compensate, types }
    }
}

impl<I, T, F> fmt::Debug for TypedCompensation<I, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<I, T, F, Fut> Code for TypedCompensation<I, T, F>
where
    I: DeserializeOwned + 'static,
    T: DeserializeOwned + 'static,
    F: Fn(Call, I, Option<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + Send,
{
    fn run(self: Arc<Self>, call: Call) -> BoxFuture<'static, StepOutcome> {
        async move {
            let input = I::decode(&call, "input", &call.input);
            let output = call.output.as_ref();
            let output = output.map(|output| T::decode(&call, "output", output));
            let undoing = match (input, output.transpose()) {
                (Ok(input), Ok(output)) => (self.compensate)(call, input, output),
                (Err(outcome), _) | (_, Err(outcome)) => return outcome,
            };
            match undoing.await {
                Ok(()) => StepOutcome::Done(Payload::default()),
                Err(failure) => failure.into(),
            }
        }
        .boxed()
    }
}

/// A closure that finds out whether a step took effect.
pub(crate) struct TypedProbe<I, T, F> {
    probe: F,
    types: PhantomData<fn(I) -> T>,
}

impl<I, T, F> TypedProbe<I, T, F> {
    pub(crate) fn new(probe: F) -> Self {
        let types = PhantomData;
        Self { probe, types }
    }
}

impl<I, T, F> fmt::Debug for TypedProbe<I, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<I, T, F, Fut> Code for TypedProbe<I, T, F>
where
    I: DeserializeOwned + 'static,
    T: Serialize + 'static,
    F: Fn(Call, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<T>, Failure>> + Send,
{
    fn run(self: Arc<Self>, call: Call) -> BoxFuture<'static, StepOutcome> {
        async move {
            let asking = match I::decode(&call, "input", &call.input) {
                Ok(input) => (self.probe)(call, input),
                // That it cannot be asked does not say that nothing happened.
                Err(_) => return StepOutcome::Unknown("its input cannot be read".to_owned()),
            };
            match asking.await {
                Ok(Some(output)) => done(&output),
                Ok(None) => StepOutcome::Rejected("it had no effect".to_owned()),
                // A probe that is refused has not found anything out.
                Err(Failure::Rejected(reason)) => StepOutcome::Unknown(reason),
                Err(failure) => failure.into(),
            }
        }
        .boxed()
    }
}
