//! The order in which Envoy looks for a node with room: a Fisher-Yates shuffle by the Mersenne Twister, seeded with
//! the lower half of the hash.

use std::collections::HashMap;

/// Words of the generator's state, and the distance of its recurrence.
const WORDS: usize = 624;
const SHIFT: usize = 397;

/// The numbers below `length` in an order that depends on the hash.
pub(super) struct Shuffle {
    random: Twister,
    done: usize,
    length: usize,
    moved: Moved,
}

impl Shuffle {
    pub(super) fn new(hash: u64, length: usize) -> Self {
        Self {
            random: Twister::new(hash),
            done: 0,
            length,
            moved: Moved::default(),
        }
    }
}

impl Iterator for Shuffle {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let left = u32::try_from(self.length - self.done)
            .ok()
            .filter(|left| *left > 0)?;
        let other = self.done + self.random.below(left) as usize;
        let chosen = self.moved.at(other);
        let here = self.moved.at(self.done);
        self.moved.put(other, here);
        self.done += 1;
        Some(chosen)
    }
}

/// Which places of the array `0, 1, 2, …` hold another number than their own.
///
/// A few are found in place; only a very long search takes memory.
struct Moved {
    few: [(usize, usize); Self::FEW],
    used: usize,
    many: HashMap<usize, usize>,
}

impl Default for Moved {
    fn default() -> Self {
        Self {
            few: [(0, 0); Self::FEW],
            used: 0,
            many: HashMap::new(),
        }
    }
}

impl Moved {
    /// With a quarter of room to spare a longer search is one of millions.
    const FEW: usize = 64;

    fn at(&self, place: usize) -> usize {
        let few = self.few.iter().take(self.used);
        let found = few
            .rev()
            .find(|(moved, _)| *moved == place)
            .map(|(_, number)| *number);
        let many = || self.many.get(&place).copied();
        // What was put later is among the many.
        many().or(found).unwrap_or(place)
    }

    fn put(&mut self, place: usize, number: usize) {
        match self.few.get_mut(self.used) {
            Some(free) => {
                *free = (place, number);
                self.used += 1;
            }
            None => {
                self.many.insert(place, number);
            }
        }
    }
}

/// MT19937 (Matsumoto, Nishimura 1998), as `std::mt19937` of C++.
struct Twister {
    state: [u32; WORDS],
    next: usize,
}

impl Twister {
    #[expect(clippy::cast_possible_truncation, reason = "the seed has 32 bits")]
    fn new(seed: u64) -> Self {
        let mut state = [0; WORDS];
        let mut word = seed as u32;
        for (place, slot) in (0_u32..).zip(&mut state) {
            if place > 0 {
                word = (word ^ (word >> 30))
                    .wrapping_mul(0x6c07_8965)
                    .wrapping_add(place);
            }
            *slot = word;
        }
        Self { state, next: 0 }
    }

    fn draw(&mut self) -> u32 {
        let (here, after) = (self.next, (self.next + 1) % WORDS);
        let joined = (self.state[here] & 0x8000_0000) | (self.state[after] & 0x7fff_ffff);
        let twist = (joined >> 1) ^ (joined & 1).wrapping_mul(0x9908_b0df);
        self.state[here] = self.state[(here + SHIFT) % WORDS] ^ twist;
        self.next = after;
        let word = self.state[here];
        let word = word ^ (word >> 11);
        let word = word ^ ((word << 7) & 0x9d2c_5680);
        let word = word ^ ((word << 15) & 0xefc6_0000);
        word ^ (word >> 18)
    }

    /// A uniform number below `limit`, which is not zero.
    fn below(&mut self, limit: u32) -> u32 {
        let width = (1_u64 << 32) / u64::from(limit);
        loop {
            let number = u64::from(self.draw()) / width;
            if let Some(number) = u32::try_from(number).ok().filter(|number| *number < limit) {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twister_gives_the_ten_thousandth_number_of_the_standard() {
        // [rand.predef] of C++ requires 4123659995 of a generator with the default seed 5489.
        let mut random = Twister::new(5489);
        let last = (0..10_000).map(|_| random.draw()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn order_is_that_of_envoys_tests() {
        let order = |hash| Shuffle::new(hash, 5).collect::<Vec<_>>();
        assert_eq!(order(2), [2, 1, 0, 4, 3]);
        assert_eq!(order(6), [4, 0, 2, 3, 1]);
        assert_eq!(order(7), [0, 1, 4, 3, 2]);
    }

    #[test]
    fn order_has_every_number_once() {
        for length in [0, 1, 2, 17, 1000] {
            let mut order: Vec<usize> = Shuffle::new(99, length).collect();
            order.sort_unstable();
            assert_eq!(order, (0..length).collect::<Vec<_>>());
        }
    }
}
