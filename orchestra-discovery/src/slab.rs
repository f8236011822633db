//! Slots: what is known of one registration from its calls, read and written without a lock.
//!
//! A slot belongs to one id under one incarnation for as long as it is a member. Slots stand in segments that
//! never move, so a completion finds its own by index alone, whatever became of the membership since. An index
//! may be used again, its generation is not, so a late completion finds either its own slot or none.

mod claim;
mod hot;
mod latency;
mod standing;

use std::sync::OnceLock;

use orchestra_core::Monotonic;

pub(crate) use self::hot::{Follow, Hot, Reading, Streaks};
use crate::gate::GateToken;

/// What settles an admitted call: plain words, so it can cross any boundary.
///
/// It is to be settled once. A token whose instance is gone settles nothing.
///
/// ```
/// use orchestra_discovery::Token;
///
/// let token = Token::from_words([1, 2, 3]);
/// assert_eq!(token.to_words(), [1, 2, 3]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    place: u64,
    gate: GateToken,
    admitted_at: Monotonic,
}

/// In the upper half of a token's place: the call is the trial of an ejected instance.
const TRIAL: u64 = 1 << 63;
/// In the upper half of a token's place: a gate admitted the call.
const GATED: u64 = 1 << 62;

impl Token {
    pub(crate) fn new(index: u32, generation: u32, admitted_at: Monotonic) -> Self {
        Self {
            place: u64::from(index) << 32 | u64::from(generation),
            gate: GateToken::default(),
            admitted_at,
        }
    }

    pub(crate) fn with_gate(mut self, gate: GateToken) -> Self {
        self.gate = gate;
        self.place |= GATED;
        self
    }

    pub(crate) fn as_trial(mut self) -> Self {
        self.place |= TRIAL;
        self
    }

    pub(crate) fn index(self) -> u32 {
        ((self.place & !(TRIAL | GATED)) >> 32) as u32
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "each half of the word is taken apart"
    )]
    pub(crate) fn generation(self) -> u32 {
        self.place as u32
    }

    pub(crate) fn gate(self) -> Option<GateToken> {
        (self.place & GATED != 0).then_some(self.gate)
    }

    /// Whether the call is the trial of an ejected instance.
    pub fn is_trial(self) -> bool {
        self.place & TRIAL != 0
    }

    /// When the call was admitted.
    pub const fn admitted_at(self) -> Monotonic {
        self.admitted_at
    }

    /// The token as three words.
    pub const fn to_words(self) -> [u64; 3] {
        [self.place, self.gate.as_u64(), self.admitted_at.as_nanos()]
    }

    /// The token of these words, as [`Token::to_words`] made them.
    pub const fn from_words([place, gate, admitted_at]: [u64; 3]) -> Self {
        Self {
            place,
            gate: GateToken::new(gate),
            admitted_at: Monotonic::from_nanos(admitted_at),
        }
    }
}

/// The first segment holds so many slots, each further one twice as many as the one before.
const FIRST: u32 = 64;
/// So many segments hold more slots than an index with two bits to spare can name.
const SEGMENTS: usize = 24;
/// The most slots: more members than a service has, and an index that leaves the token's marks alone.
pub(crate) const MAX_SLOTS: u32 = FIRST * ((1 << SEGMENTS) - 1);

/// All slots of a resolver. Reading takes no lock; slots are added by whoever holds the writer's lock.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    segments: [OnceLock<Box<[Hot]>>; SEGMENTS],
}

impl Slab {
    /// The slot of an index that [`Free`] gave out.
    pub(crate) fn slot(&self, index: u32) -> Option<&Hot> {
        let (segment, offset) = place(index);
        self.segments.get(segment)?.get()?.get(offset)
    }

    fn ensure(&self, index: u32) {
        let (segment, _) = place(index);
        if let Some(cell) = self.segments.get(segment) {
            cell.get_or_init(|| (0..FIRST << segment).map(|_| Hot::default()).collect());
        }
    }
}

fn place(index: u32) -> (usize, usize) {
    let number = index / FIRST + 1;
    let segment = number.ilog2();
    let begin = FIRST * ((1 << segment) - 1);
    (segment as usize, (index - begin) as usize)
}

/// Which slots are free; the writer's part of the slab.
#[derive(Debug, Default)]
pub(crate) struct Free {
    indices: Vec<u32>,
    length: u32,
    generation: u32,
}

impl Free {
    /// A slot for a new registration; `None` if all are taken.
    pub(crate) fn allocate(&mut self, slab: &Slab) -> Option<(u32, u32)> {
        let index = match self.indices.pop() {
            Some(index) => index,
            None if self.length < MAX_SLOTS => {
                self.length += 1;
                self.length - 1
            }
            None => return None,
        };
        slab.ensure(index);
        self.generation = self.generation.wrapping_add(1);
        slab.slot(index)?.begin_life(self.generation);
        Some((index, self.generation))
    }

    pub(crate) fn release(&mut self, slab: &Slab, index: u32) {
        if let Some(slot) = slab.slot(index) {
            slot.end_life();
        }
        self.indices.push(index);
    }

    /// One more than the greatest index ever given out.
    pub(crate) fn len(&self) -> usize {
        self.length as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(place(index), expected);
            expected.1 += 1;
            if expected.1 == (FIRST as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    #[test]
    fn used_again_it_has_another_generation() {
        let (slab, mut free) = (Slab::default(), Free::default());
        let (first, generation) = free.allocate(&slab).unwrap();
        free.release(&slab, first);
        let (again, newer) = free.allocate(&slab).unwrap();
        assert_eq!(first, again);
        assert_ne!(generation, newer);
        let slot = slab.slot(first).unwrap();
        assert!(!slot.begin(generation));
        assert!(slot.begin(newer));
        assert_eq!(slot.in_flight(), 1);
    }

    #[test]
    fn marks_of_a_token_leave_its_place_alone() {
        let token = Token::new(MAX_SLOTS - 1, u32::MAX, Monotonic::from_nanos(9));
        let marked = token.as_trial().with_gate(GateToken::new(7));
        assert_eq!(
            (marked.index(), marked.generation()),
            (MAX_SLOTS - 1, u32::MAX)
        );
        assert_eq!(
            (marked.gate(), marked.is_trial()),
            (Some(GateToken::new(7)), true)
        );
        assert_eq!((token.gate(), token.is_trial()), (None, false));
    }

    #[test]
    fn hot_state_is_one_cache_line() {
        assert_eq!((size_of::<Hot>(), align_of::<Hot>()), (64, 64));
    }
}
