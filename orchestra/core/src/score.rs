//! How good a candidate is.

use std::fmt;

/// A number in `0..=1`: finite, totally ordered, never NaN.
///
/// ```
/// use orchestra_core::Score;
///
/// assert!(Score::new(0.7)? > Score::ZERO);
/// assert!(Score::new(f64::NAN).is_err());
/// assert_eq!(Score::clamped(1.7), Score::ONE);
/// # Ok::<(), orchestra_core::InvalidScore>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Score(f64);

/// A number that is not a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InvalidScore(f64);

impl fmt::Display for InvalidScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "score {} is outside 0..=1", self.0)
    }
}

impl std::error::Error for InvalidScore {}

impl Score {
    /// The worst.
    pub const ZERO: Self = Self(0.0);
    /// The best.
    pub const ONE: Self = Self(1.0);

    /// Accepts a number in `0..=1`.
    pub fn new(value: f64) -> Result<Self, InvalidScore> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self::clamped(value))
        } else {
            Err(InvalidScore(value))
        }
    }

    /// Moves a number into `0..=1`; NaN, which says nothing good of a candidate, becomes zero.
    #[inline]
    pub fn clamped(value: f64) -> Self {
        // Adding zero turns -0.0 into 0.0, so that equal scores are equal in every order.
        Self(if value.is_nan() {
            0.0
        } else {
            value.clamp(0.0, 1.0) + 0.0
        })
    }

    /// The number.
    #[inline]
    pub fn value(self) -> f64 {
        self.0
    }
}

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Debug for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
