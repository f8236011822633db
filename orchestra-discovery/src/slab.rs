//! Slots: what is known of one registration from its calls, read and written without a lock.
//!
//! A slot belongs to one id under one incarnation for as long as it is a member. Slots stand in segments that
//! never move, so a completion finds its own by name alone, whatever became of the membership since. A slot
//! may be used again, its generation is not, so a late completion finds either its own slot or none. What is
//! written after that (a sample of an average, a call more in an interval) may reach the next owner, if the
//! slot changes hands at that very moment.

mod claim;
mod hot;
mod latency;
mod standing;
mod usage;

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

/// Four segments of the same size follow one another, then four of twice the size: each adds a quarter to an
/// eighth of what is there, so little of the last one lies idle.
const FIRST: u32 = 4;
const EQUAL: u32 = 4;
/// So many segments hold more members than a service has.
const SEGMENTS: u32 = 4 * 22;
/// A slot is named by its segment and, in so many bits, its place in it; two bits are left to the token's marks.
const OFFSET: u32 = 23;

const fn length(segment: u32) -> u32 {
    FIRST << (segment / EQUAL)
}

/// How many slots precede each segment.
const BEFORE: [u32; SEGMENTS as usize] = {
    let mut before = [0; SEGMENTS as usize];
    let mut segment = 1;
    while segment < SEGMENTS {
        before[segment as usize] = before[segment as usize - 1] + length(segment - 1);
        segment += 1;
    }
    before
};

/// Slots in the order in which they are first used, for tables that stand beside the slab.
#[inline]
pub(crate) fn number(slot: u32) -> usize {
    let before = BEFORE.get((slot >> OFFSET) as usize);
    before.map_or(usize::MAX, |before| {
        (before + slot % (1 << OFFSET)) as usize
    })
}

/// The slot of this number; `None` if there are no more.
fn numbered(number: u32) -> Option<u32> {
    let segment = BEFORE.partition_point(|&before| before <= number) - 1;
    let offset = number - BEFORE.get(segment)?;
    let segment = u32::try_from(segment).ok()?;
    (offset < length(segment)).then_some(segment << OFFSET | offset)
}

/// All slots of a resolver. Reading takes no lock; slots are added by whoever holds the writer's lock.
#[derive(Debug)]
pub(crate) struct Slab {
    segments: [OnceLock<Box<[Hot]>>; SEGMENTS as usize],
}

impl Default for Slab {
    fn default() -> Self {
        Self {
            segments: [const { OnceLock::new() }; SEGMENTS as usize],
        }
    }
}

impl Slab {
    /// The slot of this name, which [`Free`] gave out.
    #[inline]
    pub(crate) fn slot(&self, slot: u32) -> Option<&Hot> {
        let segment = self.segments.get((slot >> OFFSET) as usize)?;
        segment.get()?.get((slot % (1 << OFFSET)) as usize)
    }

    fn ensure(&self, slot: u32) {
        let segment = slot >> OFFSET;
        if let Some(cell) = self.segments.get(segment as usize) {
            cell.get_or_init(|| (0..length(segment)).map(|_| Hot::default()).collect());
        }
    }
}

/// Which slots are free; the writer's part of the slab.
#[derive(Debug, Default)]
pub(crate) struct Free {
    slots: Vec<u32>,
    length: u32,
    generation: u32,
}

impl Free {
    /// A slot for a new registration; `None` if all are taken.
    pub(crate) fn allocate(&mut self, slab: &Slab) -> Option<(u32, u32)> {
        let slot = if let Some(slot) = self.slots.pop() {
            slot
        } else {
            let slot = numbered(self.length)?;
            self.length += 1;
            slot
        };
        slab.ensure(slot);
        // Generation 0 is nobody's.
        self.generation = self.generation.wrapping_add(1).max(1);
        slab.slot(slot)?.begin_life(self.generation);
        Some((slot, self.generation))
    }

    pub(crate) fn release(&mut self, slab: &Slab, slot: u32) {
        if let Some(hot) = slab.slot(slot) {
            hot.end_life();
        }
        self.slots.push(slot);
    }

    /// How many slots were ever given out.
    pub(crate) fn len(&self) -> usize {
        self.length as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_slot_of_its_own_until_there_are_no_more() {
        let mut expected = (0, 0);
        for n in 0..100_000 {
            let slot = numbered(n).unwrap();
            assert_eq!((slot >> OFFSET, slot % (1 << OFFSET)), expected);
            assert_eq!(number(slot), n as usize);
            expected.1 += 1;
            if expected.1 == length(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        let slots = BEFORE[SEGMENTS as usize - 1] + length(SEGMENTS - 1);
        assert_eq!(numbered(slots - 1), Some(LAST));
        assert_eq!(numbered(slots), None);
        assert_eq!(numbered(u32::MAX), None);
        assert_eq!(number(u32::MAX), usize::MAX);
        assert!(Slab::default().slot(u32::MAX).is_none());
    }

    const LAST: u32 = (SEGMENTS - 1) << OFFSET | (length(SEGMENTS - 1) - 1);

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
    fn generation_zero_is_nobodys_after_four_billion_lives() {
        let slab = Slab::default();
        let mut free = Free {
            generation: u32::MAX,
            ..Free::default()
        };
        let (slot, generation) = free.allocate(&slab).unwrap();
        assert!(slab.slot(slot).unwrap().begin(generation));
    }

    #[test]
    fn marks_of_a_token_leave_its_place_alone() {
        let token = Token::new(LAST, u32::MAX, Monotonic::from_nanos(9));
        let marked = token.as_trial().with_gate(GateToken::new(7));
        assert_eq!((marked.index(), marked.generation()), (LAST, u32::MAX));
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
