//! What is told of a pick together with the sources of the members.

use std::sync::Arc;

use orchestra_discovery::cache::SourceOptions;
use orchestra_discovery::merge::Field;
use orchestra_discovery::{Cache, Follow, Registry, Resolver, follow, resolver};

use crate::cache::{at, over, secs};
use crate::common::{draw, service};
use crate::doubles::{Mood, Moody};

const LONG: std::time::Duration = secs(80_000);

/// Two sources: the registry lists one instance, DNS the same and another.
async fn followed() -> (Moody, Cache, Resolver, Follow) {
    let (registry, dns) = (Moody::new(), Moody::new());
    let listed = at("orders-1", "10.0.0.1:80", LONG);
    registry.registry().register(listed).await.unwrap();
    let resolved = at("10-0-0-1", "10.0.0.1:80", LONG).weight(9);
    dns.registry().register(resolved).await.unwrap();
    let other = at("10-0-0-2", "10.0.0.2:80", LONG).weight(0);
    dns.registry().register(other).await.unwrap();
    let options = SourceOptions::default().without_leases();
    let cache = over(&registry)
        .source("dns", Arc::new(dns.clone()), options)
        .build()
        .unwrap();
    let resolver = Resolver::new(service(), resolver::Config::default());
    let source = Arc::new(cache.clone());
    let follow = Follow::start(source, resolver.clone(), follow::Config::default());
    follow.ready().await.unwrap();
    tokio::time::sleep(secs(1)).await;
    (dns, cache, resolver, follow)
}

#[tokio::test(start_paused = true)]
async fn a_pick_is_explained_with_the_sources_of_each_field() {
    let (dns, cache, resolver, _follow) = followed().await;
    dns.set(Mood::Refusing);
    tokio::time::sleep(secs(1)).await;
    let (choice, why) = resolver.choose_explained(&draw(0));
    assert!(why.sources.is_empty() && why.members[1].provenance.is_empty());
    let why = why.with_sources(&cache);
    assert_eq!(choice.unwrap().instance.id.as_str(), "orders-1");
    assert_eq!(
        why.revision,
        cache.lookup(&service()).await.unwrap().snapshot.revision()
    );
    let [only_dns, merged] = &*why.members else {
        panic!("{why}");
    };
    assert_eq!(&*only_dns.provenance[&Field::Lease], "dns");
    assert_eq!(&*merged.provenance[&Field::Lease], "registry");
    assert_eq!(&*merged.provenance[&Field::Weight], "dns");
    let [registry, dns] = &*why.sources else {
        panic!("{why}");
    };
    assert_eq!((registry.instances, registry.failures), (1, 0));
    assert_eq!((dns.instances, dns.error.as_deref()), (2, Some("refused")));
    let text = why.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with("payments: orders-1 (Balanced) at revision "),
        "{text}"
    );
    assert!(
        lines[1].starts_with("  10-0-0-2: of weight zero, ") && lines[1].ends_with(", from dns")
    );
    assert!(
        lines[2].starts_with("  orders-1: picked, weight 9, "),
        "{text}"
    );
    assert!(
        lines[2].ends_with(", from registry, weight from dns"),
        "{text}"
    );
    assert_eq!(lines[3], "  source registry: 1 instances, fresh");
    assert!(
        lines[4].starts_with("  source dns: 2 instances, StaleWhileRevalidate, ")
            && lines[4].ends_with(" times in a row: refused"),
        "{text}"
    );
    assert_eq!(lines.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_does_not_hold_the_service_adds_nothing() {
    let (_, cache, resolver, _follow) = followed().await;
    let other = over(&Moody::new()).build().unwrap();
    let (_, why) = resolver.choose_explained(&draw(0));
    assert_eq!(why.clone().with_sources(&other), why);
    assert_ne!(why.clone().with_sources(&cache), why);
    assert_eq!(other.services(), 0, "to ask is not to use");
}
