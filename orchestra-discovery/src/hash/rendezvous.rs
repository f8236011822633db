//! Rendezvous hashing in a table, with bounded loads.
//!
//! **Scores.** Rendezvous hashing (Thaler, Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996) gives a key
//! to the node with the best score of key and node. Here the keys are the slots of a table. A node of weight `w` has
//! a permutation of the slots like that of [`Maglev`](super::Maglev), and its score of the slot at place `k` is
//! `(k + u) / w` with `u` a hash of node and `k` between 0 and 1; the least score is the best. One node of twice the
//! weight goes through its permutation twice as fast, so slots follow the weights; and because every node scores
//! every `k` once, shares vary half as much as with independent scores.
//!
//! **Bound.** A node takes at most 110 % of its share of the slots (rounded down, but its share rounded up in any
//! case). A slot goes to the best node that has room for it, and a full node keeps its best slots: a stable matching
//! (Gale, Shapley 1962). As slots and nodes judge by the same scores, there is exactly one, whichever way it is found.
//!
//! **Change.** So an update need not start over: slots that lost their node go down their list of nodes, nodes that
//! got room go down their permutation, until nothing moves; that touches about as many slots as one node has. What
//! follows from a bound that shrinks for all nodes at once is filled anew if that is cheaper.
//!
//! With 65,537 slots and 1,000 nodes, a node that leaves moves about 1.1 times its slots; Maglev moves six to seven
//! times as many.

mod fill;
mod member;
mod repair;

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
    /// 65,537 slots.
    fn default() -> Self {
        Self { size: 65_537 }
    }
}

impl Config {
    /// This many slots: a prime number up to 5,000,011.
    ///
    /// Fewer than ten per node leave no room between a share and the bound, and more slots move.
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
/// assert!(stayed.count() > 450);
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rendezvous {
    config: Config,
    roster: Roster,
    members: Vec<Member>,
    slots: Vec<u32>,
}

impl Rendezvous {
    /// The table of these nodes.
    pub fn build(config: Config, nodes: &[Node<'_>]) -> Result<Self> {
        let roster = Roster::new(nodes)?;
        let modulus = Modulus::new(config.size);
        let member = |at| Member::new(modulus, roster.key(at), roster.weight(at));
        let mut members: Vec<Member> = (0..roster.len()).map(member).collect();
        bound(&mut members, &roster, config.size);
        let slots = fill::fill(modulus, &members);
        Ok(Self {
            config,
            roster,
            members,
            slots,
        })
    }

    /// The table of these nodes with the same configuration; it costs a pass over keys and slots, and the moves.
    pub fn update(&self, nodes: &[Node<'_>]) -> Result<Self> {
        let roster = Roster::new(nodes)?;
        let matching = self.roster.matching(&roster);
        let modulus = Modulus::new(self.config.size);
        let mut members = self.members_after(&roster, &matching, modulus);
        bound(&mut members, &roster, self.config.size);
        let repaired = repair::repair(modulus, self, &members, &matching);
        let slots = repaired.unwrap_or_else(|| fill::fill(modulus, &members));
        Ok(Self {
            config: self.config,
            roster,
            members,
            slots,
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
        Some(*self.slots.get(self.slot(hash))? as usize)
    }

    /// The nodes of the slots from that of this hash on, each once.
    ///
    /// Nodes that have no slot are not among them.
    pub fn walk(&self, hash: u64) -> Walk<'_> {
        Walk::slots(&self.slots, self.slot(hash), self.roster.len())
    }

    /// The node of every slot; empty if there are no nodes.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = usize> {
        self.slots.iter().map(|&node| node as usize)
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

/// Sets how many slots each may have: 110 % of its share rounded down, or its share rounded up.
fn bound(members: &mut [Member], roster: &Roster, size: u32) {
    let total = u128::from(roster.total()).max(1);
    for (member, &weight) in members.iter_mut().zip(roster.weights()) {
        let slots = u128::from(weight) * u128::from(size);
        let bound = (slots * 11 / (total * 10)).max(slots.div_ceil(total));
        member.bound = u32::try_from(bound).unwrap_or(u32::MAX);
    }
}
