//! Every backend keeps every law, and every law has a saboteur who breaks it and no other.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use orchestra_discovery::conformance::{LAWS, Law, Subject};
use orchestra_discovery::registry::memory::Config;
use orchestra_discovery::saboteur::{Sabotage, Saboteur};
use orchestra_discovery::{MemoryRegistry, registry_suite};

const REMEMBERED: u32 = 64;

fn registry() -> MemoryRegistry {
    let mut config = Config::default();
    config.max_changes = NonZeroUsize::new(REMEMBERED as usize).unwrap();
    MemoryRegistry::new(config)
}

fn memory() -> Subject {
    let (ttl, slack) = (Duration::from_secs(9), Duration::from_millis(2));
    Subject::new(Arc::new(registry()), ttl, slack).remembers(REMEMBERED)
}

registry_suite!(memory_registry, || async { memory() }, start_paused = true);

async fn broken_by(sabotage: Sabotage) -> BTreeSet<&'static str> {
    let mut broken = BTreeSet::new();
    for law in LAWS {
        let subject = memory().through(|inner| Arc::new(Saboteur::new(inner, sabotage)));
        if law.check(&subject).await.is_err() {
            broken.insert(law.name());
        }
    }
    broken
}

#[tokio::test(start_paused = true)]
async fn each_saboteur_breaks_exactly_its_law() {
    for &sabotage in Sabotage::ALL {
        let broken = broken_by(sabotage).await;
        assert_eq!(broken, BTreeSet::from([sabotage.breaks()]), "{sabotage:?}");
    }
}

#[test]
fn each_law_has_a_saboteur() {
    let laws: BTreeSet<_> = LAWS.iter().map(Law::name).collect();
    let broken: BTreeSet<_> = Sabotage::ALL.iter().map(|it| it.breaks()).collect();
    assert_eq!(laws, broken);
}

#[cfg(feature = "http")]
mod over_http {
    use orchestra_core::Endpoint;
    use orchestra_discovery::HttpRegistry;
    use orchestra_discovery::registry::http::{BearerToken, router};
    use tokio::task::JoinSet;

    use super::*;

    fn token() -> BearerToken {
        BearerToken::new("correct-horse-battery").unwrap()
    }

    fn subject(endpoint: Endpoint, server: JoinSet<()>) -> Subject {
        let registry = Arc::new(HttpRegistry::new(endpoint, Some(token())));
        let (ttl, slack) = (Duration::from_millis(1_500), Duration::from_millis(750));
        Subject::new(registry, ttl, slack)
            .remembers(REMEMBERED)
            .keep(server)
    }

    async fn tcp() -> Subject {
        let app = router(Arc::new(registry()), Some(token()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        subject(address.into(), server)
    }

    fn unix() -> Subject {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let app = router(Arc::new(registry()), Some(token()));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let _directory = directory;
            axum::serve(listener, app).await.unwrap();
        });
        subject(Endpoint::unix(path).unwrap(), server)
    }

    registry_suite!(over_tcp, tcp);
    registry_suite!(over_unix_socket, || async { unix() });
}
