//! The members of one service, and which of them gets the next call.
//!
//! A pick loads an immutable view (one atomic load), finds the pool that the call goes to (by subset,
//! priority, health and zone), asks the [`Balancer`](crate::Balancer) for an index in it, and asks the chosen
//! one's [`Gate`](crate::Gate); refused, it goes on to the others. It takes no lock and allocates nothing. Its
//! cost is the balancer's, unless gates refuse: then it is at most one question to each gate.
//!
//! A change makes a new view, in time linear in the members with a small constant: 10,000 members take some
//! tens of microseconds. What lasts longer than a call happens on the way: a call that finds the detection of
//! outliers or a step of slow start due does it, at most once a second or interval, under the writer's lock
//! ([`Resolver::tick`] from a task keeps that off the calls). Moments of slow start and ejection therefore
//! have the resolution of the calls.

mod choice;
mod completion;
mod config;
mod explain;
mod log;
mod pick;
pub(crate) mod plan;
pub(crate) mod view;
mod writer;
mod zoning;

pub use crate::slab::Token;
pub use choice::{Choice, InFlight, NoCandidate, PickContext};
pub use completion::Completion;
pub use config::Config;
pub use explain::{Considered, Explanation, Verdict, Way};
pub use log::{DecisionLog, Divergence, Replay};
pub use zoning::Zoning;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use orchestra_core::{InstanceId, Monotonic, Outcome, ServiceName};
use parking_lot::Mutex;

use self::log::{Record, Settled};
use self::view::{Census, View};
use self::writer::{Membership, Writer};
use crate::event::Event;
use crate::health::Health;
use crate::instance::{Incarnation, Instance};
use crate::outlier::{Detector, Effect, Report, Step, Trigger};
use crate::slab::{Follow, Slab};
use crate::source::{Change, Revision, Snapshot};

/// Picks instances of one service; a clone is another handle to the same resolver.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::{Monotonic, Outcome};
/// use orchestra_discovery::{Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot};
/// use orchestra_discovery::resolver::Config;
///
/// let resolver = Resolver::new("payments".parse()?, Config::default());
/// let one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
///
/// let now = Monotonic::ZERO; // a driver reads a clock
/// let call = resolver.pick(&PickContext::new(now, 42))?;
/// assert_eq!(call.instance().id.as_str(), "payments-1");
/// call.settle(Outcome::Success, Monotonic::from_nanos(1_000_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    service: ServiceName,
    config: Config,
    slab: Slab,
    follow: Follow,
    effects: Effects,
    view: ArcSwap<View>,
    /// When there is something to do beside calls, in nanoseconds.
    due: AtomicU64,
    writer: Mutex<Writer>,
    changed: tokio::sync::watch::Sender<Revision>,
}

/// What each kind of report counts as, looked up once.
struct Effects([Effect; 6]);

const REPORTS: [Report; 6] = [
    Report::Success,
    Report::Error,
    Report::Gateway,
    Report::Connected,
    Report::ConnectFailed,
    Report::TimedOut,
];

/// A call is settled by one report, and one that was answered was connected before: it counts as both.
fn connected_too(mut answered: Effect, connected: Effect) -> Effect {
    answered.local_origin = answered.local_origin.or(connected.local_origin);
    if answered.local_streak == Step::Keep {
        answered.local_streak = connected.local_streak;
    }
    answered
}

impl Effects {
    fn new(detector: &Detector) -> Self {
        if detector.is_counting() {
            let connected = detector.effect(Report::Connected);
            Self(REPORTS.map(|report| match report {
                Report::Error | Report::Gateway => {
                    connected_too(detector.effect(report), connected)
                }
                _ => detector.effect(report),
            }))
        } else {
            Self([Effect::NOTHING; 6])
        }
    }

    #[inline]
    fn of(&self, report: Report) -> Effect {
        let [success, error, gateway, connected, failed, timed_out] = self.0;
        match report {
            Report::Success => success,
            Report::Error => error,
            Report::Gateway => gateway,
            Report::Connected => connected,
            Report::ConnectFailed => failed,
            Report::TimedOut => timed_out,
        }
    }
}

impl Resolver {
    /// A resolver without members.
    pub fn new(service: ServiceName, config: Config) -> Self {
        Self(Arc::new(Shared {
            service,
            slab: Slab::default(),
            follow: Follow::new(config.latency_decay, true),
            effects: Effects::new(&Detector::new(config.outliers.clone())),
            view: ArcSwap::default(),
            due: AtomicU64::new(0),
            writer: Mutex::new(Writer::new(&config)),
            changed: tokio::sync::watch::Sender::default(),
            config,
        }))
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.0.service
    }

    /// Takes these as the members; those of other services are passed over.
    ///
    /// A member that stays under the same incarnation keeps its gate, its health, its latency and its calls
    /// in flight; one under a new incarnation begins anew.
    pub fn apply(&self, snapshot: &Snapshot) {
        self.0.logged(
            || Record::Apply(snapshot.clone()),
            || {
                self.0.write(|writer, membership| {
                    writer.apply(snapshot, membership);
                    true
                })
            },
        );
        self.0.tell_members();
    }

    /// Takes these changes of the members, the last of which has `revision`.
    ///
    /// It is as [`Resolver::apply`] of a snapshot that contains them, and takes a fraction of the time. A change
    /// of an older incarnation than the present one is passed over.
    pub fn advance(&self, revision: Revision, changes: &[Change]) {
        self.0.logged(
            || Record::Advance(revision, changes.to_vec()),
            || {
                self.0.write(|writer, membership| {
                    writer.advance(revision, changes, membership);
                    true
                })
            },
        );
        self.0.tell_members();
    }

    /// Takes a verdict on one member; another incarnation than the present one is not meant.
    ///
    /// An unhealthy member gets no calls unless the service is in panic. Returns whether anything changed.
    pub fn set_health(&self, id: &InstanceId, incarnation: Incarnation, health: Health) -> bool {
        self.0.logged(
            || Record::Health(id.clone(), incarnation, health),
            || {
                self.0
                    .write(|writer, scope| writer.set_health(id, incarnation, health, scope.config))
            },
        )
    }

    /// Takes the health of those members again of whom none is known, though it was told once.
    pub(crate) fn remind<'a>(&self, known: impl Iterator<Item = (&'a Instance, Health)>) {
        let lost: Vec<_> = {
            let writer = self.0.writer.lock();
            let told = known.filter(|(_, health)| *health != Health::Unchecked);
            told.filter(|(instance, _)| writer.is_unchecked(&instance.id, instance.incarnation))
                .collect()
        };
        for (instance, health) in lost {
            self.set_health(&instance.id, instance.incarnation, health);
        }
    }

    /// An active check of a member passed, whether that is new or not: it may end an ejection.
    pub fn check_passed(&self, id: &InstanceId, incarnation: Incarnation) {
        let check = |writer: &mut Writer, membership: &Membership<'_>| {
            let member = writer.find(id);
            let meant = member.filter(|member| member.instance.incarnation == incarnation);
            let slot = meant.map(|member| member.slot);
            slot.is_some_and(|slot| writer.check_passed(slot, membership))
        };
        self.0.logged(
            || Record::CheckPassed(id.clone(), incarnation),
            || self.0.write(check),
        );
    }

    /// Takes where the callers of the service are: the instances of the caller's own service.
    ///
    /// Zone-aware routing divides calls by it; without it, it is off.
    pub fn set_callers(&self, callers: &Snapshot) {
        self.0.logged(
            || Record::Callers(callers.clone()),
            || {
                self.0.write(|writer, _| {
                    writer.set_callers(callers);
                    true
                })
            },
        );
    }

    /// Does what is due at `now`: detection of outliers, slow start, reported weights.
    ///
    /// Calls do it on their way; a task that calls this as often as the returned moment says keeps it off
    /// them, and keeps it going while there are none.
    pub fn tick(&self, now: Monotonic) -> Monotonic {
        self.0
            .logged(|| Record::Tick(now), || self.0.do_what_is_due(now))
    }

    /// All members, whether they take calls or not.
    pub fn members(&self) -> Vec<Arc<Instance>> {
        let view = self.0.view.load();
        let members = view.all();
        members.map(|member| Arc::clone(&member.instance)).collect()
    }

    /// Whether members that nobody has checked get no calls.
    pub(crate) fn requires_check(&self) -> bool {
        self.0.config.require_check
    }

    /// Wakes when members or their health changed.
    pub(crate) fn changed(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.0.changed.subscribe()
    }

    /// The revision of the members.
    pub fn revision(&self) -> Revision {
        self.0.view.load().revision
    }

    /// Whether too few members are fit, so that calls go to the others too.
    pub fn is_in_panic(&self) -> bool {
        self.0.view.load().plan.is_in_panic()
    }

    /// The calls of one member that are not settled; `None` if it is no member.
    pub fn in_flight(&self, id: &InstanceId) -> Option<u32> {
        let view = self.0.view.load();
        Some(self.0.slab.slot(view.find(id)?.slot)?.in_flight())
    }

    /// Picks an instance for one call, which the returned guard settles.
    #[inline]
    pub fn pick(&self, context: &PickContext<'_>) -> Result<InFlight<&Self>, NoCandidate> {
        self.0.pick(context, |choice| InFlight::new(self, choice))
    }

    /// As [`Resolver::pick`], with a guard that has its own handle: to be kept, or sent to another task.
    pub fn pick_owned(&self, context: &PickContext<'_>) -> Result<InFlight, NoCandidate> {
        self.0
            .pick(context, |choice| InFlight::new(self.clone(), choice))
    }

    /// Picks an instance for one call, which the caller settles by [`Resolver::settle`].
    #[inline]
    pub fn choose(&self, context: &PickContext<'_>) -> Result<Choice, NoCandidate> {
        self.0.pick(context, |choice| choice)
    }

    /// Picks as [`Resolver::choose`] does, and tells what it went by; linear in the members.
    pub fn choose_explained(
        &self,
        context: &PickContext<'_>,
    ) -> (Result<Choice, NoCandidate>, Explanation) {
        let turn = self.0.config.log.as_ref().and_then(|log| log.turn());
        self.0.catch_up(context.now);
        let (choice, explanation) = self.0.explained(&self.0.view.load(), context);
        if let Some(mut turn) = turn {
            turn.push(Record::pick(context, &choice));
        }
        self.0.tell_pick(&choice);
        (choice, explanation)
    }

    /// Says what became of a call. A token of an instance that is gone, or was replaced, settles nothing.
    ///
    /// Where it ends a streak of failures or a trial, it takes the writer's lock to act on that.
    #[inline]
    pub fn settle<'c>(&self, token: Token, completion: impl Into<Completion<'c>>, now: Monotonic) {
        let completion = completion.into();
        if self.0.config.log.is_some() {
            self.0.logged(
                || Record::Settle(token, Settled::new(&completion), now),
                || self.0.settle(token, &completion, now),
            );
        } else {
            self.0.settle(token, &completion, now);
        }
    }
}

impl Shared {
    fn membership(&self) -> Membership<'_> {
        Membership {
            service: &self.service,
            config: &self.config,
            slab: &self.slab,
            follow: self.follow,
        }
    }

    /// Acts under the lock, and publishes a new view if the act says that one is needed.
    fn write(&self, act: impl FnOnce(&mut Writer, &Membership<'_>) -> bool) -> bool {
        self.write_until(act).0
    }

    /// As [`Shared::write`], and when time alone has something to do again.
    fn write_until(
        &self,
        act: impl FnOnce(&mut Writer, &Membership<'_>) -> bool,
    ) -> (bool, Monotonic) {
        let membership = self.membership();
        let mut writer = self.writer.lock();
        let changed = act(&mut writer, &membership);
        if changed {
            let view = writer.view(&membership);
            self.view.store(Arc::new(view));
            self.changed.send_replace(writer.revision());
        }
        let next = writer.next_tick(&self.config);
        self.due.store(next.as_nanos(), Ordering::Relaxed);
        for event in writer.take_events() {
            self.config.events.emit(&event);
        }
        (changed, next)
    }

    /// Of the calls that find something due, one does it.
    #[cold]
    fn tick_on_the_way(&self, now: Monotonic) {
        let due = self.due.load(Ordering::Relaxed);
        let claimed = due <= now.as_nanos()
            && self
                .due
                .compare_exchange(due, u64::MAX, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if claimed {
            self.do_what_is_due(now);
        }
    }

    fn do_what_is_due(&self, now: Monotonic) -> Monotonic {
        let (_, next) = self.write_until(|writer, membership| {
            writer.advance_time(now);
            writer.tick(membership)
        });
        next
    }

    /// Acts, one act at a time as long as a log records.
    fn logged<T>(&self, record: impl FnOnce() -> Record, act: impl FnOnce() -> T) -> T {
        let turn = self.config.log.as_ref().and_then(|log| log.turn());
        if let Some(mut turn) = turn {
            turn.push(record());
            return act();
        }
        act()
    }

    #[inline]
    fn catch_up(&self, now: Monotonic) {
        if now.as_nanos() >= self.due.load(Ordering::Relaxed) {
            self.tick_on_the_way(now);
        }
    }

    fn tell_members(&self) {
        let (revision, members) = {
            let writer = self.writer.lock();
            (writer.revision(), writer.len())
        };
        self.config.events.emit(&Event::MembersChanged {
            service: self.service.clone(),
            revision,
            members,
        });
    }

    #[inline]
    fn settle(&self, token: Token, completion: &Completion<'_>, now: Monotonic) {
        let Some(hot) = self.slab.slot(token.index()) else {
            return;
        };
        if !hot.end(token.generation()) {
            return;
        }
        let nanos = now
            .as_nanos()
            .saturating_sub(token.admitted_at().as_nanos());
        match completion.outcome {
            Outcome::Success => hot.succeeded(self.follow, now, nanos),
            Outcome::Failure => hot.failed(self.follow, now, nanos),
            _ => {}
        }
        if let Some(after) = completion.retry_after {
            hot.spare(now, after);
        } else if completion.outcome == Outcome::Overloaded {
            hot.failed(self.follow, now, nanos);
        }
        if let Some(report) = completion.report {
            let grown = hot.count(self.effects.of(report), nanos);
            if let Some(streaks) = grown {
                self.failed_again(token, streaks, now);
            }
        }
        if token.gate().is_some() || completion.load.is_some() {
            self.settle_extra(token, completion, now);
        }
        if token.is_trial() {
            self.settle_trial(token, completion, now);
        }
    }

    #[cold]
    fn failed_again(&self, token: Token, streaks: crate::slab::Streaks, now: Monotonic) {
        let reached: Option<Trigger> = streaks.reached(&self.view.load().thresholds);
        if let Some(trigger) = reached {
            self.write(|writer, membership| {
                writer.advance_time(now);
                writer.reached(token, trigger, membership)
            });
        }
    }

    #[cold]
    fn settle_extra(&self, token: Token, completion: &Completion<'_>, now: Monotonic) {
        let view = self.view.load();
        let member = view.members.member(token.index());
        let member = member.filter(|member| member.generation == token.generation());
        let Some(extra) = member.and_then(|member| member.extra.as_ref()) else {
            return;
        };
        if let (Some(gate), Some(admitted)) = (&extra.gate, token.gate()) {
            gate.settle(admitted, completion.outcome, now);
        }
        if let (Some(report), Some(config)) = (completion.load, &self.config.reported) {
            extra.reported.lock().on_report(config, report, now);
            let hot = self.slab.slot(token.index());
            if let (Some(hot), Some(utilization)) = (hot, config.utilization(report)) {
                hot.report(utilization, now, config.expiration);
            }
        }
    }

    #[cold]
    fn settle_trial(&self, token: Token, completion: &Completion<'_>, now: Monotonic) {
        let took = now.since(token.admitted_at());
        let passed = match completion.outcome {
            Outcome::Success => true,
            Outcome::Failure | Outcome::Overloaded => false,
            // Nothing is learned: another follows when this one's time is up.
            _ => return,
        };
        self.write(|writer, membership| {
            writer.advance_time(now);
            writer.tried(token, passed, took, membership)
        });
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.0.view.load();
        f.debug_struct("Resolver")
            .field("service", &self.0.service)
            .field("revision", &view.revision)
            .field("members", &view.order.len())
            .finish_non_exhaustive()
    }
}

/// The shortest of two waits, either of which may be unknown.
fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A verdict that waited for the writer's lock must not hit who has the slot by then.
    #[test]
    fn what_a_former_owner_of_a_slot_did_is_not_held_against_the_next() {
        let resolver = Resolver::new("payments".parse().unwrap(), Config::default());
        let member = |n: u32, incarnation| {
            let id = format!("p-{n}").parse().unwrap();
            let endpoint = "127.0.0.1:80".parse().unwrap();
            let service = "payments".parse().unwrap();
            Instance::new(service, id, Incarnation::new(incarnation), endpoint)
        };
        let apply = |first, revision| {
            let members = std::iter::once(member(0, first)).chain((1..10).map(|n| member(n, 1)));
            let members = members.map(Arc::new).collect();
            let scope = crate::Scope::Service("payments".parse().unwrap());
            resolver.apply(&Snapshot::new(scope, Revision::new(revision), members));
        };
        apply(1, 1);
        let context = PickContext::new(Monotonic::ZERO, 1);
        let old = loop {
            let choice = resolver.choose(&context).unwrap();
            if choice.instance.id.as_str() == "p-0" {
                break choice.token;
            }
        };
        let hot = resolver.0.slab.slot(old.index()).unwrap();
        let failure = resolver.0.effects.of(Report::Error);
        let streaks = (0..5).filter_map(|_| hot.count(failure, 1)).last().unwrap();
        apply(2, 2);
        let view = resolver.0.view.load();
        let now = view.members.member(old.index()).unwrap();
        assert_eq!(now.instance.incarnation, Incarnation::new(2));
        resolver.0.failed_again(old, streaks, Monotonic::ZERO);
        resolver
            .0
            .settle_trial(old.as_trial(), &Outcome::Failure.into(), Monotonic::ZERO);
        assert_eq!(resolver.0.view.load().census.ejected, 0);
    }
}
