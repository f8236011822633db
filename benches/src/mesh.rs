//! Asking a closed breaker and reporting success.

use orchestra_core::{Monotonic, Outcome};
use orchestra_mesh::breaker::{Breaker, CircuitBreaker, Config};

use crate::measure::{Session, alone};

/// A closed breaker that remembers 100 calls.
pub fn breaker() -> Breaker {
    Breaker::new(Config::default().window(100)).expect("a valid configuration")
}

/// One call that is admitted and succeeds.
pub fn call(breaker: &impl CircuitBreaker) {
    // A closed breaker does not look at the time; a caller has one at hand.
    let now = Monotonic::from_nanos(1);
    let permit = breaker.try_acquire(now).expect("closed");
    breaker.release(permit, Outcome::Success, now);
}

/// By one thread, and by two on the same breaker.
pub fn figures(session: &Session) {
    let breaker = breaker();
    session.time("mesh_breaker_call", alone(|| call(&breaker)));
    session.time_of_two("mesh_breaker_call_2_threads", || || call(&breaker));
}
