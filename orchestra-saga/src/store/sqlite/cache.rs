use std::collections::HashMap;

use crate::id::{Partition, SagaId, Version};

/// What the writer remembers of a saga, as its row is after all that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) row: i64,
    pub(super) partition: Partition,
    pub(super) version: Version,
    /// The position of the last frame.
    pub(super) frame: i64,
    pub(super) wake: Option<i64>,
    pub(super) ended: Option<i64>,
}

/// The sagas that were written to last: at least so many, at most twice as many.
const GENERATION: usize = 8192;

/// The rows of the sagas that were written to last. The writer is the only one that writes, so they are
/// as the file has them. When the young are enough they become old, and what was old and not asked for
/// since is forgotten.
#[derive(Debug, Default)]
pub(super) struct Cache {
    young: HashMap<SagaId, Known>,
    old: HashMap<SagaId, Known>,
}

impl Cache {
    pub(super) fn find(&self, saga: SagaId) -> Option<Known> {
        self.young
            .get(&saga)
            .or_else(|| self.old.get(&saga))
            .copied()
    }

    pub(super) fn keep(&mut self, saga: SagaId, known: Known) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(saga, known);
    }

    pub(super) fn forget(&mut self, saga: SagaId) {
        self.young.remove(&saga);
        self.old.remove(&saga);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(number: u64) -> Known {
        Known {
            row: 1,
            partition: Partition(0),
            version: Version(number),
            frame: 1,
            wake: None,
            ended: None,
        }
    }

    fn saga(number: u64) -> SagaId {
        SagaId::from_bytes(u128::from(number).to_be_bytes())
    }

    #[test]
    fn the_last_are_remembered_and_the_first_forgotten() {
        let mut cache = Cache::default();
        let many = 5 * GENERATION as u64;
        for number in 0..many {
            cache.keep(saga(number), known(number));
        }
        let remembered = (0..many).filter(|&number| cache.find(saga(number)).is_some());
        let remembered: Vec<_> = remembered.collect();
        assert!(remembered.len() >= GENERATION && remembered.len() <= 2 * GENERATION);
        assert_eq!(remembered.last(), Some(&(many - 1)));
    }

    #[test]
    fn the_newest_of_a_saga_counts() {
        let mut cache = Cache::default();
        for number in 0..=GENERATION as u64 {
            cache.keep(saga(number), known(1));
        }
        cache.keep(saga(0), known(2));
        assert_eq!(cache.find(saga(0)), Some(known(2)));
        cache.forget(saga(0));
        assert_eq!(cache.find(saga(0)), None);
    }
}
