//! Bounded rendezvous hashing as a balancer.

use super::hashed::{self, Hashed, Table};
use super::{Balancer, Candidates, PoolMembers, Prepared};
use crate::error::Result;
use crate::hash::{Node, Rendezvous, Walk, rendezvous::Config};
use crate::resolver::PickContext;

/// By a [`Rendezvous`] table: even shares, and hardly a key that moves without need.
///
/// The key of a member is its label `hash_key`, or else the text of its endpoint; its weight is the one it is registered
/// with, whatever slow start or reported load make of it. A call goes by [`PickContext::hash`], or by its draw if it has
/// none. One that is closed is followed by the open one of the slots that follow.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{PickContext, RendezvousHash, Resolver, hash, resolver};
///
/// let balancer = RendezvousHash::new(hash::rendezvous::Config::new(65_537)?)?;
/// let resolver = Resolver::new("carts".parse()?, resolver::Config::default().balancer(Arc::new(balancer)));
/// let call = PickContext::new(Monotonic::ZERO, 42).hash(hash::of(b"session-17"));
/// assert!(resolver.pick(&call).is_err()); // there are no members yet
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RendezvousHash(Hashed<Config>);

impl RendezvousHash {
    /// With a table of this size.
    pub fn new(config: Config) -> Result<Self> {
        Ok(Self(Hashed::new::<Rendezvous>(config)?))
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

impl Balancer for RendezvousHash {
    #[inline]
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        hashed::choose::<Rendezvous>(candidates, context)
    }

    fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        self.0.prepare::<Rendezvous>(members, before)
    }
}

impl Table for Rendezvous {
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
