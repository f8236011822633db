//! Which instance is asked next.
//!
//! [`Pick`] is the port to whatever knows the instances of a service, such as a service discovery with
//! its own balancing. [`RoundRobin`] is the default over a fixed list, with a circuit breaker per
//! instance if asked for.

mod completion;

pub use completion::Completion;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use orchestra_core::{Endpoint, InstanceId, Labels, Listener, Monotonic, Selector};

use crate::Error;
use crate::breaker::{self, Breaker, CircuitBreaker, Permit};
use crate::event::Event;

/// What a choice depends on.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PickRequest<'a> {
    /// The moment of the choice.
    pub now: Monotonic,
    /// Uniform over `u64`.
    pub draw: u64,
    /// The instances that this call has asked already.
    pub tried: &'a [InstanceId],
    /// Only instances whose labels match may be chosen.
    pub subset: Option<&'a Selector>,
    /// What the call is about ([`HashKey`]), for whoever chooses by hash.
    pub hash: Option<u64>,
    /// Whom it should go to if possible at all ([`Sticky`]).
    pub sticky: Option<&'a InstanceId>,
}

/// In the extensions of a request: a hash of what it is about, such as a user or a key. Where instances are
/// chosen by hash, calls with the same one go to the same instance as long as it is there; elsewhere it means
/// nothing.
///
/// ```
/// use orchestra_mesh::{Body, pick::HashKey};
///
/// let mut request = http::Request::get("/carts/7").body(Body::empty())?;
/// request.extensions_mut().insert(HashKey(7));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashKey(pub u64);

/// In the extensions of a request: the instance that it should go to, as a cookie may ask, as long as it takes
/// calls and has not been tried. [`RoundRobin`] does not heed it.
///
/// ```
/// use orchestra_mesh::{Body, pick::Sticky};
///
/// let mut request = http::Request::get("/carts/7").body(Body::empty())?;
/// request.extensions_mut().insert(Sticky("cart-1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sticky(pub InstanceId);

impl<'a> PickRequest<'a> {
    /// A first choice among all instances.
    pub const fn new(now: Monotonic, draw: u64) -> Self {
        Self {
            now,
            draw,
            tried: &[],
            subset: None,
            hash: None,
            sticky: None,
        }
    }

    /// Leaves out what was asked already.
    #[must_use]
    pub const fn tried(mut self, tried: &'a [InstanceId]) -> Self {
        self.tried = tried;
        self
    }

    /// Leaves out what does not match.
    #[must_use]
    pub const fn subset(mut self, subset: Option<&'a Selector>) -> Self {
        self.subset = subset;
        self
    }

    /// Is about this.
    #[must_use]
    pub const fn hash(mut self, hash: Option<u64>) -> Self {
        self.hash = hash;
        self
    }

    /// Should go there.
    #[must_use]
    pub const fn sticky(mut self, sticky: Option<&'a InstanceId>) -> Self {
        self.sticky = sticky;
        self
    }
}

/// What a [`Pick`] needs to recognise its choice: three words of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "each choice is completed once"]
pub struct PickToken([u64; 3]);

impl PickToken {
    /// A token of these words.
    pub const fn from_parts(parts: [u64; 3]) -> Self {
        Self(parts)
    }

    /// The words.
    pub const fn into_parts(self) -> [u64; 3] {
        self.0
    }
}

/// The chosen instance.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Picked {
    /// Its id.
    pub id: InstanceId,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Goes back with [`Pick::complete`].
    pub token: PickToken,
}

impl Picked {
    /// A choice.
    pub const fn new(id: InstanceId, endpoint: Endpoint, token: PickToken) -> Self {
        Self {
            id,
            endpoint,
            token,
        }
    }
}

/// Why nothing could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoEndpointReason {
    /// No instance is known.
    NoneKnown,
    /// Instances are known, and none of the subset, ready and healthy.
    NoneReady,
    /// Every instance that could be asked has been tried by this call.
    AllTried,
    /// Every instance that could be asked is behind an open circuit or too busy.
    AllRefused,
}

impl fmt::Display for NoEndpointReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoneKnown => "no instance is known",
            Self::NoneReady => "no instance is ready",
            Self::AllTried => "every instance was tried",
            Self::AllRefused => "every instance is behind an open circuit",
        })
    }
}

/// Nothing could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoEndpoint {
    /// Why.
    pub reason: NoEndpointReason,
    /// When it is worth asking again, if that is known.
    pub retry_after: Option<Duration>,
}

impl NoEndpoint {
    /// An answer without a choice.
    pub const fn new(reason: NoEndpointReason, retry_after: Option<Duration>) -> Self {
        Self {
            reason,
            retry_after,
        }
    }
}

/// Chooses instances and learns from what became of the calls.
///
/// Laws:
/// 1. What is chosen is an instance that is known.
/// 2. What is in `tried` is not chosen; if only such are left, the reason is
///    [`AllTried`](NoEndpointReason::AllTried).
/// 3. Without instances the reason is [`NoneKnown`](NoEndpointReason::NoneKnown).
/// 4. Given many draws and successes, every instance is chosen.
/// 5. A neutral completion leaves every instance choosable.
/// 6. Completing a token that was never given, or one twice, does no harm.
///
/// `pick` and `complete` are called on the path of every call: they neither block nor allocate, and may be
/// called at once from many threads. The client completes each choice once, also when its caller goes
/// away, then with [`Outcome::Neutral`](orchestra_core::Outcome::Neutral).
pub trait Pick: fmt::Debug + Send + Sync {
    /// Chooses an instance.
    fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoEndpoint>;
    /// Says what became of the call to the chosen instance.
    fn complete(&self, token: PickToken, completion: Completion<'_>, now: Monotonic);
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<T: Pick + ?Sized> Pick for $pointer<T> {
            fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoEndpoint> {
                (**self).pick(request)
            }
            fn complete(&self, token: PickToken, completion: Completion<'_>, now: Monotonic) {
                (**self).complete(token, completion, now);
            }
        }
    )+};
}

forward!(Arc, Box);

/// An instance of a fixed list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    id: InstanceId,
    endpoint: Endpoint,
    labels: Labels,
}

impl Target {
    /// An instance without labels.
    pub fn new(id: InstanceId, endpoint: Endpoint) -> Self {
        let labels = Labels::new();
        Self {
            id,
            endpoint,
            labels,
        }
    }

    /// What a subset is matched against.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }
}

/// Every instance of a list in turn.
///
/// ```
/// use orchestra_core::{InstanceId, Monotonic};
/// use orchestra_mesh::pick::{Pick, PickRequest, RoundRobin, Target};
///
/// let pick = RoundRobin::new([
///     Target::new("cart-1".parse()?, "127.0.0.1:8081".parse()?),
///     Target::new("cart-2".parse()?, "unix:/run/cart-2.sock".parse()?),
/// ]);
/// let request = PickRequest::new(Monotonic::ZERO, 0);
/// let first = pick.pick(&request).map_err(|none| none.reason.to_string())?;
/// let tried: [InstanceId; 1] = [first.id];
/// let second = pick.pick(&request.tried(&tried)).map_err(|none| none.reason.to_string())?;
/// assert_ne!(tried[0], second.id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RoundRobin {
    targets: Vec<(Target, Option<Breaker>)>,
    next: AtomicUsize,
}

impl RoundRobin {
    /// Turns over these instances, without breakers.
    pub fn new(targets: impl IntoIterator<Item = Target>) -> Self {
        Self {
            targets: targets.into_iter().map(|target| (target, None)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Gives each instance a circuit breaker of its own, named by its id.
    pub fn breakers(
        mut self,
        config: breaker::Config,
        listener: &Arc<dyn Listener<Event>>,
    ) -> Result<Self, Error> {
        for (number, (target, breaker)) in self.targets.iter_mut().enumerate() {
            // Breakers that opened together should not all probe together.
            let config = config.seed(number as u64);
            *breaker = Some(Breaker::new(config)?.observed(&target.id, Arc::clone(listener)));
        }
        Ok(self)
    }
}

impl Pick for RoundRobin {
    fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoEndpoint> {
        let count = self.targets.len();
        if count == 0 {
            return Err(NoEndpoint::new(NoEndpointReason::NoneKnown, None));
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let mut none = NoEndpoint::new(NoEndpointReason::NoneReady, None);
        for step in 0..count {
            let index = start.wrapping_add(step) % count;
            let Some((target, breaker)) = self.targets.get(index) else {
                continue;
            };
            if request
                .subset
                .is_some_and(|subset| !subset.matches(&target.labels))
            {
                continue;
            }
            if request.tried.contains(&target.id) {
                if none.reason == NoEndpointReason::NoneReady {
                    none.reason = NoEndpointReason::AllTried;
                }
                continue;
            }
            match breaker.as_ref().map(|b| b.try_acquire(request.now)) {
                Some(Err(rejected)) => none = refused(none, rejected),
                Some(Ok(permit)) => return Ok(picked(target, index, permit.into_raw())),
                None => return Ok(picked(target, index, 0)),
            }
        }
        Err(none)
    }

    fn complete(&self, token: PickToken, completion: Completion<'_>, now: Monotonic) {
        let [index, permit, _] = token.into_parts();
        let target = usize::try_from(index)
            .ok()
            .and_then(|i| self.targets.get(i));
        if let Some((_, Some(breaker))) = target {
            breaker.release(Permit::from_raw(permit), completion.outcome, now);
        }
    }
}

fn picked(target: &Target, index: usize, permit: u64) -> Picked {
    let token = PickToken::from_parts([index as u64, permit, 0]);
    Picked::new(target.id.clone(), target.endpoint.clone(), token)
}

fn refused(before: NoEndpoint, rejected: breaker::Rejected) -> NoEndpoint {
    let retry_after = match (before.retry_after, rejected.retry_after) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    NoEndpoint::new(NoEndpointReason::AllRefused, retry_after)
}
