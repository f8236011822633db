//! Consistent hashing with bounded loads.
//!
//! With the factor `f` in percent, `a` calls in flight on all nodes and a node of share `w`, the node may have
//! `max(ceil(ceil((a + 1) * f / 100) * w), 1)` calls in flight (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing
//! with Bounded Loads", 2016). If the node of the hash has more, the others are looked at in a random order that
//! depends on the hash alone, so that the overflow of one node does not fall on its neighbour (Chen, Coleman,
//! Shrivastava, "Revisiting Consistent Hashing with Bounded Loads", 2019); if all have more, the one that exceeds its
//! limit least is taken. Limits, order and arithmetic are those of Envoy's `hash_balance_factor`
//! (`thread_aware_lb_impl.cc`); only the order after the first 64 nodes is another one, which takes no memory.

mod shuffle;

use self::shuffle::Shuffle;
use super::Node;
use crate::error::{Error, ErrorKind, Result};

/// Moves calls off nodes that have more than their share in flight.
///
/// ```
/// use orchestra_discovery::hash::{Bounded, Node};
///
/// let nodes = [Node::new("a", 1), Node::new("b", 1), Node::new("c", 1)];
/// let bounded = Bounded::build(125, &nodes)?;
/// let in_flight = [5, 0, 1];
/// let chosen = bounded.choose(4711, 0, 6, |node| in_flight.get(node).copied());
/// assert_ne!(chosen, Some(0));
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Bounded {
    factor: u32,
    total: f64,
    weights: Vec<u32>,
    /// The nodes with a weight.
    members: Vec<u32>,
}

impl Bounded {
    /// A bound of `factor` percent of a node's share; at least 100.
    pub fn build(factor: u32, nodes: &[Node<'_>]) -> Result<Self> {
        if factor < 100 {
            let message = format!("bounded load: the factor {factor} is less than 100 percent");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let weights: Vec<u32> = nodes.iter().map(|node| node.weight).collect();
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let weighty = |at: &u32| weights.get(*at as usize).is_some_and(|weight| *weight > 0);
        let members = (0..).take(nodes.len()).filter(weighty).collect();
        Ok(Self {
            factor,
            total: total as f64,
            weights,
            members,
        })
    }

    /// The node for a call of this hash, which the table gives to `first`.
    ///
    /// `in_flight` tells the calls in flight on a node, or `None` if it must not be chosen; `total` is the sum over
    /// all. It takes no memory; with many overloaded, it costs up to a pass over all of them.
    pub fn choose(
        &self,
        hash: u64,
        first: usize,
        total: u64,
        in_flight: impl Fn(usize) -> Option<u32>,
    ) -> Option<usize> {
        let slots = (u128::from(total) + 1) * u128::from(self.factor);
        let slots = slots.div_ceil(100) as f64;
        let overload = |node: usize| Some(self.overload(node, slots, in_flight(node)?));
        let mut least = overload(first).map(|overload| (first, overload));
        if least.is_some_and(|(_, overload)| overload <= 1.0) {
            return Some(first);
        }
        for member in Shuffle::new(hash, self.members.len()) {
            let Some(node) = self.members.get(member).map(|&node| node as usize) else {
                continue;
            };
            let Some(overload) = overload(node).filter(|_| node != first) else {
                continue;
            };
            if overload <= 1.0 {
                return Some(node);
            }
            if least.is_none_or(|(_, least)| overload < least) {
                least = Some((node, overload));
            }
        }
        least.map(|(node, _)| node)
    }

    /// The calls in flight on a node over what it may have.
    fn overload(&self, node: usize, slots: f64, in_flight: u32) -> f64 {
        let weight = self.weights.get(node).copied().unwrap_or(0);
        let limit = (slots * (f64::from(weight) / self.total)).ceil().max(1.0);
        f64::from(in_flight) / limit
    }
}

#[cfg(test)]
pub(super) fn order(hash: u64, length: usize) -> Vec<usize> {
    Shuffle::new(hash, length).collect()
}
