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

mod config;
#[cfg(test)]
mod tests;

pub use config::{Config, Enforcing, FailurePercentage, SuccessRate};

use std::collections::BTreeMap;
use std::time::Duration;

use orchestra_core::{Monotonic, Score};

use super::draws::Draws;
use super::rules::Rules;
use super::spread::mean_and_threshold;
use super::{
    Counts, Effect, Host, Interval, Origin, Reason, Report, Thresholds, Trigger, Verdict, Withheld,
};

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
        let back_at = now + self.config.ejection_time(backoff).saturating_add(jitter);
        Some(Verdict::ejected(host, reason, back_at))
    }

    fn restore_due(&mut self, now: Monotonic, verdicts: &mut Vec<Verdict>) {
        for (&host, state) in &mut self.hosts {
            let Some(out) = state.out else { continue };
            let time = self.config.ejection_time(state.backoff);
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
