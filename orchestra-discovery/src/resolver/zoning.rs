//! Zones of a resolver: numbered as they appear, the caller's own first.

use std::collections::HashMap;

use orchestra_core::Locality;

use super::plan::{Division, Eligible};
use crate::locality::{LocalityWeights, WeightedLocality, Zone, ZoneConfig, ZonePlan};

/// How calls are divided among zones. A zone is a region and a zone of it; subzones do not count.
///
/// Instances say for themselves where they are, so a resolver tells at most 1,024 zones apart, those of its
/// configuration and then the ones that it heard of first; all others count as one zone.
///
/// ```
/// use std::sync::Arc;
/// use orchestra_core::{Locality, Monotonic};
/// use orchestra_discovery::resolver::{Config, Zoning};
/// use orchestra_discovery::{Incarnation, Instance, PickContext, Resolver, Revision, Scope, Snapshot};
///
/// let (near, far) = (Locality::new("eu").zone("a"), Locality::new("eu").zone("b"));
/// let zoning = Zoning::Weighted(vec![(near.clone(), 1), (far, 0)]);
/// let resolver = Resolver::new("payments".parse()?, Config::default().zoning(zoning));
/// let mut one = Instance::new(
///     "payments".parse()?, "payments-1".parse()?, Incarnation::new(1), "10.0.0.7:80".parse()?,
/// );
/// one.locality = near;
/// resolver.apply(&Snapshot::new(Scope::All, Revision::new(1), vec![Arc::new(one)]));
/// assert!(resolver.choose(&PickContext::new(Monotonic::ZERO, 42)).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Zoning {
    /// Near calls stay near as far as that overloads nobody: Envoy's zone-aware routing.
    ///
    /// It takes effect once the resolver is told where the callers are
    /// ([`Resolver::set_callers`](crate::Resolver::set_callers)).
    Aware {
        /// Where the caller is.
        own: Locality,
        /// When to do so.
        config: ZoneConfig,
    },
    /// In proportion to weights of zones, less what is not available of them, in every priority and among the
    /// degraded too; zones that are not listed have weight 1. A zone of weight 0 takes no calls, except in panic.
    Weighted(Vec<(Locality, u32)>),
}

/// So many zones have a number of their own.
const MOST: usize = 1_024;

/// Numbers zones, if anybody asks for them; what a writer keeps.
#[derive(Debug, Default)]
pub(crate) struct ZoneNumbers {
    is_used: bool,
    numbers: HashMap<Locality, u32>,
    callers: Vec<u32>,
}

impl ZoneNumbers {
    pub(crate) fn new(zoning: Option<&Zoning>) -> Self {
        let mut numbers = Self {
            is_used: zoning.is_some(),
            ..Self::default()
        };
        match zoning {
            Some(Zoning::Aware { own, .. }) => {
                numbers.number(own);
            }
            Some(Zoning::Weighted(weights)) => {
                for (place, _) in weights {
                    numbers.number(place);
                }
            }
            None => {}
        }
        numbers
    }

    /// The number of the zone of a place; all that come too late share the last one.
    pub(crate) fn number(&mut self, place: &Locality) -> u32 {
        if !self.is_used {
            return 0;
        }
        let zone = zone_of(place);
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        if self.numbers.len() < MOST {
            return *self.numbers.entry(zone).or_insert(next);
        }
        self.numbers.get(&zone).copied().unwrap_or(next)
    }

    /// Takes how many callers are where.
    pub(crate) fn set_callers<'a>(&mut self, places: impl IntoIterator<Item = &'a Locality>) {
        let mut callers = Vec::new();
        for place in places {
            let zone = self.number(place) as usize;
            if callers.len() <= zone {
                callers.resize(zone + 1, 0);
            }
            if let Some(count) = callers.get_mut(zone) {
                *count += 1;
            }
        }
        self.callers = callers;
    }
}

fn zone_of(place: &Locality) -> Locality {
    let [region, zone, _] = place.parts();
    let of_region = Locality::new(region.unwrap_or_default());
    match zone {
        Some(zone) => of_region.zone(zone),
        None => of_region,
    }
}

/// What a plan needs to know of zones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zones<'a> {
    pub(crate) zoning: &'a Zoning,
    pub(crate) numbers: &'a ZoneNumbers,
    pub(crate) overprovisioning: u32,
}

impl Zones<'_> {
    pub(crate) fn is_weighted(self) -> bool {
        matches!(self.zoning, Zoning::Weighted(_))
    }

    /// Whether a zone takes any calls: one of weight zero takes none, however few others there are.
    pub(crate) fn is_open(self, zone: u32) -> bool {
        let Zoning::Weighted(weights) = self.zoning else {
            return true;
        };
        let number = |place| self.numbers.numbers.get(&zone_of(place));
        let mut shut = weights.iter().filter(|(_, weight)| *weight == 0);
        !shut.any(|(place, _)| number(place) == Some(&zone))
    }

    /// How calls to `fit` members, out of `all`, are divided among the zones.
    pub(crate) fn division(self, fit: &[Eligible], all: &[Eligible]) -> Division {
        // Those that came too late have the number after the last.
        let zones = self.numbers.numbers.len() + 1;
        let count = |members: &[Eligible]| {
            let mut counts = vec![0_u32; zones];
            for member in members {
                if let Some(count) = counts.get_mut(member.zone as usize) {
                    *count += 1;
                }
            }
            counts
        };
        let (available, total) = (count(fit), count(all));
        match self.zoning {
            Zoning::Aware { config, .. } => {
                let caller = |zone: usize| self.numbers.callers.get(zone).copied();
                let zone = |(zone, &upstream): (usize, &u32)| Zone {
                    upstream,
                    local: caller(zone).unwrap_or(0),
                };
                let zones: Vec<_> = available.iter().enumerate().map(zone).collect();
                Division::Zones(ZonePlan::new(config, &zones))
            }
            Zoning::Weighted(weights) => {
                let mut localities: Vec<_> = available
                    .iter()
                    .zip(&total)
                    .map(|(&available, &total)| WeightedLocality {
                        weight: 1,
                        available,
                        total,
                    })
                    .collect();
                for (place, weight) in weights {
                    let number = self.numbers.numbers.get(&zone_of(place));
                    let found = number.and_then(|&number| localities.get_mut(number as usize));
                    if let Some(locality) = found {
                        locality.weight = *weight;
                    }
                }
                Division::Weights(LocalityWeights::new(self.overprovisioning, &localities))
            }
        }
    }
}
