//! Active health checks: a probe, thresholds, and a driver that tells a resolver.
//!
//! An instance is [`Unchecked`](Health::Unchecked) until its first probe has ended, which decides at once. From
//! then on it takes [`Thresholds`] many verdicts in a row to move it between
//! [`Healthy`](Health::Healthy), [`Degraded`](Health::Degraded) and [`Unhealthy`](Health::Unhealthy), unless
//! the instance itself says that it is not to be called ([`Verdict::Critical`]). Whether it drains is not asked:
//! it says so in its registration, and is probed all the same, since it may take that back.
//!
//! An instance that keeps falling is held back for a while ([`damping`](crate::damping)). Where a probe may go
//! is limited by a [`Reach`], since part of its target is the registration's own word.

mod check;
mod config;
#[cfg(feature = "tcp")]
mod dial;
mod flaps;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod grpc;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;
#[cfg(feature = "http")]
mod idle;
mod networks;
mod pace;
mod reach;
mod schedule;
mod tally;
#[cfg(feature = "tcp")]
#[cfg_attr(docsrs, doc(cfg(feature = "tcp")))]
pub mod tcp;

pub use check::HealthCheck;
pub use config::Config;
pub use networks::{Network, Networks};
pub use reach::Reach;
pub use tally::{Tally, Thresholds};

use std::sync::Arc;

use async_trait::async_trait;

use crate::instance::Instance;

/// What is thought of an instance.
///
/// ```
/// use orchestra_discovery::{Health, health::Tally};
///
/// assert_eq!(Tally::default().health(), Health::Unchecked);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// No check has ended yet: it is trusted to be as it says.
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
///
/// ```
/// use orchestra_discovery::Verdict;
///
/// let full = Verdict::Degraded("queue is at 90 %".into());
/// assert_eq!(full.reason(), Some("queue is at 90 %"));
/// assert_eq!(Verdict::Pass.reason(), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The instance is well.
    Pass,
    /// It answers, and asks to be spared if possible, for this reason.
    Degraded(String),
    /// It is not, for this reason.
    Fail(String),
    /// It says itself that it is not to be called, for this reason: no threshold is waited for.
    Critical(String),
    /// Its probe would lead where none may go, for this reason: it counts as [`Critical`](Self::Critical).
    Forbidden(String),
}

impl Verdict {
    /// Why it is not a plain pass.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Pass => None,
            Self::Degraded(reason)
            | Self::Fail(reason)
            | Self::Critical(reason)
            | Self::Forbidden(reason) => Some(reason),
        }
    }
}

/// Looks at one instance.
///
/// Laws: 1. a probe changes nothing; 2. a dropped future leaves nothing behind; 3. it need not limit its
/// time, who calls it does; 4. it goes to no other host than the instance's; 5. what it keeps for an instance
/// is bounded, and given up when it is told to forget.
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

    /// This incarnation is not probed again: what was kept for it, such as a connection, may go.
    fn forget(&self, instance: &Instance) {
        _ = instance;
    }
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[async_trait]
        impl<T: Probe + ?Sized> Probe for $pointer<T> {
            async fn probe(&self, instance: &Instance) -> Verdict {
                (**self).probe(instance).await
            }

            fn forget(&self, instance: &Instance) {
                (**self).forget(instance);
            }
        }
    )+};
}

forward!(Arc, Box);
