use std::num::NonZeroUsize;
#[cfg(feature = "serde")]
use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "serde")]
use orchestra_discovery::cache::disk;
use orchestra_discovery::cache::{self, SourceOptions};
use orchestra_discovery::{Cache, Registry, Source};

use super::Builder;
use crate::clients::MAX_SERVICES;
use crate::error::Result;

/// The name of the registry among the sources of the cache.
const REGISTRY: &str = "registry";

/// What the cache is made of, if there is to be one.
#[derive(Default)]
pub(crate) struct Parts {
    beside: Vec<Feed>,
    fallbacks: Vec<Feed>,
    config: Option<cache::Config>,
    #[cfg(feature = "serde")]
    file: Option<(PathBuf, disk::Options)>,
}

struct Feed {
    name: Arc<str>,
    source: Arc<dyn Source>,
    options: SourceOptions,
}

impl Parts {
    fn is_wanted(&self) -> bool {
        let is_wanted =
            self.config.is_some() || !self.beside.is_empty() || !self.fallbacks.is_empty();
        #[cfg(feature = "serde")]
        let is_wanted = is_wanted || self.file.is_some();
        is_wanted
    }
}

#[cfg_attr(docsrs, doc(cfg(all(feature = "discovery", feature = "mesh"))))]
impl Builder {
    /// Finds instances in this source too, beside the registry.
    ///
    /// Clients then resolve through a [`Cache`], which merges what the sources say (the registry first, then in
    /// the order of the calls) and survives their failures. The name is shown in events and metrics; one that
    /// is taken fails the build, and `registry` is. For one without leases, such as DNS or a file, the options are
    /// [`SourceOptions::without_leases`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use orchestra::Orchestra;
    /// use orchestra::discovery::{MemoryRegistry, cache::SourceOptions};
    ///
    /// let elsewhere = MemoryRegistry::default();
    /// let orchestra = Orchestra::builder()
    ///     .source("elsewhere", elsewhere, SourceOptions::default())
    ///     .build()
    ///     .await?;
    /// assert!(orchestra.cache().is_some());
    /// orchestra.shutdown(Duration::from_secs(5)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn source(
        mut self,
        name: impl Into<Arc<str>>,
        source: impl Source + 'static,
        options: SourceOptions,
    ) -> Self {
        self.sources.beside.push(Feed::new(name, source, options));
        self
    }

    /// Finds instances in this source if the registry and the other sources have none, and in the fallbacks
    /// one after the other. Clients then resolve through a [`Cache`].
    pub fn fallback_source(
        mut self,
        name: impl Into<Arc<str>>,
        source: impl Source + 'static,
        options: SourceOptions,
    ) -> Self {
        self.sources
            .fallbacks
            .push(Feed::new(name, source, options));
        self
    }

    /// The bounds and times of the [`Cache`] through which clients resolve, be the registry its only source.
    ///
    /// Without this its limits are its own, with room for as many services as can be called. It holds each
    /// service that is called for good, so with less room the clients of the rest find nobody.
    pub fn cache(mut self, config: cache::Config) -> Self {
        self.sources.config = Some(config);
        self
    }

    /// Keeps what the [`Cache`] knows in this file, and starts with what it says: calls are made at once,
    /// with every registry down. Clients then resolve through a cache.
    #[cfg(feature = "serde")]
    #[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
    pub fn cache_file(mut self, path: impl Into<PathBuf>, options: disk::Options) -> Self {
        self.sources.file = Some((path.into(), options));
        self
    }

    /// The cache over the registry and the sources, if any of it was asked for.
    pub(crate) fn open_cache(&mut self, registry: &Arc<dyn Registry>) -> Result<Option<Cache>> {
        let parts = std::mem::take(&mut self.sources);
        if !parts.is_wanted() {
            return Ok(None);
        }
        let registry: Arc<dyn Source> = Arc::<dyn Registry>::clone(registry);
        let mut cache = Cache::builder()
            .clock(Arc::clone(&self.clock))
            .listener(Arc::new(self.discovery.events.clone()))
            .source(REGISTRY, registry, SourceOptions::default())
            // Clients ask once and watch, so there are few of them.
            .tell_hits();
        for feed in parts.beside {
            cache = cache.source(feed.name, feed.source, feed.options);
        }
        for feed in parts.fallbacks {
            cache = cache.fallback(feed.name, feed.source, feed.options);
        }
        #[cfg(feature = "serde")]
        if let Some((path, options)) = parts.file {
            cache = cache.disk(path, options);
        }
        let mut config = parts.config.unwrap_or_else(roomy);
        config.seed = config.seed.or(self.seed);
        Ok(Some(cache.config(config).build()?))
    }
}

impl Feed {
    fn new(
        name: impl Into<Arc<str>>,
        source: impl Source + 'static,
        options: SourceOptions,
    ) -> Self {
        Self {
            name: name.into(),
            source: Arc::new(source),
            options,
        }
    }
}

fn roomy() -> cache::Config {
    let mut config = cache::Config::default();
    if let Some(most) = NonZeroUsize::new(MAX_SERVICES) {
        config.max_services = config.max_services.max(most);
    }
    config
}
