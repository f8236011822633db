//! Why a call went where it went.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use orchestra_core::{InstanceId, Locality, ServiceName};

use super::plan::{Plan, Pool};
use super::view::{Member, Refused, View};
use super::writer::Fate;
use super::{Choice, NoCandidate, PickContext, Shared};
use crate::cache::{Cache, SourceReport};
use crate::instance::Incarnation;
use crate::merge::{Field, Provenance};
use crate::score::Factor;
use crate::source::Revision;

/// What a resolver knew of its members when a call was picked, and what it made of it.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot};
/// use orchestra_discovery::resolver::Config;
///
/// let resolver = Resolver::new("payments".parse()?, Config::default());
/// let one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
///
/// let (choice, why) = resolver.choose_explained(&PickContext::new(Monotonic::ZERO, 42));
/// assert_eq!(why.picked, Some(choice?.instance.id.clone()));
/// println!("{why}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The service.
    pub service: ServiceName,
    /// The revision of the members.
    pub revision: Revision,
    /// Who got the call.
    pub picked: Option<InstanceId>,
    /// How it came to that.
    pub way: Way,
    /// Whether too few members were fit, so that calls went to the others too.
    pub in_panic: bool,
    /// All members in the order of their ids.
    pub members: Vec<Considered>,
    /// What the sources of the members are like; empty until [`with_sources`](Self::with_sources) tells.
    pub sources: Vec<SourceReport>,
}

impl Explanation {
    /// Joins what the cache that feeds the resolver knows: what its sources are like, and which of them stated
    /// which field of each member.
    ///
    /// That is as the cache has it now, which may be later than [`revision`](Self::revision); about a member
    /// that it serves no longer it says nothing, nor about a service that it does not hold. It merges the
    /// service anew, in time linear in its members.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use orchestra_core::Monotonic;
    /// use orchestra_discovery::cache::SourceOptions;
    /// use orchestra_discovery::merge::Field;
    /// use orchestra_discovery::{
    ///     Cache, Follow, MemoryRegistry, PickContext, Registration, Registry, Resolver, follow, resolver,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = MemoryRegistry::default();
    /// registry.register(Registration::new(
    ///     "orders".parse()?, "orders-1".parse()?, "10.0.0.1:80".parse()?, Duration::from_secs(10),
    /// )).await?;
    /// let cache = Cache::builder()
    ///     .source("registry", Arc::new(registry), SourceOptions::default())
    ///     .build()?;
    /// let orders = Resolver::new("orders".parse()?, resolver::Config::default());
    /// let follow = Follow::start(Arc::new(cache.clone()), orders.clone(), follow::Config::default());
    /// follow.ready().await?;
    ///
    /// let (choice, why) = orders.choose_explained(&PickContext::new(Monotonic::ZERO, 42));
    /// let why = why.with_sources(&cache);
    /// assert_eq!(why.picked, Some(choice?.instance.id.clone()));
    /// assert_eq!(&*why.members[0].provenance[&Field::Lease], "registry");
    /// assert_eq!(why.sources[0].instances, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_sources(mut self, cache: &Cache) -> Self {
        if let Some(mut origins) = cache.origins(&self.service) {
            for member in &mut self.members {
                member.provenance = origins.provenance.remove(&member.id).unwrap_or_default();
            }
            self.sources = origins.sources;
        }
        self
    }
}

/// How it came to a pick.
///
/// ```
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::resolver::{Config, Way};
/// use orchestra_discovery::{PickContext, Resolver};
///
/// let resolver = Resolver::new("payments".parse()?, Config::default());
/// let (_, why) = resolver.choose_explained(&PickContext::new(Monotonic::ZERO, 42));
/// assert_eq!(why.way, Way::Nobody);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Way {
    /// The balancer chose it.
    Balanced,
    /// The call asked for it.
    Sticky,
    /// It is ejected, and this was its trial.
    Trial,
    /// The balancer's choices refused, and it was the next that did not.
    NextThatAdmits,
    /// All refused, and it was drawn past its gate, as the configuration wants it.
    PastItsGate,
    /// Nobody was picked.
    Nobody,
}

/// A member as the pick found it.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot};
/// use orchestra_discovery::resolver::{Config};
///
/// let resolver = Resolver::new("payments".parse()?, Config::default());
/// let mut one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// one.weight = 3;
/// resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
/// let (_, why) = resolver.choose_explained(&PickContext::new(Monotonic::ZERO, 42));
/// let considered = &why.members[0];
/// assert_eq!((considered.weight, considered.latency), (3, None));
/// println!("{considered}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Considered {
    /// The id.
    pub id: InstanceId,
    /// The incarnation.
    pub incarnation: Incarnation,
    /// Where it runs.
    pub locality: Locality,
    /// Its tier.
    pub priority: u32,
    /// Its effective weight.
    pub weight: u32,
    /// Its calls that were not settled.
    pub in_flight: u32,
    /// The average of its latency; `None` before its first success.
    pub latency: Option<Duration>,
    /// The share of successes among its last calls.
    pub success: f64,
    /// What the balancer goes by, the less the better, if it says so.
    pub cost: Option<f64>,
    /// What that is made of, if the balancer goes by scores.
    pub factors: Vec<Factor>,
    /// What became of it in this pick.
    pub verdict: Verdict,
    /// Which source stated which field of it; empty until [`Explanation::with_sources`] tells.
    pub provenance: Provenance,
}

/// What became of a member in a pick.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot};
/// use orchestra_discovery::resolver::{Config, Verdict};
///
/// let resolver = Resolver::new("payments".parse()?, Config::default());
/// let mut one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// one.weight = 0;
/// resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
/// let (_, why) = resolver.choose_explained(&PickContext::new(Monotonic::ZERO, 42));
/// assert_eq!(why.members[0].verdict, Verdict::TakesNone("of weight zero"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It got the call.
    Picked,
    /// It could have got the call.
    Open,
    /// It takes calls, and this one went to another priority, zone, subset or kind of health.
    Elsewhere,
    /// It had been tried for this call already.
    Tried,
    /// Its gate refused, or it had just gone.
    Refused,
    /// It takes no calls, for this reason.
    TakesNone(&'static str),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Picked => "picked",
            Self::Open => "open",
            Self::Elsewhere => "elsewhere",
            Self::Tried => "tried",
            Self::Refused => "refused",
            Self::TakesNone(reason) => reason,
        })
    }
}

impl fmt::Display for Explanation {
    /// A line for the pick, one for each member and one for each source.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service, revision, ..
        } = self;
        match &self.picked {
            Some(id) => write!(f, "{service}: {id} ({:?})", self.way)?,
            None => write!(f, "{service}: nobody")?,
        }
        let panic = if self.in_panic { ", in panic" } else { "" };
        writeln!(f, " at revision {revision}{panic}")?;
        for member in &self.members {
            writeln!(f, "  {member}")?;
        }
        for source in &self.sources {
            writeln!(f, "  source {source}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            verdict,
            weight,
            priority,
            in_flight,
            success,
            ..
        } = self;
        write!(f, "{id}: {verdict}, weight {weight}, priority {priority}, ")?;
        write!(f, "{in_flight} in flight, {:.1} % well", success * 100.0)?;
        if let Some(latency) = self.latency {
            write!(f, ", {latency:?}")?;
        }
        if let Some(cost) = self.cost {
            write!(f, ", cost {cost:.6}")?;
        }
        self.factors
            .iter()
            .try_for_each(|factor| write!(f, ", {factor}"))?;
        let Some(source) = self.provenance.get(&Field::Id) else {
            return Ok(());
        };
        write!(f, ", from {source}")?;
        let others = self.provenance.iter().filter(|(_, by)| *by != source);
        for (field, by) in others {
            write!(f, ", {field} from {by}")?;
        }
        Ok(())
    }
}

impl Shared {
    /// Picks, and tells what was known before.
    pub(super) fn explained(
        &self,
        view: &View,
        context: &PickContext<'_>,
    ) -> (Result<Choice, NoCandidate>, Explanation) {
        let plan = view.plan(context);
        let pool = plan.and_then(|plan| plan.pool(context.hash.unwrap_or(context.draw)));
        let fates = self.writer.lock().fates(&self.config);
        let places = Places::of(plan, pool);
        let mut members: Vec<_> = view
            .all()
            .map(|member| self.considered(view, &places, member, context))
            .collect();
        for considered in &mut members {
            if let Some(Fate { weight, reason }) = fates.get(&considered.id) {
                considered.weight = *weight;
                if let Some(reason) = reason
                    && considered.verdict == Verdict::Elsewhere
                {
                    considered.verdict = Verdict::TakesNone(reason);
                }
            }
        }
        let mut refused = Refused::default();
        refused.all = Some(Vec::new());
        let admitted = self.admitted(view, context, &mut refused);
        let way = admitted.map_or(Way::Nobody, |admitted| admitted.way);
        let choice = match admitted {
            Some(admitted) => Ok(admitted.choice(context.now)),
            None => Err(self.nobody(view, context, &refused)),
        };
        let picked = choice
            .as_ref()
            .ok()
            .map(|choice| choice.instance.id.clone());
        let refusing: HashSet<u32> = refused.all.take().into_iter().flatten().collect();
        for considered in &mut members {
            if Some(&considered.id) == picked.as_ref() {
                considered.verdict = Verdict::Picked;
            } else if view
                .find(&considered.id)
                .is_some_and(|member| refusing.contains(&member.slot))
            {
                considered.verdict = Verdict::Refused;
            }
        }
        let explanation = Explanation {
            service: self.service.clone(),
            revision: view.revision,
            picked,
            way,
            in_panic: plan.is_some_and(Plan::is_in_panic),
            members,
            sources: Vec::new(),
        };
        (choice, explanation)
    }

    fn considered(
        &self,
        view: &View,
        places: &Places<'_>,
        member: &Member,
        context: &PickContext<'_>,
    ) -> Considered {
        let none = Refused::default();
        let place = places.0.get(&member.slot);
        let is_chosen = place.is_some_and(|place| place.is_chosen);
        let at = place.map(|place| {
            (
                self.candidates(view, place.pool, context, &none),
                place.index,
            )
        });
        let hot = self.slab.slot(member.slot);
        let latency = hot.and_then(|hot| hot.latency(self.follow, context.now));
        let instance = &member.instance;
        Considered {
            id: instance.id.clone(),
            incarnation: instance.incarnation,
            locality: instance.locality.clone(),
            priority: instance.priority,
            weight: instance.weight,
            in_flight: hot.map_or(0, crate::slab::Hot::in_flight),
            latency: latency.map(Duration::from_secs_f32),
            success: hot.map_or(1.0, |hot| f64::from(hot.success())),
            cost: at.as_ref().and_then(|(candidates, index)| {
                self.config.balancer.cost(candidates, *index, context)
            }),
            factors: at.as_ref().map_or_else(Vec::new, |(candidates, index)| {
                self.config.balancer.factors(candidates, *index, context)
            }),
            provenance: Provenance::new(),
            verdict: if context.has_tried(&instance.id) {
                Verdict::Tried
            } else if is_chosen {
                Verdict::Open
            } else {
                Verdict::Elsewhere
            },
        }
    }
}

/// Where each member stands: in the pool that the call goes to, or in another one.
struct Places<'p>(HashMap<u32, Place<'p>>);

struct Place<'p> {
    pool: &'p Pool,
    index: usize,
    is_chosen: bool,
}

impl<'p> Places<'p> {
    fn of(plan: Option<&'p Plan>, chosen: Option<&'p Pool>) -> Self {
        let mut places = HashMap::new();
        let others = plan.into_iter().flat_map(Plan::pools);
        for (pool, is_chosen) in others
            .map(|pool| (pool, false))
            .chain(chosen.map(|pool| (pool, true)))
        {
            for (index, &slot) in pool.slots.iter().enumerate() {
                places.insert(
                    slot,
                    Place {
                        pool,
                        index,
                        is_chosen,
                    },
                );
            }
        }
        Self(places)
    }
}
