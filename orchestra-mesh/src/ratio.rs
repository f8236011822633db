//! An exact share of a whole.

use std::fmt;

use crate::Error;

/// A fraction between nothing and all, kept as two integers: 20 % of 5 is 1, not 0.999.
///
/// ```
/// use orchestra_mesh::Ratio;
///
/// let third = Ratio::of(1, 3)?;
/// assert!(third.is_reached(1, 3) && !third.is_reached(33, 100));
/// assert_eq!(Ratio::percent(20).to_string(), "20/100");
/// # Ok::<(), orchestra_mesh::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ratio {
    part: u32,
    whole: u32,
}

impl Ratio {
    /// Nothing.
    pub const NOTHING: Self = Self { part: 0, whole: 1 };
    /// Everything.
    pub const ALL: Self = Self { part: 1, whole: 1 };

    /// `part` of `whole`; a part greater than the whole, or a whole of zero, is an error.
    pub fn of(part: u32, whole: u32) -> Result<Self, Error> {
        if whole == 0 || part > whole {
            return Err(Error::config(format!(
                "{part}/{whole} is not a share of a whole"
            )));
        }
        Ok(Self { part, whole })
    }

    /// A percentage; more than a hundred counts as a hundred.
    pub const fn percent(percent: u8) -> Self {
        let part = if percent > 100 { 100 } else { percent };
        Self {
            part: part as u32,
            whole: 100,
        }
    }

    /// The numerator.
    pub const fn part(self) -> u32 {
        self.part
    }

    /// The denominator, never zero.
    pub const fn whole(self) -> u32 {
        self.whole
    }

    /// Whether `count` of `total` is this share or more, without rounding.
    pub fn is_reached(self, count: u32, total: u32) -> bool {
        u64::from(count) * u64::from(self.whole) >= u64::from(self.part) * u64::from(total)
    }

    /// Whether a uniform draw falls into this share.
    pub fn takes(self, draw: u64) -> bool {
        u128::from(draw) * u128::from(self.whole) < u128::from(self.part) << 64
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.whole)
    }
}
