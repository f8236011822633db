//! No detection: hosts are remembered for the day it is switched on.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestra_core::Monotonic;

use super::draws::Draws;
use super::rules::Rules;
use super::{Config, Effect, Host, Interval, Report, Thresholds, Trigger, Verdict};

#[derive(Debug, Default)]
pub(super) struct Off(BTreeSet<Host>);

impl Rules for Off {
    fn insert(&mut self, host: Host) {
        self.0.insert(host);
    }

    fn remove(&mut self, host: Host) {
        self.0.remove(&host);
    }

    fn hosts(&self) -> Vec<Host> {
        self.0.iter().copied().collect()
    }

    fn effect(&self, _report: Report) -> Effect {
        Effect::NOTHING
    }

    fn thresholds(&self) -> Thresholds {
        Thresholds::default()
    }

    fn interval(&self) -> Option<Duration> {
        None
    }

    fn reached(&mut self, _: Host, _: Trigger, _: Monotonic, _: Draws) -> Option<Verdict> {
        None
    }

    fn sweep(
        &mut self,
        _: Monotonic,
        _: Draws,
        _: &mut dyn FnMut(Host) -> Interval,
        _: &mut Vec<Verdict>,
    ) {
    }

    fn active_check_passed(&mut self, _: Host, _: Monotonic) -> Option<Verdict> {
        None
    }

    fn is_ejected(&self, _: Host) -> bool {
        false
    }

    fn ejected(&self) -> usize {
        0
    }

    fn adopt(&mut self, config: &Config, _: &mut Vec<Verdict>) -> bool {
        matches!(config, Config::Off)
    }
}
