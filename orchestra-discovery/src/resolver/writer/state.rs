//! What is known of one member.

use crate::health::Health;
use crate::instance::{Override, Status};
use crate::resolver::plan::Fitness;
use crate::resolver::view::Census;
use crate::slow_start::Ramp;

/// What is known of a member beside its instance; stands at the place of its slot.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) weight: u32,
    pub(super) effective: u32,
    pub(super) priority: u32,
    pub(super) zone: u32,
    pub(super) status: Status,
    pub(super) forced: Option<Override>,
    pub(super) health: Health,
    pub(super) outside: bool,
    pub(super) ejected: bool,
    pub(super) ramp: Ramp,
}

impl State {
    /// How fit it is for calls; `None` if it takes none whatever happens.
    pub(super) fn fitness(&self, require_check: bool, census: &mut Census) -> Option<Fitness> {
        let reason = match self.status {
            _ if self.outside => &mut census.outside,
            Status::Starting => &mut census.starting,
            Status::Draining => &mut census.draining,
            Status::Ready if self.forced == Some(Override::OutOfService) => {
                &mut census.out_of_service
            }
            Status::Ready if self.effective == 0 => &mut census.zero_weight,
            // It counts neither for its tier nor against it, and gets no calls in panic either.
            Status::Ready if self.is_unverified(require_check) => &mut census.unchecked,
            Status::Ready => return Some(self.health(census)),
        };
        *reason += 1;
        None
    }

    fn is_unverified(&self, require_check: bool) -> bool {
        let forced = self.forced == Some(Override::ForcedHealthy);
        require_check && self.health == Health::Unchecked && !forced
    }

    fn health(&self, census: &mut Census) -> Fitness {
        if self.forced == Some(Override::ForcedHealthy) {
            return Fitness::Healthy;
        }
        let reason = match self.health {
            Health::Unhealthy => &mut census.unhealthy,
            _ if self.ejected => &mut census.ejected,
            Health::Degraded => return Fitness::Degraded,
            Health::Healthy | Health::Unchecked => return Fitness::Healthy,
        };
        *reason += 1;
        Fitness::Unfit
    }
}
