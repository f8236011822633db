//! The calls in flight on all members of a pool, counted a few members at a time.
//!
//! One counter that every call writes would be the one cache line that all processors fight for. So the sum is
//! kept by blocks of members, and each pick counts one block anew: of up to 64 members the sum is exact, of more it
//! is as old as it takes to go around, a pick for every 16 members.

use std::sync::atomic::{AtomicU64, Ordering};

const BLOCK: usize = 16;
/// So many blocks are counted by every pick.
const FEW: usize = 4;

#[derive(Debug)]
pub(super) struct Total {
    blocks: Box<[AtomicU64]>,
    length: usize,
    /// The sum of the blocks, give or take what is being counted.
    sum: AtomicU64,
    next: AtomicU64,
}

impl Total {
    /// Of so many members, with so many calls in flight as far as known.
    pub(super) fn new(length: usize, in_flight: u64) -> Self {
        let blocks = length.div_ceil(BLOCK);
        let share = in_flight / (blocks as u64).max(1);
        Self {
            blocks: (0..blocks).map(|_| AtomicU64::new(share)).collect(),
            length,
            sum: AtomicU64::new(share * blocks as u64),
            next: AtomicU64::new(0),
        }
    }

    pub(super) fn get(&self) -> u64 {
        // Between the two writes of a count it may be below zero.
        u64::try_from(self.sum.load(Ordering::Relaxed).cast_signed()).unwrap_or(0)
    }

    /// The sum, after counting as many members as a pick may take the time for.
    pub(super) fn refreshed(&self, in_flight: impl Fn(usize) -> u32) -> u64 {
        if self.blocks.len() <= FEW {
            return (0..self.length)
                .map(|index| u64::from(in_flight(index)))
                .sum();
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let number = usize::try_from(next % self.blocks.len() as u64).unwrap_or(0);
        if let Some(block) = self.blocks.get(number) {
            let members = number * BLOCK..self.length.min((number + 1) * BLOCK);
            let now: u64 = members.map(|index| u64::from(in_flight(index))).sum();
            let before = block.swap(now, Ordering::Relaxed);
            self.sum
                .fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
        self.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_members_are_counted_exactly() {
        let total = Total::new(64, 1_000);
        assert_eq!(
            total.refreshed(|index| u32::try_from(index).unwrap()),
            2_016
        );
        assert_eq!(total.refreshed(|_| 0), 0);
        assert_eq!(Total::new(0, 7).refreshed(|_| 1), 0);
    }

    #[test]
    fn many_members_are_counted_in_a_round() {
        let total = Total::new(1_000, 630);
        assert_eq!(total.get(), 630);
        for _ in 0..=1_000 / BLOCK {
            total.refreshed(|_| 3);
        }
        assert_eq!(total.get(), 3_000);
        for _ in 0..=1_000 / BLOCK {
            total.refreshed(|index| u32::from(index == 999));
        }
        assert_eq!(total.get(), 1);
    }
}
