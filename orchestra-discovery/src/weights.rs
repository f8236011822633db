//! Drawing members in proportion to their weights, in constant time.
//!
//! The sums of the weights are searched from where a guide table says that a target of this size begins: as
//! many guides as members, so one or two steps on average whatever the weights (Chen and Asau, "On generating
//! random variates from an empirical distribution", 1974), and never more than a binary search of one
//! guide's members. Each member is one interval, so an evenly spaced sequence of targets gives even shares,
//! which an alias table's scattered columns would not.

/// The weights of a pool's members.
#[derive(Debug)]
pub(crate) enum Weights {
    /// All the same.
    Equal(u32),
    /// As listed.
    Listed(Listed),
}

#[derive(Debug)]
pub(crate) struct Listed {
    /// The sums of the weights up to and with each member.
    upto: Box<[u64]>,
    /// The first member whose sum is above `guide * total / guides`.
    guides: Box<[u32]>,
    greatest: u32,
    mean: f32,
}

impl Default for Weights {
    fn default() -> Self {
        Self::Equal(1)
    }
}

impl Weights {
    /// Of these, none of which is zero.
    pub(crate) fn new(weights: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        let first = weights.clone().next().unwrap_or(1);
        if weights.clone().all(|weight| weight == first) {
            Self::Equal(first)
        } else {
            Self::Listed(Listed::new(weights))
        }
    }

    pub(crate) fn weight(&self, index: usize) -> u32 {
        match self {
            Self::Equal(weight) => *weight,
            Self::Listed(listed) => listed.weight(index),
        }
    }

    pub(crate) fn greatest(&self) -> u32 {
        match self {
            Self::Equal(weight) => *weight,
            Self::Listed(listed) => listed.greatest,
        }
    }

    /// How much less than the mean weight a member has: 2 for half of it.
    #[inline]
    pub(crate) fn lightness(&self, index: usize) -> f32 {
        match self {
            Self::Equal(_) => 1.0,
            Self::Listed(listed) => listed.mean / listed.weight(index).max(1) as f32,
        }
    }

    /// The member at a fraction of the total, `draw / 2^64`; of none there is none.
    #[inline]
    pub(crate) fn at(&self, draw: u64, length: usize) -> Option<usize> {
        match self {
            Self::Equal(_) => (length > 0).then(|| scale(draw, length as u64)),
            Self::Listed(listed) => listed.at(draw),
        }
    }
}

/// `draw / 2^64 * range`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the product's upper half is below the range, which is a length or a sum held in memory"
)]
#[inline]
fn scale(draw: u64, range: u64) -> usize {
    ((u128::from(draw) * u128::from(range)) >> 64) as usize
}

impl Listed {
    fn new(weights: impl ExactSizeIterator<Item = u32>) -> Self {
        let (mut total, mut greatest) = (0_u64, 0);
        let add = |weight| {
            greatest = u32::max(greatest, weight);
            total += u64::from(weight);
            total
        };
        let upto: Box<[u64]> = weights.map(add).collect();
        Self {
            guides: guides(&upto, total),
            mean: total as f32 / upto.len().max(1) as f32,
            upto,
            greatest,
        }
    }

    fn weight(&self, index: usize) -> u32 {
        let sum = |index: usize| self.upto.get(index).copied();
        let below = index.checked_sub(1).and_then(sum).unwrap_or(0);
        let weight = sum(index).map_or(0, |upto| upto - below);
        u32::try_from(weight).unwrap_or(u32::MAX)
    }

    #[inline]
    fn at(&self, draw: u64) -> Option<usize> {
        let target = scale(draw, *self.upto.last()?) as u64;
        let guide = scale(draw, self.guides.len() as u64);
        let begin = *self.guides.get(guide)? as usize;
        let end = self
            .guides
            .get(guide + 1)
            .map_or(self.upto.len(), |&next| next as usize + 1);
        let range = self.upto.get(begin..end)?;
        // Mostly the first or the second is it.
        match range {
            [first, ..] if *first > target => Some(begin),
            [_, second, ..] if *second > target => Some(begin + 1),
            _ => Some(begin + range.partition_point(|upto| *upto <= target)),
        }
    }
}

fn guides(upto: &[u64], total: u64) -> Box<[u32]> {
    let count = upto.len() as u64;
    let mut member = 0_u32;
    let mut guide = |number: u64| {
        // The least target that a draw of this guide can have.
        let least = u128::from(number) * u128::from(total) / u128::from(count.max(1));
        while upto
            .get(member as usize)
            .is_some_and(|&upto| u128::from(upto) <= least)
        {
            member += 1;
        }
        member
    };
    (0..count).map(&mut guide).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The member at a target, found by walking.
    fn walked(weights: &[u32], draw: u64) -> Option<usize> {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut left = scale(draw, total) as u64;
        weights.iter().position(|&weight| {
            let found = left < u64::from(weight);
            left = left.saturating_sub(u64::from(weight));
            found
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_walk_finds(
            weights in proptest::collection::vec(prop_oneof![1..4_u32, 1..=u32::MAX], 1..60),
            draws in proptest::collection::vec(any::<u64>(), 1..60),
        ) {
            let table = Weights::new(weights.iter().copied());
            for draw in draws.into_iter().chain([0, u64::MAX]) {
                prop_assert_eq!(table.at(draw, weights.len()), walked(&weights, draw));
            }
            for (index, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(table.weight(index), weight);
            }
            prop_assert_eq!(table.greatest(), weights.iter().copied().max().unwrap());
        }
    }

    #[test]
    fn of_none_there_is_none() {
        assert_eq!(Weights::new([].into_iter()).at(7, 0), None);
    }

    #[test]
    fn edges_of_a_skewed_table_are_exact() {
        let weights: Vec<_> = (0..1_000)
            .map(|n| if n % 2 == 0 { 1 } else { 65_535 })
            .collect();
        let table = Weights::new(weights.iter().copied());
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let draw = rng.u64(..);
            assert_eq!(table.at(draw, weights.len()), walked(&weights, draw));
        }
    }
}
