//! Filling a table from nothing: bids in the order of their scores, each taken if slot and node have room.

use super::Matched;
use super::member::{Bid, Member};
use crate::hash::modulus::Modulus;
use crate::hash::roster::{NONE, narrow};

/// The table of these nodes, whose weights have this sum.
pub(super) fn fill(modulus: Modulus, members: &[Member], total: u64) -> Matched {
    let weighty = (0..narrow(members.len())).filter(|&at| members[at as usize].weight > 0);
    let bidders: Vec<Bidder> = weighty.map(|node| Bidder { node, place: 0 }).collect();
    if bidders.is_empty() {
        return Matched::default();
    }
    let free = modulus.get() as usize;
    let matched = Matched {
        slots: vec![NONE; free],
        held: vec![0; members.len()],
        worst: 0.0,
        filled_for: total,
    };
    Filling {
        modulus,
        members,
        bidders,
        matched,
        free,
    }
    .fill()
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
    matched: Matched,
    free: usize,
}

impl Filling<'_> {
    /// Goes on in stretches of scores with so many bids that sorting them is cheap and going over the nodes is too.
    fn fill(mut self) -> Matched {
        let mut end = 0.0;
        while self.free > 0 && !self.bidders.is_empty() {
            let weight = |bidder: &Bidder| f64::from(self.members[bidder.node as usize].weight);
            let weights: f64 = self.bidders.iter().map(weight).sum();
            let bids = self.bidders.len().max(self.matched.slots.len() / 8);
            end += bids as f64 / (weights * self.matched.slots.len() as f64);
            let mut bids = self.bids_until(end);
            bids.sort_unstable_by(|(a, _), (b, _)| a.order(b));
            for (bid, slot) in bids {
                self.take(&bid, slot);
            }
            let (held, members, size) = (&self.matched.held, self.members, self.modulus.get());
            self.bidders.retain(|bidder| {
                let node = bidder.node as usize;
                held[node] < members[node].bound && bidder.place < size
            });
        }
        self.matched
    }

    /// The bids of a score below `end` for slots that are free.
    fn bids_until(&mut self, end: f64) -> Vec<(Bid, u32)> {
        let mut bids = Vec::new();
        for bidder in &mut self.bidders {
            let member = &self.members[bidder.node as usize];
            let mut slot = member.slot(self.modulus, bidder.place);
            let last = self.modulus.get();
            while bidder.place < last && member.at_best(bidder.place) < end {
                if self.matched.slots[slot as usize] == NONE {
                    let bid = member.bid(bidder.place, bidder.node);
                    if bid.score >= end {
                        break;
                    }
                    bids.push((bid, slot));
                }
                bidder.place += 1;
                slot = self.modulus.sum(slot, member.skip);
            }
        }
        bids
    }

    fn take(&mut self, bid: &Bid, slot: u32) {
        let node = bid.node as usize;
        let (held, slot) = (
            &mut self.matched.held[node],
            &mut self.matched.slots[slot as usize],
        );
        if *slot == NONE && *held < self.members[node].bound {
            *slot = bid.node;
            *held += 1;
            self.free -= 1;
            self.matched.worst = self.matched.worst.max(bid.score);
        }
    }
}
