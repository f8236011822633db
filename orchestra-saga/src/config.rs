//! What definitions and executors go by unless they say otherwise.
//!
//! The groups and their values are those of the design. Zero is a value everywhere: no retry, no time, no
//! snapshot.

use std::time::Duration;

use orchestra_core::Backoff;

use crate::definition::Unwind;
use crate::retry::Retry;

/// The knobs of sagas.
///
/// Given to a definition ([`Builder::config`](crate::definition::Builder::config),
/// [`Definition::from_json_with`](crate::Definition::from_json_with)) it is what its steps go by unless
/// they say otherwise; given to an executor ([`Builder::config`](crate::executor::Builder::config)), how it
/// keeps sagas, and what definitions go by that a store kept as documents.
///
/// ```
/// use std::time::Duration;
/// use orchestra_saga::{Call, Config, Definition, Executor, MemoryStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), orchestra_saga::Error> {
/// let mut config = Config::default();
/// config.execution.retry = config.execution.retry.with_retries(0);
/// config.compensation.is_parallel = false;
/// config.persistence.snapshot_every = 0;
///
/// let mut d = Definition::builder("ping", "1").config(&config);
/// d.step("ask", (), |_: Call, (): ()| async { Ok(()) }).read_only();
/// let executor = Executor::builder(MemoryStore::default())
///     .config(config)
///     .definition(d.build()?)
///     .build()
///     .await?;
/// # executor.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Config {
    /// The way forward.
    pub execution: Execution,
    /// The way back.
    pub compensation: Compensation,
    /// How sagas are kept.
    pub persistence: Persistence,
}

/// The way forward.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Execution {
    /// When a saga before its point of no return goes back, from its start on; never if none. Five minutes.
    pub timeout: Option<Duration>,
    /// All attempts of a step and the delays between them. 30 seconds.
    pub step_timeout: Duration,
    /// How often and how fast a step is tried again. Three times, from 100 ms, doubled, with full jitter.
    pub retry: Retry,
}

/// The way back.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Compensation {
    /// Whether there is a way back: yes. Without it a step that fails is parked and tried again slowly
    /// ([`Unwind::Never`]).
    pub is_enabled: bool,
    /// All fast attempts of a compensation and the delays between them. A minute.
    pub timeout: Duration,
    /// Whether independent branches are undone at the same time: yes. A step is undone after those that
    /// depend on it in either case.
    pub is_parallel: bool,
    /// How often and how fast a compensation is tried again before the saga is parked and it is tried
    /// slowly. Twice, from 200 ms, doubled, with full jitter.
    pub retry: Retry,
}

/// How sagas are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Persistence {
    /// Whether sagas outlive the process: yes, in the store that the executor was given. Without it they
    /// are kept in memory, and that store is not touched.
    pub is_enabled: bool,
    /// After how many steps done or undone a snapshot is kept, from which a saga is continued without its
    /// whole log; never if 0, nor in a store that [prefers logs](crate::SagaStore::prefers_logs). Five. The
    /// distance grows with the saga, to half of what it has done, so that all snapshots together cost no more
    /// than three times the last one, however long it becomes. Nobody waits for a snapshot, and
    /// one that is damaged, missing or of another definition only costs the reading of the log.
    pub snapshot_every: u32,
}

impl Default for Execution {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(300)),
            step_timeout: Duration::from_secs(30),
            retry: Retry::default(),
        }
    }
}

impl Default for Compensation {
    fn default() -> Self {
        Self {
            is_enabled: true,
            timeout: Duration::from_secs(60),
            is_parallel: true,
            retry: Retry::new(2, Backoff::exponential(Duration::from_millis(200), 2.0)),
        }
    }
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            is_enabled: true,
            snapshot_every: 5,
        }
    }
}

impl Compensation {
    /// The order of compensations.
    pub const fn unwind(&self) -> Unwind {
        match (self.is_enabled, self.is_parallel) {
            (false, _) => Unwind::Never,
            (true, true) => Unwind::Parallel,
            (true, false) => Unwind::Sequential,
        }
    }
}
