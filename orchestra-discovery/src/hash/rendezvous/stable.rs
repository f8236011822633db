//! What a table must be, told without regard to how it is made.

use super::Rendezvous;
use super::member::Bid;
use crate::hash::modulus::Modulus;

impl Rendezvous {
    /// Whether no node has more slots than it may, and there are no slot and node that would rather have each other
    /// than what they have.
    pub(in crate::hash) fn is_stable(&self) -> bool {
        let nodes = 0..self.members.len();
        let within = |node: usize| self.slots_of(node).count() <= self.members[node].bound as usize;
        nodes.clone().all(within)
            && nodes
                .filter(|&node| self.members[node].weight > 0)
                .all(|node| !self.is_blocked(node))
    }

    fn is_blocked(&self, node: usize) -> bool {
        let has_room = self.slots_of(node).count() < self.members[node].bound as usize;
        let own = self.slots_of(node).map(|slot| self.bid(node, slot));
        let worst = own.max_by(Bid::order);
        let wants = |bid: Bid| has_room || worst.is_some_and(|worst| bid.beats(&worst));
        (0..).zip(&self.matched.slots).any(|(slot, &holder)| {
            let bid = self.bid(node, slot);
            holder as usize != node && bid.beats(&self.bid(holder as usize, slot)) && wants(bid)
        })
    }

    fn slots_of(&self, node: usize) -> impl Iterator<Item = u32> {
        let slots = (0..).zip(&self.matched.slots);
        slots
            .filter(move |(_, holder)| **holder as usize == node)
            .map(|(slot, _)| slot)
    }

    fn bid(&self, node: usize, slot: u32) -> Bid {
        let member = &self.members[node];
        let place = member.place(Modulus::new(self.config.size), slot);
        member.bid(place, u32::try_from(node).unwrap())
    }
}
