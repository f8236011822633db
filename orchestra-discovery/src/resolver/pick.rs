//! How a call finds its instance.

use std::hint::black_box;
use std::sync::Arc;

use orchestra_core::{InstanceId, Monotonic};

use super::choice::{Choice, NoCandidate, PickContext};
use super::explain::Way;
use super::log::Record;
use super::plan::{Plan, Pool, mixed};
use super::view::{Member, Refused, View};
use super::{Shared, Token};
use crate::balance::Candidates;
use crate::event::Event;
use crate::gate::{GateToken, Refusal};

/// A member that took the call, which counts as in flight from here on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted<'v> {
    member: &'v Member,
    gate: Option<GateToken>,
    pub(super) way: Way,
}

impl Admitted<'_> {
    #[inline]
    pub(super) fn choice(&self, now: Monotonic) -> Choice {
        let mut token = Token::new(self.member.slot, self.member.generation, now);
        if let Some(gate) = self.gate {
            token = token.with_gate(gate);
        }
        if self.way == Way::Trial {
            token = token.as_trial();
        }
        Choice {
            instance: Arc::clone(&self.member.instance),
            token,
        }
    }
}

impl Shared {
    /// Picks, and makes something of it.
    #[inline]
    pub(super) fn pick<T>(
        &self,
        context: &PickContext<'_>,
        make: impl FnOnce(Choice) -> T,
    ) -> Result<T, NoCandidate> {
        if self.config.log.is_some() || self.config.pick_events {
            return self.pick_aloud(context).map(make);
        }
        self.pick_by_view(context, make)
    }

    #[inline]
    fn pick_by_view<T>(
        &self,
        context: &PickContext<'_>,
        make: impl FnOnce(Choice) -> T,
    ) -> Result<T, NoCandidate> {
        self.catch_up(context.now);
        let view = self.view.load();
        let mut refused = Refused::default();
        match self.admitted(&view, context, &mut refused) {
            Some(admitted) => Ok(make(admitted.choice(context.now))),
            None => Err(self.nobody(&view, context, &refused)),
        }
    }

    /// Picks, and records and tells it.
    #[cold]
    fn pick_aloud(&self, context: &PickContext<'_>) -> Result<Choice, NoCandidate> {
        let turn = self.config.log.as_ref().and_then(|log| log.turn());
        let choice = self.pick_by_view(context, |choice| choice);
        if let Some(mut turn) = turn {
            turn.push(Record::pick(context, &choice));
        }
        self.tell_pick(&choice);
        choice
    }

    /// Tells a pick, if picks are to be told.
    pub(super) fn tell_pick(&self, choice: &Result<Choice, NoCandidate>) {
        if !self.config.pick_events {
            return;
        }
        self.config.events.emit(&match choice {
            Ok(choice) => Event::Picked {
                service: self.service.clone(),
                id: choice.instance.id.clone(),
                trial: choice.token.is_trial(),
            },
            Err(none) => Event::NotPicked(none.clone()),
        });
    }

    #[cold]
    pub(super) fn nobody(
        &self,
        view: &View,
        context: &PickContext<'_>,
        refused: &Refused,
    ) -> NoCandidate {
        NoCandidate::new(&self.service, view, context, refused)
    }

    /// The one place where it is decided who gets a call.
    #[inline]
    pub(super) fn admitted<'v>(
        &self,
        view: &'v View,
        context: &PickContext<'_>,
        refused: &mut Refused,
    ) -> Option<Admitted<'v>> {
        if let Some(id) = context.sticky
            && let Some(admitted) = self.stick(view, id, context, refused)
        {
            return Some(admitted);
        }
        let plan = view.plan(context)?;
        if plan.trials.may_be_due(context.now)
            && context.tried.is_empty()
            && let Some(admitted) = self.try_out(view, plan, context, refused)
        {
            return Some(admitted);
        }
        let pool = plan.pool(context.hash.unwrap_or(context.draw))?;
        while !refused.is_full() {
            let candidates = self.candidates(view, pool, context, refused);
            // A balancer of somebody else may answer anything; what is not open counts as no answer.
            let chosen = self.config.balancer.choose(&candidates, context);
            let Some(index) = chosen.filter(|&index| candidates.is_open(index)) else {
                break;
            };
            let member = view.member_of(pool, index)?;
            let admitted = self.admit(member, Way::Balanced, context.now, refused);
            if admitted.is_some() {
                return admitted;
            }
        }
        self.any(view, context, refused)
    }

    #[inline]
    pub(super) fn candidates<'a>(
        &'a self,
        view: &'a View,
        pool: &'a Pool,
        context: &'a PickContext<'_>,
        refused: &'a Refused,
    ) -> Candidates<'a> {
        Candidates::new((&self.slab, self.follow), (view, pool), context, refused)
    }

    /// The one that the call asks for, if calls may go to it; linear in the members.
    #[cold]
    fn stick<'v>(
        &self,
        view: &'v View,
        id: &InstanceId,
        context: &PickContext<'_>,
        refused: &mut Refused,
    ) -> Option<Admitted<'v>> {
        let member = view.find(id)?;
        let plan = view.plan(context)?;
        let takes_calls = plan.pools().any(|pool| pool.slots.contains(&member.slot));
        if !takes_calls || context.has_tried(id) {
            return None;
        }
        self.admit(member, Way::Sticky, context.now, refused)
    }

    /// An ejected one whose trial is due.
    #[cold]
    fn try_out<'v>(
        &self,
        view: &'v View,
        plan: &Plan,
        context: &PickContext<'_>,
        refused: &mut Refused,
    ) -> Option<Admitted<'v>> {
        let trial = plan.trials.claim(context.now)?;
        let member = view.members.member(trial.slot)?;
        self.admit(member, Way::Trial, context.now, refused)
    }

    /// The first that admits, from a drawn place on; reached only when gates refuse or nothing is open.
    #[cold]
    fn any<'v>(
        &self,
        view: &'v View,
        context: &PickContext<'_>,
        refused: &mut Refused,
    ) -> Option<Admitted<'v>> {
        let pools = || view.plan(context).into_iter().flat_map(Plan::pools);
        for pool in pools() {
            let start = pool.weights.at(context.draw, pool.slots.len());
            let start = start.unwrap_or_default();
            for index in (start..pool.slots.len()).chain(0..start) {
                if self.candidates(view, pool, context, refused).is_open(index)
                    && let Some(member) = view.member_of(pool, index)
                    && let Some(admitted) =
                        self.admit(member, Way::NextThatAdmits, context.now, refused)
                {
                    return Some(admitted);
                }
            }
        }
        if !self.config.bypass_gates || refused.is_empty() {
            return None;
        }
        let none = Refused::default();
        for pool in pools() {
            let candidates = self.candidates(view, pool, context, &none);
            let drawn = candidates.draw_open(mixed(context.draw, 9));
            if let Some(index) = drawn.filter(|&index| candidates.is_open(index))
                && let Some(member) = view.member_of(pool, index)
                && self.begin(member)
            {
                return Some(self.past_its_gate(member));
            }
        }
        None
    }

    fn past_its_gate<'v>(&self, member: &'v Member) -> Admitted<'v> {
        self.config.events.emit(&Event::GateBypassed {
            service: self.service.clone(),
            id: member.instance.id.clone(),
        });
        Admitted {
            member,
            gate: None,
            way: Way::PastItsGate,
        }
    }

    /// Counts a call as in flight; false if the member left a moment ago.
    #[inline]
    fn begin(&self, member: &Member) -> bool {
        let hot = self.slab.slot(member.slot);
        hot.is_some_and(|hot| hot.begin(member.generation))
    }

    #[inline]
    fn admit<'v>(
        &self,
        member: &'v Member,
        way: Way,
        now: Monotonic,
        refused: &mut Refused,
    ) -> Option<Admitted<'v>> {
        // The instance is needed next: it comes in together with the slot.
        black_box(Arc::strong_count(&member.instance));
        if !self.begin(member) {
            // The view that says that it left is on its way.
            refused.add(member.slot, Refusal::new("gone", None));
            return None;
        }
        let gate = member.extra.as_ref().and_then(|extra| extra.gate.as_ref());
        let gate = match gate.map(|gate| gate.try_admit(now)).transpose() {
            Ok(gate) => gate,
            Err(refusal) => {
                self.take_back(member);
                refused.add(member.slot, refusal);
                return None;
            }
        };
        Some(Admitted { member, gate, way })
    }

    /// Ends a call that was not admitted after all.
    #[cold]
    fn take_back(&self, member: &Member) {
        if let Some(hot) = self.slab.slot(member.slot) {
            hot.end(member.generation);
        }
    }
}
