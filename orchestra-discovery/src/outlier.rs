//! Passive health: which hosts are out because of how their calls end.
//!
//! A [`Detector`] is pure. Whoever makes the calls counts how they end, as [`Detector::effect`] says, hands the
//! counts over once per interval ([`Detector::sweep`]), tells of streaks that reached their threshold
//! ([`Detector::reached`]), and acts on the [`Verdict`]s. Three rules are there to choose from:
//!
//! * [`robust`], the default: compares each host with the others that are in order, so that two fifths of the
//!   hosts dying together do not hide each other; an ejected host comes back by passing trials;
//! * [`envoy`]: Envoy's `outlier_detection`, edge for edge; an ejected host comes back by time;
//! * [`grpc`]: gRPC's `outlier_detection` policy (gRFC A50), edge for edge.
//!
//! What the caller owes:
//!
//! 1. After [`Detector::reached`] the streak that was reported starts over at zero, whatever the answer; after
//!    [`Change::Restored`] all streaks of that host do.
//! 2. While [`Detector::is_counting`] is false nothing need be counted; when it turns true, all counts start
//!    over at zero.
//! 3. A host's number is not used for another host before [`Detector::remove`].

pub mod envoy;
pub mod grpc;
pub mod robust;

mod draws;
mod off;
mod report;
mod rules;
mod spread;
#[cfg(test)]
mod tests;
mod verdict;

pub use report::{Effect, Report, Step};
pub use verdict::{Change, Origin, Reason, Verdict, Withheld};

use std::num::NonZeroU32;
use std::time::Duration;

use orchestra_core::Monotonic;

use self::draws::Draws;
use self::rules::Rules;

/// A host as the detector knows it: a number that the caller chooses.
///
/// ```
/// use orchestra_discovery::outlier::Host;
///
/// assert_eq!(Host::new(7).number(), 7);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(u32);

impl Host {
    /// The host of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// A share in whole percent, 0 to 100.
///
/// ```
/// use orchestra_discovery::outlier::Percent;
///
/// assert_eq!(Percent::new(85).get(), 85);
/// assert_eq!(Percent::new(200), Percent::ALL);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u8);

impl Percent {
    /// None.
    pub const ZERO: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(100);

    /// This many percent; above 100 counts as 100.
    pub const fn new(percent: u8) -> Self {
        if percent > 100 {
            Self::ALL
        } else {
            Self(percent)
        }
    }

    /// The number of percent.
    pub const fn get(self) -> u8 {
        self.0
    }

    pub(crate) fn as_f64(self) -> f64 {
        f64::from(self.0)
    }
}

/// How the calls to one host ended in the interval that ends now.
///
/// ```
/// use orchestra_discovery::outlier::Counts;
///
/// let counts = Counts::new(99, 100);
/// assert_eq!(counts.total - counts.success, 1);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that succeeded; more than `total` counts as `total`.
    pub success: u32,
    /// All of them.
    pub total: u32,
}

impl Counts {
    /// So many successes among so many calls.
    pub const fn new(success: u32, total: u32) -> Self {
        Self { success, total }
    }

    fn errors(self) -> u32 {
        self.total.saturating_sub(self.success)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            success: self.success.saturating_add(other.success),
            total: self.total.saturating_add(other.total),
        }
    }

    /// With no more successes than calls.
    fn sane(self) -> Self {
        Self {
            success: self.success.min(self.total),
            ..self
        }
    }
}

/// What is known of one host over the interval that ends now.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::outlier::{Counts, Interval};
///
/// let interval = Interval {
///     external: Counts::new(99, 100),
///     latency: Some(Duration::from_millis(12)),
///     ..Interval::default()
/// };
/// assert_eq!(interval.local_origin, Counts::default());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interval {
    /// Calls as [`Effect::external`] counts them.
    pub external: Counts,
    /// Calls as [`Effect::local_origin`] counts them.
    pub local_origin: Counts,
    /// The mean latency of the successes; `None` if there were none.
    pub latency: Option<Duration>,
}

/// A streak of one kind of failure.
///
/// ```
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::outlier::{Change, Config, Detector, Host, Trigger, envoy};
///
/// let mut detector = Detector::new(Config::Envoy(envoy::Config::default()));
/// for number in 0..10 {
///     detector.insert(Host::new(number), Monotonic::ZERO);
/// }
/// let verdict = detector.reached(Host::new(3), Trigger::ConsecutiveErrors, Monotonic::ZERO, 0);
/// assert!(verdict.is_some_and(|it| matches!(it.change, Change::Ejected { .. })));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trigger {
    /// Calls that failed in any way.
    ConsecutiveErrors,
    /// Calls that failed as a gateway's do (502, 503, 504).
    ConsecutiveGateway,
    /// Calls that failed on this side: no connection, no answer in time.
    ConsecutiveLocalOrigin,
}

/// The lengths at which streaks are to be reported; `None` is never.
///
/// The robust rule moves them at every sweep: compare with `>=`.
///
/// ```
/// use orchestra_discovery::outlier::{Config, Detector, envoy};
///
/// let detector = Detector::new(Config::Envoy(envoy::Config::default()));
/// assert_eq!(detector.thresholds().errors.map(u32::from), Some(5));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// Of [`Trigger::ConsecutiveErrors`].
    pub errors: Option<NonZeroU32>,
    /// Of [`Trigger::ConsecutiveGateway`].
    pub gateway: Option<NonZeroU32>,
    /// Of [`Trigger::ConsecutiveLocalOrigin`].
    pub local_origin: Option<NonZeroU32>,
}

/// Which rule decides, and how.
///
/// ```
/// use orchestra_discovery::outlier::{Config, grpc};
///
/// assert!(matches!(Config::default(), Config::Robust(_)));
/// let as_grpc = Config::Grpc(grpc::Config::default());
/// assert_ne!(as_grpc, Config::Off);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Config {
    /// Nobody is ejected.
    Off,
    /// Envoy's rule.
    Envoy(envoy::Config),
    /// gRPC's rule.
    Grpc(grpc::Config),
    /// The robust rule.
    Robust(robust::Config),
}

impl Default for Config {
    fn default() -> Self {
        Self::Robust(robust::Config::default())
    }
}

/// Decides which hosts are out.
///
/// Host numbers that it does not know are ignored everywhere: an event may come late. Time that stands still or
/// leaps is harmless. No call but [`Detector::insert`] and [`Detector::sweep`] allocates, unless there is a verdict
/// to return.
///
/// ```
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::outlier::{Change, Config, Counts, Detector, Host, Interval};
///
/// let mut detector = Detector::new(Config::default());
/// for number in 0..5 {
///     detector.insert(Host::new(number), Monotonic::ZERO);
/// }
/// let now = detector.next_sweep().ok_or("nothing to do")?;
/// let verdicts = detector.sweep(now, 7, |host| Interval {
///     // The first host fails two thirds of its calls, the others one in a hundred.
///     external: if host == Host::new(0) { Counts::new(33, 100) } else { Counts::new(99, 100) },
///     ..Interval::default()
/// });
/// assert_eq!(verdicts.len(), 1);
/// assert!(matches!(verdicts[0].change, Change::Ejected { .. }));
/// assert!(detector.is_ejected(Host::new(0)));
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug)]
pub struct Detector {
    config: Config,
    rules: Box<dyn Rules>,
    /// When the interval under way began; `None` until there is a host.
    began: Option<Monotonic>,
}

impl Default for Detector {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl Detector {
    /// A detector without hosts.
    pub fn new(config: Config) -> Self {
        Self {
            rules: rules_of(&config),
            config,
            began: None,
        }
    }

    /// What it was made of, or [reconfigured](Detector::reconfigure) to.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes a host in, which is in order until proven otherwise; one that is known stays as it is.
    ///
    /// The first host starts the first interval.
    pub fn insert(&mut self, host: Host, now: Monotonic) {
        self.rules.insert(host);
        self.began.get_or_insert(now);
    }

    /// Forgets a host, ejected or not.
    pub fn remove(&mut self, host: Host) {
        self.rules.remove(host);
    }

    /// What a call that ended like this is counted as.
    pub fn effect(&self, report: Report) -> Effect {
        self.rules.effect(report)
    }

    /// The lengths at which streaks are to be [reported](Detector::reached).
    pub fn thresholds(&self) -> Thresholds {
        self.rules.thresholds()
    }

    /// Whether counts are of any use; if not, there is no sweep either.
    pub fn is_counting(&self) -> bool {
        self.rules.interval().is_some()
    }

    /// A streak reached its threshold: decides whether the host is ejected.
    ///
    /// `draw` is uniform over `u64`. An ejected host is not ejected again.
    pub fn reached(
        &mut self,
        host: Host,
        trigger: Trigger,
        now: Monotonic,
        draw: u64,
    ) -> Option<Verdict> {
        self.rules.reached(host, trigger, now, Draws::new(draw))
    }

    /// Ends an interval: asks for the counts of every host, ejects and restores.
    ///
    /// Counts start over with the interval. It may be called earlier or later than
    /// [`Detector::next_sweep`]. The cost is linear in the number of hosts.
    pub fn sweep(
        &mut self,
        now: Monotonic,
        draw: u64,
        mut intervals: impl FnMut(Host) -> Interval,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        self.rules
            .sweep(now, Draws::new(draw), &mut intervals, &mut verdicts);
        if self.began.is_some() {
            self.began = Some(now);
        }
        verdicts
    }

    /// When the interval under way ends; `None` if there is nothing to sweep.
    ///
    /// An interval shorter than a millisecond counts as one, so that a driver cannot spin.
    pub fn next_sweep(&self) -> Option<Monotonic> {
        let interval = self.rules.interval()?.max(Duration::from_millis(1));
        self.began.map(|began| began + interval)
    }

    /// An active health check passed, and no active check holds the host to be unhealthy.
    pub fn active_check_passed(&mut self, host: Host, now: Monotonic) -> Option<Verdict> {
        self.rules.active_check_passed(host, now)
    }

    /// When an ejected host may be given its next trial: one call. `None` if it is not ejected, or is one that
    /// comes back by time.
    ///
    /// The caller sees to it that one trial is under way at a time, and that one without an outcome is
    /// followed by another.
    pub fn trial_at(&self, host: Host) -> Option<Monotonic> {
        self.rules.trial_at(host)
    }

    /// A trial succeeded after this time.
    pub fn trial_passed(
        &mut self,
        host: Host,
        latency: Option<Duration>,
        now: Monotonic,
        draw: u64,
    ) -> Option<Verdict> {
        self.rules
            .trial_passed(host, latency, now, Draws::new(draw))
    }

    /// A trial failed: the next one is due at [`Detector::trial_at`].
    pub fn trial_failed(&mut self, host: Host, now: Monotonic, draw: u64) {
        self.rules.trial_failed(host, now, Draws::new(draw));
    }

    /// Whether the host is out.
    pub fn is_ejected(&self, host: Host) -> bool {
        self.rules.is_ejected(host)
    }

    /// How many hosts are out.
    pub fn ejected(&self) -> usize {
        self.rules.ejected()
    }

    /// Goes on with another configuration.
    ///
    /// Of the same rule, gRPC's and the robust one keep who is ejected and when the interval began, while
    /// Envoy's, whose cluster is built anew, starts from nothing, as does a change of rule: all hosts are
    /// restored. The same configuration changes nothing.
    pub fn reconfigure(&mut self, config: Config, now: Monotonic) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        if config == self.config {
            return verdicts;
        }
        let was_counting = self.is_counting();
        if !self.rules.adopt(&config, &mut verdicts) {
            self.replace(&config, &mut verdicts);
        }
        let keeps = was_counting && !matches!(config, Config::Envoy(_));
        if !keeps && self.began.is_some() {
            self.began = Some(now);
        }
        self.config = config;
        verdicts
    }

    fn replace(&mut self, config: &Config, verdicts: &mut Vec<Verdict>) {
        let before = std::mem::replace(&mut self.rules, rules_of(config));
        for host in before.hosts() {
            self.rules.insert(host);
            if before.is_ejected(host) {
                verdicts.push(Verdict::restored(host));
            }
        }
    }
}

fn rules_of(config: &Config) -> Box<dyn Rules> {
    match config {
        Config::Off => Box::new(off::Off::default()),
        Config::Envoy(config) => Box::new(envoy::Envoy::new(config.clone())),
        Config::Grpc(config) => Box::new(grpc::Grpc::new(config.clone())),
        Config::Robust(config) => Box::new(robust::Robust::new(config.clone())),
    }
}
