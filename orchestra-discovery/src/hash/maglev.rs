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
    fn steps(self, key: &str) -> Steps {
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
        // Each with the slot that is next in its permutation.
        let runner = |&node: &u32| Runner {
            node,
            steps: steps[node as usize],
        };
        let mut runners: Vec<Runner> = members.iter().map(runner).collect();
        let mut turn = 0;
        while self.free > few
            && let Some(runner) = turns.rank(turn).and_then(|rank| runners.get_mut(rank))
        {
            self.probe(runner);
            turn = turns.after(turn);
        }
        let slots = (0..).zip(&self.slots);
        let free = slots.filter(|(_, node)| **node == NONE);
        let mut free: Vec<u32> = free.map(|(slot, _)| slot).collect();
        while let Some(runner) = turns.rank(turn).and_then(|rank| runners.get(rank))
            && let Some(nearest) = self.nearest(&free, runner.steps)
        {
            self.slots[free.swap_remove(nearest) as usize] = runner.node;
            turn = turns.after(turn);
        }
        self.slots
    }

    /// Takes the first free slot from the next one on.
    fn probe(&mut self, runner: &mut Runner) {
        let (size, skip) = (self.modulus.get(), runner.steps.skip);
        // The smaller of both is the rest, as the difference wraps around below the size.
        let after = |slot: u32| (slot + skip).min((slot + skip).wrapping_sub(size));
        let mut slot = runner.steps.offset;
        while self.taken[slot as usize / 64] >> (slot % 64) & 1 == 1 {
            slot = after(slot);
        }
        self.taken[slot as usize / 64] |= 1 << (slot % 64);
        self.slots[slot as usize] = runner.node;
        self.free -= 1;
        runner.steps.offset = after(slot);
    }

    /// Which of the free slots comes first in the permutation.
    fn nearest(&self, free: &[u32], steps: Steps) -> Option<usize> {
        let inverse = self.modulus.inverse(steps.skip);
        let place = |slot: u32| {
            let distance = self.modulus.difference(slot, steps.offset);
            self.modulus.product(distance, inverse)
        };
        (0..free.len()).min_by_key(|&at| place(free[at]))
    }
}

/// A node while it takes slots; its offset is the slot that is next in its permutation.
struct Runner {
    node: u32,
    steps: Steps,
}
