//! Slow start: a new instance gets its full share of the calls little by little.
//!
//! ```text
//! weight'(t) = weight * max(least, (t / window)^(1 / aggression))      for t < window
//! ```
//!
//! This is Envoy's formula (`EdfLoadBalancerBase::applySlowStartFactor`), with `t` the time since the
//! instance was added or, where it is checked, since it last became healthy.

use std::time::Duration;

use orchestra_core::Monotonic;

/// Envoy counts the first millisecond as one, so that the factor is never zero.
const FIRST: Duration = Duration::from_millis(1);

/// How fast an instance gets its share.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::slow_start::Config;
///
/// let linear = Config::new(Duration::from_secs(60));
/// assert_eq!(linear.factor(Duration::from_secs(12)), 0.2);
/// assert_eq!(linear.factor(Duration::from_secs(1)), 0.1);
/// assert_eq!(linear.factor(Duration::from_secs(60)), 1.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    window: Duration,
    exponent: f64,
    least: f64,
}

impl Config {
    /// A linear rise over `window`, beginning at ten percent; a window of zero is no slow start.
    pub const fn new(window: Duration) -> Self {
        Self {
            window,
            exponent: 1.0,
            least: 0.1,
        }
    }

    /// Rises faster at first if above 1, slower if below. What is not a positive number counts as 1.
    #[must_use]
    pub fn aggression(mut self, aggression: f64) -> Self {
        self.exponent = if aggression > 0.0 {
            aggression.recip()
        } else {
            1.0
        };
        self
    }

    /// The least percentage of the weight; above 100 counts as 100.
    #[must_use]
    pub fn min_weight_percent(mut self, percent: u8) -> Self {
        self.least = f64::from(percent.min(100)) / 100.0;
        self
    }

    /// What the weight is multiplied with `elapsed` after the start; never above 1, never falling.
    pub fn factor(&self, elapsed: Duration) -> f64 {
        if elapsed >= self.window {
            return 1.0;
        }
        let time = elapsed.max(FIRST).as_secs_f64() / self.window.as_secs_f64();
        // An aggression next to zero has an infinite exponent, and a window can be shorter than `FIRST`.
        time.powf(self.exponent).clamp(self.least, 1.0)
    }

    /// The weight `elapsed` after the start: rounded, and zero only if `weight` is.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a factor in 0..=1 of a u32 is a u32"
    )]
    pub fn weight(&self, weight: u32, elapsed: Duration) -> u32 {
        let scaled = (f64::from(weight) * self.factor(elapsed)).round() as u32;
        scaled.max(1).min(weight)
    }
}

/// When an instance began to get its share.
///
/// Without checks it starts when it is added. With checks it starts when one finds it healthy that was not
/// before, and again each time it comes back. One that is not healthy is not slowed: who calls it anyway,
/// in panic, wants all there is.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::slow_start::{Config, Ramp};
///
/// let config = Config::new(Duration::from_secs(10));
/// let at = |seconds| Monotonic::ZERO + Duration::from_secs(seconds);
/// let mut ramp = Ramp::unchecked(at(0));
/// assert_eq!(ramp.weight(&config, 100, at(5)), 50);
///
/// ramp.became_unhealthy();
/// ramp.became_healthy(at(60));
/// assert_eq!(ramp.weight(&config, 100, at(66)), 60);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// The last moment if it has not: no clock gets there.
    started: Monotonic,
}

impl Ramp {
    /// An instance that nobody checks, added at this moment.
    pub const fn unchecked(added: Monotonic) -> Self {
        Self { started: added }
    }

    /// An instance that no check has found healthy yet.
    pub const fn checked() -> Self {
        Self {
            started: Monotonic::MAX,
        }
    }

    /// A check found it healthy that was not; one that was already goes on as it did.
    pub fn became_healthy(&mut self, now: Monotonic) {
        self.started = self.started.min(now);
    }

    /// The moment of its start was not known exactly: it is not before this one.
    pub(crate) fn postpone(&mut self, to: Monotonic) {
        self.started = self.started.max(to);
    }

    /// A check found it unhealthy.
    pub fn became_unhealthy(&mut self) {
        self.started = Monotonic::MAX;
    }

    /// The weight it has now, in place of `weight`; zero only if `weight` is.
    pub fn weight(&self, config: &Config, weight: u32, now: Monotonic) -> u32 {
        if self.started == Monotonic::MAX {
            return weight;
        }
        config.weight(weight, now.since(self.started))
    }

    /// Whether its weight is still rising: another one has to be computed later.
    pub fn is_rising(&self, config: &Config, now: Monotonic) -> bool {
        self.started != Monotonic::MAX && now.since(self.started) < config.window
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(after: u64) -> Monotonic {
        Monotonic::ZERO + seconds(after)
    }

    #[test]
    fn factors_are_envoys() {
        // SlowStartNoWait, SlowStartWithActiveHC, SlowStartWithRuntimeAggression
        let golden = [
            (60, 1.0, 12, 0.2),
            (60, 1.0, 20, 1.0 / 3.0),
            (10, 1.0, 6, 0.6),
            (10, 1.0, 5, 0.5),
            (10, 1.5, 9, 0.932_169_751_786_1),
            (10, 1.5, 0, 0.1),
        ];
        for (window, aggression, elapsed, factor) in golden {
            let config = Config::new(seconds(window)).aggression(aggression);
            let found = config.factor(seconds(elapsed));
            assert!((found - factor).abs() < 1e-9, "{found} {factor}");
        }
    }

    #[test]
    fn the_first_millisecond_counts_as_one() {
        let config = Config::new(seconds(1)).min_weight_percent(0);
        assert!((config.factor(Duration::ZERO) - 0.001).abs() < 1e-12);
        assert_eq!(config.weight(5, Duration::ZERO), 1);
    }

    #[test]
    fn a_window_shorter_than_that_does_not_overshoot() {
        let config = Config::new(Duration::from_micros(100));
        assert!((config.factor(Duration::from_micros(50)) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn an_aggression_that_is_no_positive_number_is_linear() {
        for aggression in [0.0, -3.0, f64::NAN, f64::NEG_INFINITY] {
            let config = Config::new(seconds(10)).aggression(aggression);
            assert!((config.factor(seconds(5)) - 0.5).abs() < 1e-12);
        }
    }

    #[test]
    fn without_a_window_there_is_no_slow_start() {
        assert_eq!(Config::new(Duration::ZERO).weight(7, Duration::ZERO), 7);
    }

    #[test]
    fn a_check_that_passes_again_does_not_start_again() {
        let config = Config::new(seconds(10));
        let mut ramp = Ramp::checked();
        assert_eq!(ramp.weight(&config, 10, at(3)), 10);
        ramp.became_healthy(at(3));
        ramp.became_healthy(at(7));
        assert_eq!(ramp.weight(&config, 10, at(8)), 5);
        assert!(ramp.is_rising(&config, at(12)));
        assert!(!ramp.is_rising(&config, at(13)));
    }

    #[test]
    fn a_start_in_the_future_is_a_start_now() {
        let ramp = Ramp::unchecked(at(100));
        assert_eq!(ramp.weight(&Config::new(seconds(10)), 10, at(5)), 1);
    }

    proptest! {
        #[test]
        fn a_weight_never_falls_never_exceeds_its_base_and_is_never_zero(
            window: u64,
            aggression: f64,
            percent: u8,
            base: u32,
            elapsed: [u64; 2],
        ) {
            let config = Config::new(Duration::from_nanos(window))
                .aggression(aggression)
                .min_weight_percent(percent);
            let [a, b] = elapsed.map(Duration::from_nanos);
            let weights = [a.min(b), a.max(b)].map(|elapsed| config.weight(base, elapsed));
            prop_assert!(weights[0] <= weights[1] && weights[1] <= base);
            prop_assert_eq!(weights[0] == 0, base == 0);
            prop_assert!((0.0..=1.0).contains(&config.factor(a)));
        }
    }
}
