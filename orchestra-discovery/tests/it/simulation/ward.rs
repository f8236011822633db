//! How well the servers are, what probes found of them, and the gates before them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use orchestra_core::{Clock, InstanceId, Monotonic, Outcome, TokioClock};
use orchestra_discovery::{Gate, GateToken, Gates, Incarnation, Instance, Probe, Refusal, Verdict};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::millis;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Condition {
    #[default]
    Well,
    Limping,
    Failing,
    /// Passes its checks and fails its calls.
    Treacherous,
    Critical,
    Hanging,
}

/// What the verdicts on one incarnation amount to: two passes up, three failures down, the first at once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    pub(super) serves: Option<bool>,
    contrary: u32,
}

impl Record {
    fn note(&mut self, serves: bool, at_once: bool) {
        if self.serves == Some(serves) {
            self.contrary = 0;
            return;
        }
        self.contrary += 1;
        let needed = if serves { 2 } else { 3 };
        if at_once || self.serves.is_none() || self.contrary >= needed {
            *self = Self {
                serves: Some(serves),
                contrary: 0,
            };
        }
    }
}

type Key = (InstanceId, Incarnation);

#[derive(Debug, Default)]
struct Beds {
    /// By endpoint; who is not here is not running.
    conditions: BTreeMap<String, Condition>,
    records: BTreeMap<Key, Record>,
}

/// The probe, and what it has seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Ward(Arc<Mutex<Beds>>);

fn key(instance: &Instance) -> Key {
    (instance.id.clone(), instance.incarnation)
}

impl Ward {
    pub(super) fn set(&self, endpoint: &str, condition: Option<Condition>) {
        let conditions = &mut self.0.lock().conditions;
        match condition {
            Some(condition) => conditions.insert(endpoint.to_owned(), condition),
            None => conditions.remove(endpoint),
        };
    }

    /// `None` if nothing runs there.
    pub(super) fn condition(&self, instance: &Instance) -> Option<Condition> {
        let endpoint = instance.endpoint.to_string();
        self.0.lock().conditions.get(&endpoint).copied()
    }

    pub(super) fn record(&self, instance: &Instance) -> Record {
        let found = self.0.lock().records.get(&key(instance)).copied();
        found.unwrap_or_default()
    }

    pub(super) fn records(&self) -> usize {
        self.0.lock().records.len()
    }
}

/// Notes a failure if the probe is given up.
struct Late<'a>(&'a Ward, Option<Key>);

impl Drop for Late<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.1.take() {
            self.0
                .0
                .lock()
                .records
                .entry(key)
                .or_default()
                .note(false, false);
        }
    }
}

#[async_trait]
impl Probe for Ward {
    async fn probe(&self, instance: &Instance) -> Verdict {
        let condition = self.condition(instance);
        let mut late = Late(self, Some(key(instance)));
        if condition == Some(Condition::Hanging) {
            std::future::pending::<()>().await;
        }
        sleep(millis(3)).await;
        let key = late.1.take().unwrap();
        let (verdict, serves, at_once) = match condition {
            Some(Condition::Well | Condition::Treacherous) => (Verdict::Pass, true, false),
            Some(Condition::Limping) => (Verdict::Degraded("limps".into()), true, false),
            Some(Condition::Critical) => (Verdict::Critical("stopped".into()), false, true),
            _ => (Verdict::Fail("refused".into()), false, false),
        };
        let mut beds = self.0.lock();
        beds.records.entry(key).or_default().note(serves, at_once);
        verdict
    }

    fn forget(&self, instance: &Instance) {
        self.0.lock().records.remove(&key(instance));
    }
}

#[derive(Debug, Default)]
struct House {
    /// Counts gates, that is lives of members.
    lives: u64,
    latest: BTreeMap<InstanceId, u64>,
    born: BTreeMap<u64, Monotonic>,
    open: BTreeMap<u64, BTreeSet<u64>>,
    shut: BTreeSet<InstanceId>,
    tokens: u64,
    faults: Vec<String>,
}

/// Gates that count what passes.
#[derive(Debug, Clone)]
pub(super) struct Gatehouse(Arc<Mutex<House>>, TokioClock);

impl Gatehouse {
    pub(super) fn new(clock: TokioClock) -> Self {
        Self(Arc::default(), clock)
    }

    /// Since when the present life of a member lasts.
    pub(super) fn born(&self, id: &InstanceId) -> Monotonic {
        let house = self.0.lock();
        let born = house.latest.get(id).and_then(|life| house.born.get(life));
        born.copied().unwrap_or_default()
    }

    /// The present life of a member.
    pub(super) fn life(&self, id: &InstanceId) -> u64 {
        self.0.lock().latest.get(id).copied().unwrap_or(0)
    }

    pub(super) fn shut(&self, id: &InstanceId, shut: bool) {
        let ids = &mut self.0.lock().shut;
        if shut {
            ids.insert(id.clone());
        } else {
            ids.remove(id);
        }
    }

    pub(super) fn is_shut(&self, id: &InstanceId) -> bool {
        self.0.lock().shut.contains(id)
    }

    pub(super) fn open_all(&self) {
        self.0.lock().shut.clear();
    }

    /// The calls that one life's gate has let in and not out again.
    pub(super) fn inside(&self, life: u64) -> usize {
        self.0.lock().open.get(&life).map_or(0, BTreeSet::len)
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.0.lock().faults.clone()
    }
}

impl Gates for Gatehouse {
    fn bind(&self, instance: &Instance) -> Arc<dyn Gate> {
        let mut house = self.0.lock();
        house.lives += 1;
        let (id, life) = (instance.id.clone(), house.lives);
        house.born.insert(life, self.1.now());
        if let Some(former) = house.latest.insert(id.clone(), life) {
            house.open.remove(&former);
            house.born.remove(&former);
        }
        let house = self.clone();
        Arc::new(Door { id, life, house })
    }
}

#[derive(Debug)]
struct Door {
    id: InstanceId,
    life: u64,
    house: Gatehouse,
}

impl Gate for Door {
    fn try_admit(&self, _: Monotonic) -> Result<GateToken, Refusal> {
        let mut house = self.house.0.lock();
        if house.shut.contains(&self.id) {
            return Err(Refusal::new("shut", None));
        }
        house.tokens += 1;
        let token = house.tokens;
        house.open.entry(self.life).or_default().insert(token);
        Ok(GateToken::new(token))
    }

    fn settle(&self, token: GateToken, _: Outcome, _: Monotonic) {
        let mut house = self.house.0.lock();
        let inside = house.open.entry(self.life).or_default();
        if !inside.remove(&token.as_u64()) {
            let fault = format!(
                "{token:?} of life {} of {} is settled twice",
                self.life, self.id
            );
            house.faults.push(fault);
        }
    }
}
