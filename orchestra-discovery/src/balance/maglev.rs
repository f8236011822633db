//! Envoy's Maglev as a balancer.

use super::hashed::{self, Hashed, Table};
use super::{Balancer, Candidates, PoolMembers, Prepared};
use crate::error::Result;
use crate::hash::{Maglev, Node, Walk, maglev::Config};
use crate::resolver::PickContext;

/// By Envoy's [`Maglev`].
///
/// The key of a member is its label `hash_key`, or else the text of its endpoint; its weight is the one it is registered
/// with, whatever slow start or reported load make of it. A call goes by [`PickContext::hash`], or by its draw if it has
/// none. One that is closed is followed by the open one among the next eight attempts as Envoy hashes them, or else of the slots that follow.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{MaglevHash, PickContext, Resolver, hash, resolver};
///
/// let balancer = MaglevHash::default().bounded(125)?;
/// let resolver = Resolver::new("carts".parse()?, resolver::Config::default().balancer(Arc::new(balancer)));
/// let call = PickContext::new(Monotonic::ZERO, 42).hash(hash::of(b"session-17"));
/// assert!(resolver.pick(&call).is_err()); // there are no members yet
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaglevHash(Hashed<Config>);

impl MaglevHash {
    /// With a table of this size.
    pub fn new(config: Config) -> Result<Self> {
        Ok(Self(Hashed::new::<Maglev>(config)?))
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

impl Balancer for MaglevHash {
    #[inline]
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        hashed::choose::<Maglev>(candidates, context)
    }

    fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        self.0.prepare::<Maglev>(members, before)
    }
}

impl Table for Maglev {
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

    fn attempt(&self, hash: u64, attempt: u32) -> Option<usize> {
        self.lookup_attempt(hash, attempt)
    }
}
