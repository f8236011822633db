use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Endpoint, InstanceId, Monotonic, ServiceName};

use super::freshness::{Freshness, Limits, Origin};
use crate::error::ErrorKind;
use crate::instance::Instance;
use crate::merge::canonical;
use crate::preserve::{self, Preservation};
use crate::source::Snapshot;

/// The lapses of all services of one source.
pub(super) type Wide = Preservation<(ServiceName, InstanceId)>;

/// How a source failed last.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) count: u32,
}

/// What one source says of one service, and what is still believed although it says so no longer.
#[derive(Debug)]
pub(super) struct View {
    leases: bool,
    listed: BTreeMap<InstanceId, Arc<Instance>>,
    /// Lapsed lately: held, or restored if many follow.
    lapsed: BTreeMap<InstanceId, Arc<Instance>>,
    /// Listed here, but given back in another source that holds leases, and until when that counts.
    muted: BTreeMap<InstanceId, Monotonic>,
    pub(super) preservation: Preservation<InstanceId>,
    origin: Option<Origin>,
    good_at: Monotonic,
    /// What the source said that is not believed at once, and when it first did.
    doubt: Option<(Doubt, Monotonic)>,
    pub(super) failure: Option<Failure>,
    /// Whether the source has answered or failed yet.
    pub(super) settled: bool,
    /// Whether it was servable when that was looked at last.
    pub(super) was_servable: bool,
}

/// Why an answer is not believed at once: another of the same kind confirms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    Empty,
    Older,
}

/// What came of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Believed,
    /// To be asked again after this long.
    Doubted(Duration),
}

impl View {
    pub(super) fn new(leases: bool, config: preserve::Config) -> Self {
        Self {
            leases,
            listed: BTreeMap::new(),
            lapsed: BTreeMap::new(),
            muted: BTreeMap::new(),
            preservation: Preservation::new(config),
            origin: None,
            good_at: Monotonic::ZERO,
            doubt: None,
            failure: None,
            settled: false,
            was_servable: false,
        }
    }

    #[cfg(feature = "serde")]
    pub(super) fn seed(&mut self, instances: impl Iterator<Item = Arc<Instance>>, now: Monotonic) {
        let keyed = instances.map(|instance| (instance.id.clone(), instance));
        self.listed = keyed.collect();
        self.origin = Some(Origin::Disk);
        self.good_at = now;
    }

    /// Whether the source may be believed that there are none where there were, or what is older than it told
    /// before.
    pub(super) fn weigh(
        &mut self,
        empty: bool,
        older: bool,
        grace: Duration,
        now: Monotonic,
    ) -> Verdict {
        self.settled = true;
        let doubt = match (empty && !self.listed.is_empty(), older) {
            (true, _) => Doubt::Empty,
            (false, true) => Doubt::Older,
            (false, false) => {
                self.doubt = None;
                return Verdict::Believed;
            }
        };
        let same = self.doubt.filter(|(before, _)| *before == doubt);
        let (_, since) = *self.doubt.insert(same.unwrap_or((doubt, now)));
        let left = (since + grace).since(now);
        if left.is_zero() && since != now {
            self.doubt = None;
            return Verdict::Believed;
        }
        self.lose(now);
        Verdict::Doubted(left)
    }

    pub(super) fn is_doubted_since(&self, now: Monotonic) -> bool {
        self.doubt.is_some_and(|(_, since)| since == now)
    }

    /// The source lists exactly these. Whoever is missing lapsed, as far as one can know.
    pub(super) fn replace(&mut self, snapshot: &Snapshot, wide: &mut Wide, now: Monotonic) {
        let mut missing = std::mem::take(&mut self.listed);
        for instance in snapshot.instances() {
            let known = missing.remove(&instance.id);
            let anew = known.is_none_or(|known| known.incarnation != instance.incarnation);
            self.list(instance, anew, wide);
        }
        for (_, instance) in missing {
            self.lapse(instance, wide, now);
        }
        self.preservation.confirm(now);
        self.origin = Some(Origin::Polled);
        self.good_at = now;
    }

    /// The source lists it; an older incarnation than the known one is stale.
    pub(super) fn upsert(&mut self, instance: &Arc<Instance>, wide: &mut Wide) {
        let known = self.listed.get(&instance.id).map(|known| known.incarnation);
        if known.is_none_or(|known| known <= instance.incarnation) {
            self.list(instance, known != Some(instance.incarnation), wide);
        }
    }

    fn list(&mut self, instance: &Arc<Instance>, anew: bool, wide: &mut Wide) {
        if anew {
            self.settle(instance, wide);
        }
        self.listed
            .insert(instance.id.clone(), Arc::clone(instance));
    }

    /// Nothing is held of it any longer.
    fn settle(&mut self, instance: &Instance, wide: &mut Wide) {
        self.muted.remove(&instance.id);
        self.lapsed.remove(&instance.id);
        self.preservation.settle(&instance.id);
        wide.settle(&(instance.service.clone(), instance.id.clone()));
    }

    /// Takes it out of the list, unless a newer incarnation is there.
    pub(super) fn take(&mut self, id: &InstanceId, upto: u64) -> Option<Arc<Instance>> {
        let known = self.listed.get(id).or_else(|| self.lapsed.get(id))?;
        if known.incarnation.as_u64() > upto {
            return None;
        }
        self.listed.remove(id).or_else(|| self.lapsed.remove(id))
    }

    pub(super) fn lapse(&mut self, instance: Arc<Instance>, wide: &mut Wide, now: Monotonic) {
        self.muted.remove(&instance.id);
        if self.leases {
            self.preservation.lapse(instance.id.clone(), now);
            wide.lapse((instance.service.clone(), instance.id.clone()), now);
            self.lapsed.insert(instance.id.clone(), instance);
        }
    }

    /// It was given back: it is never listed because of what was known of it.
    pub(super) fn give_up(&mut self, instance: &Instance, wide: &mut Wide) {
        self.settle(instance, wide);
    }

    /// Another source had it, by id or endpoint, and it was given back there.
    pub(super) fn mute(&mut self, gone: &Instance, wide: &mut Wide, until: Monotonic) {
        let endpoint = canonical(&gone.endpoint);
        let same = same_as(&gone.id, &endpoint);
        let listed = self.listed.values().filter(|held| same(held));
        let muted: Vec<_> = listed.map(|held| (held.id.clone(), until)).collect();
        self.muted.extend(muted);
        let lapsed: Vec<_> = self
            .lapsed
            .values()
            .filter(|held| same(held))
            .cloned()
            .collect();
        for instance in lapsed {
            self.settle(&instance, wide);
        }
    }

    /// Another source that holds leases lists it anew.
    pub(super) fn unmute(&mut self, back: &Instance) {
        if self.muted.is_empty() {
            return;
        }
        let endpoint = canonical(&back.endpoint);
        let same = same_as(&back.id, &endpoint);
        let listed = &self.listed;
        self.muted
            .retain(|id, _| !listed.get(id).is_some_and(&same));
    }

    pub(super) fn is_muting(&self) -> bool {
        !self.muted.is_empty()
    }

    /// Drops mutes that are over, and says whether there were any.
    pub(super) fn unmute_due(&mut self, now: Monotonic) -> bool {
        let before = self.muted.len();
        self.muted.retain(|_, until| *until > now);
        before != self.muted.len()
    }

    /// Drops the lapsed that neither the service nor the source remembers.
    pub(super) fn forget(&mut self, service: &ServiceName, wide: &Wide) {
        let own = &self.preservation;
        self.lapsed
            .retain(|id, _| own.remembers(id) || wide.remembers(&(service.clone(), id.clone())));
    }

    /// Forgets everything, as if the source had never been asked.
    pub(super) fn reset(&mut self, config: preserve::Config, wide: &mut Wide) {
        for instance in std::mem::take(&mut self.lapsed).into_values() {
            self.settle(&instance, wide);
        }
        *self = Self::new(self.leases, config);
    }

    pub(super) fn watching(&mut self) {
        self.origin = Some(Origin::Watched);
    }

    /// The source failed; what it said before that is confirmed by nothing that it says after.
    pub(super) fn fail(&mut self, now: Monotonic) {
        self.doubt = None;
        self.lose(now);
    }

    fn lose(&mut self, now: Monotonic) {
        self.settled = true;
        match self.origin {
            Some(Origin::Watched) => {
                self.good_at = now;
                self.origin = Some(Origin::Lost);
            }
            Some(Origin::Polled) => self.origin = Some(Origin::Lost),
            Some(Origin::Lost | Origin::Disk) | None => {}
        }
    }

    pub(super) fn age(&self, now: Monotonic) -> Duration {
        match self.origin {
            Some(Origin::Watched) | None => Duration::ZERO,
            Some(_) => now.since(self.good_at),
        }
    }

    /// How far it can be trusted; `None` if the source has never answered.
    pub(super) fn freshness(&self, limits: &Limits, now: Monotonic) -> Option<Freshness> {
        self.origin
            .map(|origin| limits.judge(origin, self.age(now)))
    }

    pub(super) fn is_servable(&self, limits: &Limits, now: Monotonic) -> bool {
        let freshness = self.freshness(limits, now);
        freshness.is_some_and(|freshness| freshness < Freshness::Expired)
    }

    pub(super) fn live(&self) -> usize {
        self.listed.len()
    }

    /// How many are served; mostly without a look at each.
    pub(super) fn serves(&self, wide: &Wide) -> usize {
        if self.muted.is_empty() && self.lapsed.is_empty() {
            return self.listed.len();
        }
        self.served(wide).count()
    }

    pub(super) fn serves_any(&self, wide: &Wide) -> bool {
        self.served(wide).next().is_some()
    }

    /// Those that are listed and not muted, and those that are held.
    pub(super) fn served<'a>(
        &'a self,
        wide: &'a Wide,
    ) -> impl Iterator<Item = &'a Arc<Instance>> + 'a {
        let listed = self.listed.values();
        let listed = listed.filter(|instance| !self.muted.contains_key(&instance.id));
        let held = self.lapsed.values().filter(|instance| {
            self.preservation.holds(&instance.id)
                || wide.is_holding() && wide.holds(&(instance.service.clone(), instance.id.clone()))
        });
        listed.chain(held)
    }
}

fn same_as<'a>(id: &'a InstanceId, endpoint: &'a Endpoint) -> impl Fn(&Arc<Instance>) -> bool + 'a {
    move |held| held.id == *id || canonical(&held.endpoint) == *endpoint
}
