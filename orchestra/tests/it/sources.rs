//! Clients that resolve through a cache over several sources.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra::core::{InstanceId, ServiceName};
use orchestra::discovery::cache::{self, Freshness, SourceOptions};
use orchestra::discovery::error::{Error, ErrorKind, Result};
use orchestra::discovery::{
    Capabilities, Event, Lease, MemoryRegistry, Override, Registration, Registry, Revision, Scope,
    Snapshot, Source, Status, Watch, coalesce,
};
use orchestra::{Builder, Orchestra};
use tokio::time::sleep;

use crate::support::{counter, heard, known, register};

/// Cannot be reached.
#[derive(Debug)]
struct Down;

fn down<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unavailable, "it cannot be reached"))
}

#[async_trait]
impl Source for Down {
    async fn snapshot(&self, _: &Scope) -> Result<Snapshot> {
        down()
    }

    async fn watch(&self, _: &Scope, _: Revision) -> Result<Watch> {
        down()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::full()
    }
}

#[async_trait]
impl Registry for Down {
    async fn register(&self, _: Registration) -> Result<Lease> {
        down()
    }

    async fn renew(&self, _: &Lease) -> Result<()> {
        down()
    }

    async fn set_status(&self, _: &Lease, _: Status) -> Result<()> {
        down()
    }

    async fn deregister(&self, _: &Lease) -> Result<()> {
        down()
    }

    async fn set_override(
        &self,
        _: &ServiceName,
        _: &InstanceId,
        _: Option<Override>,
    ) -> Result<()> {
        down()
    }
}

fn at(service: &str, id: &str, endpoint: &str) -> Registration {
    let (service, id) = (service.parse().unwrap(), id.parse().unwrap());
    let ttl = Duration::from_secs(60);
    Registration::new(service, id, endpoint.parse().unwrap(), ttl)
}

async fn holding(registration: Registration) -> Arc<MemoryRegistry> {
    let registry = Arc::new(MemoryRegistry::default());
    registry.register(registration).await.unwrap();
    registry
}

fn members(orchestra: &Orchestra, service: &str) -> Vec<String> {
    let members = orchestra.resolver(service).unwrap().members();
    let mut ids: Vec<_> = members.iter().map(|it| it.id.to_string()).collect();
    ids.sort();
    ids
}

async fn cached(orchestra: &Orchestra, service: &str) -> Result<cache::Answer> {
    let service = service.parse().unwrap();
    orchestra.cache().unwrap().lookup(&service).await
}

async fn build(builder: Builder) -> Orchestra {
    builder.seed(1).build().await.unwrap()
}

async fn end(orchestra: Orchestra) {
    orchestra.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_sources_there_is_no_cache_and_any_word_of_one_makes_it() {
    let orchestra = build(Orchestra::builder()).await;
    assert!(orchestra.cache().is_none());
    end(orchestra).await;
    let orchestra = build(Orchestra::builder().cache(cache::Config::default())).await;
    let _lease = register(&orchestra, "cart", "cart-1", "10.0.0.1:80".parse().unwrap()).await;
    known(&orchestra, "cart", 1).await;
    let answer = cached(&orchestra, "cart").await.unwrap();
    assert_eq!(answer.freshness, Freshness::Fresh);
    assert_eq!(answer.snapshot.instances().len(), 1);
    end(orchestra).await;
}

#[tokio::test(start_paused = true)]
async fn clients_find_what_the_registry_and_every_source_list() {
    let elsewhere = holding(at("cart", "cart-2", "10.0.0.2:80")).await;
    let options = SourceOptions::default();
    let builder = Orchestra::builder().source("elsewhere", Arc::clone(&elsewhere), options);
    let orchestra = build(builder).await;
    let _lease = register(&orchestra, "cart", "cart-1", "10.0.0.1:80".parse().unwrap()).await;
    known(&orchestra, "cart", 2).await;
    assert_eq!(members(&orchestra, "cart"), ["cart-1", "cart-2"]);
    let later = at("cart", "cart-3", "10.0.0.3:80");
    elsewhere.register(later).await.unwrap();
    known(&orchestra, "cart", 3).await;
    end(orchestra).await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_is_used_where_nobody_else_has_instances() {
    let spare = holding(at("cart", "cart-9", "10.0.0.9:80")).await;
    spare
        .register(at("depot", "depot-9", "10.0.0.9:81"))
        .await
        .unwrap();
    let options = SourceOptions::default();
    let builder = Orchestra::builder().fallback_source("spare", spare, options);
    let orchestra = build(builder).await;
    let _lease = register(&orchestra, "cart", "cart-1", "10.0.0.1:80".parse().unwrap()).await;
    for service in ["cart", "depot"] {
        known(&orchestra, service, 1).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(members(&orchestra, "cart"), ["cart-1"]);
    assert_eq!(members(&orchestra, "depot"), ["depot-9"]);
    end(orchestra).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_told_and_takes_nobody_away() {
    let (listener, events) = heard();
    let builder = Orchestra::builder()
        .source("broken", Down, SourceOptions::default())
        .on_discovery(listener);
    let orchestra = build(builder).await;
    let _lease = register(&orchestra, "cart", "cart-1", "10.0.0.1:80".parse().unwrap()).await;
    known(&orchestra, "cart", 1).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(members(&orchestra, "cart"), ["cart-1"]);
    let told = {
        let events = events.lock();
        let told = events.iter().filter(
            |event| matches!(event, Event::UpstreamFailed { source, .. } if **source == *"broken"),
        );
        told.count() as u64
    };
    let labels = [("service", "cart"), ("source", "broken")];
    let counted = counter(&orchestra, "orchestra_cache_source_failures_total", &labels);
    assert!(told > 1, "it is asked again");
    assert_eq!(counted, told);
    end(orchestra).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_fails_the_build() {
    for names in [["registry", "other"], ["same", "same"]] {
        let mut builder = Orchestra::builder();
        for name in names {
            builder = builder.source(name, Down, SourceOptions::default());
        }
        let refused = builder.build().await.unwrap_err();
        assert_eq!(refused.kind(), orchestra::ErrorKind::Discovery);
        let source = std::error::Error::source(&refused).unwrap().to_string();
        assert!(source.contains("two sources"), "{source}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_caches_own_settings_are_kept() {
    let mut config = cache::Config::default();
    config.coalesce = coalesce::Config::off();
    config.max_services = std::num::NonZeroUsize::MIN;
    let orchestra = build(Orchestra::builder().cache(config)).await;
    let _cart = register(&orchestra, "cart", "cart-1", "10.0.0.1:80".parse().unwrap()).await;
    known(&orchestra, "cart", 1).await;
    let _depot = register(
        &orchestra,
        "depot",
        "depot-1",
        "10.0.0.2:80".parse().unwrap(),
    )
    .await;
    let full = cached(&orchestra, "depot").await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Full);
    end(orchestra).await;
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn a_platform_starts_from_the_caches_file_with_the_registry_down() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache");
    let kept = || Orchestra::builder().cache_file(&file, cache::disk::Options::default());
    let orchestra = build(kept()).await;
    let _lease = register(&orchestra, "cart", "cart-1", "10.0.0.1:80".parse().unwrap()).await;
    known(&orchestra, "cart", 1).await;
    end(orchestra).await;

    let orchestra = build(kept().registry(Down)).await;
    known(&orchestra, "cart", 1).await;
    assert_eq!(members(&orchestra, "cart"), ["cart-1"]);
    let answer = cached(&orchestra, "cart").await.unwrap();
    assert_eq!(answer.freshness, Freshness::LastGood);
    let loaded = [("event", "loaded")];
    assert_eq!(
        counter(&orchestra, "orchestra_cache_file_total", &loaded),
        1
    );
    let stale = [("service", "cart"), ("freshness", "last_good")];
    assert_eq!(
        counter(&orchestra, "orchestra_cache_stale_total", &stale),
        1
    );
    end(orchestra).await;
}
