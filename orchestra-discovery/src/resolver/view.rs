//! The immutable state that a pick reads.

use std::sync::Arc;
use std::time::Duration;

use super::sooner;
use crate::gate::Refusal;
use crate::health::Health;
use crate::instance::{Instance, Status};
use crate::slab::{Slot, Token};
use crate::source::Revision;

/// A member as the writer keeps it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: Arc<Instance>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) health: Health,
}

/// A member that takes calls.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) instance: Arc<Instance>,
    pub(crate) slot: Arc<Slot>,
    /// The sum of the weights up to and with this one.
    pub(crate) upto: u64,
}

/// Why members take no calls: each counts once, for the first reason in this order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Census {
    pub(crate) registered: u32,
    pub(crate) starting: u32,
    pub(crate) draining: u32,
    pub(crate) zero_weight: u32,
    pub(crate) unhealthy: u32,
}

impl Census {
    /// Whether the member takes calls.
    fn count(&mut self, member: &Member) -> bool {
        self.registered += 1;
        let reason = match member.instance.status {
            Status::Starting => &mut self.starting,
            Status::Draining => &mut self.draining,
            Status::Ready if member.instance.weight == 0 => &mut self.zero_weight,
            Status::Ready if member.health == Health::Unhealthy => &mut self.unhealthy,
            Status::Ready => return true,
        };
        *reason += 1;
        false
    }
}

#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) revision: Revision,
    pub(crate) ready: Box<[Entry]>,
    pub(crate) greatest_weight: u32,
    pub(crate) census: Census,
    slots: Box<[Option<Arc<Slot>>]>,
}

impl View {
    pub(crate) fn new<'a>(
        revision: Revision,
        members: impl Iterator<Item = &'a Member>,
        slots: usize,
    ) -> Self {
        let mut view = Self {
            revision,
            slots: vec![None; slots].into(),
            ..Self::default()
        };
        let mut upto = 0_u64;
        let mut ready = Vec::new();
        for member in members {
            if let Some(place) = view.slots.get_mut(member.slot.index()) {
                *place = Some(Arc::clone(&member.slot));
            }
            if view.census.count(member) {
                let weight = member.instance.weight;
                view.greatest_weight = view.greatest_weight.max(weight);
                upto += u64::from(weight);
                ready.push(Entry {
                    instance: Arc::clone(&member.instance),
                    slot: Arc::clone(&member.slot),
                    upto,
                });
            }
        }
        view.ready = ready.into();
        view
    }

    pub(crate) fn slot(&self, token: Token) -> Option<&Slot> {
        self.slots.get(token.index())?.as_deref()
    }
}

/// How many refusals a pick remembers one by one; after them it walks over all.
const REMEMBERED: usize = 8;

/// The candidates whose gates refused this pick.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    indices: [usize; REMEMBERED],
    pub(crate) count: u32,
    pub(crate) reason: Option<&'static str>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refused {
    pub(crate) fn is_full(&self) -> bool {
        self.count as usize >= REMEMBERED
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.indices
            .iter()
            .take(self.count as usize)
            .any(|&held| held == index)
    }

    pub(crate) fn add(&mut self, index: usize, refusal: Refusal) {
        if let Some(place) = self.indices.get_mut(self.count as usize) {
            *place = index;
        }
        self.count += 1;
        self.reason = Some(refusal.reason);
        self.retry_after = sooner(self.retry_after, refusal.retry_after);
    }
}
