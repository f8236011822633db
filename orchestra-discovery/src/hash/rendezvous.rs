//! Rendezvous hashing in a table, with bounded loads.
//!
//! **Scores.** Rendezvous hashing (Thaler, Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996) gives a key
//! to the node with the best score of key and node. Here the keys are the slots of a table. A node of weight `w` has
//! a permutation of the slots like that of [`Maglev`](super::Maglev), and its score of the slot at place `k` of `size`
//! is `-ln(1 - (k + u) / size) / w` with `u` a hash of node and `k`; the least score is the best. That is the weighted
//! form of Schindelhauer and Schomaker ("Weighted Distributed Hash Tables", 2005), by which slots follow the weights;
//! and because every node scores every `k` once, the variance of the shares is half that of independent scores.
//!
//! **Bound.** A node takes at most 110 % of its share of the slots (rounded down, but its share rounded up in any
//! case). A slot goes to the best node that has room for it, and a full node keeps its best slots: a stable matching
//! (Gale, Shapley 1962). As slots and nodes judge by the same scores, there is exactly one, whichever way it is found.
//!
//! **Change.** So an update need not start over: slots that lost their node go down their list of nodes, nodes that
//! got room go down their permutation, until nothing moves; that touches about as many slots as one node has. What
//! follows from a bound that shrinks for all nodes at once is filled anew if that is cheaper.
//!
//! With 262,147 slots, one node of 1,000 that leaves moves 1.02 times its slots on average; with 65,537, where the
//! bound stops one node in eight, 1.3 times. Maglev moves six to seven times as many.

mod fill;
mod member;
mod repair;
#[cfg(test)]
mod stable;

use self::member::Member;
use super::modulus::Modulus;
use super::roster::{Matching, Roster};
use super::{Node, Walk, mix};
use crate::error::{Error, ErrorKind, Result};

/// The greatest number of slots that can be configured.
const LIMIT: u32 = 5_000_011;

/// How many slots the table has.
///
/// ```
/// use orchestra_discovery::hash::rendezvous::Config;
///
/// assert!(Config::new(131_101).is_ok());
/// assert!(Config::new(131_072).is_err());
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    size: u32,
}

impl Default for Config {
    /// 262,147 slots: enough for a thousand nodes to change without moving more than they have to.
    fn default() -> Self {
        Self { size: 262_147 }
    }
}

impl Config {
    /// This many slots: a prime number up to 5,000,011.
    ///
    /// With fewer than two hundred per node, the bound stops more of them, and a change moves more slots: 1.3 times as
    /// many as it has to at 65 per node, 1.6 times at six.
    pub fn new(size: u32) -> Result<Self> {
        if size <= LIMIT && Modulus::is_prime(size) {
            return Ok(Self { size });
        }
        let fault =
            format!("rendezvous: the table size {size} is not a prime number up to {LIMIT}");
        Err(Error::new(ErrorKind::Invalid, fault))
    }
}

/// A rendezvous table whose nodes have at most 110 % of their share.
///
/// A lookup is two multiplications and a load. Memory is 4 bytes a slot.
///
/// ```
/// use orchestra_discovery::hash::{Node, Rendezvous, rendezvous};
///
/// let nodes = [Node::new("a", 1), Node::new("b", 1), Node::new("c", 2)];
/// let table = Rendezvous::build(rendezvous::Config::default(), &nodes)?;
/// let next = table.update(&nodes[..2])?;
/// let stayed = (0..1000).filter(|&hash| table.lookup(hash) == next.lookup(hash));
/// assert!(stayed.count() > 400);
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rendezvous {
    config: Config,
    roster: Roster,
    members: Vec<Member>,
    matched: Matched,
}

/// Which node has which slot.
#[derive(Debug, Clone, Default)]
struct Matched {
    /// The node of every slot; empty if there are no nodes.
    slots: Vec<u32>,
    /// How many slots each node has.
    held: Vec<u32>,
    /// No score of a slot is greater.
    worst: f64,
    /// The sum of the weights when the table was filled, as scores fall when it grows.
    filled_for: u64,
}

impl Rendezvous {
    /// The table of these nodes.
    pub fn build(config: Config, nodes: &[Node<'_>]) -> Result<Self> {
        let roster = Roster::new(nodes)?;
        let modulus = Modulus::new(config.size);
        let member = |at| Member::new(modulus, roster.key(at), roster.weight(at));
        let mut members: Vec<Member> = (0..roster.len()).map(member).collect();
        bound(&mut members, &roster, config.size);
        let matched = fill::fill(modulus, &members, roster.total());
        Ok(Self {
            config,
            roster,
            members,
            matched,
        })
    }

    /// The table of these nodes with the same configuration; it costs a pass over keys and slots, and the moves.
    pub fn update(&self, nodes: &[Node<'_>]) -> Result<Self> {
        let roster = Roster::new(nodes)?;
        let matching = self.roster.matching(&roster);
        let modulus = Modulus::new(self.config.size);
        let mut members = self.members_after(&roster, &matching, modulus);
        bound(&mut members, &roster, self.config.size);
        let total = roster.total();
        let repaired = if self.matched.is_fresh(total) {
            repair::repair(modulus, self, &members, &matching)
        } else {
            None
        };
        let matched = repaired.unwrap_or_else(|| fill::fill(modulus, &members, total));
        Ok(Self {
            config: self.config,
            roster,
            members,
            matched,
        })
    }

    fn members_after(&self, roster: &Roster, matching: &Matching, modulus: Modulus) -> Vec<Member> {
        let member = |(at, &was): (usize, &u32)| match self.members.get(was as usize) {
            Some(known) => known.weighing(roster.weight(at)),
            None => Member::new(modulus, roster.key(at), roster.weight(at)),
        };
        matching.old.iter().enumerate().map(member).collect()
    }

    /// The node of the slot of this hash.
    pub fn lookup(&self, hash: u64) -> Option<usize> {
        Some(*self.matched.slots.get(self.slot(hash))? as usize)
    }

    /// The nodes of the slots from that of this hash on, each once.
    ///
    /// Nodes that have no slot are not among them.
    pub fn walk(&self, hash: u64) -> Walk<'_> {
        Walk::slots(&self.matched.slots, self.slot(hash), self.roster.len())
    }

    /// The node of every slot; empty if there are no nodes.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = usize> {
        self.matched.slots.iter().map(|&node| node as usize)
    }

    /// The slot by the highest bits, so that it costs no division; mixed, as a caller may number its keys.
    fn slot(&self, hash: u64) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "less than the size of the table"
        )]
        let slot = ((u128::from(mix(hash)) * u128::from(self.config.size)) >> 64) as usize;
        slot
    }
}

impl Matched {
    /// Whether the worst score is still near the truth; it is only a bound, and repairs raise it alone.
    fn is_fresh(&self, total: u64) -> bool {
        total > 0 && total / 2 <= self.filled_for && !self.slots.is_empty()
    }
}

/// Sets how many slots each may have: 110 % of its share rounded down, or its share rounded up.
fn bound(members: &mut [Member], roster: &Roster, size: u32) {
    let total = u128::from(roster.total()).max(1);
    for (member, &weight) in members.iter_mut().zip(roster.weights()) {
        let slots = u128::from(weight) * u128::from(size);
        let bound = (slots * 11 / (total * 10)).max(slots.div_ceil(total));
        member.bound = u32::try_from(bound).unwrap_or(u32::MAX);
    }
}
