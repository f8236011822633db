//! The questions that lead to the members of one service.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::ServiceName;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::answer::{self, Answer, Kind, Located, Record, Srv};
use super::ttl::Bounds;
use super::{Family, Records};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::Instance;
use crate::source::Revision;
use crate::source::poll::{Read, Reading};

/// The most targets whose addresses are asked for at the same time.
const MAX_QUESTIONS: usize = 16;

/// Who answers questions.
pub(super) trait Ask: Send + Sync + 'static {
    /// What there is of a name, an absolute one; a dropped future leaves no trace.
    fn ask(&self, name: &str, kind: Kind) -> impl Future<Output = Result<Answer>> + Send;
}

/// How to find the members of any service.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) records: Records,
    pub(super) family: Family,
    pub(super) bounds: Bounds,
    pub(super) deadline: Duration,
    pub(super) max_members: usize,
}

/// Finds the members of one service.
pub(super) struct Lookup<A> {
    pub(super) service: ServiceName,
    pub(super) name: String,
    pub(super) plan: Arc<Plan>,
    pub(super) asker: Arc<A>,
    /// Shared by all services of a source.
    pub(super) revision: Arc<AtomicU64>,
    pub(super) rng: Mutex<fastrand::Rng>,
}

/// What was found, and how long that holds.
struct Found<T> {
    found: Vec<T>,
    fresh: Duration,
}

impl<A: Ask> Lookup<A> {
    async fn members(&self) -> Result<Found<Instance>> {
        match self.plan.records {
            Records::Addresses { port } => {
                let addresses = addresses(&*self.asker, &self.plan, &self.name).await?;
                Ok(Found {
                    found: answer::at_port(&self.service, &addresses.found, port),
                    fresh: addresses.fresh,
                })
            }
            Records::Services => self.targets().await,
        }
    }

    async fn targets(&self) -> Result<Found<Instance>> {
        let answer = self.asker.ask(&self.name, Kind::Srv).await?;
        let mut fresh = self.plan.bounds.clamp(answer.ttl);
        let services = answer
            .records
            .into_iter()
            .filter_map(|record| match record {
                Record::Service(srv) if srv.target != "." => Some(srv),
                _ => None,
            });
        let services: Vec<Srv> = services.collect();
        self.bounded(services.len())?;
        let names: BTreeSet<_> = services.iter().map(|srv| srv.target.clone()).collect();
        let mut by_name = self.locate(names).await?;
        let located = services.into_iter().map(|srv| {
            let addresses = by_name.get_mut(&srv.target).map(|found| {
                fresh = fresh.min(found.fresh);
                found.found.clone()
            });
            Located {
                srv,
                addresses: addresses.unwrap_or_default(),
            }
        });
        let located: Vec<_> = located.collect();
        let found = answer::at_targets(&self.service, &located);
        Ok(Found { found, fresh })
    }

    /// The addresses of each name. One that cannot be asked about fails them all: what is not known of it
    /// would look like an instance that is gone.
    async fn locate(&self, names: BTreeSet<String>) -> Result<HashMap<String, Found<IpAddr>>> {
        let mut located = HashMap::new();
        let mut asked = JoinSet::new();
        let mut names = names.into_iter();
        loop {
            while asked.len() < MAX_QUESTIONS
                && let Some(name) = names.next()
            {
                let (asker, plan) = (Arc::clone(&self.asker), Arc::clone(&self.plan));
                asked.spawn(async move {
                    let found = addresses(&*asker, &plan, &name).await;
                    (name, found)
                });
            }
            match asked.join_next().await {
                None => return Ok(located),
                Some(Ok((name, found))) => {
                    located.insert(name, found?);
                }
                Some(Err(lost)) => {
                    let message = format!("a question for {} was lost", self.name);
                    return Err(Error::new(ErrorKind::Closed, message).with_source(lost));
                }
            }
        }
    }

    fn bounded(&self, members: usize) -> Result<()> {
        let limit = self.plan.max_members;
        if members <= limit {
            return Ok(());
        }
        let message = format!("{} has {members} members, more than {limit}", self.name);
        Err(Error::new(ErrorKind::Protocol, message))
    }
}

async fn addresses<A: Ask>(asker: &A, plan: &Plan, name: &str) -> Result<Found<IpAddr>> {
    let of = |kind| of_kind(asker, plan, name, kind);
    match plan.family {
        Family::V4Only => of(Kind::A).await,
        Family::V6Only => of(Kind::Aaaa).await,
        Family::PreferV4 => first(of(Kind::A), of(Kind::Aaaa)).await,
        Family::PreferV6 => first(of(Kind::Aaaa), of(Kind::A)).await,
        Family::Both => {
            let (v4, v6) = tokio::try_join!(of(Kind::A), of(Kind::Aaaa))?;
            Ok(joined(v4, v6))
        }
    }
}

/// The second is asked for only when the first has none.
async fn first(
    first: impl Future<Output = Result<Found<IpAddr>>>,
    second: impl Future<Output = Result<Found<IpAddr>>>,
) -> Result<Found<IpAddr>> {
    let first = first.await?;
    if first.found.is_empty() {
        Ok(joined(first, second.await?))
    } else {
        Ok(first)
    }
}

fn joined(mut one: Found<IpAddr>, other: Found<IpAddr>) -> Found<IpAddr> {
    one.found.extend(other.found);
    one.fresh = one.fresh.min(other.fresh);
    one
}

async fn of_kind<A: Ask>(asker: &A, plan: &Plan, name: &str, kind: Kind) -> Result<Found<IpAddr>> {
    let answer = asker.ask(name, kind).await?;
    let addresses = answer.records.iter().filter_map(|record| match record {
        Record::Address(ip) => Some(*ip),
        Record::Service(_) => None,
    });
    Ok(Found {
        found: addresses.collect(),
        fresh: plan.bounds.clamp(answer.ttl),
    })
}

impl<A: Ask> Read for Lookup<A> {
    async fn read(&self) -> Result<Reading> {
        let deadline = self.plan.deadline;
        let Ok(found) = tokio::time::timeout(deadline, self.members()).await else {
            let message = format!("{} was not resolved within {deadline:?}", self.name);
            return Err(Error::new(ErrorKind::Timeout, message));
        };
        let found = found?;
        self.bounded(found.found.len())?;
        let draw = self.rng.lock().u64(..);
        Ok(Reading {
            members: Some(found.found),
            fresh: self.plan.bounds.refresh(found.fresh, draw),
        })
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.revision.fetch_add(1, Ordering::Relaxed))
    }
}
