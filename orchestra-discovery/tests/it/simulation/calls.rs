//! Callers that pick, settle, give up and are aborted; and what may never be picked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Clock, InstanceId, Monotonic, Outcome};
use orchestra_discovery::outlier::Report;
use orchestra_discovery::{
    Choice, Completion, InFlight, Instance, NoCandidate, Override, PickContext, Status,
};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::millis;
use super::ward::Condition;
use super::world::{View, World};

/// After so long the checker knows of a new member.
const NOTICED: Duration = Duration::from_millis(15);

/// The life of a member that a call belongs to.
type Life = u64;

enum Held {
    Guard(InFlight),
    Choice(Choice),
}

struct Call {
    held: Held,
    life: Life,
    due: Monotonic,
    /// `None` if it is dropped.
    ended: Option<(Outcome, Option<Report>)>,
}

#[derive(Default)]
pub(super) struct Calls {
    held: Vec<Call>,
    tasks: JoinSet<()>,
    running: Vec<(AbortHandle, Life)>,
}

impl Calls {
    /// The calls under way, by the life of the member they are at.
    pub(super) fn by_life(&mut self) -> BTreeMap<Life, u32> {
        while self.tasks.try_join_next().is_some() {}
        self.running.retain(|(task, _)| !task.is_finished());
        let tasks = self.running.iter().map(|(_, life)| *life);
        let mut lives = BTreeMap::new();
        for life in self.held.iter().map(|call| call.life).chain(tasks) {
            *lives.entry(life).or_default() += 1;
        }
        lives
    }

    pub(super) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// The callers are gone in the middle of their calls.
    pub(super) fn abort(&mut self) {
        self.tasks.abort_all();
    }
}

/// How members stand before or after a pick.
pub(super) struct Standing {
    in_panic: bool,
    ejected: Vec<InstanceId>,
}

impl World {
    pub(super) fn standing(&mut self, members: &View) -> Standing {
        self.listen();
        let ids = members.keys();
        let ejected = ids.filter(|id| self.ear.is_ejected(id, &self.house));
        Standing {
            in_panic: self.ear.in_panic,
            ejected: ejected.cloned().collect(),
        }
    }

    pub(super) fn members(&self) -> View {
        let members = self.resolver.members().into_iter();
        members.map(|it| (it.id.clone(), it)).collect()
    }

    /// So many calls at once, some of which end at once.
    pub(super) fn call(&mut self, count: u32) {
        let members = self.members();
        let mut before = self.standing(&members);
        for _ in 0..count {
            before = self.pick(&members, &before);
        }
    }

    fn pick(&mut self, members: &View, before: &Standing) -> Standing {
        let ids: Vec<&InstanceId> = members.keys().collect();
        let any = |rng: &mut fastrand::Rng| {
            let at = rng.usize(..=ids.len());
            ids.get(at).map(|id| (*id).clone())
        };
        // Callers read the clock at their own pace.
        let skew = self.rng.u64(..20);
        let now = Monotonic::from_nanos(self.now().as_nanos().saturating_sub(skew * 1_000_000));
        let mut context = PickContext::new(now, self.rng.u64(..));
        let tried: Vec<_> = match self.rng.u8(..8) {
            0 => any(&mut self.rng).into_iter().collect(),
            1 if self.rng.u8(..8) == 0 => members.keys().cloned().collect(),
            _ => Vec::new(),
        };
        context = context.tried(&tried);
        let sticky = (self.rng.u8(..8) == 0)
            .then(|| any(&mut self.rng))
            .flatten();
        if let Some(sticky) = &sticky {
            context = context.sticky(sticky);
        }
        let picked = if self.rng.bool() {
            self.resolver.pick_owned(&context).map(Held::Guard)
        } else {
            self.resolver.choose(&context).map(Held::Choice)
        };
        let after = self.standing(members);
        match picked {
            Ok(held) => {
                let instance = match &held {
                    Held::Guard(guard) => Arc::clone(guard.instance()),
                    Held::Choice(choice) => Arc::clone(&choice.instance),
                };
                assert_eq!(members.get(&instance.id), Some(&instance), "not a member");
                assert!(!tried.contains(&instance.id), "{} again", instance.id);
                self.may_be_picked(&instance, before, &after);
                self.begin(held, &instance);
            }
            Err(none) => self.may_fail(&none, members, &tried, before, &after),
        }
        self.standing(members)
    }

    fn may_be_picked(&self, instance: &Instance, before: &Standing, after: &Standing) {
        let id = &instance.id;
        assert_eq!(instance.status, Status::Ready, "{instance:?}");
        assert!(instance.weight > 0, "{instance:?}");
        assert_ne!(instance.forced, Some(Override::OutOfService), "{id}");
        assert!(self.setup.bypass || !self.house.is_shut(id), "{id} is shut");
        let ejected = before.ejected.contains(id) && after.ejected.contains(id);
        let is_trial = self.ear.trial;
        assert!(!is_trial || before.ejected.contains(id), "a trial of {id}");
        if before.in_panic || after.in_panic || instance.forced.is_some() {
            return;
        }
        assert!(!ejected || is_trial, "{id} is ejected");
        // The checker has just heard of it, or is about to.
        let age = self.now().since(self.house.born(id));
        if age < NOTICED && !self.setup.require_check {
            return;
        }
        let serves = self.ward.record(instance).serves;
        assert_eq!(serves, Some(true), "{id} is unhealthy");
        assert!(!self.ear.suppressed.contains(id), "{id} is suppressed");
    }

    /// Whether nothing speaks against a call to this member.
    pub(super) fn is_fit(&self, instance: &Instance, before: &Standing, after: &Standing) -> bool {
        let id = &instance.id;
        let ejected = before.ejected.contains(id) || after.ejected.contains(id);
        instance.forced == Some(Override::ForcedHealthy)
            || self.ward.record(instance).serves == Some(true)
                && !self.ear.suppressed.contains(id)
                && !ejected
    }

    fn may_fail(
        &self,
        none: &NoCandidate,
        members: &View,
        tried: &[InstanceId],
        before: &Standing,
        after: &Standing,
    ) {
        let count = |is: fn(&Instance) -> bool| {
            let found = members.values().filter(|it| is(it)).count();
            u32::try_from(found).unwrap()
        };
        let out = |it: &Instance| it.forced == Some(Override::OutOfService);
        assert_eq!(none.registered, count(|_| true));
        assert_eq!(none.draining, count(|it| it.status == Status::Draining));
        let out_of_service =
            count(|it| it.status == Status::Ready && it.forced == Some(Override::OutOfService));
        assert_eq!(none.out_of_service, out_of_service);
        let weightless = members.values().filter(|it| it.weight == 0);
        let weightless = weightless.filter(|it| it.status == Status::Ready && !out(it));
        assert_eq!(none.zero_weight as usize, weightless.count());
        let takers = count(Instance::takes_calls);
        assert!(none.unchecked + none.unhealthy + none.ejected <= takers);
        assert!(tried.len() >= none.tried as usize);
        if self.setup.fails_in_panic && (before.in_panic || after.in_panic) {
            return;
        }
        let candidates = members.values().filter(|it| it.takes_calls());
        for instance in candidates.filter(|it| !tried.contains(&it.id)) {
            let shut = self.house.is_shut(&instance.id);
            let panic = before.in_panic && after.in_panic;
            let fit = panic || self.is_fit(instance, before, after);
            let ready = self.setup.bypass || !shut;
            assert!(!ready || !fit, "{none} in spite of {instance:?}");
            assert!(!shut || !fit || none.refused > 0, "{none}");
        }
    }

    fn begin(&mut self, held: Held, instance: &Instance) {
        let life = self.house.life(&instance.id);
        let lasting = millis(self.rng.u64(1..40));
        let due = self.now() + lasting;
        if self.rng.u8(..10) == 0 {
            let Held::Guard(guard) = held else {
                return self.settle(held, Some((Outcome::Success, Some(Report::Success))), due);
            };
            // It drops the guard if it is aborted, and when it has waited for too long.
            let patience = millis(self.rng.u64(1..8_000));
            let clock = self.clock;
            let task = self.calls.tasks.spawn(async move {
                sleep(patience).await;
                if patience < millis(4_000) {
                    guard.settle(Outcome::Success, clock.now());
                }
            });
            self.calls.running.push((task, life));
            return;
        }
        let ended = match self.ward.condition(instance) {
            _ if self.rng.u8(..20) == 0 => None,
            Some(Condition::Well) if self.rng.u8(..50) > 0 => {
                Some((Outcome::Success, Some(Report::Success)))
            }
            Some(Condition::Limping) if self.rng.bool() => Some((Outcome::Overloaded, None)),
            Some(Condition::Limping) => Some((Outcome::Success, Some(Report::Success))),
            Some(Condition::Hanging) => Some((Outcome::Failure, Some(Report::TimedOut))),
            None => Some((Outcome::Failure, Some(Report::ConnectFailed))),
            _ => Some((Outcome::Failure, Some(Report::Error))),
        };
        // Failures are fast, and timeouts are not.
        let hangs = self.ward.condition(instance) == Some(Condition::Hanging);
        if !hangs && self.rng.bool() {
            return self.settle(held, ended, due);
        }
        let due = if hangs { due + millis(2_000) } else { due };
        let call = Call {
            held,
            life,
            due,
            ended,
        };
        self.calls.held.push(call);
    }

    fn settle(&mut self, held: Held, ended: Option<(Outcome, Option<Report>)>, at: Monotonic) {
        let completion = ended.map(|(outcome, report)| {
            let completion = Completion::from(outcome);
            report.map_or(completion, |report| completion.report(report))
        });
        match (held, completion) {
            (Held::Guard(guard), Some(completion)) => guard.settle(completion, at),
            (Held::Guard(guard), None) => drop(guard),
            (Held::Choice(choice), completion) => {
                let completion = completion.unwrap_or_else(|| Outcome::Neutral.into());
                self.resolver.settle(choice.token, completion, at);
            }
        }
    }

    /// Ends the calls that have lasted long enough.
    pub(super) fn settle_due(&mut self, now: Monotonic) {
        let due: Vec<_> = self.calls.held.extract_if(.., |it| it.due <= now).collect();
        for call in due {
            self.settle(call.held, call.ended, now);
        }
    }
}
