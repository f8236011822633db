//! A log of what a resolver was told and decided, from which the same decisions follow again.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orchestra_core::{InstanceId, Labels, Locality, Monotonic, Outcome, ServiceName};
use parking_lot::{Mutex, MutexGuard};

use super::{Choice, Completion, Config, NoCandidate, PickContext, Resolver, Token};
use crate::health::Health;
use crate::instance::Incarnation;
use crate::outlier::Report;
use crate::reported::LoadReport;
use crate::source::{Change, Revision, Snapshot};

/// Records a resolver's inputs and picks, up to a limit.
///
/// While it records, calls and changes are taken one at a time, so that the order in the log is the real one:
/// it is for finding out, not for every day. When it is full it stops, and calls go on at full speed.
///
/// A replay leads a new resolver through the same inputs. It picks the same instances if it has the same
/// configuration and its balancer, gates and seeds do the same with the same input, as all of this crate do.
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::sync::Arc;
/// use orchestra_core::{Monotonic, Outcome};
/// use orchestra_discovery::{Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot};
/// use orchestra_discovery::resolver::{Config, DecisionLog};
///
/// let log = Arc::new(DecisionLog::new(NonZeroUsize::MIN.saturating_add(999)));
/// let payments = Resolver::new("payments".parse()?, Config::default().record(log.clone()));
/// let one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// payments.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
/// payments.pick(&PickContext::new(Monotonic::ZERO, 42))?.settle(Outcome::Success, Monotonic::ZERO);
///
/// let replay = log.replay(payments.service(), Config::default())?;
/// assert_eq!(replay.picks, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DecisionLog {
    limit: usize,
    /// No more is recorded: calls look at this and at nothing else.
    is_full: AtomicBool,
    records: Mutex<Vec<Record>>,
}

#[derive(Debug, Clone)]
pub(super) enum Record {
    Apply(Snapshot),
    Advance(Revision, Vec<Change>),
    Health(InstanceId, Incarnation, Health),
    CheckPassed(InstanceId, Incarnation),
    Callers(Snapshot),
    Tick(Monotonic),
    Pick(Asked, Option<Token>, Option<InstanceId>),
    Settle(Token, Settled, Monotonic),
}

impl Record {
    pub(super) fn pick(context: &PickContext<'_>, choice: &Result<Choice, NoCandidate>) -> Self {
        let picked = choice.as_ref().ok();
        let token = picked.map(|choice| choice.token);
        let id = picked.map(|choice| choice.instance.id.clone());
        Self::Pick(Asked::new(context), token, id)
    }
}

/// A pick's context, kept.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    now: Monotonic,
    draw: u64,
    tried: Vec<InstanceId>,
    hash: Option<u64>,
    locality: Option<Locality>,
    subset: Option<Labels>,
    sticky: Option<InstanceId>,
}

impl Asked {
    fn new(context: &PickContext<'_>) -> Self {
        Self {
            now: context.now,
            draw: context.draw,
            tried: context.tried.to_vec(),
            hash: context.hash,
            locality: context.locality.cloned(),
            subset: context.subset.cloned(),
            sticky: context.sticky.cloned(),
        }
    }

    fn context(&self) -> PickContext<'_> {
        let mut context = PickContext::new(self.now, self.draw).tried(&self.tried);
        context.hash = self.hash;
        context.locality = self.locality.as_ref();
        context.subset = self.subset.as_ref();
        context.sticky = self.sticky.as_ref();
        context
    }
}

/// A completion, kept.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    outcome: Outcome,
    report: Option<Report>,
    retry_after: Option<Duration>,
    load: Option<LoadReport>,
}

impl Settled {
    pub(super) fn new(completion: &Completion<'_>) -> Self {
        Self {
            outcome: completion.outcome,
            report: completion.report,
            retry_after: completion.retry_after,
            load: completion.load.cloned(),
        }
    }

    fn completion(&self) -> Completion<'_> {
        Completion {
            outcome: self.outcome,
            report: self.report,
            retry_after: self.retry_after,
            load: self.load.as_ref(),
        }
    }
}

/// A replay that went as the log says.
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::sync::Arc;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{PickContext, Resolver};
/// use orchestra_discovery::resolver::{Config, DecisionLog};
///
/// let log = Arc::new(DecisionLog::new(NonZeroUsize::MIN.saturating_add(999)));
/// let payments = Resolver::new("payments".parse()?, Config::default().record(log.clone()));
/// assert!(payments.choose(&PickContext::new(Monotonic::ZERO, 42)).is_err(), "no members");
///
/// let replay = log.replay(payments.service(), Config::default())?;
/// assert_eq!(replay.picks, 1, "nobody was picked again");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replay {
    /// How many picks were made again.
    pub picks: usize,
}

/// A replay that picked another instance than the log says.
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::sync::Arc;
/// use orchestra_core::Monotonic;
/// use orchestra_discovery::{Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot};
/// use orchestra_discovery::resolver::{Config, DecisionLog};
///
/// let log = Arc::new(DecisionLog::new(NonZeroUsize::MIN.saturating_add(999)));
/// let payments = Resolver::new("payments".parse()?, Config::default().record(log.clone()));
/// let one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// payments.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
/// payments.choose(&PickContext::new(Monotonic::ZERO, 42))?;
///
/// // Another configuration: nobody takes calls before a check has passed.
/// let mut calm = orchestra_discovery::priority::Config::default();
/// calm.panic_threshold = 0;
/// let checked = Config::default().require_check().priorities(calm);
/// let divergence = log.replay(payments.service(), checked).err().ok_or("the same")?;
/// assert_eq!(divergence.to_string(), "record 1: payments-1 was picked, the replay picks nobody");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Divergence {
    /// Which record it is, from 0.
    pub record: usize,
    /// Who was picked then.
    pub recorded: Option<InstanceId>,
    /// Who was picked now.
    pub replayed: Option<InstanceId>,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |id: &Option<InstanceId>| match id {
            Some(id) => id.to_string(),
            None => "nobody".to_owned(),
        };
        let (then, now) = (name(&self.recorded), name(&self.replayed));
        write!(
            f,
            "record {}: {then} was picked, the replay picks {now}",
            self.record
        )
    }
}

impl std::error::Error for Divergence {}

/// The log while one input is taken.
pub(super) struct Turn<'a>(MutexGuard<'a, Vec<Record>>);

impl Turn<'_> {
    pub(super) fn push(&mut self, record: Record) {
        self.0.push(record);
    }
}

impl DecisionLog {
    /// A log of at most so many inputs and picks.
    pub fn new(limit: NonZeroUsize) -> Self {
        Self {
            limit: limit.get(),
            is_full: AtomicBool::new(false),
            records: Mutex::default(),
        }
    }

    /// How many inputs and picks it holds.
    pub fn len(&self) -> usize {
        self.records.lock().len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.records.lock().is_empty()
    }

    /// Whether it has stopped recording.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Waits for one's turn; `None` once it is full.
    pub(super) fn turn(&self) -> Option<Turn<'_>> {
        if self.is_full.load(Ordering::Relaxed) {
            return None;
        }
        let records = self.records.lock();
        if records.len() < self.limit {
            return Some(Turn(records));
        }
        self.is_full.store(true, Ordering::Relaxed);
        None
    }

    /// Leads a new resolver of this configuration through what was recorded.
    pub fn replay(&self, service: &ServiceName, config: Config) -> Result<Replay, Divergence> {
        let records = self.records.lock().clone();
        let resolver = Resolver::new(service.clone(), config.unrecorded());
        let mut picks = 0;
        for (number, record) in records.into_iter().enumerate() {
            match record {
                Record::Apply(snapshot) => resolver.apply(&snapshot),
                Record::Advance(revision, changes) => resolver.advance(revision, &changes),
                Record::Health(id, incarnation, health) => {
                    resolver.set_health(&id, incarnation, health);
                }
                Record::CheckPassed(id, incarnation) => resolver.check_passed(&id, incarnation),
                Record::Callers(snapshot) => resolver.set_callers(&snapshot),
                Record::Tick(now) => {
                    resolver.tick(now);
                }
                Record::Settle(token, settled, now) => {
                    resolver.settle(token, settled.completion(), now);
                }
                Record::Pick(asked, token, recorded) => {
                    let choice = resolver.choose(&asked.context()).ok();
                    let same_token = choice.as_ref().map(|choice| choice.token) == token;
                    let replayed = choice.map(|choice| choice.instance.id.clone());
                    if replayed != recorded || !same_token {
                        return Err(Divergence {
                            record: number,
                            recorded,
                            replayed,
                        });
                    }
                    picks += 1;
                }
            }
        }
        Ok(Replay { picks })
    }
}
