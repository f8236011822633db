use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::{Shape, Source};

/// Stands for a value of type `T` that a saga will have: its input, or the output of a step.
pub struct Handle<T> {
    pub(super) source: Source,
    pub(super) definition: u64,
    value: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    pub(super) fn new(source: Source, definition: u64) -> Self {
        Self {
            source,
            definition,
            value: PhantomData,
        }
    }

    fn origin(self) -> (Source, u64) {
        (self.source, self.definition)
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.source).finish()
    }
}

/// The inputs of a step: nothing `()`, one handle, or a tuple of two to six.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no input of a step",
    label = "neither `()`, nor a handle, nor a tuple of two to six handles",
    note = "handles are what `Builder::input` and earlier steps return; their values are read by `serde::de::DeserializeOwned`",
    note = "what is known before the saga begins is captured by the step, and more than six handles are put together by a step between"
)]
pub trait Inputs {
    /// What the step receives.
    type Value: DeserializeOwned + Send + 'static;

    /// Where the parts of the value come from.
    fn edges(&self) -> Edges;
}

/// Where the parts of a step's input come from. Only handles make them.
#[derive(Debug, Clone)]
pub struct Edges {
    pub(super) shape: Shape,
    pub(super) origins: Vec<(Source, u64)>,
}

impl Inputs for () {
    type Value = ();

    fn edges(&self) -> Edges {
        Edges {
            shape: Shape::Nothing,
            origins: Vec::new(),
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> Inputs for Handle<T> {
    type Value = T;

    fn edges(&self) -> Edges {
        Edges {
            shape: Shape::One(self.source),
            origins: vec![self.origin()],
        }
    }
}

macro_rules! tuple {
    ($($name:ident $index:tt),+) => {
        impl<$($name: DeserializeOwned + Send + 'static),+> Inputs for ($(Handle<$name>,)+) {
            type Value = ($($name,)+);

            fn edges(&self) -> Edges {
                Edges {
                    shape: Shape::Tuple(vec![$(self.$index.source),+]),
                    origins: vec![$(self.$index.origin()),+],
                }
            }
        }
    };
}

tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
