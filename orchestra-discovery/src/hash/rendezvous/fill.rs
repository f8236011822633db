//! Filling a table from nothing: bids in the order of their scores, each taken if slot and node have room.

use super::member::{Bid, Member};
use crate::hash::modulus::Modulus;
use crate::hash::roster::{NONE, narrow};

/// The node of every slot; nothing if no node has a weight.
pub(super) fn fill(modulus: Modulus, members: &[Member]) -> Vec<u32> {
    let weighty = (0..narrow(members.len())).filter(|&at| members[at as usize].weight > 0);
    let bidders: Vec<Bidder> = weighty.map(|node| Bidder { node, place: 0 }).collect();
    if bidders.is_empty() {
        return Vec::new();
    }
    let size = modulus.get() as usize;
    let filling = Filling {
        modulus,
        members,
        bidders,
        held: vec![0; members.len()],
        slots: vec![NONE; size],
        free: size,
    };
    filling.fill()
}

/// A node that has room, and the place of its next bid.
struct Bidder {
    node: u32,
    place: u32,
}

struct Filling<'a> {
    modulus: Modulus,
    members: &'a [Member],
    bidders: Vec<Bidder>,
    held: Vec<u32>,
    slots: Vec<u32>,
    free: usize,
}

impl Filling<'_> {
    /// Goes on in stretches of scores with so many bids that sorting them is cheap and going over the nodes is too.
    fn fill(mut self) -> Vec<u32> {
        let mut end = 0.0;
        while self.free > 0 && !self.bidders.is_empty() {
            let weight = |bidder: &Bidder| f64::from(self.members[bidder.node as usize].weight);
            let weights: f64 = self.bidders.iter().map(weight).sum();
            let bids = self.bidders.len().max(self.slots.len() / 8);
            end += bids as f64 / weights;
            let mut bids = self.bids_until(end);
            bids.sort_unstable_by(|(a, _), (b, _)| a.order(b));
            for (bid, slot) in bids {
                self.take(bid.node, slot);
            }
            let (held, members, size) = (&self.held, self.members, self.modulus.get());
            self.bidders.retain(|bidder| {
                let node = bidder.node as usize;
                held[node] < members[node].bound && bidder.place < size
            });
        }
        self.slots
    }

    /// The bids of a score below `end` for slots that are free.
    fn bids_until(&mut self, end: f64) -> Vec<(Bid, u32)> {
        let mut bids = Vec::new();
        for bidder in &mut self.bidders {
            let member = &self.members[bidder.node as usize];
            let mut slot = member.slot(self.modulus, bidder.place);
            while bidder.place < self.modulus.get() {
                let bid = member.bid(bidder.place, bidder.node);
                if bid.score >= end {
                    break;
                }
                if self.slots[slot as usize] == NONE {
                    bids.push((bid, slot));
                }
                bidder.place += 1;
                slot = self.modulus.sum(slot, member.skip);
            }
        }
        bids
    }

    fn take(&mut self, node: u32, slot: u32) {
        let (held, slot) = (
            &mut self.held[node as usize],
            &mut self.slots[slot as usize],
        );
        if *slot == NONE && *held < self.members[node as usize].bound {
            *slot = node;
            *held += 1;
            self.free -= 1;
        }
    }
}
