use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic, Outcome, ServiceName};

use super::Resolver;
use super::view::{Refused, View};
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
}

impl PickContext<'_> {
    /// A first attempt.
    pub const fn new(now: Monotonic, draw: u64) -> Self {
        Self {
            now,
            draw,
            tried: &[],
        }
    }

    /// A further attempt, after these.
    #[must_use]
    pub const fn tried(self, tried: &[InstanceId]) -> PickContext<'_> {
        PickContext {
            now: self.now,
            draw: self.draw,
            tried,
        }
    }

    pub(crate) fn has_tried(&self, id: &InstanceId) -> bool {
        self.tried.contains(id)
    }
}

/// An admitted call as plain values: whoever holds the token settles it.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Whom to call.
    pub instance: Arc<Instance>,
    /// What settles the call.
    pub token: Token,
}

/// An admitted call that settles itself: dropped, as when the caller is cancelled, it settles
/// [`Outcome::Neutral`].
#[must_use = "dropping it ends the call as neutral"]
pub struct InFlight {
    resolver: Resolver,
    instance: Arc<Instance>,
    token: Option<Token>,
}

impl InFlight {
    pub(super) fn new(resolver: Resolver, choice: Choice) -> Self {
        Self {
            resolver,
            instance: choice.instance,
            token: Some(choice.token),
        }
    }

    /// Whom to call.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Says what became of the call.
    pub fn settle(mut self, outcome: Outcome, now: Monotonic) {
        if let Some(token) = self.token.take() {
            self.resolver.settle(token, outcome, now);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            let now = token.admitted_at();
            self.resolver.settle(token, Outcome::Neutral, now);
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("instance", &self.instance.id)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Why there is nobody to call. Each member counts under one reason.
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
    /// Those of weight zero.
    pub zero_weight: u32,
    /// Those that failed their health checks.
    pub unhealthy: u32,
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
        let census = view.census;
        let tried = view.ready.iter();
        let tried = tried.filter(|entry| context.has_tried(&entry.instance.id));
        Self {
            service: service.clone(),
            registered: census.registered,
            starting: census.starting,
            draining: census.draining,
            zero_weight: census.zero_weight,
            unhealthy: census.unhealthy,
            tried: u32::try_from(tried.count()).unwrap_or(u32::MAX),
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
            (self.zero_weight, "of weight zero"),
            (self.unhealthy, "unhealthy"),
            (self.tried, "tried"),
            (self.refused, "refused by their gates"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        match self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NoCandidate {}
