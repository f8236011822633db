use std::collections::HashSet;
use std::fmt;
#[cfg(feature = "serde")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Clock, Listener, TokioClock};
use parking_lot::Mutex;

use super::config::{Config, SourceOptions};
#[cfg(feature = "serde")]
use super::disk::{self, Disk};
use super::shared::{Feed, Shared, State};
use super::table::{Table, Upstream};
use super::{Cache, keeper};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::source::Source;
use crate::task::Task;

/// Puts a [`Cache`] together.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use orchestra_discovery::cache::{Config, SourceOptions};
/// use orchestra_discovery::{Cache, MemoryRegistry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (near, far) = (MemoryRegistry::default(), MemoryRegistry::default());
/// let mut config = Config::default();
/// config.refresh = Duration::from_secs(30);
/// let cache = Cache::builder()
///     .source("near", Arc::new(near), SourceOptions::default())
///     // Asked only while nobody is known nearby.
///     .fallback("far", Arc::new(far), SourceOptions::default().deadline(Duration::from_secs(3)))
///     .config(config)
///     .build()?;
/// cache.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Builder {
    feeds: Vec<Feed>,
    config: Config,
    clock: Option<Arc<dyn Clock>>,
    events: Events,
    hits: bool,
    #[cfg(feature = "serde")]
    disk: Option<(PathBuf, disk::Options)>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("feeds", &self.feeds)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            feeds: Vec::new(),
            config: Config::default(),
            clock: None,
            events: Events::default(),
            hits: false,
            #[cfg(feature = "serde")]
            disk: None,
        }
    }

    /// Asks this source too; those named before it have precedence.
    pub fn source(
        self,
        name: impl Into<Arc<str>>,
        source: Arc<dyn Source>,
        options: SourceOptions,
    ) -> Self {
        self.feed(name.into(), source, 0, options)
    }

    /// Asks this source if all before it have confirmed that they have no members, or have nothing to serve.
    /// Each fallback is a tier of its own.
    pub fn fallback(
        self,
        name: impl Into<Arc<str>>,
        source: Arc<dyn Source>,
        options: SourceOptions,
    ) -> Self {
        let tiers = self.feeds.iter().map(|feed| feed.tier);
        let tier = tiers.max().unwrap_or(0) + 1;
        self.feed(name.into(), source, tier, options)
    }

    fn feed(
        mut self,
        name: Arc<str>,
        source: Arc<dyn Source>,
        tier: usize,
        options: SourceOptions,
    ) -> Self {
        self.feeds.push(Feed {
            name,
            source,
            tier,
            options,
        });
        self
    }

    /// With these bounds and times.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Reads this clock; it must run as tokio's does.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Tells this listener, in order and under the lock of the cache.
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.events = Events::new(listener);
        self
    }

    /// Tells [`Event::CacheHit`] too, with each answer that is given at once.
    pub fn tell_hits(mut self) -> Self {
        self.hits = true;
        self
    }

    /// Keeps what is known in this file, and starts with what it says.
    #[cfg(feature = "serde")]
    #[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
    pub fn disk(mut self, path: impl Into<PathBuf>, options: disk::Options) -> Self {
        self.disk = Some((path.into(), options));
        self
    }

    /// Reads the file and begins, on the tokio runtime of the caller; sources are asked on first use.
    ///
    /// It fails if there is no source, or if two have the same name. A file that cannot be used is no failure
    /// but an event.
    pub fn build(mut self) -> Result<Cache> {
        self.check()?;
        // Sources are in the order of their tiers from here on.
        self.feeds.sort_by_key(|feed| feed.tier);
        #[cfg(feature = "serde")]
        let disk = self
            .disk
            .map(|(path, options)| Disk::open(path, options, &self.config, &self.events));
        let kept: Option<()> = None;
        #[cfg(feature = "serde")]
        let kept = kept.or_else(|| disk.is_some().then_some(()));
        if kept.is_none() {
            self.config.limits.last_good = Duration::ZERO;
        }
        let upstreams = self.feeds.iter().map(|feed| {
            let leases = feed.options.leases;
            Upstream::new(Arc::clone(&feed.name), feed.tier, leases, &self.config)
        });
        let table = Table::new(self.config.clone(), upstreams.collect());
        let seed = self.config.seed;
        let rng = seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let shared = Arc::new(Shared {
            feeds: self.feeds,
            config: self.config,
            clock: self.clock.unwrap_or_else(|| Arc::new(TokioClock::new())),
            events: self.events,
            hits: self.hits,
            state: Mutex::new(State::new(table, rng)),
            #[cfg(feature = "serde")]
            disk,
        });
        let kept = Arc::clone(&shared);
        let keeper = Task::spawn(|stop| keeper::run(kept, stop));
        Ok(Cache::new(shared, keeper))
    }

    fn check(&self) -> Result<()> {
        let invalid = |message| Err(Error::new(ErrorKind::Invalid, message));
        if self.feeds.is_empty() {
            return invalid("a cache without sources".to_owned());
        }
        let mut names = HashSet::new();
        match self.feeds.iter().find(|feed| !names.insert(&feed.name)) {
            Some(feed) => invalid(format!("two sources of a cache are named {}", feed.name)),
            None => Ok(()),
        }
    }
}
