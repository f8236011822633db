//! Consistent hashing: tables that map the hash of a request to a node, and mostly keep doing so while nodes
//! come and go.
//!
//! | table | built like | a node that leaves moves | shares | lookup |
//! |---|---|---|---|---|
//! | [`Ring`] | Envoy's and gRPC's `ring_hash`, bit by bit | its own share | by points: 7 % off at 1,000 points a node | a short search |
//! | [`Ketama`] | nginx's `hash … consistent`, bit by bit | its own share | 160 points a node: about 20 % off | a short search |
//! | [`Maglev`] | Envoy's `maglev`, bit by bit | up to seven times its share | even, to one slot | one load |
//! | [`Rendezvous`] | highest random weight under a cap of 110 % | about its own share | never above 110 % | one load |
//!
//! A table is immutable and cheap to share; `update` makes the next one out of it and leaves it as it is, so readers
//! go on without a lock. All of them take the [`Node`]s in the order of the caller and answer with positions in that
//! order. The same nodes give the same table, whether it was built at once or by updates. A node of weight zero is
//! never an answer, and no nodes (or none with a weight) give `None`. Of several nodes with one key, the earlier one
//! is preferred at each point or slot that both want.
//!
//! [`Bounded`] moves calls off a node that has more than its share in flight, on top of any of them.

pub mod bounded;
pub mod ketama;
pub mod maglev;
pub mod rendezvous;
pub mod ring;

mod circle;
mod modulus;
mod points;
mod roster;
mod walk;

pub use bounded::Bounded;
pub use ketama::Ketama;
pub use maglev::Maglev;
pub use rendezvous::Rendezvous;
pub use ring::Ring;
pub use walk::Walk;

use twox_hash::XxHash64;

/// One node of a table.
///
/// ```
/// use orchestra_discovery::hash::{Node, Ring, of, ring};
///
/// let nodes = [Node::new("10.0.0.1:80", 1), Node::new("10.0.0.2:80", 1)];
/// let ring = Ring::build(ring::Config::default(), &nodes)?;
/// let chosen = ring.lookup(of(b"session-17"));
/// assert_eq!(chosen, Ring::build(ring::Config::default(), &nodes)?.lookup(of(b"session-17")));
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node<'a> {
    /// What is hashed: `address:port`, or whatever name a successor at another address is to inherit.
    pub key: &'a str,
    /// Its share of the calls in proportion to the sum of all; zero takes none.
    pub weight: u32,
}

impl<'a> Node<'a> {
    /// A node under this key.
    pub const fn new(key: &'a str, weight: u32) -> Self {
        Self { key, weight }
    }
}

/// The hash of a request: XXH64 with seed 0, as Envoy and gRPC hash a header, a cookie or an address.
///
/// ```
/// use orchestra_discovery::hash::of;
///
/// assert_eq!(of(b""), 0xef46_db37_51d8_e999);
/// ```
pub fn of(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// The hash so far joined with that of one more policy: rotated left by one, then xor, as Envoy and gRPC join the
/// hashes of several hash policies.
///
/// ```
/// use orchestra_discovery::hash::{combine, of};
///
/// let user = combine(None, of(b"alice"));
/// assert_eq!(user, of(b"alice"));
/// assert_eq!(combine(Some(user), of(b"/cart")), user.rotate_left(1) ^ of(b"/cart"));
/// ```
pub const fn combine(previous: Option<u64>, hash: u64) -> u64 {
    match previous {
        Some(previous) => previous.rotate_left(1) ^ hash,
        None => hash,
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output.
const fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
