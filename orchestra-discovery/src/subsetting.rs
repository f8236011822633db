//! Client subsetting: each client talks to a few of many instances.
//!
//! With `c` clients and `n` instances there are `c * size` connections in place of `c * n`. Each client ranks
//! the instances by a hash of its own seed and their ids and takes the first `size` (rendezvous hashing, as
//! gRPC's random subsetting, proposal A68). So the load is even over many clients without any of them knowing
//! of the others, and one instance more or less changes at most one entry of a subset.
//!
//! It pays off with many clients. With few, `clients * size` below some hundreds per instance, the share of
//! an instance varies: its standard deviation is about `sqrt(clients * size / instances)`.

use std::num::NonZeroUsize;

use orchestra_core::InstanceId;

/// How many instances one client talks to, and which.
///
/// ```
/// use std::num::NonZeroUsize;
/// use orchestra_core::InstanceId;
/// use orchestra_discovery::subsetting::Subsetting;
///
/// let ids = ["a", "b", "c", "d"].map(InstanceId::new);
/// let ids = ids.into_iter().collect::<Result<Vec<_>, _>>()?;
/// let subsetting = Subsetting::new(17, NonZeroUsize::MIN.saturating_add(1));
/// let subset = subsetting.select(&ids);
/// assert_eq!(subset.len(), 2);
/// assert_eq!(subset, subsetting.select(&ids));
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subsetting {
    seed: u64,
    size: NonZeroUsize,
}

impl Subsetting {
    /// Subsets of this size. The seed is random and differs from client to client; it stays the same as long
    /// as the client lives, or its subset changes.
    pub const fn new(seed: u64, size: NonZeroUsize) -> Self {
        Self { seed, size }
    }

    /// The positions of the subset in `ids`, ascending; all of them if there are no more than the size.
    ///
    /// Which instances are chosen does not depend on their order. Linear in the ids, with one allocation.
    pub fn select<'a>(&self, ids: impl IntoIterator<Item = &'a InstanceId>) -> Vec<usize> {
        let rank = |(position, id): (usize, &'a InstanceId)| (rank(self.seed, id), id, position);
        let mut ranked: Vec<_> = ids.into_iter().enumerate().map(rank).collect();
        if ranked.len() > self.size.get() {
            ranked.select_nth_unstable(self.size.get() - 1);
            ranked.truncate(self.size.get());
        }
        let mut positions: Vec<usize> = ranked.into_iter().map(|(.., at)| at).collect();
        positions.sort_unstable();
        positions
    }
}

/// FNV-1a of the id, mixed with the seed by the finalizer of `SplitMix64`.
fn rank(seed: u64, id: &InstanceId) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = id.as_str().as_bytes().iter();
    mix(mix(seed) ^ hash.fold(0xcbf2_9ce4_8422_2325, step))
}

fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ids(count: usize) -> Vec<InstanceId> {
        let id = |index| format!("payments-{index}").parse().unwrap();
        (0..count).map(id).collect()
    }

    fn subset(seed: u64, size: usize, ids: &[InstanceId]) -> BTreeSet<InstanceId> {
        let positions = Subsetting::new(seed, NonZeroUsize::new(size).unwrap()).select(ids);
        let chosen = positions.into_iter().map(|position| ids[position].clone());
        chosen.collect()
    }

    #[test]
    fn the_finalizer_is_splitmix64s() {
        // The first outputs of the reference implementation for the state 1234567.
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
        let next = 1_234_567_u64.wrapping_add(0x9e37_79b9_7f4a_7c15);
        assert_eq!(mix(next), 3_203_168_211_198_807_973);
    }

    #[test]
    fn many_clients_load_the_instances_evenly() {
        let ids = ids(100);
        let mut clients = vec![0_u32; ids.len()];
        for seed in 0..2_000 {
            let subsetting = Subsetting::new(seed, NonZeroUsize::new(20).unwrap());
            for position in subsetting.select(&ids) {
                clients[position] += 1;
            }
        }
        // 400 each, with a standard deviation of 18.
        assert!(
            clients.iter().all(|&count| count.abs_diff(400) < 90),
            "{clients:?}"
        );
        let square = |&count: &u32| (f64::from(count) - 400.0).powi(2);
        let variance = clients.iter().map(square).sum::<f64>() / 100.0;
        assert!((150.0..600.0).contains(&variance), "{variance}");
    }

    #[test]
    fn nobody_is_nobody() {
        assert!(Subsetting::new(1, NonZeroUsize::MIN).select([]).is_empty());
    }

    proptest! {
        #[test]
        fn one_instance_less_changes_at_most_one_entry(
            seed: u64,
            size in 1..30_usize,
            count in 1..60_usize,
            leaving: prop::sample::Index,
        ) {
            let all = ids(count);
            let mut rest = all.clone();
            let left = rest.remove(leaving.index(count));
            let (before, after) = (subset(seed, size, &all), subset(seed, size, &rest));
            prop_assert_eq!(before.len(), size.min(count));
            let lost: Vec<_> = before.difference(&after).collect();
            prop_assert!(lost.is_empty() || lost == [&left]);
            prop_assert!(after.difference(&before).count() <= 1);
            // One that nobody had is missed by nobody.
            prop_assert!(before.contains(&left) || before == after);
        }

        #[test]
        fn the_order_of_the_instances_does_not_matter(
            seed: u64,
            size in 1..10_usize,
            shuffled in Just(ids(20)).prop_shuffle(),
        ) {
            prop_assert_eq!(subset(seed, size, &ids(20)), subset(seed, size, &shuffled));
        }

        #[test]
        fn the_best_ranked_are_chosen(seed: u64, size in 1..10_usize, count in 0..30_usize) {
            let ids = ids(count);
            let mut sorted = ids.clone();
            sorted.sort_by_key(|id| rank(seed, id));
            let expected: BTreeSet<_> = sorted.into_iter().take(size).collect();
            prop_assert_eq!(subset(seed, size, &ids), expected);
        }
    }
}
