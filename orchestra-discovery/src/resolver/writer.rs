//! The writer's side of a resolver: what is known of each member, and the views made of it.

mod judging;
mod members;
mod state;
mod views;

pub(super) use self::views::Fate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, Monotonic, ServiceName};

use self::state::State;
use super::config::Config;
use super::plan::PoolKey;
use super::view::{Member, Members, Trial};
use super::zoning::ZoneNumbers;
use crate::balance::{Prepared, mix};
use crate::event::Event;
use crate::outlier::Detector;
use crate::slab::{Follow, Free, Slab, Token, number};
use crate::source::{Revision, Snapshot};

/// Housekeeping at least this often, if there are calls.
const IDLE: Duration = Duration::from_secs(1);
/// How often weights that rise are computed anew.
const RAMP_STEP: Duration = Duration::from_millis(100);
/// How often moments are brought up to date: far more often than they wrap.
const REFRESH: Duration = Duration::from_secs(3_600);
/// After such a silence nothing is known any more: a third of the time in which moments wrap.
const LONG_SILENCE: Duration = Duration::from_secs(4 * 86_400);

#[derive(Debug)]
pub(super) struct Writer {
    revision: Revision,
    members: Members,
    states: Vec<Option<State>>,
    order: Arc<[u32]>,
    free: Free,
    zones: ZoneNumbers,
    detector: Detector,
    prepared: BTreeMap<PoolKey, Prepared>,
    /// By slot.
    trials: BTreeMap<u32, Arc<Trial>>,
    /// The latest moment that was heard of.
    now: Monotonic,
    refreshed: Monotonic,
    weighed: Option<Monotonic>,
    /// Labels of members found no room among the subsets.
    exceeds: bool,
    /// Some weight of the view was still rising.
    is_rising: bool,
    /// Members that began to rise since a moment was heard of.
    begun: Vec<u32>,
    draws: u64,
    in_panic: bool,
    events: Vec<Event>,
}

impl Writer {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            revision: Revision::default(),
            members: Members::default(),
            states: Vec::new(),
            order: Arc::default(),
            free: Free::default(),
            zones: ZoneNumbers::new(config.zoning.as_ref()),
            detector: Detector::new(config.outliers.clone()),
            prepared: BTreeMap::new(),
            trials: BTreeMap::new(),
            now: Monotonic::ZERO,
            refreshed: Monotonic::ZERO,
            weighed: None,
            exceeds: false,
            is_rising: false,
            begun: Vec::new(),
            draws: config.seed,
            in_panic: false,
            events: Vec::new(),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn advance_time(&mut self, now: Monotonic) {
        if now <= self.now {
            return;
        }
        self.now = now;
        // What began since a moment was heard of last began at an unknown one, not before all of the silence.
        for slot in std::mem::take(&mut self.begun) {
            if let Some(state) = self.state_mut(slot) {
                state.ramp.postpone(now);
            }
        }
    }

    /// Notes that the weight of a member begins to rise about now.
    fn begins_to_rise(&mut self, slot: u32, config: &Config) {
        if config.slow_start.is_some() {
            self.begun.push(slot);
            self.is_rising = true;
        }
    }

    fn draw(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(1);
        mix(self.draws)
    }

    fn state_mut(&mut self, slot: u32) -> Option<&mut State> {
        self.states.get_mut(number(slot))?.as_mut()
    }

    /// Where the id is in the order, or would be.
    fn position(&self, order: &[u32], id: &InstanceId) -> Result<usize, usize> {
        order.binary_search_by(|&slot| match self.members.member(slot) {
            Some(member) => member.instance.id.cmp(id),
            None => std::cmp::Ordering::Less,
        })
    }

    pub(super) fn find(&self, id: &InstanceId) -> Option<&Member> {
        let at = self.position(&self.order, id).ok()?;
        self.members.member(*self.order.get(at)?)
    }

    /// Whether a call belongs to the member that the slot has now.
    fn is_current(&self, token: Token) -> bool {
        let member = self.members.member(token.index());
        member.is_some_and(|member| member.generation == token.generation())
    }

    fn id(&self, slot: u32) -> Option<&InstanceId> {
        Some(&self.members.member(slot)?.instance.id)
    }

    pub(super) fn set_callers(&mut self, callers: &Snapshot) {
        // Those that call: one that drains or was taken out of service counts no more.
        let callers = callers.instances().iter();
        let calling = callers.filter(|instance| instance.takes_calls());
        self.zones
            .set_callers(calling.map(|instance| &instance.locality));
    }
}

/// What the writer works with and does not own.
pub(super) struct Membership<'a> {
    pub(super) service: &'a ServiceName,
    pub(super) config: &'a Config,
    pub(super) slab: &'a Slab,
    pub(super) follow: Follow,
}
