//! Ways out: metrics for a scraper, spans for an exporter.

mod delivery;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;
mod memory;
pub mod prometheus;

pub use delivery::{Delivery, Options};
pub use memory::MemoryExporter;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Error, FinishedSpan};

/// Takes finished spans somewhere else, a batch at a time.
///
/// Laws: 1. `Ok` means that every span of the batch was taken; 2. the order of the spans, within a batch and
/// from batch to batch, is kept; 3. a batch that is sent again after an error, a timeout or a success is
/// taken once: trace id and span id tell a span; 4. after `shutdown`, `export` is refused with the kind
/// [`Closed`](crate::ErrorKind::Closed); 5. `shutdown` may be called again.
///
/// Dropping the future of `export` may leave a part of the batch taken; by law 3 the caller sends it again.
/// Calls do not overlap.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use async_trait::async_trait;
/// use orchestra_observe::{Error, Exporter, FinishedSpan};
///
/// #[derive(Debug, Default)]
/// struct Lines {
///     closed: AtomicBool,
/// }
///
/// #[async_trait]
/// impl Exporter for Lines {
///     async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error> {
///         if self.closed.load(Ordering::Relaxed) {
///             return Err(Error::closed("lines"));
///         }
///         for span in batch {
///             println!("{} took {:?}", span.name, span.duration);
///         }
///         Ok(())
///     }
///
///     async fn shutdown(&self) -> Result<(), Error> {
///         self.closed.store(true, Ordering::Relaxed);
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Exporter: fmt::Debug + Send + Sync {
    /// Takes the spans, oldest first.
    async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error>;

    /// Finishes what is under way and takes nothing more.
    async fn shutdown(&self) -> Result<(), Error>;
}

#[async_trait]
impl<E: Exporter + ?Sized> Exporter for Arc<E> {
    async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error> {
        (**self).export(batch).await
    }

    async fn shutdown(&self) -> Result<(), Error> {
        (**self).shutdown().await
    }
}

#[async_trait]
impl<E: Exporter + ?Sized> Exporter for Box<E> {
    async fn export(&self, batch: &[Arc<FinishedSpan>]) -> Result<(), Error> {
        (**self).export(batch).await
    }

    async fn shutdown(&self) -> Result<(), Error> {
        (**self).shutdown().await
    }
}
