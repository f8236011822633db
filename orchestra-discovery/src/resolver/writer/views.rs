//! What calls go by: views made of what is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestra_core::{InstanceId, ServiceName};

use super::{Membership, Writer};
use crate::event::Event;
use crate::health::Health;
use crate::instance::Status;
use crate::outlier::Host;
use crate::reported;
use crate::resolver::config::Config;
use crate::resolver::plan::{Eligible, Planner, Subsets};
use crate::resolver::view::{Census, Trial, View};
use crate::resolver::zoning::Zones;
use crate::slab::number;

/// What became of a member in the view.
pub(in crate::resolver) struct Fate {
    pub(in crate::resolver) weight: u32,
    /// Why it takes no calls.
    pub(in crate::resolver) reason: Option<&'static str>,
}

impl Writer {
    /// The weights that the members have now.
    pub(super) fn weigh(&mut self, config: &Config) {
        let mut relative = Vec::new();
        if let Some(reported) = &config.reported {
            let weight = |&slot: &u32| {
                let member = self.members.member(slot)?;
                let extra = member.extra.as_ref()?;
                extra.reported.lock().get(reported, self.now)
            };
            let weights: Vec<_> = self.order.iter().map(weight).collect();
            reported::relative(&weights, &mut relative);
        }
        let scale = match &config.slow_start {
            Some(_) => self.scale(),
            None => 1,
        };
        let (order, now) = (Arc::clone(&self.order), self.now);
        let mut is_rising = false;
        for (at, &slot) in order.iter().enumerate() {
            let Some(state) = self.state_mut(slot) else {
                continue;
            };
            let weight = match relative.get(at) {
                Some(&weight) if state.weight > 0 => weight,
                _ => state.weight,
            };
            let weight = weight.saturating_mul(scale);
            state.effective = match &config.slow_start {
                Some(slow_start) => {
                    is_rising |= state.ramp.is_rising(slow_start, now);
                    state.ramp.weight(slow_start, weight, now)
                }
                None => weight,
            };
        }
        self.is_rising = is_rising;
    }

    /// What weights are multiplied by, so that parts of them are told apart.
    pub(super) fn scale(&self) -> u32 {
        let states = self.states.iter().flatten();
        let greatest = states.map(|state| state.weight).max().unwrap_or(1);
        (u32::MAX / greatest.max(1)).clamp(1, 1_000)
    }

    /// The view of what is known now.
    pub(in crate::resolver) fn view(&mut self, scope: &Membership<'_>) -> View {
        let config = scope.config;
        if config.slow_start.is_some() || config.reported.is_some() {
            self.weigh(config);
        }
        self.trials = self.trials(config);
        let mut eligible = Vec::with_capacity(self.order.len());
        let census = self.census(config, &mut eligible);
        let zones = config.zoning.as_ref().map(|zoning| Zones {
            zoning,
            numbers: &self.zones,
            overprovisioning: config.priorities.overprovisioning,
        });
        let mut planner = Planner {
            balancer: &*config.balancer,
            members: &self.members,
            trials: &self.trials,
            priorities: &config.priorities,
            zones,
            before: &mut self.prepared,
            after: BTreeMap::new(),
        };
        let plan = planner.plan(0, &eligible);
        let subsets = config
            .subsets
            .as_ref()
            .map(|config| planner.subsets(config, &eligible));
        self.prepared = planner.after;
        self.note_panic(scope.service, plan.is_in_panic());
        self.note_subsets(
            scope.service,
            subsets.as_ref().map_or(0, Subsets::unindexed),
        );
        View {
            revision: self.revision,
            members: self.members.clone(),
            order: Arc::clone(&self.order),
            plan,
            subsets,
            thresholds: self.detector.thresholds(),
            census,
        }
    }

    /// What became of each member in the view, for explanations.
    pub(in crate::resolver) fn fates(&self, config: &Config) -> BTreeMap<InstanceId, Fate> {
        let fate = |&slot: &u32| {
            let state = self.states.get(number(slot))?.as_ref()?;
            let mut census = Census::default();
            state.fitness(config.require_check, &mut census);
            let fate = Fate {
                weight: state.effective,
                reason: census.reason(),
            };
            Some((self.id(slot)?.clone(), fate))
        };
        self.order.iter().filter_map(fate).collect()
    }

    /// The trials of those that are ejected; what was claimed stays claimed.
    fn trials(&self, config: &Config) -> BTreeMap<u32, Arc<Trial>> {
        if self.detector.ejected() == 0 {
            return BTreeMap::new();
        }
        let trial = |&slot: &u32| {
            let state = self.states.get(number(slot))?.as_ref()?;
            let takes_calls = state.status == Status::Ready
                && state.effective > 0
                && !state.outside
                && state.forced.is_none()
                && state.health != Health::Unhealthy
                && !(config.require_check && state.health == Health::Unchecked);
            let allowed = self.detector.trial_at(Host::new(slot))?;
            if !state.ejected || !takes_calls {
                return None;
            }
            let generation = self.members.member(slot)?.generation;
            let known = self.trials.get(&slot);
            let trial = match known.filter(|trial| trial.is_that(generation, allowed)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Trial::new(slot, generation, allowed)),
            };
            Some((slot, trial))
        };
        self.order.iter().filter_map(trial).collect()
    }

    pub(super) fn note_panic(&mut self, service: &ServiceName, in_panic: bool) {
        if std::mem::replace(&mut self.in_panic, in_panic) != in_panic {
            self.events.push(Event::Panic {
                service: service.clone(),
                entered: in_panic,
            });
        }
    }

    pub(super) fn note_subsets(&mut self, service: &ServiceName, unindexed: u64) {
        let exceeds = unindexed > 0;
        if std::mem::replace(&mut self.exceeds, exceeds) != exceeds {
            self.events.push(Event::SubsetsExceeded {
                service: service.clone(),
                unindexed,
            });
        }
    }

    pub(super) fn census(&self, config: &Config, eligible: &mut Vec<Eligible>) -> Census {
        let mut census = Census::default();
        for &slot in self.order.iter() {
            let Some(Some(state)) = self.states.get(number(slot)) else {
                continue;
            };
            census.registered += 1;
            let Some(fitness) = state.fitness(config.require_check, &mut census) else {
                continue;
            };
            eligible.push(Eligible {
                slot,
                weight: state.effective,
                priority: state.priority,
                zone: state.zone,
                fitness,
            });
        }
        census
    }
}
