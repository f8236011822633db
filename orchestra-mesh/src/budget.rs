//! How many retries the load allows.
//!
//! Retries multiply load exactly when there is too much of it: three retries make four times the
//! traffic, and four to the power of the depth down a chain. A budget ties them to the requests that
//! were really asked for: within the last `window`, retries may be `ratio` of the requests plus a floor
//! per second, so that a service with little traffic can retry at all (Finagle's `RetryBudget`, Gateway
//! API `RetryConstraint`). The arithmetic is in integers: `retries · whole ≤ requests · part +
//! floor · window · whole` holds exactly at every moment.

use std::fmt;
use std::time::Duration;

use orchestra_core::Monotonic;
use parking_lot::Mutex;

use crate::{Error, Ratio};

/// The window moves in steps of a tenth of it.
const SLOTS: usize = 10;

/// What a [`Budget`] allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    ratio: Ratio,
    window: Duration,
    floor_per_second: u32,
}

impl Default for Config {
    /// 20 % of the requests of the last 10 s, and 10 retries per second beside them.
    fn default() -> Self {
        Self {
            ratio: Ratio::percent(20),
            window: Duration::from_secs(10),
            floor_per_second: 10,
        }
    }
}

impl Config {
    /// Retries per request.
    #[must_use]
    pub const fn ratio(mut self, ratio: Ratio) -> Self {
        self.ratio = ratio;
        self
    }

    /// How far back requests and retries count: 1 s to 1 h.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Retries per second that need no requests.
    #[must_use]
    pub const fn floor_per_second(mut self, floor: u32) -> Self {
        self.floor_per_second = floor;
        self
    }
}

/// Counts requests and lets a bounded share of retries pass; share one among everything that retries
/// against the same service.
///
/// ```
/// use std::time::Duration;
/// use orchestra_core::Monotonic;
/// use orchestra_mesh::{Ratio, budget::{Budget, Config}};
///
/// let budget = Budget::new(Config::default().ratio(Ratio::percent(50)).floor_per_second(0))?;
/// let now = Monotonic::ZERO;
/// budget.deposit(now);
/// assert!(!budget.try_withdraw(now));
/// budget.deposit(now);
/// assert!(budget.try_withdraw(now) && !budget.try_withdraw(now));
/// assert!(!budget.try_withdraw(now + Duration::from_secs(60)));
/// # Ok::<(), orchestra_mesh::Error>(())
/// ```
pub struct Budget {
    config: Config,
    slot: u64,
    reserve: u64,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    newest: u64,
    slots: [Counts; SLOTS],
    total: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u64,
    retries: u64,
}

impl Budget {
    /// A budget in which nothing has happened yet.
    pub fn new(config: Config) -> Result<Self, Error> {
        let range = Duration::from_secs(1)..=Duration::from_secs(3600);
        if !range.contains(&config.window) {
            return Err(Error::config("the window of a retry budget is 1 s to 1 h"));
        }
        let nanos = u64::try_from(config.window.as_nanos()).unwrap_or(u64::MAX);
        let floor = u128::from(config.floor_per_second) * u128::from(nanos) / 1_000_000_000;
        Ok(Self {
            config,
            slot: nanos.div_ceil(SLOTS as u64),
            reserve: u64::try_from(floor).unwrap_or(u64::MAX),
            window: Mutex::default(),
        })
    }

    /// A request was made that is not a retry.
    pub fn deposit(&self, now: Monotonic) {
        let mut window = self.window.lock();
        window.advance(now.as_nanos() / self.slot);
        window.count(|counts| &mut counts.requests);
    }

    /// Takes one retry, if the budget holds one.
    pub fn try_withdraw(&self, now: Monotonic) -> bool {
        let mut window = self.window.lock();
        window.advance(now.as_nanos() / self.slot);
        let allowed = self.allows(window.total);
        if allowed {
            window.count(|counts| &mut counts.retries);
        }
        allowed
    }

    fn allows(&self, total: Counts) -> bool {
        let whole = u128::from(self.config.ratio.whole());
        let earned = u128::from(total.requests) * u128::from(self.config.ratio.part());
        u128::from(total.retries + 1) * whole <= earned + u128::from(self.reserve) * whole
    }
}

impl Window {
    /// Moves to slot number `to`, forgetting at most every slot once however long the pause was.
    fn advance(&mut self, to: u64) {
        let steps = to.saturating_sub(self.newest).min(SLOTS as u64);
        for step in 0..steps {
            let number = to - step;
            if let Some(slot) = self.slot(number) {
                let gone = std::mem::take(slot);
                self.total.requests -= gone.requests;
                self.total.retries -= gone.retries;
            }
        }
        self.newest = self.newest.max(to);
    }

    fn slot(&mut self, number: u64) -> Option<&mut Counts> {
        let index = usize::try_from(number % SLOTS as u64).ok()?;
        self.slots.get_mut(index)
    }

    fn count(&mut self, field: fn(&mut Counts) -> &mut u64) {
        *field(&mut self.total) += 1;
        if let Some(slot) = self.slot(self.newest) {
            *field(slot) += 1;
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.window.lock().total;
        f.debug_struct("Budget")
            .field("config", &self.config)
            .field("requests", &total.requests)
            .field("retries", &total.retries)
            .finish_non_exhaustive()
    }
}
