//! The nodes of a table as it was built, and which of them are still there.

use std::collections::HashMap;

use super::Node;
use crate::error::{Error, ErrorKind, Result};

/// No position, no id.
pub(super) const NONE: u32 = u32::MAX;

/// Keys and weights in the order of the caller; the keys lie side by side, so that ten thousand are compared with
/// the next list in one pass over the memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Roster {
    text: String,
    ends: Vec<usize>,
    weights: Vec<u32>,
}

/// Where each node of a new list was before.
#[derive(Debug)]
pub(super) struct Matching {
    /// The old position of each new one, or [`NONE`].
    pub(super) old: Vec<u32>,
    /// The new position of each old one, or [`NONE`].
    pub(super) new: Vec<u32>,
    /// Whether those that stayed kept their order.
    pub(super) in_order: bool,
}

impl Roster {
    pub(super) fn new(nodes: &[Node<'_>]) -> Result<Self> {
        // One value is `NONE`, and ids are never more than twice the nodes.
        if u32::try_from(nodes.len()).is_ok_and(|length| length < NONE / 4) {
            let mut roster = Self::default();
            for node in nodes {
                roster.text.push_str(node.key);
                roster.ends.push(roster.text.len());
                roster.weights.push(node.weight);
            }
            return Ok(roster);
        }
        let message = format!("a hash table of {} nodes is too large", nodes.len());
        Err(Error::new(ErrorKind::Invalid, message))
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn key(&self, position: usize) -> &str {
        let start = position
            .checked_sub(1)
            .map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[position]]
    }

    pub(super) fn weight(&self, position: usize) -> u32 {
        self.weights[position]
    }

    pub(super) fn weights(&self) -> &[u32] {
        &self.weights
    }

    /// The sum of the weights; it cannot overflow, as there are fewer than `2^32` of them.
    pub(super) fn total(&self) -> u64 {
        self.weights.iter().copied().map(u64::from).sum()
    }

    /// Finds the nodes of this list in the next: what both lists begin and end with at once, the rest by key.
    ///
    /// Of several nodes with one key, the first is matched with the first.
    pub(super) fn matching(&self, next: &Self) -> Matching {
        let shorter = self.len().min(next.len());
        let same = |a: usize, b: usize| self.key(a) == next.key(b);
        let head = (0..shorter).take_while(|&at| same(at, at)).count();
        let from_end = |at: usize| same(self.len() - 1 - at, next.len() - 1 - at);
        let tail = (0..shorter - head).take_while(|&at| from_end(at)).count();

        let mut old = vec![NONE; next.len()];
        for (at, was) in old.iter_mut().enumerate().take(head) {
            *was = narrow(at);
        }
        for at in 0..tail {
            old[next.len() - 1 - at] = narrow(self.len() - 1 - at);
        }
        self.match_middle(next, head, tail, &mut old);
        Matching::new(old, self.len())
    }

    fn match_middle(&self, next: &Self, head: usize, tail: usize, old: &mut [u32]) {
        let (ours, theirs) = (head..self.len() - tail, head..next.len() - tail);
        if ours.is_empty() || theirs.is_empty() {
            return;
        }
        let mut first: HashMap<&str, u32> = HashMap::with_capacity(ours.len());
        let mut following = vec![NONE; ours.len()];
        for at in ours.rev() {
            let later = first.insert(self.key(at), narrow(at));
            following[at - head] = later.unwrap_or(NONE);
        }
        for at in theirs {
            if let Some(found) = first.get_mut(next.key(at)).filter(|found| **found != NONE) {
                old[at] = *found;
                *found = following[*found as usize - head];
            }
        }
    }

    /// All positions by key, and by position under one key.
    pub(super) fn by_key(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..narrow(self.len())).collect();
        order.sort_unstable_by_key(|&at| (self.key(at as usize), at));
        order
    }

    /// The same, out of the order of the list before.
    pub(super) fn by_key_after(&self, before: &[u32], matching: &Matching) -> Vec<u32> {
        let key = |at: u32| (self.key(at as usize), at);
        let moved = before.iter().map(|&at| matching.new[at as usize]);
        let kept: Vec<u32> = moved.filter(|&at| at != NONE).collect();
        let mut added: Vec<u32> = (0..narrow(self.len()))
            .filter(|&at| matching.old[at as usize] == NONE)
            .collect();
        added.sort_unstable_by_key(|&at| key(at));
        let mut order = Vec::with_capacity(self.len());
        let mut rest = kept.as_slice();
        for at in added {
            let (smaller, larger) = rest.split_at(rest.partition_point(|&k| key(k) < key(at)));
            order.extend_from_slice(smaller);
            order.push(at);
            rest = larger;
        }
        order.extend_from_slice(rest);
        order
    }
}

impl Matching {
    fn new(old: Vec<u32>, length_before: usize) -> Self {
        let mut new = vec![NONE; length_before];
        let mut in_order = true;
        let mut last = None;
        for (at, &was) in old.iter().enumerate().filter(|(_, was)| **was != NONE) {
            new[was as usize] = narrow(at);
            in_order &= last < Some(was);
            last = Some(was);
        }
        Self { old, new, in_order }
    }
}

/// Ids that nodes keep while others come and go, so that a table need not be rewritten when positions shift.
#[derive(Debug, Clone, Default)]
pub(super) struct Ids {
    of: Vec<u32>,
    positions: Vec<u32>,
}

impl Ids {
    pub(super) fn new(length: usize) -> Self {
        let of: Vec<u32> = (0..narrow(length)).collect();
        let positions = of.clone();
        Self { of, positions }
    }

    /// The ids after a change, or `None` if so many are unused that it is time to number anew.
    pub(super) fn after(&self, matching: &Matching) -> Option<Self> {
        let mut positions = vec![NONE; self.positions.len()];
        let mut of = vec![NONE; matching.old.len()];
        for (at, &was) in matching.old.iter().enumerate() {
            if was != NONE {
                of[at] = self.of[was as usize];
                positions[of[at] as usize] = narrow(at);
            }
        }
        let mut unused = 0;
        for (at, id) in of.iter_mut().enumerate().filter(|(_, id)| **id == NONE) {
            while positions.get(unused).is_some_and(|used| *used != NONE) {
                unused += 1;
            }
            if unused == positions.len() {
                positions.push(NONE);
            }
            positions[unused] = narrow(at);
            *id = narrow(unused);
        }
        let sparse = positions.len() > 2 * of.len() + 64;
        (!sparse).then_some(Self { of, positions })
    }

    pub(super) fn of(&self, position: usize) -> u32 {
        self.of[position]
    }

    /// The position of the node with this id, or [`NONE`].
    pub(super) fn position(&self, id: u32) -> u32 {
        self.positions[id as usize]
    }
}

/// A position as a table holds it; [`Roster::new`] saw that it fits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a roster is shorter than 2^32"
)]
pub(super) const fn narrow(position: usize) -> u32 {
    position as u32
}
