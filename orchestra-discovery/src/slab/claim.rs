//! How many calls a slot has in flight, and whose they are, in one atomic word.
//!
//! The word holds the generation of the slot's owner and the count. Both change together, so a call that was
//! picked from an old view neither counts against the next owner of the slot nor settles for it.

#[cfg(not(orchestra_loom))]
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(orchestra_loom)]
use loom::sync::atomic::{AtomicU64, Ordering};

/// The generation in the upper half, the calls in flight in the lower. Generation 0 is nobody's.
#[derive(Debug)]
pub(super) struct Claim(AtomicU64);

impl Default for Claim {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

const COUNT: u64 = u32::MAX as u64;

impl Claim {
    /// The next owner; calls of the one before count no more.
    pub(super) fn take(&self, generation: u32) {
        // A swap and no store: it takes its place in the one order of all begins and ends.
        let _former = self.0.swap(u64::from(generation) << 32, Ordering::AcqRel);
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lower half of the word is the count"
    )]
    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed) as u32
    }

    /// Counts a call of this owner; false if the slot is another's by now.
    #[inline]
    pub(super) fn begin(&self, generation: u32) -> bool {
        self.step(generation, |word| {
            (word & COUNT != COUNT).then_some(word + 1)
        })
    }

    /// Ends a call of this owner; false if the slot is another's by now, or all its calls have ended.
    #[inline]
    pub(super) fn end(&self, generation: u32) -> bool {
        // A caller that settles twice must not wrap the count of everybody else.
        self.step(generation, |word| (word & COUNT != 0).then(|| word - 1))
    }

    #[inline]
    fn step(&self, generation: u32, step: impl Fn(u64) -> Option<u64>) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word >> 32 != u64::from(generation) || generation == 0 {
                return false;
            }
            let Some(next) = step(word) else {
                return false;
            };
            let swapped =
                self.0
                    .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed);
            match swapped {
                Ok(_) => return true,
                Err(found) => word = found,
            }
        }
    }
}

#[cfg(all(test, not(orchestra_loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_for_its_owner_alone() {
        let claim = Claim::default();
        assert!(!claim.begin(0));
        claim.take(3);
        assert!(claim.begin(3) && claim.begin(3));
        assert!(!claim.begin(2));
        assert_eq!(claim.count(), 2);
        claim.take(4);
        assert!(!claim.end(3));
        assert!(claim.begin(4));
        assert_eq!(claim.count(), 1);
    }

    #[test]
    fn ends_no_more_than_it_began() {
        let claim = Claim::default();
        claim.take(1);
        assert!(claim.begin(1) && claim.end(1));
        assert!(!claim.end(1));
        assert_eq!(claim.count(), 0);
    }
}

#[cfg(all(test, orchestra_loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn concurrent_calls_come_back_to_zero() {
        loom::model(|| {
            let claim = Arc::new(Claim::default());
            claim.take(1);
            let other = Arc::clone(&claim);
            let thread = thread::spawn(move || {
                assert!(other.begin(1));
                assert!(other.end(1));
            });
            assert!(claim.begin(1));
            assert!(claim.count() >= 1);
            assert!(claim.end(1));
            thread.join().unwrap();
            assert_eq!(claim.count(), 0);
        });
    }

    #[test]
    fn a_call_that_loses_its_slot_leaves_no_count_to_the_next_owner() {
        loom::model(|| {
            let claim = Arc::new(Claim::default());
            claim.take(1);
            let caller = Arc::clone(&claim);
            let thread = thread::spawn(move || {
                // A call from an old view, and the settling of its token whatever became of it.
                let began = caller.begin(1);
                let ended = caller.end(1);
                assert!(began || !ended);
            });
            claim.take(2);
            assert!(claim.begin(2));
            thread.join().unwrap();
            assert_eq!(claim.count(), 1);
            assert!(claim.end(2));
        });
    }

    #[test]
    fn a_token_settled_twice_at_once_ends_one_call() {
        loom::model(|| {
            let claim = Arc::new(Claim::default());
            claim.take(1);
            assert!(claim.begin(1));
            let other = Arc::clone(&claim);
            let thread = thread::spawn(move || other.end(1));
            let here = claim.end(1);
            let there = thread.join().unwrap();
            assert!(here ^ there);
            assert_eq!(claim.count(), 0);
        });
    }
}
