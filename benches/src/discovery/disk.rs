//! A start with every registry down: from nothing to the first pick by what the cache's file says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use orchestra_core::Monotonic;
use orchestra_discovery::cache::SourceOptions;
use orchestra_discovery::cache::disk::Options;
use orchestra_discovery::resolver::Config;
use orchestra_discovery::{
    Cache, Capabilities, Error, ErrorKind, Follow, PickContext, Resolver, Revision, Scope,
    Snapshot, Source, Watch, follow,
};

use super::{equal, service};
use crate::measure::Session;
use crate::tasks::two_workers;

/// Says this, or refuses.
struct Registry(Option<Snapshot>);

impl Registry {
    fn answer(&self) -> Result<Snapshot, Error> {
        let down = || Error::new(ErrorKind::Unavailable, "refused");
        self.0.clone().ok_or_else(down)
    }
}

#[async_trait]
impl Source for Registry {
    async fn snapshot(&self, _: &Scope) -> Result<Snapshot, Error> {
        self.answer()
    }

    async fn watch(&self, _: &Scope, _: Revision) -> Result<Watch, Error> {
        self.answer()?;
        Err(Error::new(ErrorKind::Unsupported, "no watch"))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

/// The figures are of reading, checking and parsing a file that the system has in memory, as it has after a
/// restart of the process.
pub fn figures(session: &Session) {
    for members in [1_000, 10_000] {
        let path = std::env::temp_dir().join(format!("discovery-start-{}", std::process::id()));
        keep(&path, members);
        let figure = format!("discovery_disk_start_{members}");
        session.percentiles(&figure, || start(&path, members));
        std::fs::remove_file(&path).expect("it was written");
    }
}

fn cache(path: &PathBuf, says: Option<Snapshot>) -> Cache {
    Cache::builder()
        .source(
            "registry",
            Arc::new(Registry(says)),
            SourceOptions::default(),
        )
        .disk(path, Options::default())
        .build()
        .expect("a source")
}

fn keep(path: &PathBuf, members: u32) {
    two_workers().block_on(async {
        let cache = cache(path, Some(equal(members)));
        cache.lookup(&service()).await.expect("members");
        cache.shutdown().await.expect("an end");
    });
}

fn start(path: &PathBuf, members: u32) -> std::time::Duration {
    let begun = Instant::now();
    let runtime = two_workers();
    runtime.block_on(async {
        let resolver = Resolver::new(service(), Config::default());
        let source = Arc::new(cache(path, None));
        let follow = Follow::start(source, resolver.clone(), follow::Config::default());
        follow.ready().await.expect("members");
        resolver
            .choose(&PickContext::new(Monotonic::ZERO, 1))
            .expect("one");
        let took = begun.elapsed();
        assert_eq!(resolver.members().len(), members as usize);
        took
    })
}
