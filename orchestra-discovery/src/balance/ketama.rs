//! nginx's consistent hash as a balancer.

use super::hashed::{self, Hashed, Table};
use crate::error::Result;
use crate::hash::{Ketama, Node, Walk};

/// By nginx's [`Ketama`].
///
/// The key of a member is its label `hash_key`, or else the text of its endpoint; its weight is the one it is registered
/// with, whatever slow start or reported load make of it. A call goes by [`PickContext::hash`](crate::PickContext::hash), or by its draw if it has
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

hashed::balancer!(KetamaHash, Ketama);

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
