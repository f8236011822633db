//! Zones of a resolver: numbered as they appear, the caller's own first.

use std::collections::HashMap;

use orchestra_core::Locality;

use super::plan::{Division, Eligible};
use crate::locality::{LocalityWeights, WeightedLocality, Zone, ZoneConfig, ZonePlan};

/// How calls are divided among zones. A zone is a region and a zone of it; subzones do not count.
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
    /// In proportion to weights of zones, less what is not available of them; zones that are not listed have
    /// weight 1.
    Weighted(Vec<(Locality, u32)>),
}

/// Numbers zones; what a writer keeps.
#[derive(Debug, Default)]
pub(crate) struct ZoneNumbers {
    numbers: HashMap<Locality, u32>,
    callers: Vec<u32>,
}

impl ZoneNumbers {
    pub(crate) fn new(zoning: Option<&Zoning>) -> Self {
        let mut numbers = Self::default();
        if let Some(Zoning::Aware { own, .. }) = zoning {
            numbers.number(own);
        }
        numbers
    }

    /// The number of the zone of a place.
    pub(crate) fn number(&mut self, place: &Locality) -> u32 {
        let zone = zone_of(place);
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(zone).or_insert(next)
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
    /// How calls to `fit` members, out of `all`, are divided among the zones.
    pub(crate) fn division(self, fit: &[Eligible], all: &[Eligible]) -> Division {
        let zones = self.numbers.numbers.len().max(self.numbers.callers.len());
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
