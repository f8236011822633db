//! The order in which Envoy looks for a node with room: a Fisher-Yates shuffle by the Mersenne Twister, seeded with
//! the lower half of the hash.
//!
//! A shuffle has to remember what it moved, and a pick takes no memory. So it goes as far as a few nodes on the
//! stack; a search that finds room at none of them strides on over all nodes, from a place and by a step of the
//! same generator.

/// Words of the generator's state, and the distance of its recurrence.
const WORDS: usize = 624;
const SHIFT: usize = 397;

/// Numbers below `length` in an order that depends on the hash: the first [`FEW`](Self::FEW) shuffled, each of
/// them once, and then all in even strides.
pub(super) struct Shuffle {
    random: Twister,
    length: usize,
    /// What the places hold that were swapped: the place, and the number there.
    moved: [(usize, usize); Self::FEW],
    done: usize,
    strides: Option<Strides>,
}

impl Shuffle {
    pub(super) const FEW: usize = 64;

    pub(super) fn new(hash: u64, length: usize) -> Self {
        Self {
            random: Twister::new(hash),
            length,
            moved: [(0, 0); Self::FEW],
            done: 0,
            strides: None,
        }
    }

    /// The number at a place of the array `0, 1, 2, …` after the swaps so far.
    fn at(&self, place: usize) -> usize {
        let moved = self.moved.iter().take(self.done).rev();
        let mut found = moved.filter(|(moved, _)| *moved == place);
        found.next().map_or(place, |(_, number)| *number)
    }
}

impl Iterator for Shuffle {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let left = u32::try_from(self.length - self.done).ok()?;
        if left == 0 {
            return None;
        }
        if self.done == Self::FEW {
            let (random, length) = (&mut self.random, self.length);
            let strides = self
                .strides
                .get_or_insert_with(|| Strides::new(random, length));
            return strides.next();
        }
        let other = self.done + self.random.below(left) as usize;
        let (chosen, here) = (self.at(other), self.at(self.done));
        if let Some(free) = self.moved.get_mut(self.done) {
            *free = (other, here);
        }
        self.done += 1;
        Some(chosen)
    }
}

/// All numbers below `length`, each once, in steps of a number that has no divisor in common with it.
struct Strides {
    place: usize,
    step: usize,
    length: usize,
    left: usize,
}

impl Strides {
    fn new(random: &mut Twister, length: usize) -> Self {
        let limit = u32::try_from(length).unwrap_or(u32::MAX);
        let place = random.below(limit) as usize;
        let mut step = random.below(limit) as usize;
        while !are_coprime(step, length) {
            step += 1;
        }
        Self {
            place,
            step: step % length,
            length,
            left: length,
        }
    }
}

impl Iterator for Strides {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let place = self.place;
        self.place = (place + self.step) % self.length;
        Some(place)
    }
}

fn are_coprime(mut a: usize, mut b: usize) -> bool {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a == 1
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
    fn order_has_every_number_once_as_far_as_it_is_shuffled() {
        for length in [0, 1, 2, 17, Shuffle::FEW] {
            let mut order: Vec<usize> = Shuffle::new(99, length).collect();
            order.sort_unstable();
            assert_eq!(order, (0..length).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_longer_search_comes_to_every_number() {
        for (hash, length) in [(1, Shuffle::FEW + 1), (2, 100), (3, 1_000), (4, 1_009)] {
            let order: Vec<usize> = Shuffle::new(hash, length).collect();
            let (shuffled, strides) = order.split_at(Shuffle::FEW);
            let distinct = |numbers: &[usize]| {
                numbers
                    .iter()
                    .copied()
                    .collect::<std::collections::BTreeSet<_>>()
            };
            assert_eq!(distinct(shuffled).len(), Shuffle::FEW);
            assert_eq!(strides.len(), length);
            assert!(distinct(strides).into_iter().eq(0..length));
            let step = |pair: &[usize]| (pair[1] + length - pair[0]) % length;
            assert!(
                strides
                    .windows(2)
                    .all(|pair| step(pair) == step(&strides[..2]))
            );
        }
    }

    #[test]
    fn searches_of_different_hashes_end_at_different_numbers() {
        let ends = (0..200).map(|hash| Shuffle::new(hash, 100).last());
        let ends: std::collections::BTreeSet<_> = ends.collect();
        assert!(ends.len() > 60, "{}", ends.len());
    }
}
