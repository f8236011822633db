//! The pure part: who is probed when, and what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, InstanceId, Jitter, Monotonic};

use super::{Health, Tally, Thresholds, Verdict};
use crate::instance::{Incarnation, Instance};

#[derive(Debug)]
struct Watched {
    instance: Arc<Instance>,
    tally: Tally,
    due: Monotonic,
}

#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    timeout: Duration,
    thresholds: Thresholds,
    watched: BTreeMap<InstanceId, Watched>,
}

impl Schedule {
    pub(super) fn new(interval: Duration, timeout: Duration, thresholds: Thresholds) -> Self {
        Self {
            interval,
            timeout,
            thresholds,
            watched: BTreeMap::new(),
        }
    }

    /// Takes these as the instances to watch; a new one is due within a tenth of the interval.
    pub(super) fn sync(
        &mut self,
        members: Vec<Arc<Instance>>,
        now: Monotonic,
        mut draw: impl FnMut() -> u64,
    ) {
        let mut before = std::mem::take(&mut self.watched);
        for instance in members {
            let known = before
                .remove(&instance.id)
                .filter(|known| known.instance.incarnation == instance.incarnation);
            let watched = match known {
                Some(known) => Watched {
                    instance: Arc::clone(&instance),
                    ..known
                },
                None => Watched {
                    instance: Arc::clone(&instance),
                    tally: Tally::default(),
                    due: now + jitter(self.interval / 10, draw()),
                },
            };
            self.watched.insert(instance.id.clone(), watched);
        }
    }

    pub(super) fn next_due(&self) -> Option<Monotonic> {
        self.watched.values().map(|watched| watched.due).min()
    }

    /// One that is due. It is due again after its probe must have ended, should its verdict get lost.
    pub(super) fn take_due(&mut self, now: Monotonic) -> Option<Arc<Instance>> {
        // The longest due goes first: with too few probes at a time nobody is left out for ever.
        let due = self.watched.values_mut().filter(|it| it.due <= now);
        let watched = due.min_by_key(|it| it.due)?;
        watched.due = now + self.timeout + self.interval;
        Some(Arc::clone(&watched.instance))
    }

    /// Takes a verdict; returns the new health if it changed.
    pub(super) fn observe(
        &mut self,
        id: &InstanceId,
        incarnation: Incarnation,
        verdict: &Verdict,
        now: Monotonic,
        draw: u64,
    ) -> Option<Health> {
        let watched = self.watched.get_mut(id)?;
        if watched.instance.incarnation != incarnation {
            return None;
        }
        let earlier = jitter(self.interval / 10, draw);
        watched.due = now + self.interval.saturating_sub(earlier);
        watched.tally.observe(self.thresholds, verdict)
    }
}

fn jitter(span: Duration, draw: u64) -> Duration {
    Backoff::fixed(span)
        .jitter(Jitter::Full)
        .delay(1, Duration::ZERO, draw)
}
