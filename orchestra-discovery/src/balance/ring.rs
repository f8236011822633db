//! The ring hash of Envoy and gRPC as a balancer.

use super::hashed::{self, Hashed};
use crate::error::Result;
use crate::hash::{Ring, ring::Config};

/// By Envoy's and gRPC's [`Ring`].
///
/// The key of a member is its label `hash_key`, or else the text of its endpoint; its weight is the one it is registered
/// with, whatever slow start or reported load make of it. A call goes by [`PickContext::hash`](crate::PickContext::hash), or by its draw if it has
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
}

hashed::balancer!(RingHash, Ring);
hashed::table!(Ring, Config);
