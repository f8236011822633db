//! What is decided around a pick decides without allocating.

use std::num::NonZeroU32;
use std::time::Duration;

use orchestra_core::Labels;
use orchestra_discovery::damping::{self, Damping};
use orchestra_discovery::locality::{
    LocalityWeights, Route, WeightedLocality, Zone, ZoneConfig, ZonePlan,
};
use orchestra_discovery::priority::{self, Availability, Counts, PriorityLoad};
use orchestra_discovery::reported::{self, LoadReport, ReportedWeight};
use orchestra_discovery::slow_start::{self, Ramp};
use orchestra_discovery::subset::{
    Fallback, Match, SelectorFallback, SubsetConfig, SubsetPlan, SubsetSelector,
};
use orchestra_testkit::allocations;

use crate::common::at;

#[test]
fn a_priority_is_chosen_without_allocating() {
    let level = |healthy, degraded| {
        priority::Level::from(Counts {
            healthy,
            degraded,
            excluded: 0,
            total: 5,
        })
    };
    let levels = [level(0, 1), level(0, 5), level(1, 0)];
    let load = PriorityLoad::new(&priority::Config::default(), &levels);
    let mut chosen = [None; 100];
    let count = allocations(|| {
        for (draw, slot) in (0..).zip(&mut chosen) {
            *slot = load.choose(draw);
        }
    });
    assert_eq!(count, 0);
    let calls = |wanted| chosen.iter().filter(|slot| **slot == Some(wanted)).count();
    assert_eq!(calls((2, Availability::Healthy)), 28);
    assert_eq!(calls((0, Availability::Degraded)), 28);
    assert_eq!(calls((1, Availability::Degraded)), 44);
}

#[test]
fn a_locality_is_chosen_without_allocating() {
    let zone = |upstream, local| Zone { upstream, local };
    let zones = [zone(1, 2), zone(3, 1), zone(3, 1), zone(1, 0)];
    let plan = ZonePlan::new(&ZoneConfig::default(), &zones);
    assert!(matches!(plan.route(), Route::Residual(_)));
    let locality = |weight| WeightedLocality {
        weight,
        available: 1,
        total: 2,
    };
    let weights = LocalityWeights::new(140, &[locality(1), locality(3)]);
    let (mut zones, mut localities) = ([0; 4], [0_u32; 2]);
    let count = allocations(|| {
        for draw in 0..10_000 {
            zones[plan.choose([draw, draw, draw]).unwrap()] += 1;
            localities[weights.choose(u64::MAX / 10_000 * draw).unwrap()] += 1;
        }
    });
    assert_eq!(count, 0);
    assert_eq!(zones.iter().sum::<u32>(), 10_000);
    assert!(zones.iter().all(|&calls| calls > 0));
    assert!(localities[0].abs_diff(2_500) <= 1, "{localities:?}");
}

#[test]
fn a_subset_is_found_without_allocating() {
    let labels = |version: &str, stage: &str| {
        let labels = Labels::new().with("version", version).unwrap();
        labels.with("stage", stage).unwrap()
    };
    let members: Vec<Labels> = (0..1_000)
        .map(|n| labels(&(n % 50).to_string(), "prod"))
        .collect();
    let selectors = [
        SubsetSelector::new(["stage", "version"])
            .fallback(SelectorFallback::keys_subset(["stage"])),
        SubsetSelector::new(["stage"]),
    ];
    let config = SubsetConfig::new(selectors, Fallback::NoFallback).unwrap();
    let plan = SubsetPlan::new(&config, &members);
    let asked = [
        labels("7", "prod"),
        labels("99", "prod"),
        labels("7", "dev"),
    ];
    let mut found = [0; 3];
    let count = allocations(|| {
        for (labels, found) in asked.iter().zip(&mut found) {
            *found = match plan.find(labels) {
                Match::Subset(members) => members.len(),
                _ => 0,
            };
        }
    });
    assert_eq!((count, found), (0, [20, 1_000, 0]));
}

#[test]
fn weights_over_time_are_read_without_allocating() {
    let slow = slow_start::Config::new(Duration::from_secs(10));
    let ramp = Ramp::unchecked(at(0));
    let damping_config = damping::Config::default();
    let mut damping = Damping::default();
    let report_config = reported::Config::default();
    let report = LoadReport::parse("TEXT rps_fractional=100,cpu_utilization=0.5").unwrap();
    let mut weight = ReportedWeight::default();
    let mut weights = Vec::with_capacity(3);
    let mut rising = 0;
    let count = allocations(|| {
        rising = ramp.weight(&slow, 100, at(4_000));
        for _ in 0..3 {
            damping.on_flap(&damping_config, at(0));
        }
        weight.on_report(&report_config, &report, at(0));
        let reported = weight.get(&report_config, at(10_000));
        reported::relative(&[reported, Some(100.0), None], &mut weights);
    });
    assert_eq!(count, 0);
    assert_eq!(rising, 40);
    assert!(damping.is_suppressed(at(119_999)) && !damping.is_suppressed(at(120_000)));
    assert_eq!(weights, [65_535, 32_768, 49_151]);
}

#[test]
fn a_forced_zone_is_a_configuration_from_outside() {
    let mut config = ZoneConfig::default();
    config.force_local_zone = NonZeroU32::new(1);
    let zones = [
        Zone {
            upstream: 1,
            local: 9,
        },
        Zone {
            upstream: 9,
            local: 1,
        },
    ];
    let plan = ZonePlan::new(&config, &zones);
    assert_eq!(plan.route(), &Route::Direct);
}
