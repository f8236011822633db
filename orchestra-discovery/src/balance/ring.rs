//! The ring hash of Envoy and gRPC as a balancer.

use super::hashed::{self, Hashed, Table};
use super::{Balancer, Candidates, PoolMembers, Prepared};
use crate::error::Result;
use crate::hash::{Node, Ring, Walk, ring::Config};
use crate::resolver::PickContext;

/// By Envoy's and gRPC's [`Ring`].
///
/// The key of a member is its label `hash_key`, or else the text of its endpoint; its weight is the one it is registered
/// with, whatever slow start or reported load make of it. A call goes by [`PickContext::hash`], or by its draw if it has
/// none. One that is closed is followed by the next open one around the ring, as by those retries of Envoy that leave out who was tried.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{PickContext, Resolver, RingHash, hash, resolver};
///
/// let balancer = RingHash::new(hash::ring::Config::default().min_size(4096))?;
/// let resolver = Resolver::new("carts".parse()?, resolver::Config::default().balancer(Arc::new(balancer)));
/// let call = PickContext::new(Monotonic::ZERO, 42).hash(hash::of(b"session-17"));
/// assert!(resolver.pick(&call).is_err()); // there are no members yet
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingHash(Hashed<Config>);

impl RingHash {
    /// With a ring of this size; an error if it makes no sense.
    pub fn new(config: Config) -> Result<Self> {
        Ok(Self(Hashed::new::<Ring>(config)?))
    }

    /// Moves calls off nodes that have more than `factor` percent of their share in flight (at least 100), like Envoy's
    /// `hash_balance_factor`: see [`Bounded`](crate::hash::Bounded).
    ///
    /// Of more than 64 members, the calls in flight on all are counted 16 members a pick, so the bound is of a moment
    /// ago. A pick that has to look for room costs a few microseconds.
    pub fn bounded(self, factor: u32) -> Result<Self> {
        Ok(Self(self.0.bounded(factor)?))
    }
}

impl Balancer for RingHash {
    #[inline]
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        hashed::choose::<Ring>(candidates, context)
    }

    fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        self.0.prepare::<Ring>(members, before)
    }
}

impl Table for Ring {
    type Config = Config;

    fn table(config: Config, nodes: &[Node<'_>]) -> Result<Self> {
        Self::build(config, nodes)
    }

    fn updated(&self, nodes: &[Node<'_>]) -> Result<Self> {
        self.update(nodes)
    }

    #[inline]
    fn first(&self, hash: u64) -> Option<usize> {
        self.lookup(hash)
    }

    fn around(&self, hash: u64) -> Walk<'_> {
        self.walk(hash)
    }
}
