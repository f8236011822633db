//! Envoy's Maglev.
//!
//! Every node has a permutation of the slots, `(offset + skip * k) mod size` with `offset = XXH64(key, 0) mod size`
//! and `skip = XXH64(key, 1) mod (size - 1) + 1`, and in turns takes the first slot of it that is free (Eisenbud et
//! al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016). Nodes take turns in the order of their
//! keys, one of less than the greatest weight only in as many rounds as its weight allows, in double precision as
//! Envoy does it (`maglev_lb.cc`). With more nodes than slots, the last ones by key have none.
//!
//! Shares are even to one slot, at the price of slots that move between nodes that stay: with 65,537 slots, one node
//! of 1,000 that leaves moves six to seven times its own share. [`Rendezvous`](super::Rendezvous) moves it once.
//!
//! Half of the probes of the naive way find the last few hundred slots. They are found the other way around here: for
//! a slot `s`, `k = (s - offset) / skip mod size`, and the free slot of the least `k` is the next.

mod turns;

use twox_hash::XxHash64;

use self::turns::Turns;
use super::modulus::Modulus;
use super::roster::{NONE, Roster};
use super::{Node, Walk};
use crate::error::{Error, ErrorKind, Result};

/// The greatest size that can be configured, as in Envoy.
const LIMIT: u32 = 5_000_011;

/// How many slots the table has.
///
/// ```
/// use orchestra_discovery::hash::maglev::Config;
///
/// assert!(Config::new(65_537).is_ok());
/// assert!(Config::new(65_536).is_err());
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
    /// This many slots: a prime number up to 5,000,011, a hundred times the nodes or more for even shares.
    pub fn new(size: u32) -> Result<Self> {
        if size <= LIMIT && Modulus::is_prime(size) {
            return Ok(Self { size });
        }
        let message = format!("maglev: the table size {size} is not a prime number up to {LIMIT}");
        Err(Error::new(ErrorKind::Invalid, message))
    }
}

/// Where the permutation of a node begins and how it goes on.
#[derive(Debug, Clone, Copy)]
struct Steps {
    offset: u32,
    skip: u32,
}

/// Envoy's Maglev table.
///
/// A lookup is a division and a load. Memory is 4 bytes a slot.
///
/// ```
/// use orchestra_discovery::hash::{Maglev, Node, maglev};
///
/// let nodes = [Node::new("10.0.0.1:80", 1), Node::new("10.0.0.2:80", 1)];
/// let table = Maglev::build(maglev::Config::default(), &nodes)?;
/// assert!(table.lookup(4711).is_some());
/// assert_eq!(table.update(&nodes[1..])?.lookup(4711), Some(0));
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Maglev {
    config: Config,
    roster: Roster,
    by_key: Vec<u32>,
    steps: Vec<Steps>,
    slots: Vec<u32>,
}

impl Maglev {
    /// The table of these nodes.
    pub fn build(config: Config, nodes: &[Node<'_>]) -> Result<Self> {
        let roster = Roster::new(nodes)?;
        let by_key = roster.by_key();
        let steps = (0..roster.len()).map(|at| config.steps(roster.key(at)));
        let steps = steps.collect();
        Ok(Self::fill(config, roster, by_key, steps))
    }

    /// The table of these nodes with the same configuration.
    ///
    /// The table is filled anew, but keys are neither hashed nor sorted again.
    pub fn update(&self, nodes: &[Node<'_>]) -> Result<Self> {
        let roster = Roster::new(nodes)?;
        let matching = self.roster.matching(&roster);
        let by_key = roster.by_key_after(&self.by_key, &matching);
        let known = |was: u32| self.steps.get(was as usize).copied();
        let steps = matching.old.iter().enumerate();
        let steps =
            steps.map(|(at, &was)| known(was).unwrap_or_else(|| self.config.steps(roster.key(at))));
        let steps = steps.collect();
        Ok(Self::fill(self.config, roster, by_key, steps))
    }

    fn fill(config: Config, roster: Roster, by_key: Vec<u32>, steps: Vec<Steps>) -> Self {
        let weighty = by_key.iter().copied();
        let weighty = weighty.filter(|&at| roster.weight(at as usize) > 0);
        let members: Vec<u32> = weighty.collect();
        let slots = if members.is_empty() {
            Vec::new()
        } else {
            let turns = Turns::new(&members, &roster, config.size as usize);
            Filling::new(config.size).fill(&members, &steps, &turns)
        };
        Self {
            config,
            roster,
            by_key,
            steps,
            slots,
        }
    }

    /// The node of the slot of this hash.
    pub fn lookup(&self, hash: u64) -> Option<usize> {
        Some(*self.slots.get(self.slot(hash))? as usize)
    }

    /// The node for the `attempt`-th retry as Envoy chooses it, maybe the same again.
    pub fn lookup_attempt(&self, hash: u64, attempt: u32) -> Option<usize> {
        // Zero leaves the hash as it is, like the first attempt.
        self.lookup(hash ^ u64::from(attempt).wrapping_neg())
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

    #[expect(
        clippy::cast_possible_truncation,
        reason = "less than the size of the table"
    )]
    fn slot(&self, hash: u64) -> usize {
        (hash % u64::from(self.config.size)) as usize
    }
}

impl Config {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "less than the size of the table"
    )]
    fn steps(&self, key: &str) -> Steps {
        let size = u64::from(self.size);
        let hash = |seed| XxHash64::oneshot(seed, key.as_bytes());
        Steps {
            offset: (hash(0) % size) as u32,
            skip: (hash(1) % (size - 1) + 1) as u32,
        }
    }
}

/// A table while it is filled.
struct Filling {
    slots: Vec<u32>,
    /// A bit for each slot that is taken; small enough to stay near the processor, which the slots are not.
    taken: Vec<u64>,
    free: usize,
    modulus: Modulus,
}

impl Filling {
    fn new(size: u32) -> Self {
        let slots = vec![NONE; size as usize];
        let taken = vec![0; slots.len().div_ceil(64)];
        Self {
            free: slots.len(),
            slots,
            taken,
            modulus: Modulus::new(size),
        }
    }

    fn fill(mut self, members: &[u32], steps: &[Steps], turns: &Turns) -> Vec<u32> {
        // From here on a search among the free slots costs less than the probes for the next free one.
        let few = self.slots.len().isqrt();
        // The place in the permutation and the slot there, by rank.
        let mut next: Vec<u32> = members
            .iter()
            .map(|&at| steps[at as usize].offset)
            .collect();
        let mut turns = turns.iter();
        while self.free > few
            && let Some(rank) = turns.next()
        {
            let node = members[rank];
            next[rank] = self.probe(node, next[rank], steps[node as usize].skip);
        }
        let mut free: Vec<u32> = (0..)
            .zip(&self.slots)
            .filter(|(_, n)| **n == NONE)
            .map(|(s, _)| s)
            .collect();
        for rank in turns {
            let node = members[rank];
            let Some(nearest) = self.nearest(&free, next[rank], steps[node as usize].skip) else {
                break;
            };
            self.slots[free.swap_remove(nearest) as usize] = node;
        }
        self.slots
    }

    /// Takes the first free slot from this one on; gives the one after it in the permutation.
    fn probe(&mut self, node: u32, mut slot: u32, skip: u32) -> u32 {
        let size = self.modulus.get();
        let step = |slot: u32| {
            let next = slot + skip;
            if next >= size { next - size } else { next }
        };
        while self.taken[slot as usize / 64] >> (slot % 64) & 1 == 1 {
            slot = step(slot);
        }
        self.taken[slot as usize / 64] |= 1 << (slot % 64);
        self.slots[slot as usize] = node;
        self.free -= 1;
        step(slot)
    }

    /// Which of the free slots comes first in the permutation from this slot on.
    fn nearest(&self, free: &[u32], from: u32, skip: u32) -> Option<usize> {
        let inverse = self.modulus.inverse(skip);
        let distance = |slot: u32| {
            self.modulus
                .product(self.modulus.difference(slot, from), inverse)
        };
        let nearest = (0..free.len()).min_by_key(|&at| distance(free[at]));
        nearest
    }
}
