//! Explores a definition: every answer of every participant, a crash before and after every append.
//!
//! An exploration runs *your* [`Definition`] through the production [`Machine`](crate::Machine) in virtual
//! time. Whatever may happen next is a choice: a call is answered, refused, not answered in time, or takes
//! effect and its answer is lost; the owner dies with its calls on their way, and another one reads the log;
//! a call arrives long after anybody waits for it; time passes until the saga wants to be woken. The
//! explorer makes every choice in turn, depth first, and turns back at states that it knows. After every
//! move the [`Law`]s are checked; the first sequence that breaks one is made as short as possible and shown.
//!
//! ```
//! use orchestra_saga::explore::explore;
//! use orchestra_saga::{Call, Definition, Failure};
//! # let mut d = Definition::builder("checkout", "1");
//! # let order = d.input::<u32>();
//! # let hold = d
//! #     .step("reserve", order, |_: Call, _: u32| async { Ok(7) })
//! #     .compensate(|_: Call, _: u32, _: Option<u32>| async { Ok(()) });
//! # d.step("charge", hold, |_: Call, _: u32| async { Ok(()) }).pivot();
//! # let definition = d.build()?;
//!
//! let report = explore(&definition).input(&120).run();
//! report.assert_clean().assert_exhaustive();
//! # Ok::<(), orchestra_saga::Error>(())
//! ```
//!
//! # What stands in for what
//!
//! Each step has a participant that does what a [`barrier`](crate::barrier) does: it keeps keys and answers
//! repetitions from its record, refuses an action after its compensation, and calls of older epochs. A ledger
//! counts what took effect. The closures of the definition are **not** run, unless
//! [`Exploration::service`] is given: a model does their work, returns what [`Exploration::output`] says
//! (otherwise `null`) and always succeeds when it is reached. That shows whether the *graph* is right.
//! Declarative requests are resolved, so a template that names what a compensation may not know is found.
//!
//! With [`Exploration::service`] the closures themselves run, against a service of yours in this process, and
//! your own check looks at it whenever the saga has ended. That shows whether the *compensations* are right:
//!
//! ```
//! use std::cell::Cell;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
//! use orchestra_saga::explore::{Law, explore};
//! use orchestra_saga::{Call, Definition, Status};
//!
//! let stock = Arc::new(AtomicI64::new(5));
//! let (take, put) = (Arc::clone(&stock), Arc::clone(&stock));
//! let mut d = Definition::builder("checkout", "1");
//! let hold = d
//!     .step("reserve", (), move |_: Call, (): ()| {
//!         take.fetch_sub(1, Relaxed);
//!         async { Ok(1) }
//!     })
//!     .compensate(move |_: Call, (): (), hold: Option<i64>| {
//!         // Wrong: without an answer nobody knows the hold, but it may be there.
//!         put.fetch_add(hold.unwrap_or_default(), Relaxed);
//!         async { Ok(()) }
//!     });
//! d.step("charge", hold, |_: Call, _: i64| async { Ok(()) }).pivot();
//!
//! let report = explore(&d.build()?)
//!     .service(
//!         || stock.store(5, Relaxed),
//!         |end| match (end, stock.load(Relaxed)) {
//!             (Status::Completed, 4) | (Status::Compensated, 5) => Ok(()),
//!             (_, left) => Err(format!("{left} pieces are left")),
//!         },
//!     )
//!     .run();
//! let finding = report.finding.expect("the leak is found");
//! assert_eq!(finding.law(), Law::Consistent);
//! assert_eq!(finding.seen(), "the saga is compensated, and 4 pieces are left");
//! # Ok::<(), orchestra_saga::Error>(())
//! ```
//!
//! # Bounds
//!
//! Participants are bad up to [`Exploration::attempts`] attempts of an operation and good from then on, so
//! every saga has to end. So many owners die, so many calls are late at a time, and so on; the defaults are
//! written at each. If there are more states than [`Exploration::states`], the explorer takes all sequences of one
//! fault, then of two and of three as far as the states suffice, walks random ones besides, and says so in the
//! [`Report`]. Delays are never shortened by chance. Children of a step are a call as any other.
//!
//! Two states are one if nothing that the machine or a participant goes by differs (their BLAKE3 prints of
//! 128 bits are equal); moments count from now. Steps of a model that can stand for each other may change places.
//! For closures, states are one only if the service was asked the same in the same order.

mod bounds;
mod choice;
mod encode;
mod law;
mod mutant;
mod participant;
mod report;
mod search;
mod service;
mod setup;
mod shrink;
mod tale;
mod world;

pub use law::Law;
pub use mutant::Mutant;
pub use report::{Finding, Report};

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use orchestra_core::Timestamp;
use serde::Serialize;

use crate::definition::Definition;
use crate::executor::Start;
use crate::id::{SagaId, StepName};
use crate::payload::Payload;
use crate::status::Status;
use crate::step::Caller;
use bounds::Bounds;
use search::{Broken, Count, Search, Walk, stroll};
use service::{Real, Service};
use setup::Setup;

/// Numbers of faults in a sequence that are explored if all is too much.
const ROUNDS: [u8; 3] = [1, 2, 3];

/// Begins an exploration of this definition.
pub fn explore<'a>(definition: &Definition) -> Exploration<'a> {
    Exploration {
        definition: Arc::new(definition.clone()),
        input: Payload::default(),
        outputs: HashMap::new(),
        signals: HashMap::new(),
        service: Service::Model,
        caller: None,
        bounds: Bounds::default(),
        is_guarded: true,
        mutant: None,
    }
}

/// What is explored, and how far; [`Exploration::run`] does it.
///
/// ```
/// use orchestra_saga::explore::explore;
/// use orchestra_saga::{Call, Definition};
///
/// let mut d = Definition::builder("greet", "1");
/// let name = d.input::<String>();
/// let approved = d.signal::<bool, _>("approval", (), "approved", None);
/// d.step("greet", (name, approved), |_: Call, _: (String, bool)| async { Ok(()) }).read_only();
///
/// let exploration = explore(&d.build()?).input("ada").signal("approved", &true);
/// let report = exploration.attempts(2).crashes(2).interventions(1).run();
/// report.assert_clean().assert_exhaustive();
/// # Ok::<(), orchestra_saga::Error>(())
/// ```
#[must_use = "nothing is explored before `run`"]
pub struct Exploration<'a> {
    definition: Arc<Definition>,
    input: Payload,
    outputs: HashMap<StepName, Payload>,
    signals: HashMap<String, Payload>,
    service: Service<'a>,
    caller: Option<Arc<dyn Caller>>,
    bounds: Bounds,
    is_guarded: bool,
    mutant: Option<Mutant>,
}

impl fmt::Debug for Exploration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exploration")
            .field("definition", &self.definition)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

#[expect(clippy::expect_used, reason = "this is how a test fails")]
fn json<T: Serialize + ?Sized>(value: &T) -> Payload {
    Payload::of(value).expect("a value that can be written as JSON")
}

impl<'a> Exploration<'a> {
    /// The saga's input; `null` by default.
    ///
    /// # Panics
    ///
    /// When it cannot be written as JSON, and so for all values that follow.
    pub fn input<T: Serialize + ?Sized>(mut self, input: &T) -> Self {
        self.input = json(input);
        self
    }

    /// What the model of a step returns; `null` by default.
    ///
    /// # Panics
    ///
    /// When the name is none, or as [`Exploration::input`].
    #[expect(clippy::expect_used, reason = "this is how a test fails")]
    pub fn output<T: Serialize + ?Sized>(mut self, step: &str, output: &T) -> Self {
        let step = StepName::new(step).expect("the name of a step");
        self.outputs.insert(step, json(output));
        self
    }

    /// What a signal says; `null` by default.
    ///
    /// # Panics
    ///
    /// As [`Exploration::input`].
    pub fn signal<T: Serialize + ?Sized>(mut self, name: &str, payload: &T) -> Self {
        self.signals.insert(name.to_owned(), json(payload));
        self
    }

    /// Runs the closures of the definition. `reset` brings the service that they call into its first state;
    /// it is called before every sequence. `check` says what is wrong with the service when the saga has ended
    /// with this status, also after calls that came late.
    ///
    /// The closures are called through the barrier of the explorer, each operation once, so the service need not
    /// know keys; see [`Exploration::unguarded`]. Their futures must be ready at once, and the service must
    /// do the same whenever it is asked the same.
    pub fn service<E: fmt::Display>(
        mut self,
        reset: impl FnMut() + 'a,
        mut check: impl FnMut(Status) -> Result<(), E> + 'a,
    ) -> Self {
        self.service = Service::Real(Real {
            reset: Box::new(reset),
            check: Box::new(move |status| check(status).map_err(|wrong| wrong.to_string())),
            caller: None,
            history: [0; 32],
        });
        self
    }

    /// Where declarative steps send their requests when closures run. Without one they are modelled.
    pub fn caller(mut self, caller: impl Caller + 'static) -> Self {
        self.caller = Some(Arc::new(caller));
        self
    }

    /// The closures see every call, also repeated, late and overtaken ones, because the service has a barrier of
    /// its own or is to be shown to need one. Effects are then the business of its check alone.
    pub fn unguarded(mut self) -> Self {
        self.is_guarded = false;
        self
    }

    /// Attempts of one operation that may go wrong; four by default.
    pub fn attempts(mut self, most: u32) -> Self {
        self.bounds.attempts = most;
        self
    }

    /// Owners that may die; one by default.
    pub fn crashes(mut self, most: u8) -> Self {
        self.bounds.crashes = most;
        self
    }

    /// Calls that may be on their way at a time when nobody waits for them; one by default. Others are lost.
    pub fn late_calls(mut self, most: usize) -> Self {
        self.bounds.late = most;
        self
    }

    /// Appends that may fail while their owner lives on, and be in the log, not in it, or in it later; none
    /// by default.
    pub fn store_failures(mut self, most: u8) -> Self {
        self.bounds.store_failures = most;
        self
    }

    /// Cancellations, pauses, retries, revocations and, where a barrier shows them, true resolutions
    /// together, at any moment; none by default.
    pub fn interventions(mut self, most: u8) -> Self {
        self.bounds.interventions = most;
        self
    }

    /// Heartbeats of steps that have them; none by default.
    pub fn heartbeats(mut self, most: u8) -> Self {
        self.bounds.heartbeats = most;
        self
    }

    /// Signals beyond those that the definition waits for, repetitions among them; one by default. Every signal may
    /// come early, in time, twice, or never.
    pub fn surplus_signals(mut self, most: u8) -> Self {
        self.bounds.surplus_signals = most;
        self
    }

    /// Whether attempts may be silent until their time is over; they may by default. Otherwise no
    /// time passes while a call is in flight, except for another step's retry.
    pub fn timeouts(mut self, wanted: bool) -> Self {
        self.bounds.timeouts = wanted;
        self
    }

    /// Goes no further than so many faults in a sequence. Without that limit, which is the default, it goes on until
    /// all is explored.
    pub fn faults(mut self, most: u8) -> Self {
        self.bounds.faults = Some(most);
        self
    }

    /// The most states to look at; fifty thousand by default. Each takes about fifty bytes, and in a debug
    /// build about a tenth of a millisecond.
    pub fn states(mut self, most: usize) -> Self {
        self.bounds.states = most;
        self
    }

    /// Random sequences to walk when the states do not suffice, and the seed that chooses them; a thousand by default.
    pub fn samples(mut self, number: u32, seed: u64) -> Self {
        self.bounds.samples = number;
        self.bounds.seed = seed;
        self
    }

    /// Tells steps apart that can stand for each other: more states, and nothing else to see. For tests of the
    /// explorer.
    pub fn without_symmetry(mut self) -> Self {
        self.bounds.symmetry = false;
        self
    }

    /// Plants a fault in the world, to prove that it is found.
    pub fn mutant(mut self, mutant: Mutant) -> Self {
        self.mutant = Some(mutant);
        self
    }

    /// Explores.
    ///
    /// # Panics
    ///
    /// When the input does not have the type that the definition asks for.
    #[expect(clippy::panic, reason = "this is how a test fails")]
    pub fn run(mut self) -> Report {
        if let Err(error) = self.definition.check_input(&self.input) {
            panic!("{error}");
        }
        if let Service::Real(real) = &mut self.service {
            real.caller = self.caller.take();
        }
        let is_real = self.service.is_real();
        let saga = SagaId::from_parts(Timestamp::from_unix_nanos(1_700_000_000_000_000_000), 7);
        let mut start = Start::of(self.definition.id());
        start.input = self.input.clone();
        let payload = |name: &Arc<str>| self.signals.get(&**name).cloned().unwrap_or_default();
        let signals = setup::signals(&self.definition).into_iter();
        let symmetry = self.bounds.symmetry && !is_real && self.mutant.is_none();
        let setup = Setup {
            saga,
            start,
            signals: signals
                .map(|name| (Arc::clone(&name), payload(&name)))
                .collect(),
            descendants: setup::descendants(&self.definition),
            symmetries: setup::symmetries(&self.definition, symmetry),
            bounds: self.bounds,
            mutant: self.mutant,
            is_guarded: self.is_guarded || !is_real,
            outputs: self.outputs,
            definition: self.definition,
        };
        run(&setup, &mut self.service)
    }
}

/// Everything; if that is too much, rounds of more and more faults, and random sequences.
fn run(setup: &Setup, service: &mut Service<'_>) -> Report {
    let bounds = &setup.bounds;
    let waits = setup.signals_awaited();
    let mut count = Count::default();
    let mut report = Report {
        states: 0,
        moves: 0,
        traces: 0,
        exhaustive: false,
        faults: None,
        samples: 0,
        bounds: bounds.to_string(),
        finding: None,
    };
    let mut broken: Option<(Broken, bounds::Budget)> = None;
    // Everything at once, or as much as can be said to be whole.
    for faults in std::iter::once(bounds.faults).chain(ROUNDS.map(Some)) {
        if report
            .faults
            .is_some_and(|whole| faults.is_some_and(|faults| faults <= whole))
        {
            continue;
        }
        let budget = bounds.budget(faults, waits);
        let mut walked = Count::default();
        let walk = Search::new(setup, service, budget, &mut walked).walk();
        count.add(&walked);
        match walk {
            Walk::Whole => {
                report.faults = faults;
                report.exhaustive = faults == bounds.faults;
                if report.exhaustive {
                    break;
                }
            }
            Walk::Partial if faults == bounds.faults => {}
            Walk::Partial => break,
            Walk::Broken(found) => {
                broken = Some((found, budget));
                break;
            }
        }
    }
    if broken.is_none() && !report.exhaustive {
        let budget = bounds.budget(bounds.faults, waits);
        let mut rng = fastrand::Rng::with_seed(bounds.seed);
        for _ in 0..bounds.samples {
            report.samples += 1;
            if let Some(found) = stroll(setup, service, budget, &mut rng) {
                broken = Some((found, budget));
                break;
            }
        }
    }
    report.states = count.states;
    report.moves = count.moves;
    report.traces = count.traces;
    report.finding = broken.map(|(found, budget)| {
        let finding = shrink::shrink(setup, service, budget, found);
        simpler(setup, service, &finding).unwrap_or(finding)
    });
    report.exhaustive &= report.finding.is_none();
    report
}

/// A sequence of fewer faults that breaks a law, if there is one.
fn simpler(setup: &Setup, service: &mut Service<'_>, finding: &Finding) -> Option<Finding> {
    let most = u8::try_from(finding.faults()).unwrap_or(u8::MAX);
    (0..most).find_map(|faults| {
        let budget = setup.bounds.budget(Some(faults), setup.signals_awaited());
        match Search::new(setup, service, budget, &mut Count::default()).walk() {
            Walk::Broken(found) => Some(shrink::shrink(setup, service, budget, found)),
            Walk::Whole | Walk::Partial => None,
        }
    })
}
