//! Flap damping: an instance that keeps coming and going stays out until it has been quiet for a while.
//!
//! After RFC 2439: each flap adds a penalty, which decays by half in every half-life. Above the suppress
//! limit the instance is suppressed, until the penalty has decayed to the reuse limit:
//!
//! ```text
//! penalty(t) = penalty(t0) * 2^-((t - t0) / half-life)
//! reuse at   = t0 + half-life * log2(penalty(t0) / reuse limit)
//! ```
//!
//! The penalty is cut at `reuse limit * 2^(longest / half-life)`, so that an instance is free again at the
//! latest `longest` after its last flap. Penalties are in the customary unit of a thousand per flap.

use std::time::Duration;

use orchestra_core::Monotonic;

use crate::error::{Error, ErrorKind, Result};

/// What one flap costs.
pub const PENALTY: f64 = 1_000.0;

/// When to suppress, and for how long.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::damping::Config;
///
/// let config = Config::new(Duration::from_secs(30), 3_000.0, 500.0, Duration::from_secs(120))?;
/// assert_ne!(config, Config::default());
/// # Ok::<(), orchestra_discovery::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    half_life: Duration,
    suppress: f64,
    reuse: f64,
    ceiling: f64,
}

impl Default for Config {
    /// A half-life of a minute, suppressed above 2,000, free at 750, at most four minutes after the last
    /// flap: the limits and proportions that routers have, fifteen times as fast.
    fn default() -> Self {
        Self {
            half_life: Duration::from_secs(60),
            suppress: 2_000.0,
            reuse: 750.0,
            ceiling: 12_000.0,
        }
    }
}

impl Config {
    /// Suppressed above `suppress`, free at `reuse`, and at the latest `longest` after the last flap.
    ///
    /// It is [`Invalid`](ErrorKind::Invalid) unless the half-life is more than zero, `0 < reuse < suppress`,
    /// both finite, and `longest` long enough that the ceiling lies above `suppress`: otherwise nothing
    /// would ever be suppressed.
    pub fn new(half_life: Duration, suppress: f64, reuse: f64, longest: Duration) -> Result<Self> {
        let invalid = |what: &str| Err(Error::new(ErrorKind::Invalid, format!("damping: {what}")));
        if half_life.is_zero() {
            return invalid("the half-life is zero");
        }
        if !(reuse > 0.0 && reuse < suppress && suppress.is_finite()) {
            return invalid("the limits are not 0 < reuse < suppress < infinity");
        }
        let half_lives = longest.as_secs_f64() / half_life.as_secs_f64();
        let ceiling = (reuse * half_lives.exp2()).min(f64::MAX);
        if ceiling <= suppress {
            return invalid("the longest suppression is too short for the suppress limit");
        }
        Ok(Self {
            half_life,
            suppress,
            reuse,
            ceiling,
        })
    }

    fn until_reuse(&self, penalty: f64) -> Duration {
        let half_lives = (penalty / self.reuse).log2().max(0.0);
        let seconds = half_lives * self.half_life.as_secs_f64();
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// The flaps of one instance: 24 bytes, nothing to do between flaps.
///
/// A flap is a change from healthy to unhealthy, or a registration that replaces a living one. The record is
/// kept when the instance leaves: one that registers anew has not become quiet by that. It may be dropped
/// once [`is_forgotten`](Self::is_forgotten).
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::damping::{Config, Damping};
///
/// let config = Config::default();
/// let at = |seconds| Monotonic::ZERO + Duration::from_secs(seconds);
/// let mut damping = Damping::default();
/// damping.on_flap(&config, at(0));
/// damping.on_flap(&config, at(1));
/// assert!(!damping.is_suppressed(at(1)));
/// damping.on_flap(&config, at(2));
/// assert!(damping.is_suppressed(at(2)));
/// assert!(damping.reuse_at() > Some(at(120)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Damping {
    penalty: f64,
    at: Monotonic,
    /// Zero if it has not been suppressed since it was last free.
    reuse_at: Monotonic,
}

impl Default for Damping {
    /// No flaps.
    fn default() -> Self {
        Self {
            penalty: 0.0,
            at: Monotonic::ZERO,
            reuse_at: Monotonic::ZERO,
        }
    }
}

impl Damping {
    /// Counts a flap. A `now` before the last flap's counts as that moment.
    pub fn on_flap(&mut self, config: &Config, now: Monotonic) {
        let now = now.max(self.at);
        let penalty = (self.penalty(config, now) + PENALTY).min(config.ceiling);
        let suppressed = self.is_suppressed(now) || penalty > config.suppress;
        *self = Self {
            penalty,
            at: now,
            reuse_at: if suppressed {
                now + config.until_reuse(penalty)
            } else {
                Monotonic::ZERO
            },
        };
    }

    /// Whether it is to stay out.
    pub fn is_suppressed(&self, now: Monotonic) -> bool {
        now < self.reuse_at
    }

    /// When it is free if it does not flap again; `None` if its last flap did not leave it suppressed.
    pub fn reuse_at(&self) -> Option<Monotonic> {
        (self.reuse_at > Monotonic::ZERO).then_some(self.reuse_at)
    }

    /// What is left of its penalties.
    pub fn penalty(&self, config: &Config, now: Monotonic) -> f64 {
        let half_lives = now.since(self.at).as_secs_f64() / config.half_life.as_secs_f64();
        self.penalty * (-half_lives).exp2()
    }

    /// Whether less than half the reuse limit is left, so that the record may be dropped.
    pub fn is_forgotten(&self, config: &Config, now: Monotonic) -> bool {
        self.penalty(config, now) < config.reuse / 2.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_millis(millis)
    }

    fn flapped(flaps: &[u64]) -> Damping {
        let mut damping = Damping::default();
        for &flap in flaps {
            damping.on_flap(&Config::default(), at(flap));
        }
        damping
    }

    #[test]
    fn a_record_is_24_bytes() {
        assert!(size_of::<Damping>() <= 24);
    }

    #[test]
    fn a_penalty_decays_by_half_in_a_half_life() {
        let damping = flapped(&[0]);
        for (millis, left) in [(0, 1_000.0), (60_000, 500.0), (180_000, 125.0)] {
            let found = damping.penalty(&Config::default(), at(millis));
            assert!((found - left).abs() < 1e-9, "{found} {left}");
        }
    }

    #[test]
    fn two_flaps_are_forgiven_and_three_in_a_row_are_not() {
        assert_eq!(flapped(&[0, 0]).reuse_at(), None);
        let third = flapped(&[0, 0, 0]);
        // From 3,000 down to 750 it takes two half-lives.
        assert_eq!(third.reuse_at(), Some(at(120_000)));
        assert!(third.is_suppressed(at(119_999)));
        assert!(!third.is_suppressed(at(120_000)));
    }

    #[test]
    fn three_flaps_far_apart_are_forgiven() {
        assert_eq!(flapped(&[0, 120_000, 240_000]).reuse_at(), None);
    }

    #[test]
    fn suppression_has_hysteresis() {
        // At 100 s the penalty is below the suppress limit and above the reuse limit.
        let damping = flapped(&[0, 0, 0]);
        assert!(damping.penalty(&Config::default(), at(100_000)) < 2_000.0);
        assert!(damping.is_suppressed(at(100_000)));
        // A flap meanwhile prolongs it, though the sum stays below the suppress limit.
        let prolonged = flapped(&[0, 0, 0, 119_000]);
        assert!(prolonged.penalty(&Config::default(), at(119_000)) < 2_000.0);
        assert!(prolonged.reuse_at() > Some(at(190_000)));
    }

    #[test]
    fn however_many_flaps_it_is_free_four_minutes_after_the_last() {
        let damping = flapped(&[5; 1_000]);
        assert_eq!(damping.reuse_at(), Some(at(240_005)));
    }

    #[test]
    fn a_record_is_forgotten_when_little_is_left() {
        let damping = flapped(&[0]);
        assert!(!damping.is_forgotten(&Config::default(), at(60_000)));
        assert!(damping.is_forgotten(&Config::default(), at(90_000)));
    }

    #[test]
    fn a_clock_that_steps_back_neither_forgives_nor_panics() {
        let damping = flapped(&[50_000, 10, 20]);
        assert_eq!(damping.reuse_at(), Some(at(170_000)));
        assert!(damping.is_suppressed(at(0)));
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let (minute, long) = (Duration::from_secs(60), Duration::from_secs(240));
        let refused = [
            Config::new(Duration::ZERO, 2_000.0, 750.0, long),
            Config::new(minute, 750.0, 750.0, long),
            Config::new(minute, 2_000.0, 0.0, long),
            Config::new(minute, f64::NAN, 750.0, long),
            Config::new(minute, f64::INFINITY, 750.0, long),
            Config::new(minute, 2_000.0, f64::NAN, long),
            // 750 * 2^(84/60) is 1,979.
            Config::new(minute, 2_000.0, 750.0, Duration::from_secs(84)),
        ];
        for result in refused {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Invalid);
        }
        let same = Config::new(minute, 2_000.0, 750.0, long).unwrap();
        assert_eq!(same, Config::default());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_record_of_every_flap(
            gaps in proptest::collection::vec(0..90_000_u64, 1..40),
            later in 0..400_000_u64,
        ) {
            let config = Config::default();
            let mut damping = Damping::default();
            let (mut now, mut penalty, mut suppressed) = (0, 0.0_f64, false);
            for gap in gaps {
                now += gap;
                penalty *= (-(gap as f64) / 60_000.0).exp2();
                suppressed &= penalty > 750.0;
                penalty = (penalty + 1_000.0).min(12_000.0);
                suppressed |= penalty > 2_000.0;
                damping.on_flap(&config, at(now));
                prop_assert!((damping.penalty(&config, at(now)) - penalty).abs() < 1e-6);
                prop_assert_eq!(damping.is_suppressed(at(now)), suppressed);
            }
            let left = penalty * (-(later as f64) / 60_000.0).exp2();
            // Within a rounding of the limit either answer is right.
            if (left - 750.0).abs() > 1e-3 {
                prop_assert_eq!(damping.is_suppressed(at(now + later)), suppressed && left > 750.0);
            }
        }

        #[test]
        fn no_history_breaks_it(
            flaps in proptest::collection::vec(any::<u64>(), 0..20),
            half_life: u64,
            longest: u64,
            now: u64,
        ) {
            let (half_life, longest) = (Duration::from_nanos(half_life), Duration::from_nanos(longest));
            let Ok(config) = Config::new(half_life, 2_000.0, 750.0, longest) else { return Ok(()) };
            let mut damping = Damping::default();
            for flap in flaps {
                damping.on_flap(&config, Monotonic::from_nanos(flap));
            }
            prop_assert!(damping.penalty(&config, Monotonic::from_nanos(now)).is_finite());
        }
    }
}
