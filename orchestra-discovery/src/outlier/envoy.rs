//! Envoy's rule.
//!
//! As `source/common/upstream/outlier_detection_impl.cc` and its tests have it:
//!
//! * A streak ejects at its threshold. Errors of local origin count as 5xx (a timeout as 504, a failed
//!   connection as 503) unless [`Config::split_local_origin`] gives them counts of their own.
//! * A sweep first restores: when `now − ejected ≥ min(base · backoff, max) + jitter`; it compares, external
//!   counts before local ones; and lessens the backoff by one for hosts that have been back for an interval.
//! * Success rate: among the hosts in service that have the volume, one is an outlier strictly below
//!   `mean − stdev · factor`. Failure percentage: at or above the threshold.
//! * A host is ejected while `100 · (ejected + 1) / hosts ≤ max_ejection_percent`: with ten percent, no host
//!   of nine ever is, unless [`Config::always_eject_one_host`]. Only then is chance asked whether the reason is
//!   enforced.
//! * The backoff grows by one per ejection while `backoff · base < max + base`.
//! * A passed active check restores, unless [`Config::active_check_restores`] is off.
//!
//! Where Envoy leaves it open: hosts are taken in the order of their numbers, and one that the success rate has
//! just ejected is not ejected by failure percentage once more (Envoy asserts that it is not asked to).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use orchestra_core::{Monotonic, Score};

use super::draws::Draws;
use super::rules::Rules;
use super::spread::mean_and_threshold;
use super::{
    Counts, Effect, Host, Interval, Origin, Percent, Reason, Report, Thresholds, Trigger, Verdict,
    Withheld,
};

const FIVE: Option<NonZeroU32> = NonZeroU32::new(5);

/// The fields of Envoy's `outlier_detection`, with its defaults.
///
/// ```
/// use orchestra_discovery::outlier::{self, Detector, Percent, envoy};
///
/// let mut config = envoy::Config::default();
/// config.max_ejection = Percent::new(50);
/// let detector = Detector::new(outlier::Config::Envoy(config));
/// assert_eq!(detector.thresholds().errors.map(|it| it.get()), Some(5));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Between sweeps: 10 s.
    pub interval: Duration,
    /// How long the first ejection lasts: 30 s.
    pub base_ejection_time: Duration,
    /// The longest ejection; less than the base counts as the base (Envoy refuses it). `None`: 300 s or the
    /// base, whichever is longer.
    pub max_ejection_time: Option<Duration>,
    /// At most this is added to an ejection, in whole milliseconds: none.
    pub max_ejection_time_jitter: Duration,
    /// The share of hosts that may be out: 10 %.
    pub max_ejection: Percent,
    /// Whether one may be out whatever the share: no.
    pub always_eject_one_host: bool,
    /// Whether errors of local origin are counted apart: no.
    pub split_local_origin: bool,
    /// Whether a passed active check restores: yes.
    pub active_check_restores: bool,
    /// Failures in a row: 5.
    pub consecutive_5xx: Option<NonZeroU32>,
    /// Gateway failures in a row: 5.
    pub consecutive_gateway_failure: Option<NonZeroU32>,
    /// Failures of local origin in a row, if they are counted apart: 5.
    pub consecutive_local_origin_failure: Option<NonZeroU32>,
    /// The comparison of success rates.
    pub success_rate: SuccessRate,
    /// The limit of failures.
    pub failure_percentage: FailurePercentage,
    /// In what share of cases each reason ejects.
    pub enforcing: Enforcing,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: None,
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection: Percent::new(10),
            always_eject_one_host: false,
            split_local_origin: false,
            active_check_restores: true,
            consecutive_5xx: FIVE,
            consecutive_gateway_failure: FIVE,
            consecutive_local_origin_failure: FIVE,
            success_rate: SuccessRate::default(),
            failure_percentage: FailurePercentage::default(),
            enforcing: Enforcing::default(),
        }
    }
}

impl Config {
    fn longest(&self) -> Duration {
        let longest = self.max_ejection_time.unwrap_or(Duration::from_secs(300));
        longest.max(self.base_ejection_time)
    }
}

/// When a success rate is an outlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SuccessRate {
    /// Hosts with enough calls that there must be: 5.
    pub minimum_hosts: u32,
    /// Calls that a host must have had: 100.
    pub request_volume: u32,
    /// Standard deviations below the mean, in thousandths: 1900.
    pub stdev_factor: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor: 1900,
        }
    }
}

/// When a share of failures is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailurePercentage {
    /// Hosts with enough calls that there must be: 5.
    pub minimum_hosts: u32,
    /// Calls that a host must have had: 50.
    pub request_volume: u32,
    /// The share: 85 %.
    pub threshold: Percent,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self {
            minimum_hosts: 5,
            request_volume: 50,
            threshold: Percent::new(85),
        }
    }
}

/// In what share of cases each reason ejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enforcing {
    /// Failures in a row: always.
    pub consecutive_5xx: Percent,
    /// Gateway failures in a row: never.
    pub consecutive_gateway_failure: Percent,
    /// Failures of local origin in a row: always.
    pub consecutive_local_origin_failure: Percent,
    /// Success rate: always.
    pub success_rate: Percent,
    /// Success rate of local origin: always.
    pub local_origin_success_rate: Percent,
    /// Failure percentage: never.
    pub failure_percentage: Percent,
    /// Failure percentage of local origin: never.
    pub failure_percentage_local_origin: Percent,
}

impl Default for Enforcing {
    fn default() -> Self {
        Self {
            consecutive_5xx: Percent::ALL,
            consecutive_gateway_failure: Percent::ZERO,
            consecutive_local_origin_failure: Percent::ALL,
            success_rate: Percent::ALL,
            local_origin_success_rate: Percent::ALL,
            failure_percentage: Percent::ZERO,
            failure_percentage_local_origin: Percent::ZERO,
        }
    }
}

impl Enforcing {
    fn share(self, reason: &Reason) -> Percent {
        match reason {
            Reason::Streak { trigger, .. } => match trigger {
                Trigger::ConsecutiveErrors => self.consecutive_5xx,
                Trigger::ConsecutiveGateway => self.consecutive_gateway_failure,
                Trigger::ConsecutiveLocalOrigin => self.consecutive_local_origin_failure,
            },
            Reason::SuccessRate { origin, .. } => match origin {
                Origin::External => self.success_rate,
                Origin::Local => self.local_origin_success_rate,
            },
            Reason::FailurePercentage { origin, .. } => match origin {
                Origin::External => self.failure_percentage,
                Origin::Local => self.failure_percentage_local_origin,
            },
            Reason::Latency { .. } => Percent::ZERO,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    out: Option<Out>,
    restored: Option<Monotonic>,
    /// How many base times the next ejection is to last, less one.
    backoff: u32,
    external: Counts,
    local_origin: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Out {
    since: Monotonic,
    jitter: Duration,
}

impl State {
    fn restore(&mut self, now: Monotonic) {
        self.out = None;
        self.restored = Some(now);
    }

    fn counts(&self, origin: Origin) -> Counts {
        match origin {
            Origin::External => self.external,
            Origin::Local => self.local_origin,
        }
    }
}

/// A host that has calls enough to be judged, and its success rate in percent.
#[derive(Debug, Clone, Copy)]
struct Rated {
    host: Host,
    rate: f64,
    total: u32,
}

#[derive(Debug)]
pub(super) struct Envoy {
    config: Config,
    hosts: BTreeMap<Host, State>,
    ejected: usize,
    rated: Vec<Rated>,
}

impl Envoy {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            hosts: BTreeMap::new(),
            ejected: 0,
            rated: Vec::new(),
        }
    }

    fn ejection_time(&self, backoff: u32) -> Duration {
        let grown = self.config.base_ejection_time.saturating_mul(backoff);
        grown.min(self.config.longest())
    }

    fn has_room(&self) -> bool {
        let share = 100.0 * (self.ejected + 1) as f64 / self.hosts.len() as f64;
        let always = self.config.always_eject_one_host && self.ejected == 0;
        always || share <= self.config.max_ejection.as_f64()
    }

    /// Ejects a host that is in service, or says what keeps it there.
    fn eject(
        &mut self,
        host: Host,
        reason: Reason,
        now: Monotonic,
        draws: &mut Draws,
    ) -> Option<Verdict> {
        let (has_room, longest) = (self.has_room(), self.config.longest());
        let state = self.hosts.get_mut(&host).filter(|it| it.out.is_none())?;
        if !has_room {
            return Some(Verdict::withheld(host, reason, Withheld::Cap));
        }
        if !draws.chance(self.config.enforcing.share(&reason)) {
            return Some(Verdict::withheld(host, reason, Withheld::Enforcement));
        }
        let jitter = draws.millis(self.config.max_ejection_time_jitter);
        let base = self.config.base_ejection_time;
        if base.saturating_mul(state.backoff) < longest.saturating_add(base) {
            state.backoff = state.backoff.saturating_add(1);
        }
        state.out = Some(Out { since: now, jitter });
        let backoff = state.backoff;
        self.ejected += 1;
        let back_at = now + self.ejection_time(backoff).saturating_add(jitter);
        Some(Verdict::ejected(host, reason, back_at))
    }

    fn restore_due(&mut self, now: Monotonic, verdicts: &mut Vec<Verdict>) {
        let (base, longest) = (self.config.base_ejection_time, self.config.longest());
        for (&host, state) in &mut self.hosts {
            let Some(out) = state.out else { continue };
            let time = base.saturating_mul(state.backoff).min(longest);
            if time.saturating_add(out.jitter) <= now.since(out.since) {
                state.restore(now);
                self.ejected -= 1;
                verdicts.push(Verdict::restored(host));
            }
        }
    }

    fn compare(
        &mut self,
        origin: Origin,
        now: Monotonic,
        draws: &mut Draws,
        verdicts: &mut Vec<Verdict>,
    ) {
        let mut rated = std::mem::take(&mut self.rated);
        rated.clear();
        let in_service = self.hosts.iter().filter(|(_, it)| it.out.is_none());
        rated.extend(in_service.filter_map(|(&host, state)| {
            let counts = state.counts(origin);
            (counts.total > 0).then(|| Rated {
                host,
                rate: f64::from(counts.success) * 100.0 / f64::from(counts.total),
                total: counts.total,
            })
        }));
        let outliers = self.success_rate(origin, &rated);
        let outliers = outliers.chain(self.failure_percentage(origin, &rated));
        // Nobody is ejected before both have been seen, or the order of the two would matter.
        let outliers: Vec<_> = outliers.collect();
        for (host, reason) in outliers {
            verdicts.extend(self.eject(host, reason, now, draws));
        }
        self.rated = rated;
    }

    fn success_rate<'a>(
        &self,
        origin: Origin,
        rated: &'a [Rated],
    ) -> impl Iterator<Item = (Host, Reason)> + use<'a> {
        let rule = self.config.success_rate;
        let judged = rated
            .iter()
            .filter(move |it| it.total >= rule.request_volume);
        let found = enough(judged.clone().count(), rule.minimum_hosts).then(|| {
            let factor = f64::from(rule.stdev_factor) / 1000.0;
            mean_and_threshold(judged.clone().map(|it| it.rate), factor)
        });
        let found = found.flatten().into_iter();
        found.flat_map(move |(mean, threshold)| {
            let below = judged.clone().filter(move |it| it.rate < threshold);
            below.map(move |it| {
                let reason = Reason::SuccessRate {
                    origin,
                    rate: share(it.rate),
                    typical: share(mean),
                    threshold: share(threshold),
                };
                (it.host, reason)
            })
        })
    }

    fn failure_percentage<'a>(
        &self,
        origin: Origin,
        rated: &'a [Rated],
    ) -> impl Iterator<Item = (Host, Reason)> + use<'a> {
        let rule = self.config.failure_percentage;
        let judged = rated
            .iter()
            .filter(move |it| it.total >= rule.request_volume);
        let is_enough = enough(judged.clone().count(), rule.minimum_hosts);
        let threshold = rule.threshold.as_f64();
        judged
            .filter(move |it| is_enough && 100.0 - it.rate >= threshold)
            .map(move |it| {
                let reason = Reason::FailurePercentage {
                    origin,
                    failures: share(100.0 - it.rate),
                    threshold: share(threshold),
                };
                (it.host, reason)
            })
    }
}

fn enough(hosts: usize, minimum: u32) -> bool {
    hosts > 0 && hosts as u64 >= u64::from(minimum)
}

fn share(percent: f64) -> Score {
    Score::clamped(percent / 100.0)
}

impl Rules for Envoy {
    fn insert(&mut self, host: Host) {
        self.hosts.entry(host).or_default();
    }

    fn remove(&mut self, host: Host) {
        if let Some(state) = self.hosts.remove(&host) {
            self.ejected -= usize::from(state.out.is_some());
        }
    }

    fn hosts(&self) -> Vec<Host> {
        self.hosts.keys().copied().collect()
    }

    fn effect(&self, report: Report) -> Effect {
        if self.config.split_local_origin {
            return match report {
                Report::Success => Effect::SUCCESS.with_local(true),
                Report::Error => Effect::ERROR,
                Report::Gateway => Effect::GATEWAY,
                Report::Connected => Effect::NOTHING.with_local(true),
                Report::ConnectFailed | Report::TimedOut => Effect::NOTHING.with_local(false),
            };
        }
        match report {
            Report::Success => Effect::SUCCESS,
            Report::Error => Effect::ERROR,
            Report::Connected => Effect::NOTHING,
            Report::Gateway | Report::ConnectFailed | Report::TimedOut => Effect::GATEWAY,
        }
    }

    fn thresholds(&self) -> Thresholds {
        let local = self.config.consecutive_local_origin_failure;
        Thresholds {
            errors: self.config.consecutive_5xx,
            gateway: self.config.consecutive_gateway_failure,
            local_origin: local.filter(|_| self.config.split_local_origin),
        }
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.config.interval)
    }

    fn reached(
        &mut self,
        host: Host,
        trigger: Trigger,
        now: Monotonic,
        mut draws: Draws,
    ) -> Option<Verdict> {
        let thresholds = self.thresholds();
        let length = match trigger {
            Trigger::ConsecutiveErrors => thresholds.errors,
            Trigger::ConsecutiveGateway => thresholds.gateway,
            Trigger::ConsecutiveLocalOrigin => thresholds.local_origin,
        }?;
        self.eject(host, Reason::Streak { trigger, length }, now, &mut draws)
    }

    fn sweep(
        &mut self,
        now: Monotonic,
        mut draws: Draws,
        intervals: &mut dyn FnMut(Host) -> Interval,
        verdicts: &mut Vec<Verdict>,
    ) {
        self.restore_due(now, verdicts);
        let is_split = self.config.split_local_origin;
        for (&host, state) in &mut self.hosts {
            let interval = intervals(host);
            state.external = interval.external.sane();
            state.local_origin = if is_split {
                interval.local_origin.sane()
            } else {
                Counts::default()
            };
        }
        self.compare(Origin::External, now, &mut draws, verdicts);
        self.compare(Origin::Local, now, &mut draws, verdicts);
        let interval = self.config.interval;
        for state in self.hosts.values_mut().filter(|it| it.out.is_none()) {
            if state.restored.is_some_and(|at| now.since(at) >= interval) {
                state.backoff = state.backoff.saturating_sub(1);
            }
        }
    }

    fn active_check_passed(&mut self, host: Host, now: Monotonic) -> Option<Verdict> {
        let state = self.hosts.get_mut(&host).filter(|it| it.out.is_some())?;
        if !self.config.active_check_restores {
            return None;
        }
        state.restore(now);
        self.ejected -= 1;
        Some(Verdict::restored(host))
    }

    fn is_ejected(&self, host: Host) -> bool {
        self.hosts.get(&host).is_some_and(|it| it.out.is_some())
    }

    fn ejected(&self) -> usize {
        self.ejected
    }

    fn adopt(&mut self, _: &super::Config, _: &mut Vec<Verdict>) -> bool {
        false
    }
}
