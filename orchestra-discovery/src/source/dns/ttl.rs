//! How long an answer holds.

use std::time::Duration;

/// The part of a TTL that the jitter may take off, so that clients which asked together do not ask together
/// again: one tenth.
const JITTER: u32 = 10;

/// Between what bounds TTLs are honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) floor: Duration,
    pub(super) ceiling: Duration,
    /// The ceiling of answers without records.
    pub(super) negative: Duration,
}

impl Bounds {
    /// How long an answer with these TTL holds.
    ///
    /// That of records is the least of theirs. That of no records is the lesser of the SOA's own TTL and its
    /// minimum field (RFC 2308, 5); without a SOA it must not be kept, so it holds for the floor.
    pub(super) fn clamp(&self, ttl: Ttl) -> Duration {
        let (ttl, ceiling) = match ttl {
            Ttl::Records(ttl) => (ttl, self.ceiling),
            Ttl::None(ttl) => (ttl.unwrap_or_default(), self.negative),
        };
        ttl.min(ceiling).max(self.floor)
    }

    /// When to ask again after an answer that holds for `fresh`: not later, at most a tenth sooner, and not
    /// before the floor.
    pub(super) fn refresh(&self, fresh: Duration, draw: u64) -> Duration {
        let share = draw as f64 / u64::MAX as f64;
        let sooner = (fresh / JITTER).mul_f64(share);
        fresh.saturating_sub(sooner).max(self.floor)
    }
}

/// The TTL of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ttl {
    /// The least of its records.
    Records(Duration),
    /// Of the statement that there are none, if there was any.
    None(Option<Duration>),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        floor: Duration::from_secs(2),
        ceiling: Duration::from_secs(300),
        negative: Duration::from_secs(30),
    };

    #[test]
    fn ttls_are_honoured_between_floor_and_ceiling() {
        let clamped = |seconds| {
            BOUNDS
                .clamp(Ttl::Records(Duration::from_secs(seconds)))
                .as_secs()
        };
        assert_eq!(
            [0, 1, 2, 60, 300, 301, 86_400].map(clamped),
            [2, 2, 2, 60, 300, 300, 300]
        );
    }

    #[test]
    fn negative_answers_have_a_ceiling_of_their_own() {
        let clamped = |seconds| {
            let ttl = Ttl::None(Some(Duration::from_secs(seconds)));
            BOUNDS.clamp(ttl).as_secs()
        };
        assert_eq!([0, 5, 30, 3_600].map(clamped), [2, 5, 30, 30]);
        assert_eq!(BOUNDS.clamp(Ttl::None(None)), BOUNDS.floor);
    }

    #[test]
    fn jitter_takes_off_up_to_a_tenth() {
        let fresh = Duration::from_secs(100);
        assert_eq!(BOUNDS.refresh(fresh, 0), fresh);
        assert_eq!(BOUNDS.refresh(fresh, u64::MAX), Duration::from_secs(90));
        assert_eq!(BOUNDS.refresh(BOUNDS.floor, u64::MAX), BOUNDS.floor);
    }

    proptest! {
        #[test]
        fn refresh_is_never_late_and_never_below_the_floor(ttl in 0..200_000_u64, draw: u64) {
            let fresh = BOUNDS.clamp(Ttl::Records(Duration::from_secs(ttl)));
            let refresh = BOUNDS.refresh(fresh, draw);
            prop_assert!(refresh <= fresh);
            prop_assert!(refresh >= BOUNDS.floor);
            prop_assert!(refresh + Duration::from_nanos(10) >= fresh * 9 / 10);
        }
    }
}
