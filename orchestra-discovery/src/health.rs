//! Active health checks: a probe, thresholds, and a driver that tells a resolver.

mod check;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;
mod schedule;

pub use check::{Config, HealthCheck};

use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;

use crate::instance::Instance;

/// What is thought of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// No check has been made: it is trusted to be as it says.
    #[default]
    Unchecked,
    /// Its checks pass.
    Healthy,
    /// Its checks pass with a reservation: calls only when too few are healthy.
    Degraded,
    /// Its checks fail: no calls.
    Unhealthy,
}

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The instance is well.
    Pass,
    /// It answers, and asks to be spared if possible, for this reason.
    Degraded(String),
    /// It is not, for this reason.
    Fail(String),
}

/// Looks at one instance.
///
/// Laws: 1. a probe changes nothing; 2. a dropped future leaves nothing behind; 3. it need not limit its
/// time, who calls it does.
///
/// ```
/// use async_trait::async_trait;
/// use orchestra_discovery::{Instance, Probe, Verdict};
///
/// #[derive(Debug)]
/// struct SocketExists;
///
/// #[async_trait]
/// impl Probe for SocketExists {
///     async fn probe(&self, instance: &Instance) -> Verdict {
///         match &instance.endpoint {
///             orchestra_core::Endpoint::Unix(path) if !path.exists() => Verdict::Fail("gone".into()),
///             _ => Verdict::Pass,
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait Probe: Send + Sync {
    /// Whether the instance is well.
    async fn probe(&self, instance: &Instance) -> Verdict;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: Probe + ?Sized> Probe for $pointer<T> {
            async fn probe(&self, instance: &Instance) -> Verdict {
                (**self).probe(instance).await
            }
        }
    )+};
}

forward!(Arc, Box);

/// How many verdicts in a row it takes to change one's mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Thresholds {
    /// Passes until an unhealthy instance is healthy.
    pub rise: NonZeroU32,
    /// Failures until a healthy instance is unhealthy.
    pub fall: NonZeroU32,
}

impl Default for Thresholds {
    /// Two passes, three failures.
    fn default() -> Self {
        Self::new(
            NonZeroU32::MIN.saturating_add(1),
            NonZeroU32::MIN.saturating_add(2),
        )
    }
}

impl Thresholds {
    /// These many passes to rise, these many failures to fall.
    pub const fn new(rise: NonZeroU32, fall: NonZeroU32) -> Self {
        Self { rise, fall }
    }
}

/// The verdicts on one instance so far.
///
/// The first verdict decides at once, so a new instance waits for one probe only. After that it takes
/// [`Thresholds`] many contrary verdicts in a row.
///
/// ```
/// use orchestra_discovery::{Health, Verdict, health::{Tally, Thresholds}};
///
/// let (mut tally, thresholds) = (Tally::default(), Thresholds::default());
/// assert_eq!(tally.observe(thresholds, &Verdict::Pass), Some(Health::Healthy));
/// let fail = Verdict::Fail("503".into());
/// assert_eq!(tally.observe(thresholds, &fail), None);
/// assert_eq!(tally.observe(thresholds, &fail), None);
/// assert_eq!(tally.observe(thresholds, &fail), Some(Health::Unhealthy));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    health: Health,
    contrary: u32,
}

impl Tally {
    /// What is thought of the instance now.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Takes a verdict; returns the new health if it changed.
    pub fn observe(&mut self, thresholds: Thresholds, verdict: &Verdict) -> Option<Health> {
        let (said, threshold) = match verdict {
            Verdict::Pass => (Health::Healthy, thresholds.rise),
            Verdict::Degraded(_) => (Health::Degraded, thresholds.rise),
            Verdict::Fail(_) => (Health::Unhealthy, thresholds.fall),
        };
        if self.health == said {
            self.contrary = 0;
            return None;
        }
        self.contrary += 1;
        if self.health != Health::Unchecked && self.contrary < threshold.get() {
            return None;
        }
        *self = Self {
            health: said,
            contrary: 0,
        };
        Some(said)
    }
}
