//! The state machine of a breaker, without lock or clock.

use std::time::Duration;

use orchestra_core::{Monotonic, Outcome};

use super::window::Window;
use super::{Config, State};
use crate::hash::mix;

#[derive(Debug)]
pub(super) struct Machine {
    config: Config,
    /// Rises with every change of state; a permit is the epoch it was given in.
    epoch: u64,
    phase: Phase,
    window: Window,
    in_a_row: u32,
    /// How often in a row it opened without closing in between.
    openings: u32,
    last_wait: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed,
    Open {
        until: Monotonic,
    },
    HalfOpen {
        since: Monotonic,
        under_way: u32,
        succeeded: u32,
    },
}

impl Machine {
    pub(super) fn new(config: Config) -> Self {
        Self {
            epoch: 0,
            phase: Phase::Closed,
            window: Window::new(config.window),
            in_a_row: 0,
            openings: 0,
            last_wait: Duration::ZERO,
            config,
        }
    }

    pub(super) fn try_acquire(&mut self, now: Monotonic) -> Result<u64, Option<Duration>> {
        self.move_by_time(now);
        match &mut self.phase {
            Phase::Closed => Ok(self.epoch),
            Phase::Open { until } => Err(Some(until.since(now))),
            Phase::HalfOpen {
                under_way,
                succeeded,
                ..
            } => {
                if *under_way + *succeeded >= self.config.probes {
                    return Err(None);
                }
                *under_way += 1;
                Ok(self.epoch)
            }
        }
    }

    pub(super) fn release(&mut self, epoch: u64, outcome: Outcome, now: Monotonic) {
        if epoch != self.epoch {
            return;
        }
        match self.phase {
            Phase::Closed => self.release_closed(outcome, now),
            // No permit carries the epoch of an open circuit.
            Phase::Open { .. } => {}
            Phase::HalfOpen { .. } => self.release_probe(outcome, now),
        }
    }

    fn release_closed(&mut self, outcome: Outcome, now: Monotonic) {
        match outcome {
            Outcome::Success => {
                self.in_a_row = 0;
                self.window.record(false);
            }
            Outcome::Failure => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.window.record(true);
            }
            Outcome::Overloaded => self.window.record(true),
            _ => return,
        }
        let row = self.config.consecutive_failures;
        let in_a_row = row > 0 && self.in_a_row >= row;
        let calls = self.window.calls();
        let ratio = calls >= self.config.min_calls
            && self
                .config
                .failure_ratio
                .is_reached(self.window.bad(), calls);
        if in_a_row || ratio {
            self.open(now);
        }
    }

    fn release_probe(&mut self, outcome: Outcome, now: Monotonic) {
        let Phase::HalfOpen {
            under_way,
            succeeded,
            ..
        } = &mut self.phase
        else {
            return;
        };
        *under_way = under_way.saturating_sub(1);
        match outcome {
            Outcome::Success => {
                *succeeded += 1;
                if *succeeded >= self.config.probes {
                    self.close();
                }
            }
            // A host that has too much to do has not recovered.
            Outcome::Failure | Outcome::Overloaded => self.open(now),
            _ => {}
        }
    }

    fn open(&mut self, now: Monotonic) {
        self.openings = self.openings.saturating_add(1);
        let draw = mix(self.config.seed ^ self.epoch);
        let wait = self
            .config
            .open_wait
            .delay(self.openings, self.last_wait, draw);
        self.last_wait = wait;
        self.enter(Phase::Open { until: now + wait });
    }

    fn close(&mut self) {
        self.openings = 0;
        self.last_wait = Duration::ZERO;
        self.in_a_row = 0;
        self.window.clear();
        self.enter(Phase::Closed);
    }

    fn enter(&mut self, phase: Phase) {
        self.epoch += 1;
        self.phase = phase;
    }

    fn move_by_time(&mut self, now: Monotonic) {
        let due = match self.phase {
            Phase::Closed => false,
            Phase::Open { until } => now >= until,
            Phase::HalfOpen {
                since, under_way, ..
            } => under_way > 0 && now.since(since) >= self.config.longest_half_open,
        };
        if due {
            self.enter(Phase::HalfOpen {
                since: now,
                under_way: 0,
                succeeded: 0,
            });
        }
    }

    /// The state that is kept, before time moves it.
    pub(super) fn stored_state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    pub(super) fn state(&self, now: Monotonic) -> State {
        match self.phase {
            Phase::Open { until } if now >= until => State::HalfOpen,
            _ => self.stored_state(),
        }
    }
}
