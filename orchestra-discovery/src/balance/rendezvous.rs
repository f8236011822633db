//! Bounded rendezvous hashing as a balancer.

use super::hashed::{self, Hashed};
use crate::error::Result;
use crate::hash::{Rendezvous, rendezvous::Config};

/// By a [`Rendezvous`] table: even shares, and hardly a key that moves without need.
///
/// The key of a member is its label `hash_key`, or else the text of its endpoint; its weight is the one it is registered
/// with, whatever slow start or reported load make of it. A call goes by [`PickContext::hash`](crate::PickContext::hash), or by its draw if it has
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
}

hashed::balancer!(RendezvousHash, Rendezvous);
hashed::table!(Rendezvous, Config);
