//! How a node scores the slots.

use twox_hash::XxHash64;

use crate::hash::modulus::Modulus;

/// A node in a rendezvous table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    seed: u64,
    /// One over the weight; infinite for none.
    pace: f64,
    /// One over the number of slots.
    unit: f64,
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
            unit: 1.0 / f64::from(modulus.get()),
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
        f64::from(place) * self.unit * self.pace
    }

    /// The bid for the slot at this place, as the node `node`; it grows with the place.
    pub(super) fn bid(&self, place: u32, node: u32) -> Bid {
        let product = (self.seed ^ u64::from(place)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bits = (product ^ (product >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
        // Below one half, so that the next place is further off than the logarithm is wrong.
        let fraction = bits as f64 / f64::from(1 << 25);
        let passed = (f64::from(place) + fraction) * self.unit;
        let score = -logarithm(1.0 - passed) * self.pace;
        Bid {
            score,
            seed: self.seed,
            node,
        }
    }
}

/// The natural logarithm of a number between zero and one, right to nine digits.
///
/// That of the standard library may differ from one platform to the next, and so would the tables. With
/// `x = 2^e * m` it is `e ln 2 + 2 artanh((m - 1) / (m + 1))`.
fn logarithm(number: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    const ROOT_OF_TWO: u64 = 0x6_a09e_667f_3bcd;
    let bits = number.to_bits();
    let mantissa = bits & MANTISSA;
    // Into the range from the root of one half to the root of two, where the series is short.
    let up = u64::from(mantissa > ROOT_OF_TWO);
    let exponent = (bits >> 52) + up;
    let scaled = f64::from_bits(mantissa | ((1023 - up) << 52));
    let ratio = (scaled - 1.0) / (scaled + 1.0);
    let square = ratio * ratio;
    let series = [11.0, 9.0, 7.0, 5.0, 3.0, 1.0];
    let series = series
        .into_iter()
        .fold(0.0, |sum, odd| sum * square + 1.0 / odd);
    (exponent as f64 - 1023.0) * std::f64::consts::LN_2 + 2.0 * ratio * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_is_that_of_the_library_to_nine_digits() {
        let even = (1..=10_000).map(|part| f64::from(part) / 10_000.0);
        let small = (1..60).map(|power| 0.7_f64.powi(power));
        for number in even.chain(small) {
            let (ours, theirs) = (logarithm(number), number.ln());
            assert!(
                (ours - theirs).abs() <= 1e-9 * theirs.abs(),
                "{number}: {ours} {theirs}"
            );
        }
    }

    #[test]
    fn scores_grow_with_the_place() {
        let member = Member::new(Modulus::new(65_537), "10.0.0.1:80", 3);
        let scores = (0..65_537).map(|place| member.bid(place, 0).score);
        assert!(scores.clone().is_sorted_by(|a, b| a < b));
        assert!(
            (0..65_537)
                .zip(scores)
                .all(|(place, score)| member.at_best(place) <= score)
        );
    }
}
