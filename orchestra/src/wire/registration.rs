//! Leases tell the scheduler who lives: registered is ready, expired is lapsed.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, InstanceId};
use orchestra_discovery::{Change, Registry, RemovalReason, Scope, Snapshot, Status, WatchEvent};
use orchestra_scheduler::Handle;
use orchestra_scheduler::reconcile::Phase;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long an instance that is gone from the registry may take to end, or to register again.
const FAREWELL: Duration = Duration::from_secs(10);

/// Watches all services of a registry on behalf of a scheduler, until it is told to stop.
///
/// While the registry cannot be read, nothing is said: a registry that is away is no reason to kill.
/// An instance that gives its lease back is about to end; if nobody asked it to and it has not ended ten
/// seconds later, it counts as lapsed. So does one that is missing after a gap: it has as long to register
/// again, since a registry that comes back empty is no reason to kill either.
#[derive(Debug)]
pub struct Liveness {
    registered: HashSet<InstanceId>,
    /// Who went from the registry without a lapse, and when; the earliest first.
    leaving: VecDeque<(Instant, InstanceId)>,
    scheduler: Handle,
}

impl Liveness {
    /// Says to `scheduler` what leases mean for its instances.
    pub fn new(scheduler: Handle) -> Self {
        Self {
            registered: HashSet::new(),
            leaving: VecDeque::new(),
            scheduler,
        }
    }

    /// Follows the registry until `stop`. Dropping the future stops it as well.
    pub async fn run(mut self, registry: Arc<dyn Registry>, stop: CancellationToken) {
        let again =
            Backoff::exponential(Duration::from_millis(100), 2.0).cap(Duration::from_secs(2));
        let mut failures = 0;
        while stop
            .run_until_cancelled(self.follow(&*registry, &mut failures))
            .await
            .is_some()
        {
            failures += 1;
            tracing::warn!(
                failures,
                "the registry cannot be watched; nobody is fenced meanwhile"
            );
            let wait = again.delay(failures, Duration::ZERO, u64::MAX);
            if stop
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                break;
            }
        }
    }

    /// Returns when the registry fails.
    async fn follow(&mut self, registry: &dyn Registry, failures: &mut u32) {
        loop {
            let Ok(snapshot) = registry.snapshot(&Scope::All).await else {
                return;
            };
            self.compare(&snapshot);
            *failures = 0;
            let Ok(mut watch) = registry.watch(&Scope::All, snapshot.revision()).await else {
                return;
            };
            loop {
                let next = tokio::select! {
                    next = watch.next() => next,
                    () = farewell(&self.leaving) => {
                        self.see_off();
                        continue;
                    }
                };
                match next {
                    Ok(WatchEvent::Changes { changes, .. }) => {
                        for change in changes {
                            self.take(change);
                        }
                    }
                    Ok(_) => break,
                    Err(_) => return,
                }
            }
        }
    }

    fn compare(&mut self, snapshot: &Snapshot) {
        let listed: HashSet<_> = snapshot.instances().iter().map(|i| i.id.clone()).collect();
        // Their leases may have lapsed, been given back, or been lost with the memory of the registry.
        let gone = self.registered.difference(&listed);
        let gone = gone.map(|id| (Instant::now(), id.clone()));
        self.leaving.extend(gone);
        for instance in snapshot.instances() {
            if instance.status == Status::Ready {
                self.scheduler.ready(&instance.id);
            }
        }
        self.registered = listed;
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Upserted(instance) => {
                if instance.status == Status::Ready {
                    self.scheduler.ready(&instance.id);
                }
                self.registered.insert(instance.id.clone());
            }
            Change::Removed(removal) => match removal.reason {
                // The new holder of the id follows as an upsert.
                RemovalReason::Replaced => {}
                RemovalReason::Expired => {
                    self.registered.remove(&removal.id);
                    self.scheduler.lapsed(&removal.id);
                }
                _ => {
                    self.registered.remove(&removal.id);
                    self.leaving.push_back((Instant::now(), removal.id));
                }
            },
            _ => {}
        }
    }

    /// Those whose time to end is over, unless they registered again or were asked to end meanwhile.
    fn see_off(&mut self) {
        let status = self.scheduler.status();
        let serves = |id: &InstanceId| {
            let mut instances = status.instances();
            instances.any(|(known, seat)| known == id && seat.phase == Phase::Ready)
        };
        while let Some((since, id)) = self.leaving.front()
            && since.elapsed() >= FAREWELL
        {
            if !self.registered.contains(id) && serves(id) {
                self.scheduler.lapsed(id);
            }
            self.leaving.pop_front();
        }
    }
}

/// Returns when the first has had its time to end.
async fn farewell(leaving: &VecDeque<(Instant, InstanceId)>) {
    match leaving.front() {
        Some((since, _)) => tokio::time::sleep_until(*since + FAREWELL).await,
        None => std::future::pending().await,
    }
}
