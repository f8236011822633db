//! What every rule can be asked.

use std::fmt;
use std::time::Duration;

use orchestra_core::Monotonic;

use super::draws::Draws;
use super::{Config, Effect, Host, Interval, Report, Thresholds, Trigger, Verdict};

pub(super) trait Rules: fmt::Debug + Send + Sync {
    fn insert(&mut self, host: Host);
    fn remove(&mut self, host: Host);
    fn hosts(&self) -> Vec<Host>;

    fn effect(&self, report: Report) -> Effect;
    fn thresholds(&self) -> Thresholds;
    /// The time between sweeps; `None` if there is nothing to sweep for.
    fn interval(&self) -> Option<Duration>;

    fn reached(
        &mut self,
        host: Host,
        trigger: Trigger,
        now: Monotonic,
        draws: Draws,
    ) -> Option<Verdict>;
    fn sweep(
        &mut self,
        now: Monotonic,
        draws: Draws,
        intervals: &mut dyn FnMut(Host) -> Interval,
        verdicts: &mut Vec<Verdict>,
    );
    fn active_check_passed(&mut self, host: Host, now: Monotonic) -> Option<Verdict>;

    fn is_ejected(&self, host: Host) -> bool;
    fn ejected(&self) -> usize;
    /// Takes a configuration of the same rule over; false if only a new start will do.
    fn adopt(&mut self, config: &Config, verdicts: &mut Vec<Verdict>) -> bool;

    fn trial_at(&self, _host: Host) -> Option<Monotonic> {
        None
    }
    fn trial_passed(
        &mut self,
        _host: Host,
        _latency: Option<Duration>,
        _now: Monotonic,
        _draws: Draws,
    ) -> Option<Verdict> {
        None
    }
    fn trial_failed(&mut self, _host: Host, _now: Monotonic, _draws: Draws) {}
}
