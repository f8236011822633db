//! Envoy's Maglev as a balancer.

use super::hashed::{self, Hashed};
use crate::error::Result;
use crate::hash::{Maglev, maglev::Config};

/// By Envoy's [`Maglev`].
///
/// The key of a member is its label `hash_key`, or else the text of its endpoint; its weight is the one it is registered
/// with, whatever slow start or reported load make of it. A call goes by [`PickContext::hash`](crate::PickContext::hash), or by its draw if it has
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
}

hashed::balancer!(MaglevHash, Maglev);
hashed::table!(
    Maglev,
    Config,
    fn attempt(&self, hash: u64, attempt: u32) -> Option<usize> {
        self.lookup_attempt(hash, attempt)
    }
);
