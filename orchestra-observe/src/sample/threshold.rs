use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// 2^56: the number of values that R can take.
pub(super) const RANGE: u64 = 1 << 56;

/// The least randomness that is kept: 0 keeps all.
///
/// ```
/// use orchestra_observe::{Ratio, Threshold};
///
/// let tenth: Threshold = "e6666666666666".parse()?;
/// assert_eq!(Ratio::new(0.1)?.threshold(), Some(tenth));
/// assert!((tenth.adjusted_count() - 10.0).abs() < 1e-9);
/// assert_eq!("8".parse::<Threshold>()?.to_string(), "8");
/// # Ok::<(), orchestra_observe::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold(u64);

impl Threshold {
    /// Keeps all.
    pub const ALL: Self = Self(0);

    /// This threshold; `None` from 2^56 on, which would keep nothing.
    pub const fn new(least: u64) -> Option<Self> {
        if least < RANGE {
            Some(Self(least))
        } else {
            None
        }
    }

    /// The least randomness that is kept.
    pub const fn least(self) -> u64 {
        self.0
    }

    /// How many traces each kept one stands for.
    pub fn adjusted_count(self) -> f64 {
        RANGE as f64 / (RANGE - self.0) as f64
    }
}

/// Hex digits without the trailing zeros, as in the tracestate.
impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:014x}", self.0);
        let short = digits.trim_end_matches('0');
        f.write_str(if short.is_empty() { "0" } else { short })
    }
}

impl FromStr for Threshold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = || {
            let reason = "a threshold is 1 to 14 lower-case hex digits";
            Error::new(ErrorKind::InvalidRatio, text, reason)
        };
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if !(1..=14).contains(&text.len()) || !text.bytes().all(lower) {
            return Err(fail());
        }
        let least = u64::from_str_radix(&format!("{text:0<14}"), 16);
        least.map(Self).map_err(|error| fail().with_source(error))
    }
}
