//! A task that is owned by the value that started it.

use std::future::Future;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::{Error, ErrorKind, Result};

/// Aborted when dropped, awaited when stopped.
#[derive(Debug)]
pub(crate) struct Task<T> {
    set: JoinSet<T>,
    stop: watch::Sender<bool>,
}

/// Tells a task to end.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns once the task is to end; a dropped future loses nothing.
    pub(crate) async fn asked(&mut self) {
        // The owner being gone is as good as being asked.
        let _gone = self.0.wait_for(|stop| *stop).await.is_err();
    }
}

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn<F>(body: impl FnOnce(Stop) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let stop = watch::Sender::new(false);
        let mut set = JoinSet::new();
        set.spawn(body(Stop(stop.subscribe())));
        Self { set, stop }
    }

    /// Asks the task to end and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<T> {
        self.stop.send_replace(true);
        match self.set.join_next().await {
            Some(Ok(result)) => Ok(result),
            Some(Err(error)) => {
                Err(Error::new(ErrorKind::Closed, "the task was lost").with_source(error))
            }
            None => Err(Error::new(ErrorKind::Closed, "the task has ended before")),
        }
    }
}
