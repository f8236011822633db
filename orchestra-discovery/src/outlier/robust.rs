//! The robust rule, which is the default.
//!
//! Mean and standard deviation are moved by the very hosts that they are to find: if a share `f` of hosts is
//! equally dead, none of them is `k` deviations below the mean once `f ≥ 1 / (1 + k²)`, which is 22 % for Envoy's
//! and gRPC's 1.9. This rule compares a host with those that are in order, and leaves the host itself out:
//!
//! * **Success rate.** The half of the hosts nearest to the median is the first guess at those in order; whoever
//!   is in line with them joins them, which is repeated until nobody moves (the concentration steps of Rousseeuw
//!   and Van Driessen's least trimmed squares, 2006). Out of line is who fails more than the others by a margin, by more than three robust
//!   deviations (median and MAD), and by more than chance explains: the tail of the beta-binomial distribution
//!   of its errors given those of the others, at a significance divided by the hosts and by the windows looked
//!   at, which are the interval and the last two together. If more than half were out of line, the service is
//!   what is wrong, and nobody is.
//! * **Failure percentage.** An absolute limit, whatever the others do.
//! * **Streaks.** Of failures in a row, and longer ones where the service itself fails so often that chance
//!   makes streaks: the length whose probability per host and interval is the significance.
//! * **Latency.** On a log scale, above the median by a ratio, by five robust deviations, and by five standard
//!   errors of a mean of exponential service times; in two intervals in a row.
//!
//! An ejected host comes back by passing trials: single calls, the first a second after the ejection, at most
//! five seconds apart. The more often a host was ejected of late (a penalty that halves with time, as in RFC
//! 2439), the longer the first waits and the more trials it must pass, within bounds: a repaired host is back
//! at most 8 s later, if there are calls to try it with. One that was ejected for its latency must not only
//! answer, but be nearer to the others than to being an outlier.

mod binomial;
mod config;
mod hosts;
mod latency;
mod order;
mod rates;
mod recovery;
mod streak;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use recovery::Recovery;

use std::num::NonZeroU32;
use std::time::Duration;

use orchestra_core::{Monotonic, Score};

use self::hosts::Hosts;
use self::latency::{Latencies, sane_ratio};
use self::rates::{Rates, Sample};
use self::recovery::Out;
use super::draws::Draws;
use super::rules::Rules;
use super::{
    Effect, Host, Interval, Origin, Reason, Report, Thresholds, Trigger, Verdict, Withheld,
};

/// Into these bounds; what is not a number is the least.
fn sane(value: f64, least: f64, most: f64) -> f64 {
    if value >= least {
        value.min(most)
    } else {
        least
    }
}

/// An outlier before it is ejected; the worst goes first.
#[derive(Debug, Clone, Copy)]
struct Found {
    host: Host,
    reason: Reason,
    badness: f64,
}

#[derive(Debug)]
pub(super) struct Robust {
    config: Config,
    hosts: Hosts,
    ejected: usize,
    streaks: Thresholds,
    rates: Rates,
    latencies: Latencies,
    found: Vec<Found>,
}

#[derive(Debug, Clone, Copy)]
enum Window {
    Interval,
    LastTwo,
}

impl Robust {
    pub(super) fn new(config: Config) -> Self {
        let mut rule = Self {
            config,
            hosts: Hosts::default(),
            ejected: 0,
            streaks: Thresholds::default(),
            rates: Rates::default(),
            latencies: Latencies::default(),
            found: Vec::new(),
        };
        rule.set_streaks(None);
        rule
    }

    fn set_streaks(&mut self, service: Option<streak::Service>) {
        let significance = self.config.significance(self.hosts.len());
        let length = |least: Option<NonZeroU32>| {
            least.map(|least| streak::length(least, service, significance))
        };
        self.streaks = Thresholds {
            errors: length(self.config.consecutive_errors),
            gateway: length(self.config.consecutive_gateway),
            local_origin: length(self.config.consecutive_local_origin),
        };
    }

    fn has_room(&self) -> bool {
        let limit = self.config.max_ejection.get() as usize;
        let first = self.ejected == 0 && self.hosts.len() > 1 && limit > 0;
        first || (self.ejected + 1) * 100 <= limit * self.hosts.len() && self.hosts.len() > 1
    }

    fn eject(
        &mut self,
        host: Host,
        reason: Reason,
        now: Monotonic,
        draws: &mut Draws,
    ) -> Option<Verdict> {
        let has_room = self.has_room();
        let state = self.hosts.get_mut(host).filter(|it| !it.is_out())?;
        if !has_room {
            return Some(Verdict::withheld(host, reason, Withheld::Cap));
        }
        let recovery = &self.config.recovery;
        let flaps = state.penalty().add(now, recovery.half_life);
        let out = Out::new(recovery, flaps, self.limit_of(&reason), now, draws);
        let trial_at = out.trial_at();
        self.hosts.get_mut(host)?.eject(out);
        self.ejected += 1;
        Some(Verdict::ejected(host, reason, trial_at))
    }

    /// The latency that a trial must not exceed, for a host that is out for being slow.
    fn limit_of(&self, reason: &Reason) -> Option<Duration> {
        match *reason {
            Reason::Latency { typical, .. } => {
                let ratio = self.config.latency_ratio.map_or(1.0, sane_ratio);
                Some(latency::scale(typical, ratio.sqrt()))
            }
            _ => None,
        }
    }

    fn find_rates(&mut self, window: Window) -> Option<streak::Service> {
        let margin = self.config.success_rate_margin?.as_f64() / 100.0;
        let volume = self.config.request_volume.max(1);
        let in_service = self.hosts.iter().filter(|(_, it)| !it.is_out());
        let samples = in_service.filter_map(|(host, state)| {
            let counts = match window {
                Window::Interval => state.current,
                Window::LastTwo => state.current.plus(state.previous),
            };
            (counts.total >= volume).then(|| Sample::new(host, counts))
        });
        self.rates.fill(samples);
        // Two windows are looked at.
        let significance = self.config.significance(self.rates.hosts()) / 2.0;
        let typical = self.rates.settle(margin, significance)?;
        for outlier in self.rates.outliers() {
            let Some(state) = self.hosts.get_mut(outlier.host) else {
                continue;
            };
            if !std::mem::replace(&mut state.is_found, true) {
                self.found.push(Found {
                    host: outlier.host,
                    reason: Reason::SuccessRate {
                        origin: Origin::External,
                        rate: Score::clamped(1.0 - outlier.rate),
                        typical: Score::clamped(1.0 - typical.rate),
                        threshold: Score::clamped(1.0 - typical.rate - margin),
                    },
                    badness: outlier.rate,
                });
            }
        }
        Some(typical)
    }

    fn find_failing(&mut self) {
        let Some(limit) = self.config.failure_percentage else {
            return;
        };
        let volume = self.config.request_volume.max(1);
        for (host, state) in self.hosts.iter_mut() {
            let counts = state.current;
            let failures = f64::from(counts.errors()) / f64::from(counts.total.max(1));
            let is_over = counts.total >= volume && failures * 100.0 >= limit.as_f64();
            if !state.is_out() && is_over && !std::mem::replace(&mut state.is_found, true) {
                self.found.push(Found {
                    host,
                    reason: Reason::FailurePercentage {
                        origin: Origin::External,
                        failures: Score::clamped(failures),
                        threshold: Score::clamped(limit.as_f64() / 100.0),
                    },
                    badness: failures,
                });
            }
        }
    }

    fn find_slow(&mut self) {
        let Some(ratio) = self.config.latency_ratio.map(sane_ratio) else {
            return;
        };
        let volume = self.config.request_volume.max(1);
        let judged = self.hosts.iter().filter_map(|(host, state)| {
            let mean = state
                .latency()
                .filter(|_| state.current.success >= volume)?;
            Some((host, mean, state.current.success))
        });
        self.latencies.fill(judged);
        // Both are in the order of hosts.
        let mut slow = self.latencies.slow(ratio).into_iter().peekable();
        for (host, state) in self.hosts.iter_mut() {
            let was_slow = std::mem::take(&mut state.was_slow);
            let Some(found) = slow.next_if(|it| it.host == host) else {
                continue;
            };
            state.was_slow = true;
            if was_slow && !std::mem::replace(&mut state.is_found, true) {
                self.found.push(Found {
                    host,
                    reason: found.reason,
                    // Failing is worse than being slow, however slow.
                    badness: -1.0 / found.times,
                });
            }
        }
    }
}

impl Rules for Robust {
    fn insert(&mut self, host: Host) {
        self.hosts.insert(host);
    }

    fn remove(&mut self, host: Host) {
        if let Some(state) = self.hosts.remove(host) {
            self.ejected -= usize::from(state.is_out());
        }
    }

    fn hosts(&self) -> Vec<Host> {
        self.hosts.iter().map(|(host, _)| host).collect()
    }

    fn effect(&self, report: Report) -> Effect {
        // A call that fails on this side is a failed call as well; of this side's own only streaks count.
        match report {
            Report::Success => Effect::SUCCESS.with_local_streak(true),
            Report::Error => Effect::ERROR.with_local_streak(true),
            Report::Gateway => Effect::GATEWAY.with_local_streak(true),
            Report::Connected => Effect::NOTHING,
            Report::ConnectFailed | Report::TimedOut => Effect::GATEWAY.with_local_streak(false),
        }
    }

    fn thresholds(&self) -> Thresholds {
        self.streaks
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
        let length = match trigger {
            Trigger::ConsecutiveErrors => self.streaks.errors,
            Trigger::ConsecutiveGateway => self.streaks.gateway,
            Trigger::ConsecutiveLocalOrigin => self.streaks.local_origin,
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
        for (host, state) in self.hosts.iter_mut() {
            state.take(intervals(host));
        }
        let service = self.find_rates(Window::Interval);
        let lasting = self.find_rates(Window::LastTwo);
        self.find_failing();
        self.find_slow();
        let mut found = std::mem::take(&mut self.found);
        found.sort_unstable_by(|a, b| {
            let worst_first = b.badness.total_cmp(&a.badness);
            worst_first.then(a.host.cmp(&b.host))
        });
        for it in &found {
            verdicts.extend(self.eject(it.host, it.reason, now, &mut draws));
        }
        // Sweeps are seconds apart: what they compare hosts in is not kept for the next one.
        self.rates = Rates::default();
        self.latencies = Latencies::default();
        self.set_streaks(service.or(lasting));
    }

    fn active_check_passed(&mut self, host: Host, _now: Monotonic) -> Option<Verdict> {
        if !self.config.recovery.active_check_restores {
            return None;
        }
        let state = self.hosts.get_mut(host).filter(|it| it.is_out())?;
        state.restore();
        self.ejected -= 1;
        Some(Verdict::restored(host))
    }

    fn is_ejected(&self, host: Host) -> bool {
        self.hosts.get(host).is_some_and(hosts::State::is_out)
    }

    fn ejected(&self) -> usize {
        self.ejected
    }

    fn adopt(&mut self, config: &super::Config, _verdicts: &mut Vec<Verdict>) -> bool {
        let super::Config::Robust(config) = config else {
            return false;
        };
        self.config = config.clone();
        self.set_streaks(None);
        true
    }

    fn trial_at(&self, host: Host) -> Option<Monotonic> {
        Some(self.hosts.get(host)?.out()?.trial_at())
    }

    fn trial_passed(
        &mut self,
        host: Host,
        latency: Option<Duration>,
        now: Monotonic,
        mut draws: Draws,
    ) -> Option<Verdict> {
        let state = self.hosts.get_mut(host)?;
        let out = state.out_mut()?;
        if !out.pass(&self.config.recovery, latency, now, &mut draws) {
            return None;
        }
        state.restore();
        self.ejected -= 1;
        Some(Verdict::restored(host))
    }

    fn trial_failed(&mut self, host: Host, now: Monotonic, mut draws: Draws) {
        let state = self.hosts.get_mut(host);
        if let Some(out) = state.and_then(hosts::State::out_mut) {
            out.fail(&self.config.recovery, now, &mut draws);
        }
    }
}
