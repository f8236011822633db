//! etcd: the one that `.ci/live` started, and ones of our own that may be killed.

mod outage;
mod server;
mod storage;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use orchestra_core::{Endpoint, InstanceId};
use orchestra_discovery::conformance::Subject;
use orchestra_discovery::registry::etcd::Config;
use orchestra_discovery::{
    EtcdRegistry, Lease, Registration, Registry, Scope, Snapshot, Source, Watch, WatchEvent,
};
use tokio::time::timeout;

use crate::variable;

/// The least ttl that etcd grants with its default election timeout.
const LEAST_TTL: Duration = Duration::from_secs(2);
/// Lapsed leases are looked for every half second; the rest is for a busy machine.
const SLACK: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(20);

fn shared() -> Endpoint {
    variable("ORCH_TEST_ETCD").parse().unwrap()
}

/// Keys of its own on the server that all share.
fn fresh() -> EtcdRegistry {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let prefix = format!("live/{process}/{number}/");
    EtcdRegistry::new(Config::new([shared()]).prefix(prefix)).unwrap()
}

fn subject() -> Subject {
    Subject::new(Arc::new(fresh()), LEAST_TTL, SLACK)
}

orchestra_discovery::registry_suite!(laws, || async { subject() });

fn scope() -> Scope {
    Scope::Service("payments".parse().unwrap())
}

fn asked(id: &str, ttl: Duration) -> Registration {
    let id: InstanceId = id.parse().unwrap();
    let endpoint = "127.0.0.1:80".parse().unwrap();
    Registration::new("payments".parse().unwrap(), id, endpoint, ttl)
}

async fn register(registry: &EtcdRegistry, id: &str) -> Lease {
    let asked = asked(id, Duration::from_secs(60));
    registry.register(asked).await.unwrap()
}

async fn listed(registry: &EtcdRegistry) -> Vec<String> {
    let snapshot = registry.snapshot(&scope()).await.unwrap();
    ids(&snapshot)
}

fn ids(snapshot: &Snapshot) -> Vec<String> {
    let instances = snapshot.instances().iter();
    instances.map(|it| it.id.to_string()).collect()
}

/// What a follower holds.
struct Mirror {
    snapshot: Snapshot,
    watch: Watch,
    errors: u32,
    resyncs: u32,
}

impl Mirror {
    async fn of(registry: &EtcdRegistry) -> Self {
        let snapshot = registry.snapshot(&scope()).await.unwrap();
        let watch = registry.watch(&scope(), snapshot.revision()).await.unwrap();
        Self {
            snapshot,
            watch,
            errors: 0,
            resyncs: 0,
        }
    }

    /// Follows the watch, over its errors, until the members satisfy `wanted`.
    async fn until(&mut self, wanted: impl Fn(&Snapshot) -> bool) {
        let all = async {
            while !wanted(&self.snapshot) && self.resyncs == 0 {
                match self.watch.next().await {
                    Ok(WatchEvent::Changes { revision, changes }) => {
                        self.snapshot.advance(revision, &changes);
                    }
                    Ok(_) => self.resyncs += 1,
                    Err(error) => {
                        assert!(error.is_retryable(), "{error:?}");
                        self.errors += 1;
                    }
                }
            }
        };
        let outcome = timeout(PATIENCE, all).await;
        assert!(outcome.is_ok(), "only {:?} came", ids(&self.snapshot));
    }

    async fn until_listed(&mut self, id: &str) {
        let id: InstanceId = id.parse().unwrap();
        self.until(|members| members.instances().iter().any(|it| it.id == id))
            .await;
    }
}
