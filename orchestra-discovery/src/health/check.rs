use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::Monotonic;
use tokio::task::{Id, JoinError, JoinSet};

use super::pace::Pace;
use super::schedule::{Ended, Lane, Release, Schedule};
use super::{Config, Health, Probe, Verdict};
use crate::error::Result;
use crate::event::Event;
use crate::instance::Instance;
use crate::resolver::Resolver;
use crate::task::{Stop, Task};

/// How long changes of the members are gathered.
const MERGE: Duration = Duration::from_millis(10);
/// How many times as long as it took to read the members they are not read again: it costs in proportion to all
/// of them, and is to stay under a tenth of the time however often they change.
const REST: u32 = 9;
/// The resolution of the timer.
const TICK: Duration = Duration::from_millis(1);

/// Probes the members of a resolver and tells it what it finds, until it is shut down or dropped.
///
/// Each verdict is told, not only changes, so that a resolver that lost its own finds them again; a member that
/// left and came back under the same incarnation is as it was some 10 milliseconds later.
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
    pub fn start(probe: Arc<dyn Probe>, resolver: Resolver, mut config: Config) -> Self {
        // Held back as unhealthy they would count towards panic; the resolver holds them back by itself.
        config.admit_unchecked |= resolver.requires_check();
        let driver = Driver {
            schedule: Schedule::new(config.clone()),
            pace: Pace::new(config.max_per_second),
            rng: config
                .seed
                .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            probes: JoinSet::new(),
            running: HashMap::new(),
            slow: 0,
            next_sync: Monotonic::ZERO,
            probe,
            resolver,
            config,
        };
        Self(Task::spawn(|stop| driver.run(stop)))
    }

    /// Drops the running probes and stops.
    ///
    /// The resolver keeps what the probes found last; who was held back for another reason, unchecked or
    /// flapping, is not any longer. The same goes for a checker that is dropped.
    pub async fn shutdown(self) -> Result<()> {
        self.0.stop().await
    }
}

/// A probe under way.
struct Running {
    instance: Arc<Instance>,
    lane: Lane,
    since: Monotonic,
}

struct Driver {
    schedule: Schedule,
    pace: Pace,
    rng: fastrand::Rng,
    probes: JoinSet<Verdict>,
    running: HashMap<Id, Running>,
    /// How many of the running are in the slow lane.
    slow: usize,
    next_sync: Monotonic,
    probe: Arc<dyn Probe>,
    resolver: Resolver,
    config: Config,
}

impl Driver {
    async fn run(mut self, mut stop: Stop) {
        let mut changed = self.resolver.changed();
        let mut stale = true;
        loop {
            let now = self.config.clock.now();
            if stale && now >= self.next_sync {
                changed.mark_unchanged();
                self.sync(now);
                stale = false;
            }
            self.release(now);
            self.begin_due(now);
            let pause = self.pause(now, stale);
            tokio::select! {
                biased;
                () = stop.asked() => break,
                Ok(()) = changed.changed(), if !stale => stale = true,
                Some(ended) = self.probes.join_next_with_id() => self.ended(ended),
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.probes.shutdown().await;
    }

    fn sync(&mut self, now: Monotonic) {
        let rng = &mut self.rng;
        let turnover = self
            .schedule
            .sync(self.resolver.members(), now, || rng.u64(..));
        for instance in turnover.left {
            self.probe.forget(&instance);
        }
        for (instance, health) in turnover.arrived {
            self.resolver
                .set_health(&instance.id, instance.incarnation, health);
        }
        // Who left and came back in the meantime has lost what was found of it.
        self.resolver.remind(self.schedule.known());
        for (instance, until) in turnover.suppressed {
            self.suppressed(&instance, until.since(now));
        }
        let end = self.config.clock.now();
        self.next_sync = end + MERGE.max(end.since(now) * REST);
    }

    fn release(&mut self, now: Monotonic) {
        while let Some(Release { id, news }) = self.schedule.release(now) {
            self.config.events.emit(&Event::FlapReleased {
                service: self.resolver.service().clone(),
                id,
            });
            if let Some((instance, health)) = news {
                self.tell(&instance, health, true, "it has been quiet");
            }
        }
    }

    fn begin_due(&mut self, now: Monotonic) {
        while self.has_room() && self.pace.wait(now).is_zero() {
            let Some((instance, lane)) = self.schedule.take_due(now, self.slow_may_begin()) else {
                return;
            };
            self.pace.begin(now);
            let run = run(
                Arc::clone(&self.probe),
                Arc::clone(&instance),
                self.config.timeout,
            );
            let id = self.probes.spawn(run).id();
            self.slow += usize::from(lane == Lane::Slow);
            let since = now;
            let running = Running {
                instance,
                lane,
                since,
            };
            self.running.insert(id, running);
        }
    }

    fn has_room(&self) -> bool {
        self.probes.len() < self.config.max_probes.get()
    }

    fn slow_may_begin(&self) -> bool {
        self.slow < self.config.max_probes.get().div_ceil(2)
    }

    /// How long nothing is to do unless something happens.
    fn pause(&self, now: Monotonic, stale: bool) -> Duration {
        let due = self.schedule.next_due(self.slow_may_begin());
        let begin = due
            .filter(|_| self.has_room())
            .map(|due| due.since(now).max(self.pace.wait(now)));
        let release = self.schedule.next_release().map(|at| at.since(now));
        let sync = stale.then(|| self.next_sync.since(now));
        let waits = [begin, release, sync].into_iter().flatten();
        waits.min().unwrap_or(self.config.interval).max(TICK)
    }

    fn ended(&mut self, ended: Result<(Id, Verdict), JoinError>) {
        let (id, verdict) = match ended {
            Ok(ended) => ended,
            Err(error) => (
                error.id(),
                Verdict::Fail(format!("the probe broke: {error}")),
            ),
        };
        let Some(running) = self.running.remove(&id) else {
            return;
        };
        self.slow -= usize::from(running.lane == Lane::Slow);
        let now = self.config.clock.now();
        let ended = Ended {
            instance: &running.instance,
            verdict: &verdict,
            took: now.since(running.since),
        };
        let Some(found) = self.schedule.observe(&ended, now, self.rng.u64(..)) else {
            // It left while it was probed; what the probe kept since must go as well.
            self.probe.forget(&running.instance);
            return;
        };
        let reason = verdict.reason().unwrap_or_default();
        self.tell(&running.instance, found.health, found.is_new, reason);
        if verdict == Verdict::Pass && found.health == Health::Healthy {
            // Old news for its health, and perhaps the end of an ejection.
            let Instance {
                id, incarnation, ..
            } = &*running.instance;
            self.resolver.check_passed(id, *incarnation);
        }
        if let Some(until) = found.suppressed {
            self.suppressed(&running.instance, until.since(now));
        }
        if let (Verdict::Forbidden(reason), true) = (&verdict, found.is_new) {
            self.forbidden(&running.instance, reason);
        }
    }

    fn tell(&self, instance: &Instance, health: Health, is_new: bool, reason: &str) {
        let Instance {
            service,
            id,
            incarnation,
            ..
        } = instance;
        if self.resolver.set_health(id, *incarnation, health) || is_new {
            self.config.events.emit(&Event::HealthChanged {
                service: service.clone(),
                id: id.clone(),
                incarnation: *incarnation,
                health,
                reason: reason.to_owned(),
            });
        }
    }

    fn suppressed(&self, instance: &Instance, remaining: Duration) {
        let Instance { service, id, .. } = instance;
        tracing::warn!(%service, %id, ?remaining, "instance flaps and is held back");
        self.config.events.emit(&Event::FlapSuppressed {
            service: service.clone(),
            id: id.clone(),
            remaining,
        });
    }

    fn forbidden(&self, instance: &Instance, reason: &str) {
        let Instance {
            service,
            id,
            incarnation,
            ..
        } = instance;
        tracing::warn!(%service, %id, reason, "probe leads where none may go");
        self.config.events.emit(&Event::ProbeForbidden {
            service: service.clone(),
            id: id.clone(),
            incarnation: *incarnation,
            reason: reason.to_owned(),
        });
    }
}

impl Drop for Driver {
    /// Nobody is there any more to let go of those that are held back.
    fn drop(&mut self) {
        for (instance, found) in self.schedule.withheld() {
            self.resolver
                .set_health(&instance.id, instance.incarnation, found);
        }
    }
}

async fn run(probe: Arc<dyn Probe>, instance: Arc<Instance>, limit: Duration) -> Verdict {
    let verdict = tokio::time::timeout(limit, probe.probe(&instance)).await;
    let late = |_| Verdict::Fail(format!("no answer within {limit:?}"));
    verdict.unwrap_or_else(late)
}
