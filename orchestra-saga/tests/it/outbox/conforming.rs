use orchestra_saga::outbox::conformance::{BACKLOG_LAWS, Law, PUBLISHER_LAWS, Published, Written};
use orchestra_saga::outbox::memory::{Outbox, Publisher};
use orchestra_saga::outbox::saboteur::{BacklogFault, BadBacklog, BadPublisher, PublisherFault};

mod memory_publisher {
    orchestra_saga::publisher_suite!(|| async {
        let broker = super::Publisher::default();
        (super::Published::new("orders", broker.clone(), broker), ())
    });
}

mod memory_backlog {
    orchestra_saga::outbox_backlog_suite!(|| async {
        let outbox = super::Outbox::default();
        (super::Written::new(outbox.clone(), outbox), ())
    });
}

#[cfg(feature = "sqlite")]
mod sqlite_backlog {
    use async_trait::async_trait;
    use orchestra_saga::outbox::Message;
    use orchestra_saga::outbox::conformance::Writer;
    use orchestra_saga::outbox::sqlite::Outbox;
    use parking_lot::Mutex;
    use rusqlite::Connection;

    #[derive(Debug)]
    struct Service(Mutex<Connection>);

    #[async_trait]
    impl Writer for Service {
        async fn write(&self, messages: &[Message]) -> orchestra_saga::Result<()> {
            let mut db = self.0.lock();
            let tx = db.transaction().expect("begun");
            Outbox::add(&tx, messages)?;
            tx.commit().expect("committed");
            Ok(())
        }
    }

    orchestra_saga::outbox_backlog_suite!(|| async {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("service.db");
        let db = Connection::open(&path).expect("opened");
        Outbox::install(&db).expect("installed");
        let outbox = Outbox::open(&path).await.expect("opened");
        let service = Service(Mutex::new(db));
        (super::Written::new(outbox, service), directory)
    });
}

/// The laws that a subject breaks.
async fn broken<S>(laws: &[Law<S>], fresh: impl Fn() -> S) -> Vec<&'static str> {
    let mut broken = Vec::new();
    for law in laws {
        if law.check(fresh()).await.is_err() {
            broken.push(law.name());
        }
    }
    broken
}

#[tokio::test]
async fn every_fault_of_a_publisher_breaks_its_law_and_no_other() {
    for (fault, law) in PublisherFault::ALL {
        let found = broken(PUBLISHER_LAWS, || {
            let broker = Publisher::default();
            Published::new("orders", BadPublisher::new(broker.clone(), *fault), broker)
        });
        let found = found.await;
        assert!(found.contains(law), "{fault:?} breaks {found:?}, not {law}");
        // What is lost or stripped is missing everywhere.
        let narrow = !matches!(
            fault,
            PublisherFault::Forgets | PublisherFault::StripsHeaders
        );
        assert!(!narrow || found == [*law], "{fault:?} breaks {found:?}");
    }
}

#[tokio::test]
async fn every_fault_of_a_backlog_breaks_its_law() {
    for (fault, law) in BacklogFault::ALL {
        let found = broken(BACKLOG_LAWS, || {
            let outbox = Outbox::default();
            Written::new(BadBacklog::new(outbox.clone(), *fault), outbox)
        });
        let found = found.await;
        assert!(found.contains(law), "{fault:?} breaks {found:?}, not {law}");
    }
}
