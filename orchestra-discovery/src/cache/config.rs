use std::num::NonZeroUsize;
use std::time::Duration;

use orchestra_core::{Backoff, SystemWallClock, WallClock};

use super::freshness::Limits;
use crate::source::Revision;
use crate::{coalesce, preserve};

/// What a cache may hold, and when it asks its sources.
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::time::Duration;
/// use orchestra_discovery::cache::Config;
///
/// let mut config = Config::default();
/// config.max_services = NonZeroUsize::new(100).ok_or("zero")?;
/// config.grace = Duration::from_secs(10);
/// config.seed = Some(7);
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Up to which age data is how good.
    pub limits: Limits,
    /// How changes are gathered, for each source and service.
    pub coalesce: coalesce::Config,
    /// When lapsed leases are held, for each source and for each service in it.
    pub preserve: preserve::Config,
    /// A source is asked for all members anew this often (up to a tenth later), be its watch up or not: a watch
    /// that is dead without knowing it does no harm for long.
    pub refresh: Duration,
    /// An empty answer where there were members, or one older than what the source told before, is believed if the
    /// source gives it again after this long, and does not fail in between.
    pub grace: Duration,
    /// The wait after a failure.
    pub backoff: Backoff,
    /// The most services; of those without watch the one that was used least lately goes. When none can go,
    /// one more is refused as `Full`.
    pub max_services: NonZeroUsize,
    /// The most services without members among them, watched ones apart: names that are made up push out each
    /// other.
    pub max_negative: NonZeroUsize,
    /// How long a service without members and watch is kept, to half as long again.
    pub negative_ttl: Duration,
    /// The most changes of a service that are remembered for watches that fell behind.
    pub max_changes: NonZeroUsize,
    /// How long other sources cannot list what was given back in a source that holds leases.
    pub tombstone: Duration,
    /// The revision before the first change; from the wall clock, so that those of a former life are unknown.
    pub start: Revision,
    /// The seed of the jitter; from the system's entropy when absent.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        let most = |more| NonZeroUsize::MIN.saturating_add(more);
        Self {
            limits: Limits::default(),
            coalesce: coalesce::Config::default(),
            preserve: preserve::Config::default(),
            refresh: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            backoff: Backoff::exponential(Duration::from_millis(100), 2.0)
                .cap(Duration::from_secs(5)),
            max_services: most(1_023),
            max_negative: most(255),
            negative_ttl: Duration::from_secs(30),
            max_changes: most(1_023),
            tombstone: Duration::from_secs(300),
            start: Revision::new(SystemWallClock.wall().as_unix_millis() << 20),
            seed: None,
        }
    }
}

/// How one source of a cache is treated.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::cache::SourceOptions;
///
/// let dns = SourceOptions::default().deadline(Duration::from_millis(500)).without_leases();
/// assert_ne!(dns, SourceOptions::default());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceOptions {
    pub(super) deadline: Duration,
    pub(super) leases: bool,
}

impl Default for SourceOptions {
    /// A deadline of a second; it holds leases.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(1),
            leases: true,
        }
    }
}

impl SourceOptions {
    /// A snapshot, and opening a watch, may take so long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What it lists is not there by leases (DNS, a file): nothing of it can lapse, and its incarnations and
    /// statuses say nothing where another source has some.
    #[must_use]
    pub fn without_leases(mut self) -> Self {
        self.leases = false;
        self
    }
}
