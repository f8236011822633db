//! Which members a call may go to: tiers by priority and health, zones, and pools that a balancer chooses in.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use orchestra_core::Labels;

use crate::balance::{Balancer, Familiar, PoolMembers, Prepared};
use crate::locality::{LocalityWeights, ZonePlan};
use crate::priority::{self, Availability, Counts, OnPanic, PriorityLoad};
use crate::subset::{Match, SubsetConfig, SubsetPlan};
use crate::weights::Weights;

use super::view::{Members, Trial, Trials};
use super::zoning::Zones;

/// How fit a member that takes calls is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fitness {
    Healthy,
    Degraded,
    /// Only in panic.
    Unfit,
}

/// A member that takes calls, as the writer sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Eligible {
    pub(crate) slot: u32,
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    pub(crate) zone: u32,
    pub(crate) fitness: Fitness,
}

/// Those among whom a balancer chooses.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) slots: Box<[u32]>,
    pub(crate) weights: Weights,
    pub(crate) prepared: Option<Prepared>,
    pub(crate) familiar: Familiar,
}

/// A pool for each zone, and how calls are divided among them.
#[derive(Debug, Default)]
struct Area {
    pools: Vec<Pool>,
    division: Division,
}

#[derive(Debug, Default)]
pub(crate) enum Division {
    /// There is one pool at most.
    #[default]
    One,
    Zones(ZonePlan),
    Weights(LocalityWeights),
}

/// The members of one priority.
#[derive(Debug, Default)]
struct Tier {
    healthy: Area,
    degraded: Area,
    /// All that take calls, fit or not; filled in panic.
    all: Area,
}

/// All pools of a set of members.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    tiers: Vec<Tier>,
    load: Option<PriorityLoad>,
    /// All calls go to the one pool of the first tier's healthy ones.
    is_simple: bool,
    pub(crate) trials: Trials,
}

/// What plans are made with.
pub(crate) struct Planner<'a> {
    pub(crate) balancer: &'a dyn Balancer,
    pub(crate) members: &'a Members,
    pub(crate) priorities: &'a priority::Config,
    pub(crate) zones: Option<Zones<'a>>,
    /// By slot.
    pub(crate) trials: &'a BTreeMap<u32, Arc<Trial>>,
    /// What balancers prepared for the pools of the view before.
    pub(crate) before: &'a mut BTreeMap<PoolKey, Prepared>,
    pub(crate) after: BTreeMap<PoolKey, Prepared>,
}

/// Subset by its name (0 for all), priority, fitness (unfit for all), zone.
pub(crate) type PoolKey = (u64, u32, Fitness, u32);

#[derive(Debug, Default)]
struct Sorted<'a> {
    healthy: Cow<'a, [Eligible]>,
    degraded: Vec<Eligible>,
    all: Cow<'a, [Eligible]>,
}

impl Planner<'_> {
    /// The plan for these members, in the order of their ids.
    pub(crate) fn plan(&mut self, subset: u64, eligible: &[Eligible]) -> Plan {
        let tiers = tiers(eligible);
        let levels: Vec<_> = tiers.values().map(|tier| level(tier).into()).collect();
        let load = PriorityLoad::new(self.priorities, &levels);
        let tier = |(index, (&priority, sorted)): (usize, (&u32, &Sorted<'_>))| {
            let in_panic = load.shares().get(index).is_some_and(|share| share.panic);
            let spreads = in_panic && self.priorities.on_panic == OnPanic::AnyHost;
            let all: &[Eligible] = if spreads { &sorted.all } else { &[] };
            let key = |fitness| (subset, priority, fitness);
            // Calls stay near in the first tier alone; weights of zones hold wherever calls go by fitness.
            let weighted = !in_panic && self.zones.is_some_and(Zones::is_weighted);
            let zoned = weighted || (index == 0 && !in_panic);
            let (healthy, degraded) = (&sorted.healthy, &sorted.degraded);
            Tier {
                healthy: self.area(key(Fitness::Healthy), healthy, &sorted.all, zoned),
                degraded: self.area(key(Fitness::Degraded), degraded, &sorted.all, weighted),
                all: self.area(key(Fitness::Unfit), all, &[], false),
            }
        };
        let built: Vec<_> = tiers.iter().enumerate().map(tier).collect();
        Plan {
            is_simple: is_simple(&built, &load),
            tiers: built,
            trials: self.trials(&tiers, &load),
            load: Some(load),
        }
    }

    /// The trials of members in a tier that calls go to, or in one before it.
    fn trials(&self, tiers: &BTreeMap<u32, Sorted<'_>>, load: &PriorityLoad) -> Trials {
        if self.trials.is_empty() {
            return Trials::default();
        }
        let is_used = |share: &&priority::Share| share.healthy + share.degraded > 0;
        let unused = load
            .shares()
            .iter()
            .rev()
            .take_while(|share| !is_used(share))
            .count();
        let used = match tiers.len() - unused.min(tiers.len()) {
            0 => tiers.len(),
            used => used,
        };
        let members = tiers.values().take(used).flat_map(|tier| tier.all.iter());
        let trials = members.filter_map(|member| self.trials.get(&member.slot).map(Arc::clone));
        Trials::new(trials.collect())
    }

    /// The pools of these, out of `all` of their tier.
    fn area(
        &mut self,
        key: (u64, u32, Fitness),
        members: &[Eligible],
        all: &[Eligible],
        zoned: bool,
    ) -> Area {
        if members.is_empty() {
            return Area::default();
        }
        let zones = self.zones.filter(|_| zoned);
        let division = zones.map(|zones| zones.division(members, all));
        let Some(division) = division else {
            return Area {
                pools: vec![self.pool(key, 0, members)],
                division: Division::One,
            };
        };
        let mut by_zone = Vec::new();
        let is_open = |member: &&Eligible| zones.is_none_or(|zones| zones.is_open(member.zone));
        for member in members.iter().filter(is_open) {
            let zone = member.zone as usize;
            if by_zone.len() <= zone {
                by_zone.resize_with(zone + 1, Vec::new);
            }
            if let Some(zone) = by_zone.get_mut(zone) {
                zone.push(*member);
            }
        }
        let pool = |(zone, members): (u32, &Vec<Eligible>)| self.pool(key, zone, members);
        Area {
            pools: (0..).zip(&by_zone).map(pool).collect(),
            division,
        }
    }

    fn pool(
        &mut self,
        (subset, priority, fitness): (u64, u32, Fitness),
        zone: u32,
        members: &[Eligible],
    ) -> Pool {
        let mut pool = Pool {
            slots: members.iter().map(|member| member.slot).collect(),
            weights: Weights::new(members.iter().map(|member| member.weight)),
            prepared: None,
            familiar: Familiar::No,
        };
        let key = (subset, priority, fitness, zone);
        let before = self.before.remove(&key);
        pool.prepared = self
            .balancer
            .prepare(&PoolMembers::new(self.members, &pool), before);
        if let Some(prepared) = &pool.prepared {
            pool.familiar = Familiar::new(prepared);
            self.after.insert(key, Prepared::clone(prepared));
        }
        pool
    }

    pub(crate) fn subsets(&mut self, config: &SubsetConfig, eligible: &[Eligible]) -> Subsets {
        let none = Labels::new();
        let labels = eligible.iter().map(|member| {
            let found = self.members.member(member.slot);
            found.map_or(&none, |member| &member.instance.labels)
        });
        let index = SubsetPlan::new(config, labels);
        let mut plans = HashMap::new();
        for (name, positions) in index.all() {
            let members = positions.iter();
            let members = members.filter_map(|&position| eligible.get(position as usize).copied());
            let members: Vec<_> = members.collect();
            plans.insert(address(positions), self.plan(name, &members));
        }
        Subsets { index, plans }
    }
}

/// A plan for each subset of the members.
#[derive(Debug)]
pub(crate) struct Subsets {
    index: SubsetPlan,
    /// By the address of the subset's positions, which stay where they are as long as the index lives.
    plans: HashMap<usize, Plan>,
}

fn address(positions: &[u32]) -> usize {
    positions.as_ptr().addr()
}

impl Subsets {
    /// How many times a member found no room.
    pub(crate) fn unindexed(&self) -> u64 {
        self.index.unindexed()
    }

    /// The plan for calls that ask for these labels; `any` is that for those that ask for none.
    pub(crate) fn plan<'a>(&'a self, asked: &Labels, any: &'a Plan) -> Option<&'a Plan> {
        match self.index.find(asked) {
            Match::Subset(positions) | Match::Default(positions) => {
                self.plans.get(&address(positions))
            }
            Match::Any => Some(any),
            Match::Nobody => None,
        }
    }
}

impl Plan {
    /// The pool that a call goes to, and how fit its members are.
    #[inline]
    pub(crate) fn pool(&self, draw: u64) -> Option<&Pool> {
        if self.is_simple {
            return self.tiers.first()?.healthy.pools.first();
        }
        let (tier, availability) = self.load.as_ref()?.choose(mixed(draw, 1))?;
        let tier = self.tiers.get(tier)?;
        let area = match availability {
            Availability::Healthy => &tier.healthy,
            Availability::Degraded => &tier.degraded,
            Availability::Panic => &tier.all,
        };
        area.pool(draw)
    }

    /// All pools, the most preferred first, each member in one of them.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        let by_fitness = || self.tiers.iter().filter(|tier| tier.all.pools.is_empty());
        let healthy = by_fitness().flat_map(|tier| &tier.healthy.pools);
        let degraded = by_fitness().flat_map(|tier| &tier.degraded.pools);
        let all = self.tiers.iter().flat_map(|tier| &tier.all.pools);
        healthy.chain(degraded).chain(all)
    }

    /// Whether calls go to unfit members too, since too few are fit.
    pub(crate) fn is_in_panic(&self) -> bool {
        let load = self.load.as_ref();
        load.is_some_and(|load| load.shares().iter().any(|share| share.panic))
    }
}

impl Area {
    fn pool(&self, draw: u64) -> Option<&Pool> {
        let zone = match &self.division {
            Division::One => 0,
            Division::Zones(plan) => {
                let draws = [2, 3, 4].map(|number| mixed(draw, number));
                match plan.choose(draws) {
                    Some(zone) => zone,
                    None => return self.by_size(mixed(draw, 5)),
                }
            }
            Division::Weights(weights) => weights.choose(mixed(draw, 2))?,
        };
        let pool = self.pools.get(zone)?;
        if pool.slots.is_empty() {
            return self.by_size(mixed(draw, 5));
        }
        Some(pool)
    }

    /// Any pool, each in proportion to its members.
    fn by_size(&self, draw: u64) -> Option<&Pool> {
        let size = |pool: &Pool| pool.slots.len() as u64;
        let total: u64 = self.pools.iter().map(size).sum();
        let mut left = draw.checked_rem(total)?;
        self.pools.iter().find(|pool| {
            let found = left < size(pool);
            left = left.saturating_sub(size(pool));
            found
        })
    }
}

/// A further draw out of the first, independent of it to the eye.
pub(crate) fn mixed(draw: u64, number: u64) -> u64 {
    crate::balance::mix(draw ^ number.wrapping_mul(0xd605_1a6b_2d57_7f95))
}

/// The members by priority and fitness.
fn tiers(eligible: &[Eligible]) -> BTreeMap<u32, Sorted<'_>> {
    let Some(first) = eligible.first() else {
        return BTreeMap::new();
    };
    let is_plain =
        |member: &Eligible| member.priority == first.priority && member.fitness == Fitness::Healthy;
    if eligible.iter().all(is_plain) {
        // As mostly: nothing is to be sorted.
        let sorted = Sorted {
            healthy: Cow::Borrowed(eligible),
            degraded: Vec::new(),
            all: Cow::Borrowed(eligible),
        };
        return BTreeMap::from([(first.priority, sorted)]);
    }
    let mut tiers: BTreeMap<u32, Sorted<'_>> = BTreeMap::new();
    // Neighbours mostly have one priority.
    for same in eligible.chunk_by(|a, b| a.priority == b.priority) {
        let Some(first) = same.first() else { continue };
        let tier = tiers.entry(first.priority).or_default();
        for member in same {
            match member.fitness {
                Fitness::Healthy => tier.healthy.to_mut().push(*member),
                Fitness::Degraded => tier.degraded.push(*member),
                Fitness::Unfit => {}
            }
        }
        tier.all.to_mut().extend(same);
    }
    tiers
}

fn level(tier: &Sorted<'_>) -> Counts {
    Counts {
        healthy: tier.healthy.len() as u64,
        degraded: tier.degraded.len() as u64,
        total: tier.all.len() as u64,
        ..Counts::default()
    }
}

fn is_simple(tiers: &[Tier], load: &PriorityLoad) -> bool {
    let first = load.shares().first();
    first.is_some_and(|share| share.healthy == 100 && !share.panic)
        && tiers
            .first()
            .is_some_and(|tier| matches!(tier.healthy.division, Division::One))
}
