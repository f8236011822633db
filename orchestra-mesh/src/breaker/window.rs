//! The last calls as bits in a ring.

/// Remembers for each of the last calls whether it was bad; the oldest goes when a new one comes.
#[derive(Debug)]
pub(super) struct Window {
    bits: Box<[u64]>,
    capacity: u32,
    next: u32,
    filled: u32,
    bad: u32,
}

impl Window {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            bits: vec![0; capacity.div_ceil(64) as usize].into(),
            capacity,
            next: 0,
            filled: 0,
            bad: 0,
        }
    }

    pub(super) fn record(&mut self, is_bad: bool) {
        let mask = 1_u64 << (self.next % 64);
        let Some(word) = self.bits.get_mut((self.next / 64) as usize) else {
            return;
        };
        let evicted = self.filled == self.capacity && *word & mask != 0;
        *word = if is_bad { *word | mask } else { *word & !mask };
        self.bad = self.bad + u32::from(is_bad) - u32::from(evicted);
        self.filled = (self.filled + 1).min(self.capacity);
        self.next = (self.next + 1) % self.capacity;
    }

    pub(super) fn clear(&mut self) {
        self.bits.fill(0);
        (self.next, self.filled, self.bad) = (0, 0, 0);
    }

    pub(super) fn calls(&self) -> u32 {
        self.filled
    }

    pub(super) fn bad(&self) -> u32 {
        self.bad
    }
}
