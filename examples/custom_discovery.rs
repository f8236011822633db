//! A source, a balancer and a probe of your own in one file: instances are whatever a list in memory says, the
//! probe dislikes even ports, and the balancer takes whoever has the fewest calls in flight.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestra::core::{Clock, Endpoint, Outcome, TokioClock};
use orchestra::discovery::source::WatchStream;
use orchestra::discovery::{
    Balancer, Candidates, Capabilities, Change, Error, ErrorKind, Follow, HealthCheck, Incarnation,
    Instance, PickContext, Probe, Removal, RemovalReason, Resolver, Result, Revision, Scope,
    Snapshot, Source, Verdict, Watch, WatchEvent, follow, health, priority, resolver,
};
use tokio::sync::watch;

/// A list that is replaced as a whole. It remembers nothing but the present one: a watch from before it is
/// told to take a new snapshot.
#[derive(Clone)]
struct List(watch::Sender<Snapshot>);

impl List {
    fn new() -> Self {
        let nobody = Snapshot::new(Scope::All, Revision::default(), Vec::new());
        Self(watch::Sender::new(nobody))
    }

    fn set(&self, mut members: Vec<Instance>) {
        self.0.send_modify(|list| {
            let revision = Revision::new(list.revision().as_u64() + 1);
            for member in &mut members {
                // Who stays keeps its incarnation; who is new has a greater one than all before.
                let new = Incarnation::new(revision.as_u64());
                member.incarnation = find(list, member).map_or(new, |held| held.incarnation);
            }
            let members = members.into_iter().map(Arc::new).collect();
            *list = Snapshot::new(Scope::All, revision, members);
        });
    }
}

fn find<'a>(list: &'a Snapshot, wanted: &Instance) -> Option<&'a Arc<Instance>> {
    let mut members = list.instances().iter();
    members.find(|held| (&held.service, &held.id) == (&wanted.service, &wanted.id))
}

fn within(list: &Snapshot, scope: &Scope) -> Snapshot {
    let members = list.instances().to_vec();
    Snapshot::new(scope.clone(), list.revision(), members)
}

#[async_trait]
impl Source for List {
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot> {
        Ok(within(&self.0.borrow(), scope))
    }

    async fn watch(&self, scope: &Scope, after: Revision) -> Result<Watch> {
        let mut list = self.0.subscribe();
        let told = within(&list.borrow_and_update(), scope);
        let is_known = told.revision() == after;
        Ok(Watch::new(ListWatch {
            list,
            told,
            is_known,
        }))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().all_services()
    }
}

struct ListWatch {
    list: watch::Receiver<Snapshot>,
    /// What the reader knows, if it knew the list as it was when the watch began.
    told: Snapshot,
    is_known: bool,
}

#[async_trait]
impl WatchStream for ListWatch {
    async fn next(&mut self) -> Result<WatchEvent> {
        if !self.is_known {
            return Ok(WatchEvent::Resync);
        }
        loop {
            let changed = self.list.changed().await;
            changed.map_err(|gone| {
                Error::new(ErrorKind::Closed, "the list is gone").with_source(gone)
            })?;
            let present = within(&self.list.borrow_and_update(), self.told.scope());
            let changes = difference(&self.told, &present);
            self.told = present;
            if !changes.is_empty() {
                let revision = self.told.revision();
                return Ok(WatchEvent::Changes { revision, changes });
            }
        }
    }

    fn revision(&self) -> Revision {
        self.told.revision()
    }
}

fn difference(before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    let old = before.instances().iter();
    let gone = old.filter(|old| find(after, old).is_none()).map(|old| {
        Change::Removed(Removal {
            service: old.service.clone(),
            id: old.id.clone(),
            incarnation: old.incarnation,
            reason: RemovalReason::Deregistered,
        })
    });
    let new = after.instances().iter();
    let other = new.filter(|new| find(before, new) != Some(new));
    gone.chain(other.cloned().map(Change::Upserted)).collect()
}

#[derive(Debug)]
struct Idlest;

impl Balancer for Idlest {
    fn choose(&self, candidates: &Candidates<'_>, _: &PickContext<'_>) -> Option<usize> {
        let open = (0..candidates.len()).filter(|&index| candidates.is_open(index));
        open.min_by_key(|&index| candidates.in_flight(index))
    }
}

struct OddPorts;

#[async_trait]
impl Probe for OddPorts {
    async fn probe(&self, instance: &Instance) -> Verdict {
        match &instance.endpoint {
            Endpoint::Tcp(address) if address.port() % 2 == 1 => Verdict::Pass,
            other => Verdict::Critical(format!("{other} has no odd port")),
        }
    }
}

fn cart(id: &str, endpoint: &str) -> anyhow::Result<Instance> {
    let (service, id) = ("cart".parse()?, id.parse()?);
    let endpoint = endpoint.parse()?;
    Ok(Instance::new(service, id, Incarnation::default(), endpoint))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let list = List::new();
    list.set(vec![
        cart("cart-1", "127.0.0.1:8081")?,
        cart("cart-2", "127.0.0.1:8082")?,
    ]);

    // Not even when most are sick does a sick one get calls.
    let mut calm = priority::Config::default();
    calm.panic_threshold = 0;
    let config = resolver::Config::default().balancer(Arc::new(Idlest));
    let config = config.require_check().priorities(calm);
    let resolver = Resolver::new("cart".parse()?, config);
    let follow = Follow::start(
        Arc::new(list.clone()),
        resolver.clone(),
        follow::Config::default(),
    );
    let every = health::Config::default().interval(Duration::from_millis(100));
    let check = HealthCheck::start(Arc::new(OddPorts), resolver.clone(), every);
    follow.ready().await?;

    let clock = TokioClock::new();
    let pick = || resolver.pick(&PickContext::new(clock.now(), fastrand::u64(..)));
    // Nobody is called before its first probe has ended, within some 100 milliseconds.
    while pick().is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let call = pick()?;
    println!("{} of {}", call.instance().id, resolver.members().len());
    assert_eq!(call.instance().id.as_str(), "cart-1");

    list.set(vec![
        cart("cart-1", "127.0.0.1:8081")?,
        cart("cart-3", "127.0.0.1:8083")?,
    ]);
    // The first call is still in flight, so the next one goes to the other, once it is there and well.
    let other = loop {
        let other = pick()?;
        if other.instance().id != call.instance().id {
            break other;
        }
        other.settle(Outcome::Neutral, clock.now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    println!("and {}", other.instance().id);
    assert_eq!(other.instance().id.as_str(), "cart-3");
    call.settle(Outcome::Success, clock.now());
    other.settle(Outcome::Success, clock.now());

    check.shutdown().await?;
    follow.shutdown().await?;
    Ok(())
}

/// The laws of a source, one test each.
#[cfg(test)]
mod tests {
    use orchestra::discovery::conformance::{Expresses, SourceSubject};

    use super::*;

    async fn fresh() -> SourceSubject {
        let list = List::new();
        let edited = list.clone();
        let edit = move |members| {
            edited.set(members);
            std::future::ready(Ok(()))
        };
        SourceSubject::new(Arc::new(list), Duration::from_millis(5), edit)
            .expresses(Expresses::full())
    }

    orchestra::discovery::source_suite!(list, fresh, start_paused = true);
}
