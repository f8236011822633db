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
use self::plan::{Plan, Pool, mixed};
use self::view::{Census, Member, Refused, View};
use self::writer::{Membership, Writer};
use crate::balance::Candidates;
use crate::event::Event;
use crate::gate::Refusal;
use crate::health::Health;
use crate::instance::{Incarnation, Instance};
use crate::outlier::{Detector, Effect, Report, Trigger};
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

impl Effects {
    fn new(detector: &Detector) -> Self {
        if detector.is_counting() {
            Self(REPORTS.map(|report| detector.effect(report)))
        } else {
            Self([Effect::NOTHING; 6])
        }
    }

    fn of(&self, report: Report) -> &Effect {
        let [success, error, gateway, connected, failed, timed_out] = &self.0;
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
                    .write(|writer, _| writer.set_health(id, incarnation, health))
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
            .logged(|| Record::Tick(now), || self.0.do_what_is_due(now));
        Monotonic::from_nanos(self.0.due.load(Ordering::Relaxed))
    }

    /// All members, whether they take calls or not.
    pub fn members(&self) -> Vec<Arc<Instance>> {
        let view = self.0.view.load();
        let members = view.all();
        members.map(|member| Arc::clone(&member.instance)).collect()
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
    pub fn pick(&self, context: &PickContext<'_>) -> Result<InFlight, NoCandidate> {
        let choice = self.choose(context)?;
        Ok(InFlight::new(self.clone(), choice))
    }

    /// Picks an instance for one call, which the caller settles by [`Resolver::settle`].
    pub fn choose(&self, context: &PickContext<'_>) -> Result<Choice, NoCandidate> {
        if self.0.config.log.is_some() {
            return self.0.logged_choose(context);
        }
        self.0.choose(context)
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
        (choice, explanation)
    }

    /// Says what became of a call. A token of an instance that is gone, or was replaced, settles nothing.
    ///
    /// Where it ends a streak of failures or a trial, it takes the writer's lock to act on that.
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
        let membership = self.membership();
        let mut writer = self.writer.lock();
        let changed = act(&mut writer, &membership);
        if changed {
            let view = writer.view(&membership);
            self.view.store(Arc::new(view));
            self.changed.send_replace(writer.revision());
        }
        let next = writer.next_tick(&self.config).as_nanos();
        self.due.store(next, Ordering::Relaxed);
        for event in writer.take_events() {
            self.config.events.emit(&event);
        }
        changed
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

    fn do_what_is_due(&self, now: Monotonic) {
        self.write(|writer, membership| {
            writer.advance_time(now);
            writer.tick(membership)
        });
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

    #[cold]
    fn logged_choose(&self, context: &PickContext<'_>) -> Result<Choice, NoCandidate> {
        let turn = self.config.log.as_ref().and_then(|log| log.turn());
        let choice = self.choose(context);
        if let Some(mut turn) = turn {
            turn.push(Record::pick(context, &choice));
        }
        choice
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

    #[cold]
    fn tell_pick(&self, choice: &Result<Choice, NoCandidate>) {
        self.config.events.emit(&match choice {
            Ok(choice) => Event::Picked {
                service: self.service.clone(),
                id: choice.instance.id.clone(),
                trial: choice.token.is_trial(),
            },
            Err(none) => Event::NotPicked(none.clone()),
        });
    }

    #[inline]
    fn choose(&self, context: &PickContext<'_>) -> Result<Choice, NoCandidate> {
        self.catch_up(context.now);
        let view = self.view.load();
        let (choice, _) = self.choose_by(&view, context, &mut Refused::default());
        if self.config.pick_events {
            self.tell_pick(&choice);
        }
        choice
    }

    #[inline]
    fn choose_by(
        &self,
        view: &View,
        context: &PickContext<'_>,
        refused: &mut Refused,
    ) -> (Result<Choice, NoCandidate>, Way) {
        if let Some(id) = context.sticky
            && let Some(choice) = self.stick(view, id, context, refused)
        {
            return (Ok(choice), Way::Sticky);
        }
        if !view.trials.is_empty()
            && context.tried.is_empty()
            && let Some(choice) = self.try_out(view, context, refused)
        {
            return (Ok(choice), Way::Trial);
        }
        let pool = view
            .plan(context)
            .and_then(|plan| plan.pool(context.hash.unwrap_or(context.draw)));
        let Some(pool) = pool else {
            let none = NoCandidate::new(&self.service, view, context, refused);
            return (Err(none), Way::Nobody);
        };
        while !refused.is_full() {
            let candidates = self.candidates(view, pool, context, refused);
            // A balancer of somebody else may answer anything; what is not open counts as no answer.
            let chosen = self.config.balancer.choose(&candidates, context);
            let Some(index) = chosen.filter(|&index| candidates.is_open(index)) else {
                break;
            };
            if let Some(member) = view.member_of(pool, index)
                && let Some(choice) = self.admit(member, context.now, refused)
            {
                return (Ok(choice), Way::Balanced);
            }
        }
        match self.choose_any(view, context, refused) {
            Ok(choice) => (Ok(choice), Way::NextThatAdmits),
            Err(none) => (Err(none), Way::Nobody),
        }
    }

    fn candidates<'a>(
        &'a self,
        view: &'a View,
        pool: &'a Pool,
        context: &'a PickContext<'_>,
        refused: &'a Refused,
    ) -> Candidates<'a> {
        Candidates::new((&self.slab, self.follow), (view, pool), context, refused)
    }

    /// The one that the call asks for, if calls may go to it.
    #[cold]
    fn stick(
        &self,
        view: &View,
        id: &InstanceId,
        context: &PickContext<'_>,
        refused: &mut Refused,
    ) -> Option<Choice> {
        let member = view.find(id)?;
        let plan = view.plan(context)?;
        let takes_calls = plan.pools().any(|pool| pool.slots.contains(&member.slot));
        if !takes_calls || context.has_tried(id) {
            return None;
        }
        self.admit(member, context.now, refused)
    }

    /// An ejected one whose trial is due.
    #[cold]
    fn try_out(
        &self,
        view: &View,
        context: &PickContext<'_>,
        refused: &mut Refused,
    ) -> Option<Choice> {
        let trial = view.trials.iter().find(|trial| trial.claim(context.now))?;
        let member = view.members.member(trial.slot)?;
        let mut choice = self.admit(member, context.now, refused)?;
        choice.token = choice.token.as_trial();
        Some(choice)
    }

    /// The first that admits, from a drawn place on; reached only when gates refuse or nothing is open.
    #[cold]
    fn choose_any(
        &self,
        view: &View,
        context: &PickContext<'_>,
        refused: &mut Refused,
    ) -> Result<Choice, NoCandidate> {
        let pools = || view.plan(context).into_iter().flat_map(Plan::pools);
        for pool in pools() {
            let start = pool.weights.at(context.draw, pool.slots.len());
            let start = start.unwrap_or_default();
            for index in (start..pool.slots.len()).chain(0..start) {
                if self.candidates(view, pool, context, refused).is_open(index)
                    && let Some(member) = view.member_of(pool, index)
                    && let Some(choice) = self.admit(member, context.now, refused)
                {
                    return Ok(choice);
                }
            }
        }
        if self.config.bypass_gates && !refused.is_empty() {
            let none = Refused::default();
            for pool in pools() {
                let candidates = self.candidates(view, pool, context, &none);
                let drawn = candidates.draw_open(mixed(context.draw, 9));
                if let Some(index) = drawn.filter(|&index| candidates.is_open(index))
                    && let Some(member) = view.member_of(pool, index)
                    && let Some(token) = self.begin(member, context.now)
                {
                    return Ok(self.bypassed(member, token));
                }
            }
        }
        Err(NoCandidate::new(&self.service, view, context, refused))
    }

    fn bypassed(&self, member: &Member, token: Token) -> Choice {
        self.config.events.emit(&Event::GateBypassed {
            service: self.service.clone(),
            id: member.instance.id.clone(),
        });
        Choice {
            instance: Arc::clone(&member.instance),
            token,
        }
    }

    fn begin(&self, member: &Member, now: Monotonic) -> Option<Token> {
        let hot = self.slab.slot(member.slot)?;
        hot.begin(member.generation)
            .then(|| Token::new(member.slot, member.generation, now))
    }

    #[inline]
    fn admit(&self, member: &Member, now: Monotonic, refused: &mut Refused) -> Option<Choice> {
        let Some(mut token) = self.begin(member, now) else {
            // It left a moment ago, and the view that says so is on its way.
            refused.add(member.slot, Refusal::new("gone", None));
            return None;
        };
        if let Some(extra) = &member.extra
            && let Some(gate) = &extra.gate
        {
            match gate.try_admit(now) {
                Ok(admitted) => token = token.with_gate(admitted),
                Err(refusal) => {
                    if let Some(hot) = self.slab.slot(member.slot) {
                        hot.end(member.generation);
                    }
                    refused.add(member.slot, refusal);
                    return None;
                }
            }
        }
        Some(Choice {
            instance: Arc::clone(&member.instance),
            token,
        })
    }

    #[inline]
    fn settle(&self, token: Token, completion: &Completion<'_>, now: Monotonic) {
        let Some(hot) = self.slab.slot(token.index()) else {
            return;
        };
        if !hot.end(token.generation()) {
            return;
        }
        let took = now.since(token.admitted_at());
        match completion.outcome {
            Outcome::Success => hot.succeeded(self.follow, now, took),
            Outcome::Failure => hot.failed(self.follow, now, took),
            _ => {}
        }
        if let Some(after) = completion.retry_after {
            hot.spare(now, after);
        } else if completion.outcome == Outcome::Overloaded {
            hot.failed(self.follow, now, took);
        }
        if let Some(report) = completion.report {
            let grown = hot.count(*self.effects.of(report), took);
            if let Some(streaks) = grown {
                self.failed_again(token, streaks, now);
            }
        }
        if token.gate().is_some() || completion.load.is_some() {
            self.settle_extra(token, completion, now);
        }
        if token.is_trial() {
            self.settle_trial(token, completion, took, now);
        }
    }

    #[cold]
    fn failed_again(&self, token: Token, streaks: crate::slab::Streaks, now: Monotonic) {
        let reached: Option<Trigger> = streaks.reached(&self.view.load().thresholds);
        if let Some(trigger) = reached {
            self.write(|writer, membership| {
                writer.advance_time(now);
                writer.reached(token.index(), trigger, membership)
            });
        }
    }

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
        }
    }

    #[cold]
    fn settle_trial(
        &self,
        token: Token,
        completion: &Completion<'_>,
        took: Duration,
        now: Monotonic,
    ) {
        let passed = match completion.outcome {
            Outcome::Success => true,
            Outcome::Failure | Outcome::Overloaded => false,
            // Nothing is learned: another follows when this one's time is up.
            _ => return,
        };
        self.write(|writer, membership| {
            writer.advance_time(now);
            writer.tried(token.index(), passed, took, membership)
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
