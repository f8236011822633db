use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::executor::Start;
use crate::step::{Call, Decode, Failure, StepOutcome};

/// Says which sagas a step consists of.
pub(crate) trait Children: fmt::Debug + Send + Sync {
    fn starts(&self, call: &Call) -> Result<Vec<Start>, StepOutcome>;
}

/// A closure that says it.
pub(super) struct TypedChildren<I, F> {
    starts: F,
    input: PhantomData<fn(I)>,
}

impl<I, F> TypedChildren<I, F> {
    pub(super) fn new(starts: F) -> Self {
        let input = PhantomData;
        Self { starts, input }
    }
}

impl<I, F> fmt::Debug for TypedChildren<I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<I, F> Children for TypedChildren<I, F>
where
    I: DeserializeOwned + Send + 'static,
    F: Fn(&Call, I) -> Result<Vec<Start>, Failure> + Send + Sync,
{
    fn starts(&self, call: &Call) -> Result<Vec<Start>, StepOutcome> {
        let input = I::decode(call, "input", &call.input)?;
        (self.starts)(call, input).map_err(StepOutcome::from)
    }
}
