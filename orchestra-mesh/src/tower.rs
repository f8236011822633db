//! The parts of a client as [`tower_layer::Layer`]s, for services of any origin.
//!
//! From the outside in: [`DeadlineLayer`], [`RetryLayer`], [`BreakerLayer`], so that every attempt asks the
//! breaker and the deadline covers all attempts. Errors are boxed, as in tower's own layers; ours can be
//! had back with `downcast::<orchestra_mesh::Error>()`.

mod breaker;
mod deadline;
mod retry;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use breaker::{BreakerLayer, BreakerService, ByStatus, Classify};
pub use deadline::{DeadlineLayer, DeadlineService};
pub use retry::{RetryLayer, RetryService};

use crate::error::BoxError;

/// The future of the services here.
pub struct LayerFuture<T>(Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>);

impl<T> LayerFuture<T> {
    fn new(future: impl Future<Output = Result<T, BoxError>> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl<T> Future for LayerFuture<T> {
    type Output = Result<T, BoxError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for LayerFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LayerFuture")
    }
}
