//! Sources keep the laws of sources, and every law has a saboteur who breaks it and no other.

use std::collections::BTreeSet;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra_discovery::conformance::{SOURCE_LAWS, SourceLaw, SourceSubject};
use orchestra_discovery::registry::memory::Config;
use orchestra_discovery::saboteur::{SourceSabotage, SourceSaboteur};
use orchestra_discovery::source::WatchStream;
use orchestra_discovery::{
    Capabilities, Error, ErrorKind, MemoryRegistry, Revision, Scope, Snapshot, Source, Watch,
    WatchEvent, source_suite,
};

const REMEMBERED: u32 = 16;

/// A source that can be made to fail.
struct Breakable {
    inner: Arc<dyn Source>,
    broken: tokio::sync::watch::Receiver<bool>,
}

fn failure() -> Error {
    Error::new(ErrorKind::Unavailable, "it is broken")
}

impl Breakable {
    async fn unless_broken<T>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        if *self.broken.borrow() {
            return Err(failure());
        }
        call.await
    }
}

#[async_trait]
impl Source for Breakable {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, Error> {
        self.unless_broken(self.inner.snapshot(scope)).await
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch, Error> {
        let inner = self.unless_broken(self.inner.watch(scope, after)).await?;
        let broken = self.broken.clone();
        Ok(Watch::new(BreakableWatch { inner, broken }))
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

struct BreakableWatch {
    inner: Watch,
    broken: tokio::sync::watch::Receiver<bool>,
}

#[async_trait]
impl WatchStream for BreakableWatch {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        let broken = async {
            let _gone = self.broken.wait_for(|broken| *broken).await.is_err();
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        tokio::select! {
            biased;
            () = broken => Err(failure()),
            event = self.inner.next() => event,
        }
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }
}

fn memory() -> SourceSubject {
    let mut config = Config::default();
    config.max_changes = NonZeroUsize::new(REMEMBERED as usize).unwrap();
    let registry = Arc::new(MemoryRegistry::new(config));
    let (broken, seen) = tokio::sync::watch::channel(false);
    let broken = Arc::new(broken);
    let (ttl, lag) = (Duration::from_secs(3_600), Duration::from_millis(2));
    SourceSubject::of_registry(registry, ttl, lag)
        .through(|inner| {
            let broken = seen;
            Arc::new(Breakable { inner, broken })
        })
        .breaks(move |off| {
            broken.send_replace(off);
            std::future::ready(Ok(()))
        })
        .remembers(REMEMBERED)
}

source_suite!(memory_registry, || async { memory() }, start_paused = true);

#[tokio::test(start_paused = true)]
async fn each_saboteur_of_a_source_breaks_exactly_its_law() {
    for &sabotage in SourceSabotage::ALL {
        let mut broken = BTreeSet::new();
        for law in SOURCE_LAWS {
            let subject = memory().through(|inner| Arc::new(SourceSaboteur::new(inner, sabotage)));
            if law.check(&subject).await.is_err() {
                broken.insert(law.name());
            }
        }
        assert_eq!(broken, BTreeSet::from([sabotage.breaks()]), "{sabotage:?}");
    }
}

#[test]
fn each_law_of_a_source_has_a_saboteur() {
    let laws: BTreeSet<_> = SOURCE_LAWS.iter().map(SourceLaw::name).collect();
    let broken: BTreeSet<_> = SourceSabotage::ALL.iter().map(|it| it.breaks()).collect();
    assert_eq!(laws, broken);
}
