//! The stores obey the laws, and the suite sees every fault.

use std::collections::BTreeSet;
use std::sync::Arc;

use orchestra_saga::conformance::{LAWS, Law, survives};
use orchestra_saga::saboteur::{Fault, Saboteur};
use orchestra_saga::{JournalStore, MemoryStore, SagaStore};

mod memory {
    orchestra_saga::saga_store_suite!(|| async { (orchestra_saga::MemoryStore::default(), ()) });
}

mod journal {
    orchestra_saga::saga_store_suite!(|| async {
        let directory = tempfile::tempdir().expect("a directory");
        let config = orchestra_saga::store::journal::Config::default().segment_bytes(1 << 20);
        let store = orchestra_saga::JournalStore::open_with(directory.path(), config)
            .await
            .expect("opened");
        (store, directory)
    });
}

#[cfg(feature = "sqlite")]
mod sqlite {
    orchestra_saga::saga_store_suite!(|| async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sagas.db");
        let store = orchestra_saga::SqliteStore::open(path)
            .await
            .expect("opened");
        (store, directory)
    });
}

mod encoded {
    orchestra_saga::saga_store_suite!(|| async {
        let store = orchestra_saga::MemoryStore::default();
        let store = orchestra_saga::store::EncodedStore::new(store, crate::encoding::Veil);
        (store, ())
    });
}

#[tokio::test(start_paused = true)]
async fn each_saboteur_fails_exactly_the_law_it_breaks() {
    for (fault, broken) in Fault::ALL {
        let mut failed = Vec::new();
        for law in LAWS {
            let store: Arc<dyn SagaStore> = Arc::new(Saboteur::new(MemoryStore::default(), *fault));
            if law.check(store).await.is_err() {
                failed.push(law.name());
            }
        }
        assert_eq!(failed, [*broken], "{fault:?}");
    }
}

#[test]
fn every_law_has_a_saboteur() {
    let broken: BTreeSet<_> = Fault::ALL.iter().map(|(_, law)| *law).collect();
    let laws: BTreeSet<_> = LAWS.iter().map(Law::name).collect();
    assert_eq!(broken, laws);
}

#[tokio::test]
async fn durable_stores_survive() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = directory.path().join("journal");
    let config = orchestra_saga::store::journal::Config::default().segment_bytes(1 << 20);
    let open = || JournalStore::open_with(&journal, config);
    survives(open).await.expect("the journal");
    #[cfg(feature = "sqlite")]
    {
        let path = directory.path().join("sagas.db");
        let open = || orchestra_saga::SqliteStore::open(&path);
        survives(open).await.expect("SQLite");
    }
    // What is the same store each time forgets nothing.
    let kept = Arc::new(MemoryStore::default());
    let open = async || Ok(Arc::clone(&kept));
    survives(open).await.expect("memory that is kept");
}

#[tokio::test]
async fn a_store_that_forgets_does_not_survive() {
    let seen = survives(async || Ok(MemoryStore::default())).await;
    let seen = seen.expect_err("it forgets").to_string();
    assert!(seen.starts_with("after a restart the log is []"), "{seen}");
    for (fault, wanted) in [
        (Fault::LosesTheStartKey, "the start key has None"),
        (Fault::LosesTimers, "the timers are []"),
        (Fault::ListsOldStatus, "the sagas are"),
        (Fault::IgnoresTheEpoch, "an owner of before the restart"),
        (Fault::IgnoresTheVersion, "a version of before"),
    ] {
        let kept = Arc::new(MemoryStore::default());
        let open = async || Ok(Saboteur::new(Arc::clone(&kept), fault));
        let seen = survives(open).await.expect_err(wanted).to_string();
        assert!(seen.contains(wanted), "{fault:?}: {seen}");
    }
}
