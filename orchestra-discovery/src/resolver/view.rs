//! The immutable state that a pick reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic};
use parking_lot::Mutex;

use super::plan::{Plan, Pool, Subsets};
use super::{PickContext, sooner};
use crate::gate::{Gate, Refusal};
use crate::instance::Instance;
use crate::outlier::Thresholds;
use crate::reported::ReportedWeight;
use crate::slab::number;
use crate::source::Revision;

/// A member, at the place of its slot.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) instance: Arc<Instance>,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    /// What most members do not have: boxed, so that they do not pay for it.
    pub(crate) extra: Option<Arc<Extra>>,
}

#[derive(Debug)]
pub(crate) struct Extra {
    pub(crate) gate: Option<Arc<dyn Gate>>,
    pub(crate) reported: Mutex<ReportedWeight>,
}

/// Members whose slots are neighbours: a change copies one chunk, not all members.
const CHUNK: usize = 64;
type Chunk = [Option<Member>; CHUNK];

/// The members by slot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members(Vec<Arc<Chunk>>);

impl Members {
    #[inline]
    pub(crate) fn member(&self, slot: u32) -> Option<&Member> {
        let number = number(slot);
        self.0.get(number / CHUNK)?.get(number % CHUNK)?.as_ref()
    }

    pub(crate) fn set(&mut self, slot: u32, member: Option<Member>) {
        let number = number(slot);
        while self.0.len() <= number / CHUNK {
            self.0.push(Arc::new([const { None }; CHUNK]));
        }
        if let Some(chunk) = self.0.get_mut(number / CHUNK)
            && let Some(place) = Arc::make_mut(chunk).get_mut(number % CHUNK)
        {
            *place = member;
        }
    }
}

/// Why members take no calls: each counts once, for the first reason in this order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Census {
    pub(crate) registered: u32,
    pub(crate) outside: u32,
    pub(crate) starting: u32,
    pub(crate) draining: u32,
    pub(crate) out_of_service: u32,
    pub(crate) zero_weight: u32,
    pub(crate) unchecked: u32,
    pub(crate) unhealthy: u32,
    pub(crate) ejected: u32,
}

impl Census {
    /// The reason that was counted, if one was.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        let counts = [
            (self.outside, "outside the subset"),
            (self.starting, "starting"),
            (self.draining, "draining"),
            (self.out_of_service, "out of service"),
            (self.zero_weight, "of weight zero"),
            (self.unchecked, "unchecked"),
            (self.unhealthy, "unhealthy"),
            (self.ejected, "ejected"),
        ];
        let found = counts.into_iter().find(|(count, _)| *count > 0);
        found.map(|(_, reason)| reason)
    }
}

/// When an ejected member may be tried by a call. It outlives the view, and so does its claim: a change of
/// something else is no reason for another trial beside the one that is under way.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) slot: u32,
    generation: u32,
    /// When the detector allowed it.
    allowed: Monotonic,
    due: AtomicU64,
}

/// A trial that is not settled by then is followed by another.
const TRIAL_LEASE: Duration = Duration::from_secs(5);

impl Trial {
    pub(crate) fn new(slot: u32, generation: u32, allowed: Monotonic) -> Self {
        Self {
            slot,
            generation,
            allowed,
            due: AtomicU64::new(allowed.as_nanos()),
        }
    }

    /// Whether it is the trial of this owner of the slot that was allowed then.
    pub(crate) fn is_that(&self, generation: u32, allowed: Monotonic) -> bool {
        self.generation == generation && self.allowed == allowed
    }

    /// Whether this call is the trial; of those that ask at once one is.
    fn claim(&self, now: Monotonic) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        due <= now.as_nanos() && {
            let next = (now + TRIAL_LEASE).as_nanos();
            let claimed =
                self.due
                    .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
            claimed.is_ok()
        }
    }
}

/// The trials among the members of a plan.
#[derive(Debug)]
pub(crate) struct Trials {
    /// No trial is due before.
    next: AtomicU64,
    trials: Box<[Arc<Trial>]>,
}

impl Default for Trials {
    fn default() -> Self {
        Self::new(Box::default())
    }
}

impl Trials {
    pub(crate) fn new(trials: Box<[Arc<Trial>]>) -> Self {
        let next = AtomicU64::new(first_due(&trials));
        Self { next, trials }
    }

    /// Whether a call may have to be a trial: one look, as long as none is due.
    #[inline]
    pub(crate) fn may_be_due(&self, now: Monotonic) -> bool {
        self.next.load(Ordering::Relaxed) <= now.as_nanos()
    }

    /// The trial that this call is, if one is due.
    #[cold]
    pub(crate) fn claim(&self, now: Monotonic) -> Option<&Trial> {
        let claimed = self.trials.iter().find(|trial| trial.claim(now));
        // Another call may have moved one meanwhile: then somebody looks once too often.
        self.next.store(first_due(&self.trials), Ordering::Relaxed);
        claimed.map(|trial| &**trial)
    }
}

fn first_due(trials: &[Arc<Trial>]) -> u64 {
    let due = trials.iter().map(|trial| trial.due.load(Ordering::Relaxed));
    due.min().unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) revision: Revision,
    pub(crate) members: Members,
    /// The slots of all members in the order of their ids.
    pub(crate) order: Arc<[u32]>,
    pub(crate) plan: Plan,
    pub(crate) subsets: Option<Subsets>,
    pub(crate) thresholds: Thresholds,
    pub(crate) census: Census,
}

impl View {
    #[inline]
    pub(crate) fn plan(&self, context: &PickContext<'_>) -> Option<&Plan> {
        match (&self.subsets, context.subset) {
            (Some(subsets), Some(asked)) => subsets.plan(asked, &self.plan),
            _ => Some(&self.plan),
        }
    }

    /// The member of this id.
    pub(crate) fn find(&self, id: &InstanceId) -> Option<&Member> {
        let by_id = |slot: &u32| match self.members.member(*slot) {
            Some(member) => member.instance.id.cmp(id),
            None => std::cmp::Ordering::Less,
        };
        let at = self.order.binary_search_by(by_id).ok()?;
        self.members.member(*self.order.get(at)?)
    }

    /// All members in the order of their ids.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Member> {
        self.order
            .iter()
            .filter_map(|&slot| self.members.member(slot))
    }

    #[inline]
    pub(crate) fn member_of(&self, pool: &Pool, index: usize) -> Option<&Member> {
        self.members.member(*pool.slots.get(index)?)
    }
}

/// How many refusals a pick remembers one by one; after them it walks over all.
const REMEMBERED: usize = 8;

/// The candidates that refused this pick.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    slots: [u32; REMEMBERED],
    pub(crate) count: u32,
    /// All of them, if they are wanted.
    pub(crate) all: Option<Vec<u32>>,
    pub(crate) reason: Option<&'static str>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refused {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count as usize >= REMEMBERED
    }

    pub(crate) fn contains(&self, slot: u32) -> bool {
        let held = self.slots.iter().take(self.count as usize);
        held.into_iter().any(|&held| held == slot)
    }

    pub(crate) fn add(&mut self, slot: u32, refusal: Refusal) {
        if let Some(place) = self.slots.get_mut(self.count as usize) {
            *place = slot;
        }
        if let Some(all) = &mut self.all {
            all.push(slot);
        }
        self.count += 1;
        self.reason = Some(refusal.reason);
        self.retry_after = sooner(self.retry_after, refusal.retry_after);
    }
}
