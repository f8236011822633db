//! The laws of [`CircuitBreaker`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Monotonic, Outcome};

use super::{Law, Violation, check_named, ensure};
use crate::breaker::{CircuitBreaker, Permit, State};

/// A way to make fresh breakers, and what they promise.
pub struct Subject {
    fresh: Box<dyn Fn() -> Arc<dyn CircuitBreaker>>,
    failures: u32,
    wait: Duration,
    probes: u32,
}

impl Subject {
    /// Breakers that open after `failures` in a row, stay open for at most `wait` the first time, and close
    /// after `probes` good calls.
    ///
    /// Whatever else opens them must not do so within four times `failures` calls.
    pub fn new(
        fresh: impl Fn() -> Arc<dyn CircuitBreaker> + 'static,
        failures: u32,
        wait: Duration,
        probes: u32,
    ) -> Self {
        Self {
            fresh: Box::new(fresh),
            failures,
            wait,
            probes,
        }
    }

    /// An open breaker and the moment at which it is surely half-open.
    fn opened(&self) -> Result<(Arc<dyn CircuitBreaker>, Monotonic), String> {
        let breaker = (self.fresh)();
        self.open(&breaker)?;
        Ok((breaker, START + self.wait))
    }

    fn open(&self, breaker: &Arc<dyn CircuitBreaker>) -> Result<(), String> {
        for _ in 0..self.failures * 4 {
            if breaker.state(START) == State::Open {
                break;
            }
            call(breaker, Outcome::Failure, START);
        }
        expect(breaker, START, State::Open)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("failures", &self.failures)
            .field("wait", &self.wait)
            .field("probes", &self.probes)
            .finish_non_exhaustive()
    }
}

const START: Monotonic = Monotonic::from_nanos(1_000_000_000);

/// Makes a call with this outcome, if it is admitted.
fn call(breaker: &Arc<dyn CircuitBreaker>, outcome: Outcome, now: Monotonic) -> bool {
    match breaker.try_acquire(now) {
        Ok(permit) => {
            breaker.release(permit, outcome, now);
            true
        }
        Err(_) => false,
    }
}

fn acquire(breaker: &Arc<dyn CircuitBreaker>, now: Monotonic) -> Result<Permit, String> {
    let permit = breaker.try_acquire(now);
    permit.map_err(|rejected| format!("a call was not admitted: {rejected:?}"))
}

fn expect(breaker: &Arc<dyn CircuitBreaker>, now: Monotonic, state: State) -> Result<(), String> {
    let found = breaker.state(now);
    ensure(found == state, || format!("it is {found:?}, not {state:?}"))
}

/// Every law, by the names that [`breaker_suite!`](crate::breaker_suite) stamps.
pub fn laws() -> [Law<Subject>; 10] {
    macro_rules! list {
        ($($name:ident),+ $(,)?) => {
            [$(Law { name: stringify!($name), check: $name }),+]
        };
    }
    list![
        a_fresh_circuit_is_closed_and_admits,
        failures_in_a_row_open_it,
        an_open_circuit_rejects_and_says_for_how_long,
        half_open_it_admits_no_more_than_its_probes,
        a_neutral_probe_gives_its_place_to_another,
        good_probes_close_it,
        a_bad_probe_opens_it_again,
        a_late_result_changes_nothing,
        success_and_neutral_never_open_it,
        overload_neither_counts_in_a_row_nor_breaks_it,
    ]
}

/// Checks the law of this name.
pub fn check(name: &'static str, subject: &Subject) -> Result<(), Violation> {
    check_named(&laws(), name, subject)
}

fn a_fresh_circuit_is_closed_and_admits(subject: &Subject) -> Result<(), String> {
    let breaker = (subject.fresh)();
    expect(&breaker, START, State::Closed)?;
    let permit = acquire(&breaker, START)?;
    breaker.release(permit, Outcome::Success, START);
    Ok(())
}

fn failures_in_a_row_open_it(subject: &Subject) -> Result<(), String> {
    let breaker = (subject.fresh)();
    let mut made = 0;
    for _ in 0..subject.failures * 2 {
        if made == subject.failures {
            break;
        }
        expect(&breaker, START, State::Closed)?;
        made += u32::from(call(&breaker, Outcome::Failure, START));
    }
    expect(&breaker, START, State::Open)
}

fn an_open_circuit_rejects_and_says_for_how_long(subject: &Subject) -> Result<(), String> {
    let (breaker, _) = subject.opened()?;
    let Err(rejected) = breaker.try_acquire(START) else {
        return Err("an open circuit admitted a call".into());
    };
    let after = rejected.retry_after.ok_or("it does not say for how long")?;
    ensure(!after.is_zero() && after <= subject.wait, || {
        format!("it says {after:?}, which is not within {:?}", subject.wait)
    })?;
    let early = START + after.saturating_sub(Duration::from_nanos(1));
    ensure(breaker.try_acquire(early).is_err(), || {
        "it admitted a call earlier than it said".into()
    })
}

fn half_open_it_admits_no_more_than_its_probes(subject: &Subject) -> Result<(), String> {
    let (breaker, now) = subject.opened()?;
    let admitted = (0..subject.probes + 50).filter(|_| breaker.try_acquire(now).is_ok());
    let admitted = u32::try_from(admitted.count()).unwrap_or(u32::MAX);
    ensure(admitted == subject.probes, || {
        format!(
            "it admitted {admitted} calls at once, not {}",
            subject.probes
        )
    })
}

fn a_neutral_probe_gives_its_place_to_another(subject: &Subject) -> Result<(), String> {
    let (breaker, now) = subject.opened()?;
    for _ in 0..3 {
        let permits: Result<Vec<_>, _> = (0..subject.probes)
            .map(|_| acquire(&breaker, now))
            .collect();
        for permit in permits? {
            breaker.release(permit, Outcome::Neutral, now);
        }
    }
    expect(&breaker, now, State::HalfOpen)
}

fn good_probes_close_it(subject: &Subject) -> Result<(), String> {
    let (breaker, now) = subject.opened()?;
    for _ in 0..subject.probes {
        let permit = acquire(&breaker, now)?;
        breaker.release(permit, Outcome::Success, now);
    }
    expect(&breaker, now, State::Closed)?;
    acquire(&breaker, now).map(drop)
}

fn a_bad_probe_opens_it_again(subject: &Subject) -> Result<(), String> {
    let (breaker, now) = subject.opened()?;
    let permit = acquire(&breaker, now)?;
    breaker.release(permit, Outcome::Failure, now);
    expect(&breaker, now, State::Open)?;
    ensure(breaker.try_acquire(now).is_err(), || {
        "it admitted a call right after a bad probe".into()
    })
}

fn a_late_result_changes_nothing(subject: &Subject) -> Result<(), String> {
    let breaker = (subject.fresh)();
    let mut early: Vec<Permit> = (0..subject.failures * 2 + subject.probes)
        .filter_map(|_| breaker.try_acquire(START).ok())
        .collect();
    subject.open(&breaker)?;
    let now = START + subject.wait;
    let probe = acquire(&breaker, now)?;
    for permit in early.split_off(subject.failures as usize) {
        breaker.release(permit, Outcome::Success, now);
        expect(&breaker, now, State::HalfOpen)?;
    }
    for permit in early {
        breaker.release(permit, Outcome::Failure, now);
        expect(&breaker, now, State::HalfOpen)?;
    }
    drop(probe);
    Ok(())
}

fn success_and_neutral_never_open_it(subject: &Subject) -> Result<(), String> {
    let breaker = (subject.fresh)();
    for outcome in [Outcome::Neutral, Outcome::Success] {
        for _ in 0..subject.failures * 4 + 100 {
            call(&breaker, outcome, START);
            expect(&breaker, START, State::Closed)?;
        }
    }
    Ok(())
}

fn overload_neither_counts_in_a_row_nor_breaks_it(subject: &Subject) -> Result<(), String> {
    let breaker = (subject.fresh)();
    for _ in 1..subject.failures {
        call(&breaker, Outcome::Failure, START);
    }
    for _ in 0..subject.failures {
        call(&breaker, Outcome::Overloaded, START);
        expect(&breaker, START, State::Closed)?;
    }
    // Twice, for one that opens a call late.
    call(&breaker, Outcome::Failure, START);
    call(&breaker, Outcome::Failure, START);
    expect(&breaker, START, State::Open)
}

/// Stamps one test per law of [`CircuitBreaker`] into a module of this name.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use orchestra_mesh::breaker::{Breaker, Config};
/// use orchestra_mesh::conformance::breaker::Subject;
///
/// fn subject() -> Subject {
///     let fresh = || Arc::new(Breaker::new(Config::default()).expect("valid")) as Arc<_>;
///     Subject::new(fresh, 5, Duration::from_secs(1), 3)
/// }
///
/// orchestra_mesh::breaker_suite!(default_breaker, subject());
/// # for law in orchestra_mesh::conformance::breaker::laws() { law.check(&subject())?; }
/// # Ok::<(), orchestra_mesh::conformance::Violation>(())
/// ```
#[macro_export]
macro_rules! breaker_suite {
    ($module:ident, $subject:expr) => {
        #[cfg(test)]
        mod $module {
            use super::*;
            $crate::breaker_suite! { @stamp $subject;
                a_fresh_circuit_is_closed_and_admits,
                failures_in_a_row_open_it,
                an_open_circuit_rejects_and_says_for_how_long,
                half_open_it_admits_no_more_than_its_probes,
                a_neutral_probe_gives_its_place_to_another,
                good_probes_close_it,
                a_bad_probe_opens_it_again,
                a_late_result_changes_nothing,
                success_and_neutral_never_open_it,
                overload_neither_counts_in_a_row_nor_breaks_it,
            }
        }
    };
    (@stamp $subject:expr; $($law:ident),+ $(,)?) => {
        $(
            #[test]
            fn $law() -> Result<(), $crate::conformance::Violation> {
                $crate::conformance::breaker::check(stringify!($law), &$subject)
            }
        )+

        #[test]
        fn every_law_is_stamped() {
            let stamped = [$(stringify!($law)),+];
            assert_eq!($crate::conformance::breaker::laws().map(|law| law.name()), stamped);
        }
    };
}
