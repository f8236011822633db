//! How many failures in a row are no accident.

use std::num::NonZeroU32;

/// Longer streaks are waited for by no service.
const LONGEST: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// What the hosts in order are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    /// The share of calls that fail.
    pub(super) rate: f64,
    /// Calls that a host has in an interval.
    pub(super) calls_per_host: f64,
}

/// The length of a streak, at least `least`, that a host like the others has in an interval with this
/// probability or less: `n` calls start a streak of `k` failures in about `n · rate^k` cases.
pub(super) fn length(least: NonZeroU32, service: Option<Service>, significance: f64) -> NonZeroU32 {
    let Some(service) = service.filter(|it| it.rate > 0.0) else {
        return least;
    };
    let longest = LONGEST.max(least);
    if service.rate >= 1.0 {
        return longest;
    }
    let length = (significance / service.calls_per_host.max(1.0)).ln() / service.rate.ln();
    let candidates = least.get()..=longest.get();
    // The first that is long enough; a search among a hundred at most needs no conversion from floats.
    let found = candidates.into_iter().find(|&it| f64::from(it) >= length);
    found.and_then(NonZeroU32::new).unwrap_or(longest)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::{Service, length};

    #[test]
    fn streak_grows_with_the_error_rate_of_the_service() {
        let of = |rate, calls_per_host| {
            let service = Service {
                rate,
                calls_per_host,
            };
            length(NonZeroU32::MIN.saturating_add(4), Some(service), 1e-6).get()
        };
        assert_eq!(of(0.0, 100.0), 5);
        assert_eq!(of(0.001, 1000.0), 5);
        // 1000 · 0.05^7 = 7.8e-7, and 0.05^6 is too much.
        assert_eq!(of(0.05, 1000.0), 7);
        // 100 · 0.6^37 = 6.2e-7.
        assert_eq!(of(0.6, 100.0), 37);
        assert_eq!(of(0.999, 100.0), 100);
        assert_eq!(of(1.0, 100.0), 100);
    }
}
