//! nginx's consistent hash as a balancer.

use super::hashed::{self, Hashed, Table};
use super::{Balancer, Candidates, PoolMembers, Prepared};
use crate::error::Result;
use crate::hash::{Ketama, Node, Walk};
use crate::resolver::PickContext;

/// By nginx's [`Ketama`].
///
/// The key of a member is its label `hash_key`, or else the text of its endpoint; its weight is the one it is registered
/// with, whatever slow start or reported load make of it. A call goes by [`PickContext::hash`], or by its draw if it has
/// none. Of the hash the lower half counts: for the places of nginx it is to be that of
/// [`ketama::of`](crate::hash::ketama::of). One that is closed is followed by the next open one around the circle.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{KetamaHash, PickContext, Resolver, hash::ketama, resolver};
///
/// let balancer = KetamaHash::default();
/// let resolver = Resolver::new("carts".parse()?, resolver::Config::default().balancer(Arc::new(balancer)));
/// let call = PickContext::new(Monotonic::ZERO, 42).hash(ketama::of(b"session-17").into());
/// assert!(resolver.pick(&call).is_err()); // there are no members yet
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KetamaHash(Hashed<()>);

impl KetamaHash {
    /// Moves calls off nodes that have more than `factor` percent of their share in flight (at least 100), like Envoy's
    /// `hash_balance_factor`: see [`Bounded`](crate::hash::Bounded).
    ///
    /// Of more than 64 members, the calls in flight on all are counted 16 members a pick, so the bound is of a moment
    /// ago. A pick that has to look for room costs a few microseconds.
    pub fn bounded(self, factor: u32) -> Result<Self> {
        Ok(Self(self.0.bounded(factor)?))
    }
}

impl Balancer for KetamaHash {
    #[inline]
    fn choose(&self, candidates: &Candidates<'_>, context: &PickContext<'_>) -> Option<usize> {
        hashed::choose::<Ketama>(candidates, context)
    }

    fn prepare(&self, members: &PoolMembers<'_>, before: Option<Prepared>) -> Option<Prepared> {
        self.0.prepare::<Ketama>(members, before)
    }
}

impl Table for Ketama {
    type Config = ();

    fn table((): (), nodes: &[Node<'_>]) -> Result<Self> {
        Self::build(nodes)
    }

    fn updated(&self, nodes: &[Node<'_>]) -> Result<Self> {
        self.update(nodes)
    }

    #[inline]
    fn first(&self, hash: u64) -> Option<usize> {
        self.lookup(place(hash))
    }

    fn around(&self, hash: u64) -> Walk<'_> {
        self.walk(place(hash))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a place has 32 bits")]
const fn place(hash: u64) -> u32 {
    hash as u32
}
