use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Clock, Listener, TokioClock};
use tokio::task::JoinSet;

use super::schedule::Schedule;
use super::{Probe, Thresholds, Verdict};
use crate::error::Result;
use crate::event::{Event, Events};
use crate::instance::Instance;
use crate::resolver::Resolver;
use crate::task::{Stop, Task};

/// How a [`HealthCheck`] goes about it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The time between the end of a probe and the next of the same instance, less up to a tenth.
    pub interval: Duration,
    /// How long a probe may take before it counts as failed.
    pub timeout: Duration,
    /// How many verdicts in a row change the health.
    pub thresholds: Thresholds,
    /// The most probes at a time.
    pub max_probes: NonZeroUsize,
    /// The seed of the jitter; from the system's entropy when absent.
    pub seed: Option<u64>,
    clock: Arc<dyn Clock>,
    events: Events,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            thresholds: Thresholds::default(),
            max_probes: NonZeroUsize::MIN.saturating_add(31),
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

    /// Tells this listener when health changes.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn Listener<Event>>) -> Self {
        self.events = Events::new(listener);
        self
    }
}

/// Probes the members of a resolver and tells it what it finds, until it is shut down or dropped.
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use orchestra_discovery::{HealthCheck, Instance, Probe, Resolver, Verdict, health, resolver};
///
/// #[derive(Debug)]
/// struct Trusting;
///
/// #[async_trait]
/// impl Probe for Trusting {
///     async fn probe(&self, _: &Instance) -> Verdict {
///         Verdict::Pass
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let payments = Resolver::new("payments".parse()?, resolver::Config::default());
/// let check = HealthCheck::start(Arc::new(Trusting), payments, health::Config::default());
/// check.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HealthCheck(Task<()>);

impl HealthCheck {
    /// Begins at once, on the tokio runtime of the caller.
    pub fn start(probe: Arc<dyn Probe>, resolver: Resolver, config: Config) -> Self {
        let Config {
            interval,
            timeout,
            thresholds,
            ..
        } = config;
        let driver = Driver {
            schedule: Schedule::new(interval, timeout, thresholds),
            rng: config
                .seed
                .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            probes: JoinSet::new(),
            probe,
            resolver,
            config,
        };
        Self(Task::spawn(|stop| driver.run(stop)))
    }

    /// Drops the running probes and stops; the resolver keeps the health that it was told.
    pub async fn shutdown(self) -> Result<()> {
        self.0.stop().await
    }
}

struct Driver {
    schedule: Schedule,
    rng: fastrand::Rng,
    probes: JoinSet<(Arc<Instance>, Verdict)>,
    probe: Arc<dyn Probe>,
    resolver: Resolver,
    config: Config,
}

impl Driver {
    async fn run(mut self, mut stop: Stop) {
        let mut changed = self.resolver.changed();
        loop {
            changed.mark_unchanged();
            self.begin_due();
            let pause = self.pause();
            tokio::select! {
                () = stop.asked() => break,
                Some(ended) = self.probes.join_next() => {
                    // A probe that panicked is probed again when its verdict is overdue.
                    if let Ok((instance, verdict)) = ended {
                        self.observe(&instance, &verdict);
                    }
                }
                _ = changed.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.probes.shutdown().await;
    }

    fn begin_due(&mut self) {
        let now = self.config.clock.now();
        let rng = &mut self.rng;
        self.schedule
            .sync(self.resolver.members(), now, || rng.u64(..));
        while self.probes.len() < self.config.max_probes.get()
            && let Some(instance) = self.schedule.take_due(now)
        {
            let probe = Arc::clone(&self.probe);
            self.probes.spawn(run(probe, instance, self.config.timeout));
        }
    }

    fn pause(&self) -> Duration {
        let full = self.probes.len() >= self.config.max_probes.get();
        match self.schedule.next_due() {
            Some(due) if !full => due
                .since(self.config.clock.now())
                .max(Duration::from_millis(1)),
            _ => self.config.interval.max(Duration::from_millis(1)),
        }
    }

    fn observe(&mut self, instance: &Instance, verdict: &Verdict) {
        let Instance {
            service,
            id,
            incarnation,
            ..
        } = instance;
        let (now, draw) = (self.config.clock.now(), self.rng.u64(..));
        let changed = self.schedule.observe(id, *incarnation, verdict, now, draw);
        let Some(health) = changed else {
            return;
        };
        if self.resolver.set_health(id, *incarnation, health) {
            let reason = match verdict {
                Verdict::Pass => "",
                Verdict::Fail(reason) | Verdict::Degraded(reason) => reason,
            };
            self.config.events.emit(&Event::HealthChanged {
                service: service.clone(),
                id: id.clone(),
                incarnation: *incarnation,
                health,
                reason: reason.to_owned(),
            });
        }
    }
}

async fn run(
    probe: Arc<dyn Probe>,
    instance: Arc<Instance>,
    limit: Duration,
) -> (Arc<Instance>, Verdict) {
    let verdict = tokio::time::timeout(limit, probe.probe(&instance)).await;
    let late = |_| Verdict::Fail(format!("no answer within {limit:?}"));
    let verdict = verdict.unwrap_or_else(late);
    (instance, verdict)
}
