//! The table after a change, out of the table before it.

use super::member::{Bid, Member};
use super::{Matched, Rendezvous};
use crate::hash::modulus::Modulus;
use crate::hash::roster::{Matching, NONE, narrow};

/// How many bids per slot may be looked at before it is cheaper to fill the table anew.
const PATIENCE: usize = 32;

/// The table of these nodes, or `None` if too much changed.
pub(super) fn repair(
    modulus: Modulus,
    before: &Rendezvous,
    members: &[Member],
    matching: &Matching,
) -> Option<Matched> {
    let matched = &before.matched;
    let mut repair = Repair {
        modulus,
        members,
        held: vec![0; members.len()],
        slots: Vec::new(),
        homeless: Vec::new(),
        roomy: Vec::new(),
        worst: matched.worst,
        patience: matched.slots.len() * PATIENCE,
    };
    repair.carry_over(before, matching);
    repair.find_room(before, matching)?;
    repair.settle()?;
    let Repair {
        slots, held, worst, ..
    } = repair;
    Some(Matched {
        slots,
        held,
        worst,
        filled_for: matched.filled_for,
    })
}

struct Repair<'a> {
    modulus: Modulus,
    members: &'a [Member],
    held: Vec<u32>,
    slots: Vec<u32>,
    /// Slots that have no node.
    homeless: Vec<u32>,
    /// Nodes that may get a slot which they were refused before.
    roomy: Vec<u32>,
    /// No score of a slot is greater.
    worst: f64,
    patience: usize,
}

impl Repair<'_> {
    /// Leaves each slot with its node if that is there under the same weight.
    fn carry_over(&mut self, before: &Rendezvous, matching: &Matching) {
        let mut stays = vec![NONE; before.members.len()];
        for (was, &now) in matching.new.iter().enumerate() {
            let weight = before.members[was].weight;
            let member = self.members.get(now as usize);
            if member.is_some_and(|member| member.weight == weight) {
                stays[was] = now;
                self.held[now as usize] = before.matched.held[was];
            }
        }
        let slots = before.matched.slots.iter();
        self.slots = slots.map(|&was| stays[was as usize]).collect();
        let slots = (0..).zip(&self.slots);
        let homeless = slots.filter(|(_, node)| **node == NONE);
        self.homeless = homeless.map(|(slot, _)| slot).collect();
    }

    /// Takes the worst slots from nodes whose bound fell, and notes those that have room which they did not have.
    fn find_room(&mut self, before: &Rendezvous, matching: &Matching) -> Option<()> {
        for (node, &was) in (0..).zip(&matching.old) {
            let member = &self.members[node as usize];
            let known = before.members.get(was as usize);
            let known = known.filter(|known| known.weight == member.weight);
            let held = before.matched.held.get(was as usize);
            let was_full = known.is_none_or(|known| held == Some(&known.bound));
            while self.held[node as usize] > member.bound {
                self.evict_worst(node)?;
            }
            if was_full && self.held[node as usize] < member.bound {
                self.roomy.push(node);
            }
        }
        Some(())
    }

    fn settle(&mut self) -> Option<()> {
        loop {
            if let Some(slot) = self.homeless.pop() {
                // It may have been taken meanwhile.
                if self.slots[slot as usize] == NONE {
                    self.house(slot)?;
                }
            } else if let Some(node) = self.roomy.pop() {
                self.make_use(node)?;
            } else {
                return Some(());
            }
        }
    }

    /// Gives a slot to the best node that takes it.
    fn house(&mut self, slot: u32) -> Option<()> {
        self.spend(self.members.len())?;
        let mut best: Option<Bid> = None;
        for node in 0..narrow(self.members.len()) {
            let member = &self.members[node as usize];
            let place = member.place(self.modulus, slot);
            if best.is_some_and(|best| best.score < member.at_best(place)) || member.weight == 0 {
                continue;
            }
            let bid = member.bid(place, node);
            if best.is_none_or(|best| bid.beats(&best)) && self.takes(&bid)? {
                best = Some(bid);
            }
        }
        let bid = best?;
        self.give(slot, bid);
        if self.held[bid.node as usize] > self.members[bid.node as usize].bound {
            self.evict_worst(bid.node)?;
        }
        Some(())
    }

    /// Whether a node has room, or a worse slot to give up.
    fn takes(&mut self, bid: &Bid) -> Option<bool> {
        let node = bid.node;
        if self.held[node as usize] < self.members[node as usize].bound {
            return Some(true);
        }
        let worst = self.worst_slot(node)?;
        Some(bid.beats(&self.bid(node, worst)))
    }

    /// Lets a node take what it prefers to nothing, or to its worst slot if it is full, from nodes that bid less.
    fn make_use(&mut self, node: u32) -> Option<()> {
        let member = self.members[node as usize];
        let mut slot = member.slot(self.modulus, 0);
        let mut own = 0;
        for place in 0..self.modulus.get() {
            let is_full = self.held[node as usize] >= member.bound;
            if member.at_best(place) > self.worst || is_full && own >= member.bound {
                break;
            }
            self.spend(1)?;
            let holder = self.slots[slot as usize];
            let bid = member.bid(place, node);
            if holder == node {
                own += 1;
            } else if holder == NONE || bid.beats(&self.bid(holder, slot)) {
                self.leave(holder);
                self.give(slot, bid);
                own += 1;
                if is_full {
                    self.evict_worst(node)?;
                }
            }
            slot = self.modulus.sum(slot, member.skip);
        }
        Some(())
    }

    /// A node loses a slot to another, and may have room for one that it was refused.
    fn leave(&mut self, node: u32) {
        let Some(held) = self.held.get_mut(node as usize) else {
            return;
        };
        if *held >= self.members[node as usize].bound {
            self.roomy.push(node);
        }
        *held -= 1;
    }

    fn give(&mut self, slot: u32, bid: Bid) {
        self.slots[slot as usize] = bid.node;
        self.held[bid.node as usize] += 1;
        self.worst = self.worst.max(bid.score);
    }

    fn evict_worst(&mut self, node: u32) -> Option<()> {
        let slot = self.worst_slot(node)?;
        self.slots[slot as usize] = NONE;
        self.held[node as usize] -= 1;
        self.homeless.push(slot);
        Some(())
    }

    /// The slot of a node that is the last in its permutation.
    fn worst_slot(&mut self, node: u32) -> Option<u32> {
        let member = self.members[node as usize];
        let mut slot = member.slot(self.modulus, 0);
        let mut left = self.held[node as usize];
        loop {
            self.spend(1)?;
            if self.slots[slot as usize] == node {
                left = left.checked_sub(1)?;
            }
            if left == 0 {
                return Some(slot);
            }
            slot = self.modulus.sum(slot, member.skip);
        }
    }

    fn bid(&self, node: u32, slot: u32) -> Bid {
        let member = &self.members[node as usize];
        member.bid(member.place(self.modulus, slot), node)
    }

    fn spend(&mut self, bids: usize) -> Option<()> {
        self.patience = self.patience.checked_sub(bids)?;
        Some(())
    }
}
