use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::Decision;
use crate::error::{ErrorKind, Result};
use crate::executor::Executor;
use crate::id::SagaId;

/// Whom a participant asks that prepared and has heard nothing since. An [`Executor`] is one; a participant
/// in another process asks one over the network.
///
/// Laws: [`Decision::Commit`] and [`Decision::Abort`] are final, and durable before they are said. None is
/// said only of a saga that no log has.
///
/// ```
/// use orchestra_saga::two_phase::Coordinator;
/// use orchestra_saga::{Executor, MemoryStore, SagaId};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let executor = Executor::builder(MemoryStore::default()).build().await?;
/// let nobody = SagaId::from_bytes([7; 16]);
/// assert_eq!(executor.decided(nobody).await?, None);
/// # Ok::<(), orchestra_saga::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[async_trait]
pub trait Coordinator: fmt::Debug + Send + Sync {
    /// What was decided for the saga; none if nobody knows it.
    async fn decided(&self, saga: SagaId) -> Result<Option<Decision>>;
}

#[async_trait]
impl Coordinator for Executor {
    async fn decided(&self, saga: SagaId) -> Result<Option<Decision>> {
        let decision = self.decision(saga).await?;
        if decision != Decision::Abort {
            return Ok(Some(decision));
        }
        // An executor presumes it of sagas that it does not know.
        match self.status(saga).await {
            Ok(_known) => Ok(Some(decision)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: Coordinator + ?Sized> Coordinator for $pointer<T> {
            async fn decided(&self, saga: SagaId) -> Result<Option<Decision>> {
                (**self).decided(saga).await
            }
        }
    )+};
}

forward!(Arc, Box);
