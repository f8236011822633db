//! The pure part: who is probed when, what came of it, and what the resolver is to be told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, InstanceId, Jitter, Monotonic};

use super::flaps::Flaps;
use super::{Config, Health, Tally, Verdict};
use crate::instance::Instance;

/// Whose turn it is, the longest due first. An instance that is being probed is in neither.
#[derive(Debug, Default)]
struct Queues {
    prompt: BTreeSet<(Monotonic, InstanceId)>,
    slow: BTreeSet<(Monotonic, InstanceId)>,
}

impl Queues {
    fn of(&mut self, lane: Lane) -> &mut BTreeSet<(Monotonic, InstanceId)> {
        match lane {
            Lane::Prompt => &mut self.prompt,
            Lane::Slow => &mut self.slow,
        }
    }
}

/// Which share of the probes an instance is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Prompt,
    /// Its last probe took more than half the timeout.
    Slow,
}

#[derive(Debug)]
struct Watched {
    instance: Arc<Instance>,
    tally: Tally,
    lane: Lane,
    /// `None` while it is being probed.
    due: Option<Monotonic>,
    /// What the resolver was told after the last probe.
    told: Health,
}

/// A probe that ended.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) instance: &'a Instance,
    pub(super) verdict: &'a Verdict,
    pub(super) took: Duration,
}

/// What follows from a verdict.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What the resolver is to think of the instance.
    pub(super) health: Health,
    /// Whether that is news.
    pub(super) is_new: bool,
    /// Until when it is held back from now on.
    pub(super) suppressed: Option<Monotonic>,
}

/// What a change of the membership means.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    /// Those that are watched from now on, with what the resolver is to think of them until they are probed.
    pub(super) arrived: Vec<(Arc<Instance>, Health)>,
    /// Those that are watched no longer.
    pub(super) left: Vec<Arc<Instance>>,
    /// Those that are held back, having flapped once more by being replaced.
    pub(super) suppressed: Vec<(Arc<Instance>, Monotonic)>,
}

/// One that is held back no longer, with what is to be thought of it if that is news.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) id: InstanceId,
    pub(super) news: Option<(Arc<Instance>, Health)>,
}

#[derive(Debug)]
pub(super) struct Schedule {
    config: Config,
    watched: BTreeMap<InstanceId, Watched>,
    queues: Queues,
    flaps: Flaps,
}

impl Schedule {
    pub(super) fn new(config: Config) -> Self {
        Self {
            flaps: Flaps::new(config.damping),
            config,
            watched: BTreeMap::new(),
            queues: Queues::default(),
        }
    }

    /// Takes these as the instances to watch.
    pub(super) fn sync(
        &mut self,
        members: Vec<Arc<Instance>>,
        now: Monotonic,
        mut draw: impl FnMut() -> u64,
    ) -> Turnover {
        let mut turnover = Turnover::default();
        let mut before = std::mem::take(&mut self.watched);
        for instance in members {
            let id = instance.id.clone();
            let known = before.remove(&id);
            let watched = match known {
                Some(known) if known.instance.incarnation == instance.incarnation => {
                    Watched { instance, ..known }
                }
                known => {
                    if let Some(known) = known {
                        // Replaced while alive: it counts as a fall.
                        let fell = known.tally.health() != Health::Unhealthy;
                        let until = fell.then(|| self.flaps.count(&id, now)).flatten();
                        let held = until.map(|until| (Arc::clone(&instance), until));
                        turnover.suppressed.extend(held);
                        self.drop_watched(known, &mut turnover);
                    }
                    let health = self.unchecked(&id);
                    turnover.arrived.push((Arc::clone(&instance), health));
                    self.admit(instance, now + uniform(self.config.initial_jitter, draw()))
                }
            };
            self.watched.insert(id, watched);
        }
        for known in before.into_values() {
            self.drop_watched(known, &mut turnover);
        }
        turnover
    }

    fn admit(&mut self, instance: Arc<Instance>, due: Monotonic) -> Watched {
        self.queues.prompt.insert((due, instance.id.clone()));
        Watched {
            instance,
            tally: Tally::default(),
            lane: Lane::Prompt,
            due: Some(due),
            told: Health::Unchecked,
        }
    }

    fn drop_watched(&mut self, watched: Watched, turnover: &mut Turnover) {
        if let Some(due) = watched.due {
            let key = (due, watched.instance.id.clone());
            self.queues.of(watched.lane).remove(&key);
        }
        turnover.left.push(watched.instance);
    }

    fn unchecked(&self, id: &InstanceId) -> Health {
        if self.config.admit_unchecked && !self.flaps.holds(id) {
            Health::Unchecked
        } else {
            Health::Unhealthy
        }
    }

    /// Those that are watched, with what the resolver is to think of them.
    pub(super) fn known(&self) -> impl Iterator<Item = (&Instance, Health)> {
        self.watched.values().map(|watched| {
            let instance = &*watched.instance;
            let health = match watched.tally.health() {
                Health::Unchecked => self.unchecked(&instance.id),
                _ => watched.told,
            };
            (instance, health)
        })
    }

    /// When the next probe is due, with or without those of the slow.
    pub(super) fn next_due(&self, slow: bool) -> Option<Monotonic> {
        let slow = self.queues.slow.first().filter(|_| slow);
        let first = self.queues.prompt.first().into_iter().chain(slow).min();
        first.map(|(due, _)| *due)
    }

    /// One that is due, the longest due first: with too few probes at a time nobody is left out for ever.
    pub(super) fn take_due(&mut self, now: Monotonic, slow: bool) -> Option<(Arc<Instance>, Lane)> {
        self.next_due(slow).filter(|due| *due <= now)?;
        let (prompt, late) = (self.queues.prompt.first(), self.queues.slow.first());
        let lane = match (prompt, late.filter(|_| slow)) {
            (Some(prompt), Some(late)) if late < prompt => Lane::Slow,
            (None, Some(_)) => Lane::Slow,
            _ => Lane::Prompt,
        };
        let (_, id) = self.queues.of(lane).pop_first()?;
        let watched = self.watched.get_mut(&id)?;
        watched.due = None;
        Some((Arc::clone(&watched.instance), lane))
    }

    /// Takes a verdict; `None` if the instance is not watched under this incarnation any more.
    pub(super) fn observe(
        &mut self,
        ended: &Ended<'_>,
        now: Monotonic,
        draw: u64,
    ) -> Option<Finding> {
        let (id, config) = (&ended.instance.id, &self.config);
        let watched = self.watched.get_mut(id)?;
        if watched.instance.incarnation != ended.instance.incarnation || watched.due.is_some() {
            return None;
        }
        let before = watched.tally.health();
        let changed = watched.tally.observe(config.thresholds, ended.verdict);
        let served = matches!(before, Health::Healthy | Health::Degraded);
        let fell = changed == Some(Health::Unhealthy) && served;
        let suppressed = fell.then(|| self.flaps.count(id, now)).flatten();
        watched.lane = if ended.took > config.timeout / 2 {
            Lane::Slow
        } else {
            Lane::Prompt
        };
        let due = now + pause(config, &watched.tally, draw);
        watched.due = Some(due);
        self.queues.of(watched.lane).insert((due, id.clone()));
        let (health, is_new) = watched.tell(self.flaps.holds(id));
        Some(Finding {
            health,
            is_new,
            suppressed,
        })
    }

    pub(super) fn next_release(&self) -> Option<Monotonic> {
        self.flaps.next_release()
    }

    /// One that is held back no longer.
    pub(super) fn release(&mut self, now: Monotonic) -> Option<Release> {
        let id = self.flaps.release(now)?;
        let checked = self.watched.get_mut(&id);
        let news = checked.and_then(|watched| {
            // One that was not probed yet has nothing to be told.
            let checked = watched.tally.health() != Health::Unchecked;
            let (health, is_new) = checked.then(|| watched.tell(false))?;
            is_new.then(|| (Arc::clone(&watched.instance), health))
        });
        Some(Release { id, news })
    }

    /// Those of whom the resolver may think other than the probes found, with what they found.
    pub(super) fn withheld(&self) -> impl Iterator<Item = (&Instance, Health)> {
        let differing = self.watched.values();
        differing
            .map(|watched| (watched, watched.tally.health()))
            .filter(|(watched, found)| watched.told != *found || *found == Health::Unchecked)
            .map(|(watched, found)| (&*watched.instance, found))
    }
}

impl Watched {
    /// What to tell, and whether that is news.
    fn tell(&mut self, held: bool) -> (Health, bool) {
        let health = if held {
            Health::Unhealthy
        } else {
            self.tally.health()
        };
        let is_new = std::mem::replace(&mut self.told, health) != health;
        (health, is_new)
    }
}

fn pause(config: &Config, tally: &Tally, draw: u64) -> Duration {
    let base = if tally.is_doubtful() {
        config.edge.unwrap_or(config.interval / 5)
    } else if tally.health() == Health::Unhealthy {
        config.unhealthy.unwrap_or(config.interval)
    } else {
        config.interval
    };
    let share = base.saturating_mul(config.jitter_percent) / 100;
    let added = uniform(config.jitter, draw).saturating_add(uniform(share, draw.rotate_left(32)));
    // A pause of nothing would keep a processor busy.
    base.saturating_add(added).max(Duration::from_millis(1))
}

fn uniform(span: Duration, draw: u64) -> Duration {
    Backoff::fixed(span)
        .jitter(Jitter::Full)
        .delay(1, Duration::ZERO, draw)
}

#[cfg(test)]
mod tests;
