use std::fmt;

use orchestra_core::Timestamp;

/// `2026-01-02T03:04:05.678901Z`: microseconds, UTC.
pub(super) struct Rfc3339(pub(super) Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_dates() {
        let at = |seconds: u64| {
            let nanos = seconds * 1_000_000_000 + 7_000;
            Rfc3339(Timestamp::from_unix_nanos(nanos)).to_string()
        };
        assert_eq!(at(0), "1970-01-01T00:00:00.000007Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000007Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000007Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000007Z");
        assert_eq!(at(1_767_323_045), "2026-01-02T03:04:05.000007Z");
    }
}
