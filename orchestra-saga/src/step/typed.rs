use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Call, Failure, Step, StepOutcome};
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

#[async_trait]
impl<I, T, F, Fut> Step for TypedAction<I, T, F>
where
    I: DeserializeOwned + Send + 'static,
    T: Serialize + Send + 'static,
    F: Fn(Call, I) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, Failure>> + Send,
{
    async fn act(&self, call: &Call) -> StepOutcome {
        let input = match I::decode(call, "input", &call.input) {
            Ok(input) => input,
            Err(outcome) => return outcome,
        };
        match (self.act)(call.clone(), input).await {
            // The effect happened, so an answer that cannot be written down is not a refusal.
            Ok(output) => Payload::of(&output).map_or_else(
                |source| StepOutcome::Unknown(format!("output cannot be written: {source}")),
                StepOutcome::Done,
            ),
            Err(failure) => failure.into(),
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

#[async_trait]
impl<I, T, F, Fut> Step for TypedCompensation<I, T, F>
where
    I: DeserializeOwned + Send + 'static,
    T: DeserializeOwned + Send + 'static,
    F: Fn(Call, I, Option<T>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), Failure>> + Send,
{
    async fn act(&self, call: &Call) -> StepOutcome {
        StepOutcome::Rejected(format!("step {} is a compensation alone", call.step))
    }

    async fn compensate(&self, call: &Call) -> StepOutcome {
        let input = match I::decode(call, "input", &call.input) {
            Ok(input) => input,
            Err(outcome) => return outcome,
        };
        let output = match &call.output {
            Some(output) => match T::decode(call, "output", output) {
                Ok(output) => Some(output),
                Err(outcome) => return outcome,
            },
            None => None,
        };
        match (self.compensate)(call.clone(), input, output).await {
            Ok(()) => StepOutcome::Done(Payload::default()),
            Err(failure) => failure.into(),
        }
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

#[async_trait]
impl<I, T, F, Fut> Step for TypedProbe<I, T, F>
where
    I: DeserializeOwned + Send + 'static,
    T: Serialize + Send + 'static,
    F: Fn(Call, I) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Option<T>, Failure>> + Send,
{
    async fn act(&self, call: &Call) -> StepOutcome {
        StepOutcome::Rejected(format!("step {} is a probe alone", call.step))
    }

    async fn probe(&self, call: &Call) -> StepOutcome {
        let Ok(input) = I::decode(call, "input", &call.input) else {
            // That it cannot be asked does not say that nothing happened.
            return StepOutcome::Unknown("its input cannot be read".to_owned());
        };
        match (self.probe)(call.clone(), input).await {
            Ok(Some(output)) => Payload::of(&output).map_or_else(
                |source| StepOutcome::Unknown(format!("output cannot be written: {source}")),
                StepOutcome::Done,
            ),
            Ok(None) => StepOutcome::Rejected("it had no effect".to_owned()),
            // A probe that is refused has not found anything out.
            Err(Failure::Rejected(reason)) => StepOutcome::Unknown(reason),
            Err(failure) => failure.into(),
        }
    }
}
