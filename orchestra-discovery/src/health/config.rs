use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Clock, Listener, TokioClock};

use super::Thresholds;
use crate::damping;
use crate::event::{Event, Events};

/// How a [`HealthCheck`](super::HealthCheck) goes about it.
///
/// Pauses are counted from the end of a probe to the beginning of the next of the same instance. The jitter of
/// both kinds is added to each, as Envoy does.
///
/// ```
/// use std::time::Duration;
/// use orchestra_discovery::health::Config;
///
/// let mut config = Config::default().interval(Duration::from_secs(10));
/// config.edge = Some(Duration::from_millis(500)); // ask again soon when in doubt
/// config.damping = None;                          // let them flap
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The pause after a verdict that agrees with what is thought of an instance: 5 seconds.
    pub interval: Duration,
    /// The pause after a verdict that does not, while thresholds are counted: a fifth of the interval when
    /// absent.
    pub edge: Option<Duration>,
    /// The pause while an instance is unhealthy and its verdicts agree: the interval when absent.
    pub unhealthy: Option<Duration>,
    /// The most that is added to each pause: nothing.
    pub jitter: Duration,
    /// The most that is added to each pause, in percent of it: 10.
    pub jitter_percent: u32,
    /// The most that the first probe of an instance waits: 100 milliseconds.
    pub initial_jitter: Duration,
    /// How long a probe may take before it counts as failed: 1 second.
    pub timeout: Duration,
    /// How many verdicts in a row change the health.
    pub thresholds: Thresholds,
    /// The most probes at a time: 32. Those of instances that were slow to answer, or did not, have half of
    /// them at most, so that they do not keep the others waiting.
    pub max_probes: NonZeroUsize,
    /// The most probes that begin in a second, but for a tenth of it ahead after a lull: no limit when absent.
    pub max_per_second: Option<NonZeroU32>,
    /// Whether an instance takes calls before its first probe has ended: false. It is held back as unhealthy
    /// from the moment on that the checker sees it, within some 10 milliseconds of the resolver. A resolver
    /// that [requires a check](crate::resolver::Config::require_check) holds it back from the first moment,
    /// without counting it towards panic.
    pub admit_unchecked: bool,
    /// How instances that flap are held back; not at all when absent.
    pub damping: Option<damping::Config>,
    /// The seed of the jitter; from the system's entropy when absent.
    pub seed: Option<u64>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: Events,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            edge: None,
            unhealthy: None,
            jitter: Duration::ZERO,
            jitter_percent: 10,
            initial_jitter: Duration::from_millis(100),
            timeout: Duration::from_secs(1),
            thresholds: Thresholds::default(),
            max_probes: NonZeroUsize::MIN.saturating_add(31),
            max_per_second: None,
            admit_unchecked: false,
            damping: Some(damping::Config::default()),
            seed: None,
            clock: Arc::new(TokioClock::new()),
            events: Events::default(),
        }
    }
}

impl Config {
    /// Probes every `interval`.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Reads this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tells this listener when health changes, an instance is held back, or a probe was forbidden.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.events = Events::new(listener);
        self
    }
}
