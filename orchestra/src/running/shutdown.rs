use std::time::Duration;

use super::Orchestra;
use crate::error::Result;

impl Orchestra {
    /// Ends everything in the order in which it depends on each other:
    ///
    /// 1. gateways take no new request and finish those under way, for at most `grace`;
    /// 2. sagas issue no new call and make the results of those under way durable; the next start
    ///    continues them;
    /// 3. the scheduler stops every instance, each with its own grace, and sees its end;
    /// 4. leases are no longer watched;
    /// 5. clients close their connections, health checks end, and resolvers stop following the registry; the
    ///    cache, if there is one, writes what its file lacks.
    ///
    /// `grace` bounds the first and the last two. A saga's call under way ends with its attempt's own limit,
    /// and an instance with its own grace; a runtime that never answers is waited for, so whoever must not
    /// wait for ever sets a limit around this.
    ///
    /// An error does not keep the rest from ending; the first is returned. Called again, it finds nothing
    /// left to do. Cancelled, what was not ended yet may be ended by calling it again, except for
    /// gateways and the scheduler, which are aborted.
    pub async fn shutdown(&self, grace: Duration) -> Result<()> {
        let inner = &*self.inner;
        tracing::info!("shutting down");
        #[cfg(feature = "mesh")]
        {
            let gateways = std::mem::take(&mut *inner.gateways.lock());
            for serving in gateways {
                let drained = serving.shutdown(grace).await;
                tracing::info!(?drained, "a gateway ended");
            }
        }
        #[cfg(feature = "saga")]
        if let Some(sagas) = &inner.sagas {
            sagas.shutdown().await;
            tracing::info!("sagas are at rest");
        }
        #[cfg(feature = "scheduler")]
        {
            let reconciler = inner.reconciler.lock().take();
            if let Some(reconciler) = reconciler {
                reconciler.shutdown().await;
                tracing::info!("every instance ended");
            }
        }
        inner.stop.cancel();
        let mut tasks = std::mem::take(&mut *inner.tasks.lock());
        let within = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, within).await.is_err() {
            tracing::warn!("a task of the platform did not end in time and was aborted");
        }
        #[cfg(all(feature = "discovery", feature = "mesh"))]
        inner.clients.shutdown(grace).await?;
        Ok(())
    }
}
