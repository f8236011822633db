//! Slots: what is known of one registration from its calls, shared by every view that lists it.
//!
//! A slot belongs to one id under one incarnation for as long as it is a member. Its index may be used
//! again afterwards, its generation never is, so a late completion finds either its own slot or none.

mod latency;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use orchestra_core::{Monotonic, Outcome};

use self::latency::Latency;
use crate::gate::{Gate, GateToken};

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
    index: u32,
    generation: u32,
    gate: GateToken,
    admitted_at: Monotonic,
}

impl Token {
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    /// When the call was admitted.
    pub const fn admitted_at(self) -> Monotonic {
        self.admitted_at
    }

    /// The token as three words.
    pub fn to_words(self) -> [u64; 3] {
        let place = u64::from(self.index) << 32 | u64::from(self.generation);
        [place, self.gate.as_u64(), self.admitted_at.as_nanos()]
    }

    /// The token of these words, as [`Token::to_words`] made them.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each half of the word is taken apart"
    )]
    pub const fn from_words([place, gate, admitted_at]: [u64; 3]) -> Self {
        Self {
            index: (place >> 32) as u32,
            generation: place as u32,
            gate: GateToken::new(gate),
            admitted_at: Monotonic::from_nanos(admitted_at),
        }
    }
}

/// The hot state of one member; a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Slot {
    in_flight: AtomicU32,
    latency: Latency,
    index: u32,
    generation: u32,
    gate: Arc<dyn Gate>,
}

impl Slot {
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn latency(&self, now: Monotonic) -> Option<f64> {
        self.latency.decayed(now)
    }

    pub(crate) fn index(&self) -> usize {
        self.index as usize
    }

    pub(crate) fn gate(&self) -> &dyn Gate {
        &*self.gate
    }

    /// Counts a call that the gate admitted.
    pub(crate) fn begin(&self, gate: GateToken, now: Monotonic) -> Token {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Token {
            index: self.index,
            generation: self.generation,
            gate,
            admitted_at: now,
        }
    }

    /// Ends a call; a token of another generation is none of this slot's business.
    ///
    /// Only successes teach a latency: an instance that fails fast must not look fast.
    pub(crate) fn settle(&self, token: Token, outcome: Outcome, now: Monotonic) {
        if token.generation != self.generation {
            return;
        }
        let down = |count: u32| count.checked_sub(1);
        // A caller that settles twice must not wrap the count of everybody else.
        let _at_zero = self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, down);
        if outcome.is_success() {
            self.latency.observe(now, now.since(token.admitted_at));
        }
        self.gate.settle(token.gate, outcome, now);
    }
}

/// Gives out indices and generations.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    free: Vec<u32>,
    length: u32,
    generation: u32,
}

impl Slab {
    pub(crate) fn allocate(&mut self, gate: Arc<dyn Gate>) -> Arc<Slot> {
        self.generation = self.generation.wrapping_add(1);
        let index = self.free.pop().unwrap_or_else(|| {
            self.length += 1;
            self.length - 1
        });
        Arc::new(Slot {
            in_flight: AtomicU32::new(0),
            latency: Latency::default(),
            index,
            generation: self.generation,
            gate,
        })
    }

    pub(crate) fn release(&mut self, slot: &Slot) {
        self.free.push(slot.index);
    }

    /// One more than the greatest index ever given out.
    pub(crate) fn len(&self) -> usize {
        self.length as usize
    }
}
