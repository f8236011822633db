//! Golden values: Envoy's `round_robin_lb_test.cc`, `locality_wrr_test.cc` and its documentation.

use proptest::prelude::*;

use super::*;

fn zones(counts: &[(u32, u32)]) -> Vec<Zone> {
    let zone = |&(upstream, local): &(u32, u32)| Zone { upstream, local };
    counts.iter().map(zone).collect()
}

fn plan(least: u32, counts: &[(u32, u32)]) -> ZonePlan {
    let config = ZoneConfig {
        min_cluster_size: least,
        ..ZoneConfig::default()
    };
    ZonePlan::new(&config, &zones(counts))
}

fn residual(plan: &ZonePlan) -> (u64, &[u64]) {
    match plan.route() {
        Route::Residual(residual) => (residual.local(), residual.cumulative()),
        route => panic!("{route:?}"),
    }
}

#[test]
fn a_zone_with_its_share_of_instances_keeps_its_calls() {
    // ZoneAwareZonesMismatched, the caller in zone A.
    let plan = plan(2, &[(1, 1), (0, 1), (1, 0)]);
    assert_eq!(plan.route(), &Route::Direct);
    assert_eq!(plan.choose([99, 9_999, 5]), Some(0));
}

#[test]
fn a_zone_without_instances_sends_to_those_that_have_capacity_left() {
    // ZoneAwareZonesMismatched, the caller in zone B: A has nothing left, so all goes to C.
    let plan = plan(2, &[(0, 1), (1, 1), (1, 0)]);
    assert_eq!(residual(&plan), (0, [0, 0, 5_000].as_slice()));
    for elsewhere in [0, 4_999, 5_000, u64::MAX] {
        assert_eq!(plan.choose([0, 0, elsewhere]), Some(2));
    }
}

#[test]
fn residual_capacity_is_envoys_in_zones_that_do_not_match() {
    // ZoneAwareResidualsMismatched: zones A to E.
    let plan = plan(6, &[(1, 2), (0, 2), (3, 1), (3, 1), (1, 0)]);
    let (local, _) = residual(&plan);
    assert_eq!(local, 3_750);
    let golden = [
        (0, 0, 0),
        (3_749, 0, 0),
        (3_750, 0, 2),
        (3_750, 2_083, 2),
        (9_999, 2_084, 3),
        (9_999, 4_167, 3),
        (9_999, 4_168, 4),
        (9_999, 5_417, 4),
        (9_999, 5_418, 2),
    ];
    for (stay, elsewhere, zone) in golden {
        assert_eq!(plan.choose([0, stay, elsewhere]), Some(zone));
    }
}

#[test]
fn two_thirds_stay_where_half_of_the_callers_have_a_third_of_the_instances() {
    // ZoneAwareDifferentZoneSize
    let plan = plan(3, &[(1, 1), (1, 1), (1, 0)]);
    assert_eq!(plan.choose([0, 6_665, 0]), Some(0));
    assert_eq!(plan.choose([0, 6_666, 0]), Some(2));
    assert_eq!(plan.choose([0, 9_999, 3_333]), Some(2));
}

#[test]
fn a_small_zone_overflows() {
    // ZoneAwareRoutingSmallZone
    let plan = plan(5, &[(1, 1), (2, 1), (2, 1)]);
    assert_eq!(plan.choose([0, 100, 0]), Some(0));
    assert_eq!(plan.choose([0, 9_999, 2]), Some(1));
}

#[test]
fn callers_and_called_in_different_zones_spread_evenly() {
    // ZoneAwareNoMatchingZones
    let plan = plan(3, &[(0, 1), (0, 1), (0, 1), (1, 0), (1, 0), (1, 0)]);
    for (elsewhere, zone) in [(3_332, 3), (3_333, 4), (6_665, 4), (6_666, 5), (9_998, 5)] {
        assert_eq!(plan.choose([0, 0, elsewhere]), Some(zone));
    }
}

#[test]
fn empty_localities_are_passed_over() {
    // ZoneAwareEmptyLocalities: zones A to I.
    let counts = [
        (0, 1),
        (0, 0),
        (2, 1),
        (0, 1),
        (1, 0),
        (2, 1),
        (0, 0),
        (1, 0),
        (0, 0),
    ];
    let plan = plan(3, &counts);
    let golden = [
        (0, 2),
        (832, 2),
        (833, 4),
        (2_498, 4),
        (2_499, 5),
        (3_331, 5),
        (3_332, 7),
        (4_997, 7),
        (4_998, 2),
    ];
    for (elsewhere, zone) in golden {
        assert_eq!(plan.choose([0, 0, elsewhere]), Some(zone));
    }
}

#[test]
fn where_rounding_leaves_no_capacity_any_zone_with_instances_is_chosen() {
    // LowPrecisionForDistribution: 44,999 of 100,000 instances for 45,000 of 100,000 callers.
    let plan = plan(1, &[(44_999, 45_000), (55_001, 55_000), (0, 0)]);
    assert_eq!(residual(&plan), (9_997, [1, 2, 2].as_slice()));
    assert_eq!(plan.choose([0, 9_999, 2]), Some(0));
    assert_eq!(plan.choose([0, 9_999, 3]), Some(1));
}

#[test]
fn a_zone_without_instances_keeps_no_calls_even_if_its_share_of_callers_rounds_to_none() {
    let plan = plan(1, &[(0, 1), (10, 30_000), (10, 10_000)]);
    assert_eq!(residual(&plan), (0, [0, 0, 2_501].as_slice()));
}

#[test]
fn reasons_not_to_route_by_zone() {
    let reason = |plan: ZonePlan| match plan.route() {
        Route::Off(reason) => *reason,
        route => panic!("{route:?}"),
    };
    assert_eq!(reason(plan(1, &[])), Off::FewUpstreamZones);
    assert_eq!(reason(plan(1, &[(9, 1), (0, 1)])), Off::FewUpstreamZones);
    assert_eq!(reason(plan(1, &[(9, 1), (1, 0)])), Off::FewLocalZones);
    assert_eq!(reason(plan(1, &[(9, 0), (1, 4)])), Off::NotInOwnZone);
    assert_eq!(reason(plan(7, &[(3, 1), (3, 1)])), Off::SmallCluster);
    assert_eq!(plan(6, &[(3, 1), (3, 1)]).route(), &Route::Direct);
    assert_eq!(ZonePlan::off(Off::Panic).choose([0, 0, 0]), None);
}

#[test]
fn only_the_enabled_percentage_is_routed_by_zone() {
    let config = ZoneConfig {
        routing_enabled: 98,
        ..ZoneConfig::default()
    };
    let plan = ZonePlan::new(&config, &zones(&[(3, 1), (3, 1)]));
    let routed = (0..100).filter(|&draw| plan.choose([draw, 0, 0]).is_some());
    assert_eq!(routed.count(), 98);
}

#[test]
fn a_forced_zone_keeps_all_calls_while_it_has_enough_instances() {
    let config = ZoneConfig {
        force_local_zone: NonZeroU32::new(2),
        ..ZoneConfig::default()
    };
    let route = |counts| ZonePlan::new(&config, &zones(counts)).route;
    assert_eq!(route(&[(2, 9), (8, 1)]), Route::Direct);
    assert_eq!(route(&[(2, 9), (8, 0)]), Route::Direct);
    assert!(matches!(route(&[(1, 9), (8, 1)]), Route::Residual(_)));
    assert_eq!(route(&[(1, 9), (8, 0)]), Route::Off(Off::FewLocalZones));
}

/// Each locality's share of ten thousand evenly spaced draws.
fn shares(weights: &LocalityWeights, localities: usize) -> Vec<u32> {
    let mut shares = vec![0; localities];
    for step in 0..10_000 {
        let draw = u64::MAX / 10_000 * step;
        shares[weights.choose(draw).unwrap()] += 1;
    }
    shares
}

#[test]
fn localities_fail_over_gradually_as_envoys_do() {
    // UnhealthyFailover: picks of a hundred for the first of two localities of weights 1 and 2.
    for (available, picks) in [(5, 33), (4, 33), (3, 29), (2, 22), (1, 12), (0, 0)] {
        let near = WeightedLocality {
            weight: 1,
            available,
            total: 5,
        };
        let far = WeightedLocality {
            weight: 2,
            available: 1,
            total: 1,
        };
        let found = shares(&LocalityWeights::new(140, &[near, far]), 2)[0];
        assert!(
            found.abs_diff(picks * 100) <= 100,
            "{available}: {found} for {picks}"
        );
    }
}

#[test]
fn the_documented_table_of_locality_weights() {
    for (available, percent) in [(100, 33), (70, 33), (69, 32), (50, 26), (25, 15), (0, 0)] {
        let near = WeightedLocality {
            weight: 1,
            available,
            total: 100,
        };
        let far = WeightedLocality {
            weight: 2,
            available: 7,
            total: 7,
        };
        let found: u32 = shares(&LocalityWeights::new(140, &[near, far]), 2)[0];
        // The table rounds now up, now down.
        assert!(
            found.abs_diff(percent * 100) < 100,
            "{available}: {found} for {percent}"
        );
    }
}

#[test]
fn a_locality_without_weight_or_instances_is_never_chosen() {
    let locality = |weight, available| WeightedLocality {
        weight,
        available,
        total: 3,
    };
    let weights = LocalityWeights::new(140, &[locality(0, 3), locality(5, 0), locality(1, 1)]);
    assert_eq!(shares(&weights, 3), [0, 0, 10_000]);
    let nobody = LocalityWeights::new(140, &[locality(0, 3), locality(5, 0)]);
    assert_eq!(nobody.choose(9), None);
    assert_eq!(LocalityWeights::new(140, &[]).choose(9), None);
}

#[test]
fn a_locality_keeps_some_chance_while_anything_of_it_is_available() {
    let sliver = WeightedLocality {
        weight: 1,
        available: 1,
        total: u32::MAX,
    };
    assert_eq!(LocalityWeights::new(1, &[sliver]).choose(9), Some(0));
    assert_eq!(LocalityWeights::new(0, &[sliver]).choose(9), None);
}

/// The load of every instance if each caller of each zone sends one call, by the exact formula.
fn load_per_instance(zones: &[Zone]) -> Vec<f64> {
    let mut load = vec![0.0; zones.len()];
    for own in 0..zones.len() {
        let mut seen = zones.to_vec();
        seen.swap(0, own);
        let config = ZoneConfig {
            min_cluster_size: 0,
            ..ZoneConfig::default()
        };
        let back = |zone: usize| match zone {
            0 => own,
            zone if zone == own => 0,
            zone => zone,
        };
        let calls = f64::from(zones[own].local);
        let plan = ZonePlan::new(&config, &seen);
        match plan.route() {
            Route::Direct => load[own] += calls,
            Route::Residual(residual) => {
                let stay = residual.local() as f64 / 10_000.0;
                load[own] += calls * stay;
                let total = *residual.cumulative().last().unwrap() as f64;
                let mut before = 0;
                for (zone, &upto) in residual.cumulative().iter().enumerate() {
                    load[back(zone)] += calls * (1.0 - stay) * (upto - before) as f64 / total;
                    before = upto;
                }
            }
            Route::Off(_) => assert_eq!(zones[own].local, 0),
        }
    }
    let per_instance = load.iter().zip(zones).filter(|(_, zone)| zone.upstream > 0);
    per_instance
        .map(|(load, zone)| load / f64::from(zone.upstream))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn if_all_callers_do_it_all_instances_get_the_same_load(
        counts in proptest::collection::vec((1..40_u32, 1..40_u32), 2..6),
    ) {
        let load = load_per_instance(&zones(&counts));
        let greatest = load.iter().copied().fold(0.0, f64::max);
        let least = load.iter().copied().fold(f64::MAX, f64::min);
        // What is off is the rounding to ten-thousandths.
        prop_assert!(greatest / least < 1.1, "{:?}", load);
    }

    #[test]
    fn a_chosen_zone_has_instances(
        counts in proptest::collection::vec((prop_oneof![Just(0), any::<u32>()], any::<u32>()), 0..6),
        force in 0..3_u32,
        routing_enabled: u32,
        draws: [u64; 3],
    ) {
        let config = ZoneConfig {
            routing_enabled,
            min_cluster_size: 0,
            force_local_zone: NonZeroU32::new(force),
        };
        if let Some(zone) = ZonePlan::new(&config, &zones(&counts)).choose(draws) {
            prop_assert!(counts[zone].0 > 0);
        }
    }

    #[test]
    fn localities_get_their_exact_share(
        localities in proptest::collection::vec((0..50_u32, 0..9_u32, 0..9_u32), 1..6),
    ) {
        let localities: Vec<WeightedLocality> = localities
            .into_iter()
            .map(|(weight, available, down)| WeightedLocality {
                weight,
                available,
                total: available + down,
            })
            .collect();
        let effective = |l: &WeightedLocality| {
            let available = f64::from(l.available) / f64::from(l.total.max(1));
            f64::from(l.weight) * (1.4 * available).min(1.0)
        };
        let total: f64 = localities.iter().map(effective).sum();
        let weights = LocalityWeights::new(140, &localities);
        if total == 0.0 {
            prop_assert_eq!(weights.choose(1), None);
            return Ok(());
        }
        for (found, locality) in shares(&weights, localities.len()).into_iter().zip(&localities) {
            let expected = effective(locality) / total * 10_000.0;
            prop_assert!((f64::from(found) - expected).abs() < 2.5, "{} {}", found, expected);
        }
    }

    #[test]
    fn any_weights_choose_a_locality_that_can_take_calls(
        localities in proptest::collection::vec(any::<[u32; 3]>(), 0..5),
        overprovisioning: u32,
        draw: u64,
    ) {
        let localities: Vec<WeightedLocality> = localities
            .into_iter()
            .map(|[weight, available, total]| WeightedLocality { weight, available, total })
            .collect();
        if let Some(index) = LocalityWeights::new(overprovisioning, &localities).choose(draw) {
            prop_assert!(localities[index].weight > 0 && localities[index].available > 0);
        }
    }
}
