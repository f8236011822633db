//! The pure part about flapping: records by id, which outlive registrations.

use std::collections::{BTreeMap, BTreeSet};

use orchestra_core::{InstanceId, Monotonic};

use crate::damping::{Config, Damping};

/// How many ids are remembered: some 100 KiB.
const MAX_RECORDS: usize = 1_024;

/// Which ids are to be held back. Without a configuration it is none.
#[derive(Debug)]
pub(super) struct Flaps {
    config: Option<Config>,
    records: BTreeMap<InstanceId, Damping>,
    /// When each suppressed id is free again.
    releases: BTreeSet<(Monotonic, InstanceId)>,
}

impl Flaps {
    pub(super) fn new(config: Option<Config>) -> Self {
        Self {
            config,
            records: BTreeMap::new(),
            releases: BTreeSet::new(),
        }
    }

    /// Counts a flap; returns until when the id is held back, if it was not before.
    pub(super) fn count(&mut self, id: &InstanceId, now: Monotonic) -> Option<Monotonic> {
        let config = self.config?;
        if !self.records.contains_key(id) && self.records.len() >= MAX_RECORDS {
            self.make_room(&config, now);
        }
        let record = self.records.entry(id.clone()).or_default();
        let before = record.reuse_at();
        record.on_flap(&config, now);
        let after = record.reuse_at();
        let held = before.is_some_and(|at| self.releases.remove(&(at, id.clone())));
        let until = after?;
        self.releases.insert((until, id.clone()));
        (!held).then_some(until)
    }

    /// Whether the id is held back; it is until [`release`](Self::release) returned it.
    pub(super) fn holds(&self, id: &InstanceId) -> bool {
        let until = self.records.get(id).and_then(Damping::reuse_at);
        until.is_some_and(|at| self.releases.contains(&(at, id.clone())))
    }

    pub(super) fn next_release(&self) -> Option<Monotonic> {
        self.releases.first().map(|(at, _)| *at)
    }

    /// Lets go of one that has been quiet for long enough.
    pub(super) fn release(&mut self, now: Monotonic) -> Option<InstanceId> {
        self.next_release().filter(|at| *at <= now)?;
        self.releases.pop_first().map(|(_, id)| id)
    }

    /// Drops what is forgotten, or else the record that says least.
    fn make_room(&mut self, config: &Config, now: Monotonic) {
        let releases = &self.releases;
        let held = |id: &InstanceId, record: &Damping| {
            let until = record.reuse_at();
            until.is_some_and(|at| releases.contains(&(at, id.clone())))
        };
        self.records
            .retain(|id, record| held(id, record) || !record.is_forgotten(config, now));
        if self.records.len() < MAX_RECORDS {
            return;
        }
        let least = self.records.iter().min_by(|(_, a), (_, b)| {
            let (a, b) = (a.penalty(config, now), b.penalty(config, now));
            a.total_cmp(&b)
        });
        if let Some((id, record)) = least.map(|(id, record)| (id.clone(), *record)) {
            self.records.remove(&id);
            if let Some(at) = record.reuse_at() {
                self.releases.remove(&(at, id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_secs(seconds)
    }

    fn id(name: &str) -> InstanceId {
        name.parse().unwrap()
    }

    #[test]
    fn one_that_flaps_thrice_is_held_until_it_was_quiet() {
        let mut flaps = Flaps::new(Some(Config::default()));
        let one = id("p-1");
        assert_eq!(flaps.count(&one, at(0)), None);
        assert_eq!(flaps.count(&one, at(0)), None);
        assert_eq!(flaps.count(&one, at(0)), Some(at(120)));
        assert!(flaps.holds(&one) && !flaps.holds(&id("p-2")));
        // One more moves the release, and is not a second suppression.
        assert_eq!(flaps.count(&one, at(60)), None);
        assert_eq!(flaps.release(at(120)), None);
        let release = flaps.next_release().unwrap();
        assert!(release > at(120) && flaps.holds(&one));
        assert_eq!(flaps.release(release), Some(one.clone()));
        assert!(!flaps.holds(&one) && flaps.next_release().is_none());
    }

    #[test]
    fn records_are_bounded_and_the_worst_are_kept() {
        let mut flaps = Flaps::new(Some(Config::default()));
        let worst = id("worst");
        for _ in 0..3 {
            flaps.count(&worst, at(0));
        }
        for n in 0..3 * MAX_RECORDS {
            flaps.count(&id(&format!("p-{n}")), at(1));
        }
        assert_eq!(flaps.records.len(), MAX_RECORDS);
        assert!(flaps.holds(&worst));
        // Long after, nothing is left of them but the one that is not yet let go.
        flaps.count(&id("later"), at(1_000));
        assert_eq!(flaps.records.len(), 2);
    }

    #[test]
    fn without_a_configuration_nobody_is_held() {
        let mut flaps = Flaps::new(None);
        (0..9).for_each(|_| assert_eq!(flaps.count(&id("p-1"), at(0)), None));
        assert!(!flaps.holds(&id("p-1")) && flaps.records.is_empty());
    }
}
