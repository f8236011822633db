//! Stops calling what keeps failing, and tries again carefully.
//!
//! A [`Breaker`] is closed, open or half-open. *Closed*, it keeps the outcomes of the last `window` calls
//! in a ring from which the oldest is really evicted, and opens when the share of bad ones reaches
//! `failure_ratio` with at least `min_calls` in the ring, or after `consecutive_failures` in a row. *Open*,
//! it rejects until a wait has passed that grows each time the recovery fails. *Half-open*, it admits
//! `probes` calls: all must succeed for it to close, one bad one opens it again.
//!
//! Each change of state begins a new epoch, and a permit carries the epoch it was given in. A result of an
//! older epoch is ignored: a slow call from before the circuit opened says nothing about the probe.
//! The parts that decide are pure; a mutex around some words keeps them, held for tens of nanoseconds.

mod machine;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, Jitter, Listener, Monotonic, Outcome, Silent};
use parking_lot::Mutex;

use self::machine::Machine;
use crate::event::Event;
use crate::{Error, Ratio};

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are rejected.
    Open,
    /// Some calls pass, to see whether it works again.
    HalfOpen,
}

/// The right to make one call; it goes back with [`CircuitBreaker::release`].
///
/// Dropping one without releasing it loses a probe until the breaker's longest half-open time has passed.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not released holds a probe"]
pub struct Permit(u64);

impl Permit {
    /// The permit as a word, to carry it through a token of another type.
    pub const fn into_raw(self) -> u64 {
        self.0
    }

    /// The permit of a word that [`Permit::into_raw`] gave.
    pub const fn from_raw(word: u64) -> Self {
        Self(word)
    }
}

/// A call that may not be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// When it is worth asking again; `None` if that depends on calls that are under way.
    pub retry_after: Option<Duration>,
}

impl Rejected {
    /// A rejection.
    pub const fn new(retry_after: Option<Duration>) -> Self {
        Self { retry_after }
    }
}

/// Decides whether a call may be made, from the outcomes of those before.
///
/// Laws:
/// 1. A circuit without history is closed and admits.
/// 2. Failures enough, by the configuration, open it.
/// 3. Open, it rejects everything and says when to ask again.
/// 4. After that time it is half-open and admits no more calls at once than it has probes.
/// 5. A probe released with [`Outcome::Neutral`] gives its place to another call.
/// 6. Enough good probes close it; a bad one opens it again.
/// 7. A permit of an earlier state changes nothing when it is released.
/// 8. Successes and neutral outcomes alone never open it.
/// 9. [`Outcome::Overloaded`] is no failure in a row: it neither counts nor breaks the row.
///
/// No method blocks, allocates or reads a clock; each permit is released exactly once.
pub trait CircuitBreaker: fmt::Debug + Send + Sync {
    /// Asks for the right to make one call.
    fn try_acquire(&self, now: Monotonic) -> Result<Permit, Rejected>;
    /// Gives a permit back with what became of the call.
    fn release(&self, permit: Permit, outcome: Outcome, now: Monotonic);
    /// The state as a call would find it at `now`.
    fn state(&self, now: Monotonic) -> State;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<T: CircuitBreaker + ?Sized> CircuitBreaker for $pointer<T> {
            fn try_acquire(&self, now: Monotonic) -> Result<Permit, Rejected> {
                (**self).try_acquire(now)
            }
            fn release(&self, permit: Permit, outcome: Outcome, now: Monotonic) {
                (**self).release(permit, outcome, now);
            }
            fn state(&self, now: Monotonic) -> State {
                (**self).state(now)
            }
        }
    )+};
}

forward!(Arc, Box);

/// When a [`Breaker`] opens, and how it recovers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    window: u32,
    min_calls: u32,
    failure_ratio: Ratio,
    consecutive_failures: u32,
    open_wait: Backoff,
    probes: u32,
    longest_half_open: Duration,
    seed: u64,
}

impl Default for Config {
    /// Half of at least 20 of the last 100 calls, or 5 failures in a row; 1 s, 2 s, 4 s … 60 s open; 3 probes.
    fn default() -> Self {
        Self {
            window: 100,
            min_calls: 20,
            failure_ratio: Ratio::percent(50),
            consecutive_failures: 5,
            open_wait: Backoff::exponential(Duration::from_secs(1), 2.0).jitter(Jitter::None),
            probes: 3,
            longest_half_open: Duration::from_secs(30),
            seed: 0,
        }
    }
}

impl Config {
    /// How many of the last calls are remembered: 1 to 65,536.
    #[must_use]
    pub const fn window(mut self, calls: u32) -> Self {
        self.window = calls;
        self
    }

    /// How many calls the window must hold before the ratio means anything: 1 to the window.
    #[must_use]
    pub const fn min_calls(mut self, calls: u32) -> Self {
        self.min_calls = calls;
        self
    }

    /// The share of failed and overloaded calls in the window that opens the circuit; not zero.
    #[must_use]
    pub const fn failure_ratio(mut self, ratio: Ratio) -> Self {
        self.failure_ratio = ratio;
        self
    }

    /// How many failures in a row open the circuit; zero means that none do.
    #[must_use]
    pub const fn consecutive_failures(mut self, calls: u32) -> Self {
        self.consecutive_failures = calls;
        self
    }

    /// How long it stays open, the first time and after each failed recovery; jitter is drawn from the seed.
    #[must_use]
    pub const fn open_wait(mut self, wait: Backoff) -> Self {
        self.open_wait = wait;
        self
    }

    /// How many calls it admits when half-open, all of which must succeed; at least 1.
    #[must_use]
    pub const fn probes(mut self, calls: u32) -> Self {
        self.probes = calls;
        self
    }

    /// After this long half-open, probes that never came back are replaced by new ones; not zero.
    #[must_use]
    pub const fn longest_half_open(mut self, limit: Duration) -> Self {
        self.longest_half_open = limit;
        self
    }

    /// The seed of the jitter of `open_wait`.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let fail = |message: &'static str| Err(Error::config(message));
        if !(1..=65_536).contains(&self.window) {
            return fail("the window of a breaker is 1 to 65536 calls");
        }
        if !(1..=self.window).contains(&self.min_calls) {
            return fail("min_calls of a breaker is 1 to its window");
        }
        if self.failure_ratio.part() == 0 {
            return fail("a failure ratio of zero would open the circuit on success");
        }
        if self.probes == 0 {
            return fail("a breaker without probes would stay open for ever");
        }
        if self.longest_half_open.is_zero() {
            return fail("the longest half-open time of a breaker is zero");
        }
        Ok(())
    }
}

/// A circuit breaker over the last calls and the failures in a row.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::{Monotonic, Outcome};
/// use orchestra_mesh::breaker::{Breaker, CircuitBreaker, Config, State};
///
/// let breaker = Breaker::new(Config::default().consecutive_failures(2))?;
/// let start = Monotonic::ZERO;
/// for _ in 0..2 {
///     let permit = breaker.try_acquire(start).map_err(|_| "open")?;
///     breaker.release(permit, Outcome::Failure, start);
/// }
/// let rejected = breaker.try_acquire(start).err().ok_or("admitted")?;
/// assert_eq!(rejected.retry_after, Some(Duration::from_secs(1)));
/// assert_eq!(breaker.state(start + Duration::from_secs(1)), State::HalfOpen);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Breaker {
    machine: Mutex<Machine>,
    name: Arc<str>,
    listener: Arc<dyn Listener<Event>>,
}

impl Breaker {
    /// A closed circuit.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        Ok(Self {
            machine: Mutex::new(Machine::new(config)),
            name: Arc::from(""),
            listener: Arc::new(Silent),
        })
    }

    /// Reports each change of state under this name.
    #[must_use]
    pub fn observed(mut self, name: impl AsRef<str>, listener: Arc<dyn Listener<Event>>) -> Self {
        self.name = Arc::from(name.as_ref());
        self.listener = listener;
        self
    }

    /// Runs `act` on the machine and reports the change after the lock is gone.
    fn with<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        let (before, result, after) = {
            let mut machine = self.machine.lock();
            let before = machine.stored_state();
            let result = act(&mut machine);
            (before, result, machine.stored_state())
        };
        if before != after {
            self.listener.on_event(&Event::BreakerChanged {
                breaker: Arc::clone(&self.name),
                from: before,
                to: after,
            });
        }
        result
    }
}

impl CircuitBreaker for Breaker {
    fn try_acquire(&self, now: Monotonic) -> Result<Permit, Rejected> {
        self.with(|machine| machine.try_acquire(now))
            .map(Permit)
            .map_err(Rejected::new)
    }

    fn release(&self, permit: Permit, outcome: Outcome, now: Monotonic) {
        self.with(|machine| machine.release(permit.0, outcome, now));
    }

    fn state(&self, now: Monotonic) -> State {
        self.machine.lock().state(now)
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.name)
            .field("machine", &*self.machine.lock())
            .finish_non_exhaustive()
    }
}
