//! How a node scores the slots.

use twox_hash::XxHash64;

use crate::hash::modulus::Modulus;

/// A node in a rendezvous table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    seed: u64,
    /// One over the weight; infinite for none.
    pace: f64,
    offset: u32,
    pub(super) skip: u32,
    inverse: u32,
    pub(super) weight: u32,
    /// How many slots it may have.
    pub(super) bound: u32,
}

/// What a node bids for a slot; the least score wins, and of equal ones the same node in every list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bid {
    pub(super) score: f64,
    seed: u64,
    pub(super) node: u32,
}

impl Bid {
    pub(super) fn beats(&self, other: &Self) -> bool {
        self.order(other).is_lt()
    }

    pub(super) fn order(&self, other: &Self) -> std::cmp::Ordering {
        let by_score = self.score.total_cmp(&other.score);
        by_score.then_with(|| (self.seed, self.node).cmp(&(other.seed, other.node)))
    }
}

impl Member {
    #[expect(clippy::cast_possible_truncation, reason = "below the modulus")]
    pub(super) fn new(modulus: Modulus, key: &str, weight: u32) -> Self {
        let size = u64::from(modulus.get());
        let hash = |seed| XxHash64::oneshot(seed, key.as_bytes());
        let seed = hash(0);
        let skip = (hash(1) % (size - 1) + 1) as u32;
        Self {
            seed,
            pace: 1.0 / f64::from(weight),
            offset: (seed % size) as u32,
            skip,
            inverse: modulus.inverse(skip),
            weight,
            bound: 0,
        }
    }

    /// The same with this weight.
    pub(super) fn weighing(self, weight: u32) -> Self {
        Self {
            weight,
            pace: 1.0 / f64::from(weight),
            ..self
        }
    }

    /// The slot at this place of the permutation.
    pub(super) fn slot(&self, modulus: Modulus, place: u32) -> u32 {
        modulus.sum(self.offset, modulus.product(place, self.skip))
    }

    /// The place of this slot in the permutation.
    pub(super) fn place(&self, modulus: Modulus, slot: u32) -> u32 {
        modulus.product(modulus.difference(slot, self.offset), self.inverse)
    }

    /// A score that is not worse than that of this place.
    pub(super) fn at_best(&self, place: u32) -> f64 {
        f64::from(place) * self.pace
    }

    /// The bid for the slot at this place, as the node `node`.
    pub(super) fn bid(&self, place: u32, node: u32) -> Bid {
        let product = (self.seed ^ u64::from(place)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bits = (product ^ (product >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
        #[expect(clippy::cast_possible_truncation, reason = "24 bits")]
        let fraction = f64::from(bits as u32) / f64::from(1 << 24);
        let score = (f64::from(place) + fraction) * self.pace;
        Bid {
            score,
            seed: self.seed,
            node,
        }
    }
}
