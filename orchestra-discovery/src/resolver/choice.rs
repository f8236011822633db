use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Labels, Locality, Monotonic, Outcome, ServiceName};

use super::completion::Completion;
use super::plan::Plan;
use super::view::{Refused, View};
use super::{Census, Resolver};
use crate::instance::Instance;
use crate::slab::Token;

/// What a pick depends on beside the members.
///
/// ```
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::PickContext;
///
/// let failed = ["payments-1".parse()?];
/// let retry = PickContext::new(Monotonic::ZERO, 42).tried(&failed);
/// assert_eq!(retry.tried, failed);
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PickContext<'a> {
    /// The moment of the pick, by the clock that settles use too.
    pub now: Monotonic,
    /// A uniform random number.
    pub draw: u64,
    /// Who has been tried for this call already: none of them is picked again.
    pub tried: &'a [InstanceId],
    /// What hash balancers go by, as of a session or a key; the draw where it is absent.
    pub hash: Option<u64>,
    /// Where the caller is, for those who score by proximity.
    pub locality: Option<&'a Locality>,
    /// The subset it is for: taken into account if the resolver was made with subsets.
    pub subset: Option<&'a Labels>,
    /// Whom it should go to if possible at all, as a cookie may ask.
    pub sticky: Option<&'a InstanceId>,
}

impl<'a> PickContext<'a> {
    /// A first attempt.
    pub const fn new(now: Monotonic, draw: u64) -> Self {
        Self {
            now,
            draw,
            tried: &[],
            hash: None,
            locality: None,
            subset: None,
            sticky: None,
        }
    }

    /// A further attempt, after these.
    #[must_use]
    pub const fn tried(mut self, tried: &'a [InstanceId]) -> Self {
        self.tried = tried;
        self
    }

    /// With this hash of what it is about.
    #[must_use]
    pub const fn hash(mut self, hash: u64) -> Self {
        self.hash = Some(hash);
        self
    }

    /// From this place.
    #[must_use]
    pub const fn locality(mut self, locality: &'a Locality) -> Self {
        self.locality = Some(locality);
        self
    }

    /// For the members with these labels.
    #[must_use]
    pub const fn subset(mut self, labels: &'a Labels) -> Self {
        self.subset = Some(labels);
        self
    }

    /// For this member, as long as it takes calls and is not unhealthy; else for any.
    #[must_use]
    pub const fn sticky(mut self, id: &'a InstanceId) -> Self {
        self.sticky = Some(id);
        self
    }

    pub(crate) fn has_tried(&self, id: &InstanceId) -> bool {
        self.tried.contains(id)
    }
}

/// An admitted call as plain values: whoever holds the token settles it.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::{Monotonic, Outcome};
/// use orchestra_discovery::{Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot, Token};
/// use orchestra_discovery::resolver::Config;
///
/// let resolver = Resolver::new("payments".parse()?, Config::default());
/// let one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
///
/// let choice = resolver.choose(&PickContext::new(Monotonic::ZERO, 42))?;
/// // The words may go wherever the call goes, and come back from there.
/// let words = choice.token.to_words();
/// assert_eq!(resolver.in_flight(&choice.instance.id), Some(1));
/// resolver.settle(Token::from_words(words), Outcome::Success, Monotonic::from_nanos(5_000_000));
/// assert_eq!(resolver.in_flight(&choice.instance.id), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Choice {
    /// Whom to call.
    pub instance: Arc<Instance>,
    /// What settles the call.
    pub token: Token,
}

/// An admitted call that settles itself: dropped, as when the caller is cancelled, it settles
/// [`Outcome::Neutral`].
///
/// It holds the resolver that is to hear of it: a borrowed one ([`Resolver::pick`]) or a handle of its own
/// ([`Resolver::pick_owned`]).
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{Incarnation, InFlight, Instance, PickContext, Resolver, Revision, Scope, Snapshot};
/// use orchestra_discovery::resolver::Config;
///
/// let resolver = Resolver::new("payments".parse()?, Config::default());
/// let one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
///
/// let call: InFlight = resolver.pick_owned(&PickContext::new(Monotonic::ZERO, 42))?;
/// let id = call.instance().id.clone();
/// assert_eq!(resolver.in_flight(&id), Some(1));
/// drop(call); // the caller was cancelled
/// assert_eq!(resolver.in_flight(&id), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it ends the call as neutral"]
pub struct InFlight<R: Borrow<Resolver> = Resolver> {
    resolver: R,
    instance: Arc<Instance>,
    token: Token,
    is_settled: bool,
}

impl<R: Borrow<Resolver>> InFlight<R> {
    #[inline]
    pub(super) fn new(resolver: R, choice: Choice) -> Self {
        Self {
            resolver,
            instance: choice.instance,
            token: choice.token,
            is_settled: false,
        }
    }

    /// Whom to call.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Says what became of the call.
    #[inline]
    pub fn settle<'c>(mut self, completion: impl Into<Completion<'c>>, now: Monotonic) {
        self.is_settled = true;
        self.resolver.borrow().settle(self.token, completion, now);
    }
}

impl<R: Borrow<Resolver>> Drop for InFlight<R> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_settled {
            let now = self.token.admitted_at();
            self.resolver
                .borrow()
                .settle(self.token, Outcome::Neutral, now);
        }
    }
}

impl<R: Borrow<Resolver>> fmt::Debug for InFlight<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("instance", &self.instance.id)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Why there is nobody to call. Each member counts under one reason.
///
/// ```
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{PickContext, Resolver};
/// use orchestra_discovery::resolver::Config;
///
/// let resolver = Resolver::new("payments".parse()?, Config::default());
/// let Err(none) = resolver.pick(&PickContext::new(Monotonic::ZERO, 42)) else {
///     return Err("somebody was there".into());
/// };
/// assert_eq!(none.registered, 0);
/// assert_eq!(none.to_string(), "no instance of service payments takes the call: 0 registered");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoCandidate {
    /// The service.
    pub service: ServiceName,
    /// How many members it has; none at all is the commonest reason.
    pub registered: u32,
    /// Those that are not ready yet.
    pub starting: u32,
    /// Those that take no new calls.
    pub draining: u32,
    /// Those that an operator took out of service.
    pub out_of_service: u32,
    /// Those outside this client's subset of the service.
    pub outside: u32,
    /// Those of weight zero.
    pub zero_weight: u32,
    /// Those that no health check has found healthy yet, if that is asked for.
    pub unchecked: u32,
    /// Those that failed their health checks.
    pub unhealthy: u32,
    /// Those that are ejected as outliers.
    pub ejected: u32,
    /// Whether calls for the subset that was asked for have nobody to go to.
    pub no_subset: bool,
    /// Those that were tried for this call already.
    pub tried: u32,
    /// Those whose gates refused.
    pub refused: u32,
    /// What the last gate gave as its reason.
    pub reason: Option<&'static str>,
    /// When the first of the gates may admit again, as far as they say.
    pub retry_after: Option<Duration>,
}

impl NoCandidate {
    pub(super) fn new(
        service: &ServiceName,
        view: &View,
        context: &PickContext<'_>,
        refused: &Refused,
    ) -> Self {
        let Census {
            registered,
            outside,
            starting,
            draining,
            out_of_service,
            zero_weight,
            unchecked,
            unhealthy,
            ejected,
        } = view.census;
        let plan = view.plan(context);
        // In panic a member is in two pools, and counts once all the same.
        let ids = context.tried.iter().enumerate();
        let tried = ids.filter(|(at, id)| {
            let again = context.tried.iter().take(*at).any(|before| before == *id);
            let slot = view.find(id).filter(|_| !again).map(|member| member.slot);
            let mut pools = plan.into_iter().flat_map(Plan::pools);
            slot.is_some_and(|slot| pools.any(|pool| pool.slots.contains(&slot)))
        });
        let tried = u32::try_from(tried.count()).unwrap_or(u32::MAX);
        Self {
            service: service.clone(),
            registered,
            outside,
            starting,
            draining,
            out_of_service,
            zero_weight,
            unchecked,
            unhealthy,
            ejected,
            no_subset: plan.is_none(),
            tried,
            refused: refused.count,
            reason: refused.reason,
            retry_after: refused.retry_after,
        }
    }
}

impl fmt::Display for NoCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = &self.service;
        write!(f, "no instance of service {service} takes the call: ")?;
        write!(f, "{} registered", self.registered)?;
        let counts = [
            (self.starting, "starting"),
            (self.draining, "draining"),
            (self.out_of_service, "out of service"),
            (self.outside, "outside the subset"),
            (self.zero_weight, "of weight zero"),
            (self.unchecked, "unchecked"),
            (self.unhealthy, "unhealthy"),
            (self.ejected, "ejected"),
            (self.tried, "tried"),
            (self.refused, "refused by their gates"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        if self.no_subset {
            write!(f, ", none in the subset that was asked for")?;
        }
        match self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NoCandidate {}
