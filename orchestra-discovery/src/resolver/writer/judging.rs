//! How fit members are: what checks and calls tell, and what time does.

use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic};

use super::{IDLE, LONG_SILENCE, Membership, RAMP_STEP, REFRESH, Writer};
use crate::event::Event;
use crate::health::Health;
use crate::instance::Incarnation;
use crate::outlier::{self, Host, Trigger, Verdict};
use crate::resolver::config::Config;
use crate::resolver::view::Member;
use crate::slab::{Token, number};

impl Writer {
    pub(in crate::resolver) fn is_unchecked(
        &self,
        id: &InstanceId,
        incarnation: Incarnation,
    ) -> bool {
        let member = self
            .find(id)
            .filter(|it| it.instance.incarnation == incarnation);
        let state = member.and_then(|member| self.states.get(number(member.slot))?.as_ref());
        state.is_some_and(|state| state.health == Health::Unchecked)
    }

    /// Whether anything changed, and whether a call to the detector may follow.
    pub(in crate::resolver) fn set_health(
        &mut self,
        id: &InstanceId,
        incarnation: Incarnation,
        health: Health,
        config: &Config,
    ) -> bool {
        let Some(member) = self.find(id) else {
            return false;
        };
        if member.instance.incarnation != incarnation {
            return false;
        }
        let (slot, now) = (member.slot, self.now);
        let Some(state) = self.state_mut(slot) else {
            return false;
        };
        let before = std::mem::replace(&mut state.health, health);
        if before == health {
            return false;
        }
        match health {
            Health::Healthy | Health::Degraded => state.ramp.became_healthy(now),
            Health::Unhealthy => state.ramp.became_unhealthy(),
            Health::Unchecked => {}
        }
        self.begins_to_rise(slot, config);
        true
    }

    /// An active check passed: it may end an ejection.
    pub(in crate::resolver) fn check_passed(&mut self, slot: u32, scope: &Membership<'_>) -> bool {
        let verdict = self.detector.active_check_passed(Host::new(slot), self.now);
        self.carry_out(verdict, scope)
    }

    /// A streak reached its length, unless it was that of a former owner of the slot.
    pub(in crate::resolver) fn reached(
        &mut self,
        token: Token,
        trigger: Trigger,
        scope: &Membership<'_>,
    ) -> bool {
        if !self.is_current(token) {
            return false;
        }
        let slot = token.index();
        let draw = self.draw();
        let verdict = self
            .detector
            .reached(Host::new(slot), trigger, self.now, draw);
        if let Some(hot) = scope.slab.slot(slot) {
            hot.reset_streak(trigger);
        }
        self.carry_out(verdict, scope)
    }

    /// A trial ended; what its view said of the next one is out of date.
    pub(in crate::resolver) fn tried(
        &mut self,
        token: Token,
        passed: bool,
        took: Duration,
        scope: &Membership<'_>,
    ) -> bool {
        if !self.is_current(token) {
            return false;
        }
        let slot = token.index();
        let (host, draw) = (Host::new(slot), self.draw());
        if passed {
            let verdict = self.detector.trial_passed(host, Some(took), self.now, draw);
            self.carry_out(verdict, scope);
        } else {
            self.detector.trial_failed(host, self.now, draw);
        }
        true
    }

    pub(super) fn carry_out(
        &mut self,
        verdicts: impl IntoIterator<Item = Verdict>,
        scope: &Membership<'_>,
    ) -> bool {
        let mut changed = false;
        for verdict in verdicts {
            let slot = verdict.host.number();
            let Some(member) = self.members.member(slot).cloned() else {
                continue;
            };
            let ejected = match verdict.change {
                outlier::Change::Ejected { .. } => true,
                outlier::Change::Restored => false,
                outlier::Change::Withheld { .. } => {
                    self.events.push(outlier_event(&member, verdict.change));
                    continue;
                }
            };
            let now = self.now;
            if let Some(state) = self.state_mut(slot) {
                state.ejected = ejected;
                if !ejected {
                    state.ramp.became_unhealthy();
                    state.ramp.became_healthy(now);
                }
            }
            if !ejected && let Some(hot) = scope.slab.slot(slot) {
                hot.restored();
            }
            self.events.push(outlier_event(&member, verdict.change));
            changed = true;
        }
        changed
    }

    /// Does what is due; whether a new view is needed.
    pub(in crate::resolver) fn tick(&mut self, scope: &Membership<'_>) -> bool {
        let mut changed = false;
        if self
            .detector
            .next_sweep()
            .is_some_and(|due| due <= self.now)
        {
            let draw = self.draw();
            let intervals = |host: Host| {
                let hot = scope.slab.slot(host.number());
                hot.map(crate::slab::Hot::take_interval).unwrap_or_default()
            };
            let thresholds = self.detector.thresholds();
            let verdicts = self.detector.sweep(self.now, draw, intervals);
            changed |= self.carry_out(verdicts, scope);
            changed |= self.detector.thresholds() != thresholds;
        }
        let silence = self.now.since(self.refreshed);
        if silence >= REFRESH {
            self.refreshed = self.now;
            for &slot in self.order.iter() {
                if let Some(hot) = scope.slab.slot(slot) {
                    if silence < LONG_SILENCE {
                        hot.refresh(scope.follow, self.now);
                    } else {
                        // Moments of so long ago cannot be told from those to come.
                        hot.forget_calls();
                    }
                }
            }
        }
        changed | self.is_rising | self.weighs(scope.config)
    }

    pub(super) fn weighs(&mut self, config: &Config) -> bool {
        let Some(reported) = &config.reported else {
            return false;
        };
        let due = self
            .weighed
            .is_none_or(|last| reported.next_update(last) <= self.now);
        if due {
            self.weighed = Some(self.now);
        }
        due
    }

    /// When [`tick`](Self::tick) has something to do again.
    pub(in crate::resolver) fn next_tick(&self, config: &Config) -> Monotonic {
        let mut next = self.now + IDLE;
        if let Some(sweep) = self.detector.next_sweep() {
            next = next.min(sweep);
        }
        if self.is_rising {
            next = next.min(self.now + RAMP_STEP);
        }
        if let (Some(reported), Some(last)) = (&config.reported, self.weighed) {
            next = next.min(reported.next_update(last));
        }
        next.max(self.now + Duration::from_millis(1))
    }
}

fn outlier_event(member: &Member, change: outlier::Change) -> Event {
    Event::Outlier {
        service: member.instance.service.clone(),
        id: member.instance.id.clone(),
        incarnation: member.instance.incarnation,
        change,
    }
}
