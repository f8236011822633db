//! Many draws out of one.

use std::time::Duration;

use super::Percent;

/// A stream of draws, of which the first is the one it was made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draws(u64);

impl Draws {
    pub(super) const fn new(draw: u64) -> Self {
        Self(draw)
    }

    /// The next draw; the finaliser of `SplitMix64` (Steele, Lea, Flood 2014) makes the one after it.
    pub(super) fn next(&mut self) -> u64 {
        let draw = self.0;
        let mut bits = draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = bits ^ (bits >> 31);
        draw
    }

    /// True in this share of cases; certain cases use up no draw.
    pub(super) fn chance(&mut self, share: Percent) -> bool {
        match share {
            Percent::ZERO => false,
            Percent::ALL => true,
            share => self.next() % 100 < u64::from(share.get()),
        }
    }

    /// A whole number of milliseconds in `0..=longest`, by remainder; zero uses up no draw.
    pub(super) fn millis(&mut self, longest: Duration) -> Duration {
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        if longest == 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(match longest.checked_add(1) {
            Some(modulus) => self.next() % modulus,
            None => self.next(),
        })
    }
}
