//! gRPC's rule: the `outlier_detection` policy of gRFC A50.
//!
//! A sweep compares success rates, then failure percentages, and only then restores:
//!
//! * Success rate: among the hosts that have the volume, ejected or not, one is an outlier strictly below
//!   `mean − stdev · factor`. Failure percentage: strictly above the threshold. A host that is out and had calls
//!   enough (they began before) is ejected anew: its time starts over and its multiplier grows.
//! * No host is ejected once `100 · ejected / hosts ≥ max_ejection_percent`: above zero percent, at least one
//!   always goes.
//! * Restored is who has been out for more than `min(base · multiplier, max(base, max))`. The multiplier grows by
//!   one per ejection and is lessened by one at each sweep that finds the host in service.
//! * With neither algorithm configured nothing is counted, everyone is restored and all multipliers are zero.
//!
//! Where the implementations differ, this follows grpc-go, but counts the hosts that are out where grpc-go counts
//! ejections, and does not judge a host without calls, for which grpc-go divides by zero (C-core does as we do).
//! C-core differs in two edges: it does not eject by failure percentage who is out already, and ejects one host
//! at zero percent.

mod config;
#[cfg(test)]
mod tests;

pub use config::{Config, FailurePercentage, SuccessRate};

use std::collections::BTreeMap;
use std::time::Duration;

use orchestra_core::{Monotonic, Score};

use super::draws::Draws;
use super::rules::Rules;
use super::spread::mean_and_threshold;
use super::{
    Counts, Effect, Host, Interval, Origin, Percent, Reason, Report, Thresholds, Trigger, Verdict,
    Withheld,
};

#[derive(Debug, Default)]
struct State {
    out_since: Option<Monotonic>,
    multiplier: u32,
    counts: Counts,
}

#[derive(Debug)]
pub(super) struct Grpc {
    config: Config,
    hosts: BTreeMap<Host, State>,
    ejected: usize,
    judged: Vec<(Host, Counts)>,
}

impl Grpc {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            hosts: BTreeMap::new(),
            ejected: 0,
            judged: Vec::new(),
        }
    }

    fn is_off(&self) -> bool {
        self.config.success_rate.is_none() && self.config.failure_percentage.is_none()
    }

    /// Those with calls enough; none if they are too few.
    fn judged(&mut self, minimum_hosts: u32, volume: u32) -> Vec<(Host, Counts)> {
        let mut judged = std::mem::take(&mut self.judged);
        judged.clear();
        let hosts = self.hosts.iter().map(|(&host, state)| (host, state.counts));
        judged.extend(hosts.filter(|(_, counts)| counts.total > 0 && counts.total >= volume));
        if (judged.len() as u64) < u64::from(minimum_hosts) {
            judged.clear();
        }
        judged
    }

    fn success_rate(
        &mut self,
        rule: SuccessRate,
        now: Monotonic,
        draws: &mut Draws,
        verdicts: &mut Vec<Verdict>,
    ) {
        let judged = self.judged(rule.minimum_hosts, rule.request_volume);
        let rate = |counts: Counts| f64::from(counts.success) / f64::from(counts.total);
        let factor = f64::from(rule.stdev_factor) / 1000.0;
        let rates = judged.iter().map(|&(_, counts)| rate(counts));
        if let Some((mean, threshold)) = mean_and_threshold(rates, factor) {
            for &(host, counts) in judged.iter().filter(|it| rate(it.1) < threshold) {
                let reason = Reason::SuccessRate {
                    origin: Origin::External,
                    rate: Score::clamped(rate(counts)),
                    typical: Score::clamped(mean),
                    threshold: Score::clamped(threshold),
                };
                verdicts.extend(self.eject(host, reason, rule.enforcement, now, draws));
            }
        }
        self.judged = judged;
    }

    fn failure_percentage(
        &mut self,
        rule: FailurePercentage,
        now: Monotonic,
        draws: &mut Draws,
        verdicts: &mut Vec<Verdict>,
    ) {
        let judged = self.judged(rule.minimum_hosts, rule.request_volume);
        for &(host, counts) in &judged {
            let failures = f64::from(counts.errors()) / f64::from(counts.total);
            if failures * 100.0 > rule.threshold.as_f64() {
                let reason = Reason::FailurePercentage {
                    origin: Origin::External,
                    failures: Score::clamped(failures),
                    threshold: Score::clamped(rule.threshold.as_f64() / 100.0),
                };
                verdicts.extend(self.eject(host, reason, rule.enforcement, now, draws));
            }
        }
        self.judged = judged;
    }

    fn eject(
        &mut self,
        host: Host,
        reason: Reason,
        enforcement: Percent,
        now: Monotonic,
        draws: &mut Draws,
    ) -> Option<Verdict> {
        let share = self.ejected as f64 / self.hosts.len() as f64 * 100.0;
        let state = self.hosts.get_mut(&host)?;
        if share >= self.config.max_ejection.as_f64() {
            return Some(Verdict::withheld(host, reason, Withheld::Cap));
        }
        if !draws.chance(enforcement) {
            return Some(Verdict::withheld(host, reason, Withheld::Enforcement));
        }
        self.ejected += usize::from(state.out_since.is_none());
        state.out_since = Some(now);
        state.multiplier = state.multiplier.saturating_add(1);
        let multiplier = state.multiplier;
        let back_at = now + self.config.ejection_time(multiplier);
        Some(Verdict::ejected(host, reason, back_at))
    }

    fn restore_due(&mut self, now: Monotonic, verdicts: &mut Vec<Verdict>) {
        for (&host, state) in &mut self.hosts {
            let Some(since) = state.out_since else {
                state.multiplier = state.multiplier.saturating_sub(1);
                continue;
            };
            if now.since(since) > self.config.ejection_time(state.multiplier) {
                state.out_since = None;
                self.ejected -= 1;
                verdicts.push(Verdict::restored(host));
            }
        }
    }
}

impl Rules for Grpc {
    fn insert(&mut self, host: Host) {
        self.hosts.entry(host).or_default();
    }

    fn remove(&mut self, host: Host) {
        if let Some(state) = self.hosts.remove(&host) {
            self.ejected -= usize::from(state.out_since.is_some());
        }
    }

    fn hosts(&self) -> Vec<Host> {
        self.hosts.keys().copied().collect()
    }

    fn effect(&self, report: Report) -> Effect {
        let external = match report {
            _ if self.is_off() => None,
            Report::Connected => None,
            Report::Success => Some(true),
            Report::Error | Report::Gateway | Report::ConnectFailed | Report::TimedOut => {
                Some(false)
            }
        };
        Effect {
            external,
            ..Effect::NOTHING
        }
    }

    fn thresholds(&self) -> Thresholds {
        Thresholds::default()
    }

    fn interval(&self) -> Option<Duration> {
        (!self.is_off()).then_some(self.config.interval)
    }

    fn reached(&mut self, _: Host, _: Trigger, _: Monotonic, _: Draws) -> Option<Verdict> {
        None
    }

    fn sweep(
        &mut self,
        now: Monotonic,
        mut draws: Draws,
        intervals: &mut dyn FnMut(Host) -> Interval,
        verdicts: &mut Vec<Verdict>,
    ) {
        if self.is_off() {
            return;
        }
        for (&host, state) in &mut self.hosts {
            state.counts = intervals(host).external.sane();
        }
        if let Some(rule) = self.config.success_rate {
            self.success_rate(rule, now, &mut draws, verdicts);
        }
        if let Some(rule) = self.config.failure_percentage {
            self.failure_percentage(rule, now, &mut draws, verdicts);
        }
        self.restore_due(now, verdicts);
    }

    fn active_check_passed(&mut self, _: Host, _: Monotonic) -> Option<Verdict> {
        None
    }

    fn is_ejected(&self, host: Host) -> bool {
        self.hosts
            .get(&host)
            .is_some_and(|it| it.out_since.is_some())
    }

    fn ejected(&self) -> usize {
        self.ejected
    }

    fn adopt(&mut self, config: &super::Config, verdicts: &mut Vec<Verdict>) -> bool {
        let super::Config::Grpc(config) = config else {
            return false;
        };
        self.config = config.clone();
        if self.is_off() {
            for (&host, state) in &mut self.hosts {
                if state.out_since.take().is_some() {
                    verdicts.push(Verdict::restored(host));
                }
                state.multiplier = 0;
            }
            self.ejected = 0;
        }
        true
    }
}
