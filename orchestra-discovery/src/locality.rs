//! Which locality a call goes to: zone-aware routing, and weights of localities.
//!
//! [`ZonePlan`] keeps calls in the caller's zone as far as that overloads nobody, without being told
//! anything but where the callers and the called are. [`LocalityWeights`] follows weights that somebody
//! else decided on. Use one or the other, after the priority level has been chosen
//! ([`PriorityLoad`](crate::priority::PriorityLoad)) and only for level 0; both hold whatever the number of
//! instances per zone is.

mod weighted;

pub use weighted::{LocalityWeights, WeightedLocality};

use std::num::NonZeroU32;

/// Shares are counted in hundredths of a percent.
const WHOLE: u64 = 10_000;

/// How many live in one zone.
///
/// ```
/// use orchestra_discovery::locality::{Route, Zone, ZoneConfig, ZonePlan};
///
/// let zone = Zone { upstream: 5, local: 2 };
/// let plan = ZonePlan::new(&ZoneConfig::default(), &[zone, zone]);
/// assert_eq!(*plan.route(), Route::Direct);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Zone {
    /// Healthy instances of the called service.
    pub upstream: u32,
    /// Healthy instances of the caller's own service.
    pub local: u32,
}

/// When to route by zone.
///
/// ```
/// use std::num::NonZeroU32;
/// use orchestra_discovery::locality::ZoneConfig;
///
/// let mut config = ZoneConfig::default();
/// assert_eq!((config.routing_enabled, config.min_cluster_size), (100, 6));
/// config.force_local_zone = NonZeroU32::new(3);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZoneConfig {
    /// The percentage of calls that are routed by zone; above 100 counts as 100.
    pub routing_enabled: u32,
    /// With fewer healthy instances than this in all zones together, calls are not routed by zone.
    pub min_cluster_size: u32,
    /// Keep all calls in the caller's zone while at least so many healthy instances are there, even if that
    /// loads them more than those elsewhere; `None` balances.
    pub force_local_zone: Option<NonZeroU32>,
}

impl Default for ZoneConfig {
    /// All calls, six instances, balanced.
    fn default() -> Self {
        Self {
            routing_enabled: 100,
            min_cluster_size: 6,
            force_local_zone: None,
        }
    }
}

/// Why calls are not routed by zone.
///
/// ```
/// use orchestra_discovery::locality::{Off, Route, Zone, ZoneConfig, ZonePlan};
///
/// let zone = Zone { upstream: 2, local: 1 };
/// let plan = ZonePlan::new(&ZoneConfig::default(), &[zone, zone]);
/// assert_eq!(*plan.route(), Route::Off(Off::SmallCluster));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Off {
    /// Healthy instances live in fewer than two zones.
    FewUpstreamZones,
    /// The callers live in fewer than two zones.
    FewLocalZones,
    /// No caller is known in the caller's own zone: whoever counted them is wrong.
    NotInOwnZone,
    /// There are fewer healthy instances than the least number.
    SmallCluster,
    /// The callers or the called are in panic: the counts mean nothing.
    Panic,
}

/// Calls that stay, and those that have to go elsewhere.
///
/// ```
/// use orchestra_discovery::locality::{Route, Zone, ZoneConfig, ZonePlan};
///
/// // A quarter of the instances for half of the callers: half of the calls stay.
/// let zones = [Zone { upstream: 2, local: 1 }, Zone { upstream: 6, local: 1 }];
/// let plan = ZonePlan::new(&ZoneConfig::default(), &zones);
/// let Route::Residual(residual) = plan.route() else { return Err("not balanced") };
/// assert_eq!(residual.local(), 5_000);
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residual {
    local: u64,
    cumulative: Box<[u64]>,
}

impl Residual {
    /// How many of ten thousand calls stay in the caller's zone.
    pub fn local(&self) -> u64 {
        self.local
    }

    /// For each zone the capacity that is left there and in those before it.
    ///
    /// It is in ten-thousandths of all capacity, except where rounding leaves none: then each zone with
    /// instances counts one.
    pub fn cumulative(&self) -> &[u64] {
        &self.cumulative
    }
}

/// How calls of one zone are routed.
///
/// ```
/// use orchestra_discovery::locality::{Off, Route, Zone, ZoneConfig, ZonePlan};
///
/// let plan = ZonePlan::new(&ZoneConfig::default(), &[Zone { upstream: 9, local: 3 }]);
/// match plan.route() {
///     Route::Off(reason) => assert_eq!(*reason, Off::FewUpstreamZones),
///     route => return Err(format!("{route:?}")),
/// }
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// Over all zones alike.
    Off(Off),
    /// To the caller's own zone.
    Direct,
    /// Some to the own zone, the others where capacity is left.
    Residual(Residual),
}

/// Zone-aware routing by residual capacity, as Envoy does it; made anew when a count changes.
///
/// With `l` the zone's share of the callers and `u` its share of the healthy instances, both in
/// ten-thousandths rounded down: a caller whose own zone has `u >= l` keeps its calls there. Otherwise it
/// keeps `u / l` of them and sends the rest to the other zones in proportion to `max(0, u - l)`. So if every
/// caller does the same, every instance gets the same load. (`ZoneAwareLoadBalancerBase` in Envoy's
/// `load_balancer_impl.cc`; unlike there, a zone without instances is never chosen when rounding leaves no
/// capacity.)
///
/// ```
/// use orchestra_discovery::locality::{Route, Zone, ZoneConfig, ZonePlan};
///
/// // The caller's zone has 40 % of the callers and 25 % of the instances.
/// let zone = |upstream, local| Zone { upstream, local };
/// let plan = ZonePlan::new(&ZoneConfig::default(), &[zone(25, 40), zone(50, 40), zone(25, 20)]);
///
/// let Route::Residual(residual) = plan.route() else { return Err("not balanced") };
/// assert_eq!(residual.local(), 6_250);
/// assert_eq!(residual.cumulative(), [0, 1_000, 1_500]);
/// assert_eq!(plan.choose([0, 6_249, 0]), Some(0));
/// assert_eq!(plan.choose([0, 6_250, 999]), Some(1));
/// assert_eq!(plan.choose([0, 6_250, 1_000]), Some(2));
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZonePlan {
    routing_enabled: u64,
    route: Route,
}

impl ZonePlan {
    /// The plan of a caller in the first of these zones.
    ///
    /// Every zone is listed that has callers or instances; linear in their number.
    pub fn new(config: &ZoneConfig, zones: &[Zone]) -> Self {
        Self {
            routing_enabled: u64::from(config.routing_enabled),
            route: route(config, zones),
        }
    }

    /// A plan that does not route by zone.
    pub const fn off(reason: Off) -> Self {
        Self {
            routing_enabled: 0,
            route: Route::Off(reason),
        }
    }

    /// How calls are routed.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The index of the zone a call goes to; `None` means any zone.
    ///
    /// The draws are uniform and independent, for three questions: whether to route by zone, whether to stay,
    /// and where else to go. No allocation; logarithmic in the zones.
    pub fn choose(&self, [enabled, stay, elsewhere]: [u64; 3]) -> Option<usize> {
        if matches!(self.route, Route::Off(_)) || enabled % 100 >= self.routing_enabled {
            return None;
        }
        let Route::Residual(residual) = &self.route else {
            return Some(0);
        };
        if stay % WHOLE < residual.local {
            return Some(0);
        }
        let left = *residual.cumulative.last()?;
        let target = elsewhere.checked_rem(left)?;
        Some(residual.cumulative.partition_point(|&upto| upto <= target))
    }
}

fn route(config: &ZoneConfig, zones: &[Zone]) -> Route {
    if let Some(reason) = reason_for_off(config, zones) {
        return Route::Off(reason);
    }
    let own = zones.first().copied().unwrap_or_default();
    let shares = Shares::new(zones);
    let (upstream, local) = shares.of(own);
    let forced = forces(config, own);
    if forced || (upstream > 0 && upstream >= local) {
        return Route::Direct;
    }
    let mut cumulative = accumulate(zones, |zone| {
        let (upstream, local) = shares.of(zone);
        upstream.saturating_sub(local)
    });
    // Rounding can leave no capacity anywhere.
    if cumulative.last() == Some(&0) {
        cumulative = accumulate(zones, |zone| u64::from(zone.upstream > 0));
    }
    Route::Residual(Residual {
        local: (upstream * WHOLE).checked_div(local).unwrap_or(0),
        cumulative,
    })
}

fn reason_for_off(config: &ZoneConfig, zones: &[Zone]) -> Option<Off> {
    let own = zones.first().copied().unwrap_or_default();
    let inhabited = |count: fn(&Zone) -> u32| zones.iter().filter(|zone| count(zone) > 0).count();
    let healthy: u64 = zones.iter().map(|zone| u64::from(zone.upstream)).sum();
    if inhabited(|zone| zone.upstream) < 2 {
        Some(Off::FewUpstreamZones)
    } else if own.local == 0 {
        Some(Off::NotInOwnZone)
    } else if inhabited(|zone| zone.local) < 2 && !forces(config, own) {
        Some(Off::FewLocalZones)
    } else if healthy < u64::from(config.min_cluster_size) {
        Some(Off::SmallCluster)
    } else {
        None
    }
}

fn forces(config: &ZoneConfig, own: Zone) -> bool {
    let enough = |least: NonZeroU32| own.upstream >= least.get();
    config.force_local_zone.is_some_and(enough)
}

fn accumulate(zones: &[Zone], left: impl Fn(Zone) -> u64) -> Box<[u64]> {
    let mut upto = 0;
    let sums = zones.iter().map(|&zone| {
        upto += left(zone);
        upto
    });
    sums.collect()
}

struct Shares {
    upstream: u64,
    local: u64,
}

impl Shares {
    fn new(zones: &[Zone]) -> Self {
        Self {
            upstream: zones.iter().map(|zone| u64::from(zone.upstream)).sum(),
            local: zones.iter().map(|zone| u64::from(zone.local)).sum(),
        }
    }

    fn of(&self, zone: Zone) -> (u64, u64) {
        let share = |part: u32, whole| (WHOLE * u64::from(part)).checked_div(whole).unwrap_or(0);
        (
            share(zone.upstream, self.upstream),
            share(zone.local, self.local),
        )
    }
}

#[cfg(test)]
mod tests;
