//! An exponentially weighted moving average of unevenly spaced samples.
//!
//! A sample that arrives `Δt` after the one before takes the weight `1 - e^(-Δt/τ)`: the average forgets
//! by time, not by count, so a burst of samples does not drown the past and an idle source keeps its
//! value (Eckner, "Algorithms for Unevenly Spaced Time Series: Moving Averages", 2012, `EMA_last`).

use std::time::Duration;

use crate::Monotonic;

/// The average; empty until the first sample.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::{Ewma, Monotonic};
///
/// let mut latency = Ewma::new(Duration::from_secs(10));
/// assert_eq!(latency.value(), None);
/// latency.observe(Monotonic::ZERO, 4.0);
/// latency.observe(Monotonic::ZERO + Duration::from_secs(10), 8.0);
/// let expected = 8.0 - 4.0 * (-1.0_f64).exp();
/// assert!((latency.value().unwrap_or_default() - expected).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ewma {
    tau: Duration,
    state: Option<(Monotonic, f64)>,
}

impl Ewma {
    /// An average that forgets with time constant `tau`; zero keeps the last sample alone.
    pub const fn new(tau: Duration) -> Self {
        Self { tau, state: None }
    }

    /// Takes a sample. One that is not finite is ignored: it would stay for ever.
    ///
    /// A sample that is not later than the one before has a weight of zero, so simultaneous samples
    /// count once; a first sample is taken whole.
    pub fn observe(&mut self, now: Monotonic, sample: f64) {
        if !sample.is_finite() {
            return;
        }
        self.state = Some(match self.state {
            None => (now, sample),
            Some((at, value)) => {
                let kept = self.kept(now.since(at));
                (now.max(at), value * kept + sample * (1.0 - kept))
            }
        });
    }

    /// The average, `None` before the first sample.
    pub fn value(&self) -> Option<f64> {
        self.state.map(|(_, value)| value)
    }

    /// The average decayed towards zero since the last sample, as for the load of an idle source.
    pub fn decayed(&self, now: Monotonic) -> Option<f64> {
        self.state
            .map(|(at, value)| value * self.kept(now.since(at)))
    }

    fn kept(&self, elapsed: Duration) -> f64 {
        if self.tau.is_zero() {
            return 0.0;
        }
        (-elapsed.as_secs_f64() / self.tau.as_secs_f64()).exp()
    }
}
