use std::collections::HashSet;
use std::sync::Arc;

use orchestra_core::{Monotonic, Outcome};
use parking_lot::Mutex;

use crate::breaker::{CircuitBreaker, Permit, Rejected, State};

macro_rules! faults {
    ($name:ident: $($(#[$doc:meta])* $fault:ident breaks $law:ident,)+) => {
        /// What is wrong with it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $fault,)+
        }

        impl $name {
            /// Every fault.
            pub const ALL: &'static [Self] = &[$(Self::$fault),+];

            /// The one law that it breaks.
            pub const fn law(self) -> &'static str {
                match self {
                    $(Self::$fault => stringify!($law),)+
                }
            }
        }
    };
}

pub(super) use faults;

faults! { BreakerFault:
    /// The first call is rejected.
    StartsShy breaks a_fresh_circuit_is_closed_and_admits,
    /// The first failure is not counted.
    OpensLate breaks failures_in_a_row_open_it,
    /// A rejection does not say when to ask again.
    KeepsTheWaitSecret breaks an_open_circuit_rejects_and_says_for_how_long,
    /// Half-open, everybody is admitted.
    AdmitsTheHerd breaks half_open_it_admits_no_more_than_its_probes,
    /// A neutral probe is never given back.
    LosesNeutralProbes breaks a_neutral_probe_gives_its_place_to_another,
    /// Good probes are ignored.
    NeverCloses breaks good_probes_close_it,
    /// Bad probes are ignored.
    ForgivesBadProbes breaks a_bad_probe_opens_it_again,
    /// A failure from before it opened counts as that of a probe.
    CountsLateResults breaks a_late_result_changes_nothing,
    /// Neutral outcomes count as failures.
    BlamesForNeutral breaks success_and_neutral_never_open_it,
    /// Overload counts as a failure.
    BlamesForOverload breaks overload_neither_counts_in_a_row_nor_breaks_it,
}

/// A breaker with a fault.
#[derive(Debug)]
pub struct BrokenBreaker {
    inner: Arc<dyn CircuitBreaker>,
    fault: BreakerFault,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    acquired: u32,
    failed: u32,
    /// Permits that were given while the circuit was closed.
    closed: HashSet<u64>,
}

/// A permit that `inner` never gave.
const FORGED: u64 = u64::MAX;

impl BrokenBreaker {
    /// Breaks a breaker.
    pub fn new(inner: Arc<dyn CircuitBreaker>, fault: BreakerFault) -> Self {
        Self {
            inner,
            fault,
            memory: Mutex::default(),
        }
    }

    /// The outcome as the faulty breaker takes it in this state; `None` if it takes no notice.
    fn twist(&self, outcome: Outcome, state: State) -> Option<Outcome> {
        let half_open = state == State::HalfOpen;
        match (self.fault, outcome) {
            (BreakerFault::LosesNeutralProbes, Outcome::Neutral) if half_open => None,
            (BreakerFault::NeverCloses, Outcome::Success)
            | (BreakerFault::ForgivesBadProbes, Outcome::Failure)
                if half_open =>
            {
                Some(Outcome::Neutral)
            }
            (BreakerFault::BlamesForNeutral, Outcome::Neutral)
            | (BreakerFault::BlamesForOverload, Outcome::Overloaded)
                if !half_open =>
            {
                Some(Outcome::Failure)
            }
            (BreakerFault::OpensLate, Outcome::Failure) if !half_open => {
                let mut memory = self.memory.lock();
                memory.failed += 1;
                (memory.failed > 1).then_some(outcome)
            }
            _ => Some(outcome),
        }
    }

    /// Hands a late failure to a probe of the present.
    fn blame_a_probe(&self, now: Monotonic) {
        if let Ok(probe) = self.inner.try_acquire(now) {
            self.inner.release(probe, Outcome::Failure, now);
        }
    }
}

impl CircuitBreaker for BrokenBreaker {
    fn try_acquire(&self, now: Monotonic) -> Result<Permit, Rejected> {
        let is_closed = self.inner.state(now) == State::Closed;
        let mut memory = self.memory.lock();
        memory.acquired += 1;
        if self.fault == BreakerFault::StartsShy && memory.acquired == 1 {
            return Err(Rejected::new(None));
        }
        match (self.fault, self.inner.try_acquire(now)) {
            (BreakerFault::KeepsTheWaitSecret, Err(_)) => Err(Rejected::new(None)),
            (BreakerFault::AdmitsTheHerd, Err(rejected)) if rejected.retry_after.is_none() => {
                Ok(Permit::from_raw(FORGED))
            }
            (_, Ok(permit)) => {
                let word = permit.into_raw();
                if is_closed {
                    memory.closed.insert(word);
                }
                Ok(Permit::from_raw(word))
            }
            (_, rejected) => rejected,
        }
    }

    fn release(&self, permit: Permit, outcome: Outcome, now: Monotonic) {
        let state = self.inner.state(now);
        let word = permit.into_raw();
        let is_late = state == State::HalfOpen && self.memory.lock().closed.contains(&word);
        let is_failure = outcome == Outcome::Failure;
        if self.fault == BreakerFault::CountsLateResults && is_late && is_failure {
            return self.blame_a_probe(now);
        }
        if let Some(outcome) = self.twist(outcome, state) {
            self.inner.release(Permit::from_raw(word), outcome, now);
        }
    }

    fn state(&self, now: Monotonic) -> State {
        self.inner.state(now)
    }
}
