//! From a registration to a watcher, within the process.

use std::time::{Duration, Instant};

use orchestra_discovery::{MemoryRegistry, Registration, Registry, Scope, Source, WatchEvent};
use tokio::sync::mpsc;

use super::{address, service};
use crate::measure::Session;
use crate::tasks::two_workers;

/// A registry with a thousand other instances, one watcher, one who registers at a time.
pub fn figures(session: &Session) {
    let runtime = two_workers();
    let registry = MemoryRegistry::default();
    let (seen, mut seen_at) = mpsc::unbounded_channel();
    runtime.block_on(async {
        for number in 0..1_000 {
            registry.register(asked(number)).await.expect("room");
        }
        let scope = Scope::Service(service());
        let members = registry.snapshot(&scope).await.expect("members");
        let watch = registry.watch(&scope, members.revision()).await;
        let mut watch = watch.expect("a watch");
        tokio::spawn(async move {
            while let Ok(WatchEvent::Changes { .. }) = watch.next().await {
                if seen.send(Instant::now()).is_err() {
                    break;
                }
            }
        });
    });
    session.percentiles("discovery_register_to_watcher", || {
        runtime.block_on(async {
            let begun = Instant::now();
            let lease = registry.register(asked(1_000)).await.expect("room");
            let seen = seen_at.recv().await.expect("the watcher lives");
            registry.deregister(&lease).await.expect("it is there");
            seen_at.recv().await.expect("the watcher lives");
            seen - begun
        })
    });
}

fn asked(number: u32) -> Registration {
    let id = format!("payments-{number}").parse().expect("an id");
    let endpoint = address(number).parse().expect("an endpoint");
    Registration::new(service(), id, endpoint, Duration::from_secs(3_600))
}
