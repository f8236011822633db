//! Keeping a [`Resolver`] up to date with a [`Source`].
//!
//! A snapshot, then a watch from its revision; a new snapshot when the watch says
//! [`Resync`](WatchEvent::Resync) or anything fails. While the source fails, the members known last stay: a
//! source that cannot be asked is no reason to stop calling those who were there a moment ago.

use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, Listener};
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::resolver::Resolver;
use crate::source::{Scope, Source, WatchEvent};
use crate::task::{Stop, Task};

/// How a [`Follow`] goes about it.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Backoff;
/// use orchestra_discovery::follow::Config;
///
/// let mut config = Config::default()
///     .backoff(Backoff::exponential(Duration::from_millis(50), 2.0).cap(Duration::from_secs(2)))
///     .seed(7);
/// config.timeout = Duration::from_secs(1);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The wait after a failure.
    pub backoff: Backoff,
    /// How long a snapshot may take.
    pub timeout: Duration,
    /// The seed of the jitter; from the system's entropy when absent.
    pub seed: Option<u64>,
    events: Events,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backoff: Backoff::exponential(Duration::from_millis(100), 2.0)
                .cap(Duration::from_secs(5)),
            timeout: Duration::from_secs(5),
            seed: None,
            events: Events::default(),
        }
    }
}

impl Config {
    /// Waits like this after a failure.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Draws the jitter from this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Tells this listener.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.events = Events::new(listener);
        self
    }
}

/// Feeds a resolver until it is shut down or dropped.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_discovery::{Follow, MemoryRegistry, Resolver, follow, resolver};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source = Arc::new(MemoryRegistry::default());
/// let payments = Resolver::new("payments".parse()?, resolver::Config::default());
/// let follow = Follow::start(source, payments.clone(), follow::Config::default());
/// follow.ready().await?;
/// assert!(payments.members().is_empty());
/// follow.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Follow {
    ready: watch::Receiver<bool>,
    task: Task<()>,
}

impl Follow {
    /// Begins at once, on the tokio runtime of the caller.
    pub fn start(source: Arc<dyn Source>, resolver: Resolver, config: Config) -> Self {
        let (sender, ready) = watch::channel(false);
        let rng = config
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let driver = Driver {
            scope: Scope::Service(resolver.service().clone()),
            source,
            resolver,
            config,
            rng,
            ready: sender,
            failures: 0,
            barren: 0,
        };
        let task = Task::spawn(|stop| driver.run(stop));
        Self { ready, task }
    }

    /// Waits until the resolver has had its first members, be they none: for as long as the source fails.
    ///
    /// The future borrows nothing; [`Closed`](ErrorKind::Closed) if the follower ends before.
    pub fn ready(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let mut ready = self.ready.clone();
        async move {
            match ready.wait_for(|ready| *ready).await {
                Ok(_) => Ok(()),
                Err(error) => {
                    Err(Error::new(ErrorKind::Closed, "the follower has ended").with_source(error))
                }
            }
        }
    }

    /// Stops; the resolver keeps its members.
    pub async fn shutdown(self) -> Result<()> {
        self.task.stop().await
    }
}

struct Driver {
    scope: Scope,
    source: Arc<dyn Source>,
    resolver: Resolver,
    config: Config,
    rng: fastrand::Rng,
    ready: watch::Sender<bool>,
    /// Failures since the last snapshot.
    failures: u32,
    /// Snapshots since the last change: many of them, and the watch is not worth much.
    barren: u32,
}

impl Driver {
    async fn run(mut self, mut stop: Stop) {
        // Reading leaves no trace, so it may be dropped anywhere.
        tokio::select! {
            biased;
            () = stop.asked() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        loop {
            match self.once().await {
                Ok(()) => self.resynced().await,
                Err(error) => self.failed(&error).await,
            }
        }
    }

    /// From a snapshot until the watch wants another one.
    async fn once(&mut self) -> Result<()> {
        let snapshot = self.source.snapshot(&self.scope);
        let members = match tokio::time::timeout(self.config.timeout, snapshot).await {
            Ok(snapshot) => snapshot?,
            Err(elapsed) => {
                let message = format!("no snapshot of {} in time", self.scope);
                return Err(Error::new(ErrorKind::Timeout, message).with_source(elapsed));
            }
        };
        self.resolver.apply(&members);
        self.answered();
        let mut watch = self.source.watch(&self.scope, members.revision()).await?;
        loop {
            match watch.next().await? {
                WatchEvent::Resync => return Ok(()),
                WatchEvent::Changes { revision, changes } => {
                    self.resolver.advance(revision, &changes);
                    self.barren = 0;
                }
            }
        }
    }

    fn answered(&mut self) {
        self.ready.send_replace(true);
        self.barren = self.barren.saturating_add(1);
        if std::mem::take(&mut self.failures) > 0 {
            self.config.events.emit(&Event::SourceRecovered {
                service: self.resolver.service().clone(),
            });
        }
    }

    async fn failed(&mut self, error: &Error) {
        self.failures = self.failures.saturating_add(1);
        let service = self.resolver.service();
        tracing::warn!(%service, %error, failures = self.failures, "source failed");
        self.config.events.emit(&Event::SourceFailed {
            service: service.clone(),
            kind: error.kind(),
            message: error.to_string(),
            failures: self.failures,
        });
        let asked = error.class().retry_after().unwrap_or_default();
        let wait = self.delay(self.failures.max(self.barren)).max(asked);
        tokio::time::sleep(wait).await;
    }

    /// A source that says nothing but `Resync` must not be asked in a tight loop.
    async fn resynced(&mut self) {
        if self.barren > 1 {
            tokio::time::sleep(self.delay(self.barren - 1)).await;
        }
    }

    fn delay(&mut self, retry: u32) -> Duration {
        let draw = self.rng.u64(..);
        self.config.backoff.delay(retry, Duration::ZERO, draw)
    }
}
