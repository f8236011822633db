use proptest::prelude::*;

use super::super::ring::{Config, Order};
use super::{Named, Ring, histories, hosts, lists, nodes, of, weighted};
use crate::error::ErrorKind;

fn sized(min: u64, max: u64) -> Config {
    Config::default().min_size(min).max_size(max)
}

fn ring(config: Config, list: &Named) -> Ring {
    Ring::build(config, &nodes(list)).unwrap()
}

/// How many of so many even steps around the ring go to each node.
fn histogram(ring: &Ring, steps: u64, nodes: usize) -> Vec<u32> {
    let mut counts = vec![0; nodes];
    for step in 0..steps {
        counts[ring.lookup(step * (u64::MAX / steps)).unwrap()] += 1;
    }
    counts
}

/// The points by Envoy's own loop, sorted.
fn loop_of_envoy(config: (u64, u64), list: &Named, order: Order) -> Vec<(u64, usize)> {
    let mut hosts: Vec<(usize, &str, u32)> = list
        .iter()
        .enumerate()
        .filter(|(_, (_, weight))| *weight > 0)
        .map(|(position, (key, weight))| (position, key.as_str(), *weight))
        .collect();
    if order == Order::ByKey {
        hosts.sort_by_key(|&(position, key, _)| (key, position));
    }
    let sum: u64 = hosts.iter().map(|host| u64::from(host.2)).sum();
    let share = |weight: u32| f64::from(weight) * 1.0 / sum as f64;
    let least = hosts.iter().map(|host| share(host.2)).fold(1.0, f64::min);
    let scale = f64::min((least * config.0 as f64).ceil() / least, config.1 as f64);
    let (mut current, mut target) = (0.0, 0.0);
    let mut points = Vec::new();
    for (position, key, weight) in hosts {
        target += scale * share(weight);
        let mut number = 0;
        while current < target {
            points.push((of(format!("{key}_{number}").as_bytes()), position));
            number += 1;
            current += 1.0;
        }
    }
    points.sort_unstable();
    points
}

#[test]
fn ring_of_six_hosts_is_that_of_envoys_test() {
    let list = hosts(&[90, 91, 92, 93, 94, 95]);
    let ring = ring(sized(12, 8 << 20), &list);
    let points = [
        (833_437_586_790_550_860, 4),
        (928_266_305_478_181_108, 2),
        (1_033_482_794_131_418_490, 0),
        (3_551_244_743_356_806_947, 5),
        (3_851_675_632_748_031_481, 3),
        (5_583_722_120_771_150_861, 1),
        (6_311_230_543_546_372_928, 1),
        (7_700_377_290_971_790_572, 3),
        (13_144_177_310_400_110_813, 5),
        (13_444_792_449_719_432_967, 2),
        (15_516_499_411_664_133_160, 4),
        (16_117_243_373_044_804_889, 0),
    ];
    assert_eq!(ring.points().collect::<Vec<_>>(), points);
    assert_eq!(ring.lookup(0), Some(4));
    assert_eq!(ring.lookup(u64::MAX), Some(4));
    assert_eq!(ring.lookup(3_551_244_743_356_806_947), Some(5));
    assert_eq!(ring.lookup(3_551_244_743_356_806_948), Some(3));
    assert_eq!(ring.lookup(16_117_243_373_044_804_880), Some(0));
}

#[test]
fn retries_go_around_the_ring_as_in_envoys_test() {
    let ring = ring(sized(12, 8 << 20), &hosts(&[90, 91, 92, 93, 94, 95]));
    let attempts = |from, to: u32| (from..to).map(|k| ring.lookup_attempt(0, k).unwrap());
    assert_eq!(attempts(0, 3).collect::<Vec<_>>(), [4, 2, 0]);
    assert_eq!(ring.lookup_attempt(0, 13), Some(2));
    assert!(attempts(0, 24).eq(attempts(12, 24).chain(attempts(0, 12))));
    assert_eq!(ring.walk(0).collect::<Vec<_>>(), [4, 2, 0, 5, 3, 1]);
}

#[test]
fn ring_of_host_names_is_that_of_envoys_test() {
    let list: Named = (90..96).map(|port: u16| (port.to_string(), 1)).collect();
    let points = [
        (1_975_508_444_536_362_413, 5),
        (2_376_063_919_839_173_711, 5),
        (2_386_806_903_309_390_596, 3),
        (6_749_904_478_991_551_885, 4),
        (6_803_900_775_736_438_537, 3),
        (7_225_015_537_174_310_577, 2),
        (8_787_465_352_164_086_522, 0),
        (11_282_020_843_382_717_940, 2),
        (13_723_418_369_486_627_818, 1),
        (13_776_502_110_861_797_421, 0),
        (14_338_313_586_354_474_791, 1),
        (15_364_271_037_087_512_980, 4),
    ];
    assert_eq!(
        ring(sized(12, 8 << 20), &list).points().collect::<Vec<_>>(),
        points
    );
}

#[test]
fn uneven_ring_is_rounded_up_as_in_envoys_test() {
    let before = ring(sized(3, 8 << 20), &hosts(&[80, 81]));
    let points = [
        (5_454_692_015_285_649_509, 0),
        (7_859_399_908_942_313_493, 1),
        (13_838_424_394_637_650_569, 0),
        (16_064_866_803_292_627_174, 1),
    ];
    assert_eq!(before.points().collect::<Vec<_>>(), points);
    let after = before.update(&nodes(&hosts(&[81, 82]))).unwrap();
    let points = [
        (7_859_399_908_942_313_493, 0),
        (8_241_336_090_459_785_962, 1),
        (12_882_406_409_176_325_258, 1),
        (16_064_866_803_292_627_174, 0),
    ];
    assert_eq!(after.points().collect::<Vec<_>>(), points);
}

#[test]
fn weights_get_the_points_of_envoys_tests() {
    let tiny = ring(sized(6, 6), &weighted(&[(90, 1), (91, 2), (92, 3)]));
    let points = [
        (928_266_305_478_181_108, 2),
        (4_443_673_547_860_492_590, 2),
        (5_583_722_120_771_150_861, 1),
        (6_311_230_543_546_372_928, 1),
        (13_444_792_449_719_432_967, 2),
        (16_117_243_373_044_804_889, 0),
    ];
    assert_eq!(tiny.points().collect::<Vec<_>>(), points);

    // Two localities of one and two parts, each with hosts of one and two parts.
    let nine = ring(
        sized(9, 9),
        &weighted(&[(90, 1), (91, 2), (92, 2), (93, 4)]),
    );
    let points = [
        (928_266_305_478_181_108, 2),
        (3_851_675_632_748_031_481, 3),
        (5_583_722_120_771_150_861, 1),
        (6_311_230_543_546_372_928, 1),
        (7_700_377_290_971_790_572, 3),
        (12_559_126_875_973_811_811, 3),
        (13_444_792_449_719_432_967, 2),
        (13_784_988_426_630_141_778, 3),
        (16_117_243_373_044_804_889, 0),
    ];
    assert_eq!(nine.points().collect::<Vec<_>>(), points);
}

#[test]
fn shares_are_those_of_envoys_tests() {
    let large = ring(
        sized(6144, 8 << 20),
        &weighted(&[(90, 1), (91, 2), (92, 3)]),
    );
    assert_eq!(large.size(), 6144);
    assert_eq!(histogram(&large, 6000, 3), [987, 1932, 3081]);

    let list = weighted(&[(90, 1), (91, 2), (92, 2), (93, 4)]);
    let large = ring(sized(9216, 8 << 20), &list);
    assert_eq!(large.size(), 9216);
    assert_eq!(histogram(&large, 9000, 4), [924, 2009, 2053, 4014]);

    let odd = ring(sized(1023, 1023), &hosts(&[90, 91]));
    assert_eq!(odd.size(), 1023);
    assert_eq!(histogram(&odd, 1023, 2), [526, 497]);
}

#[test]
fn ring_too_small_for_all_has_every_other_host() {
    let ring = ring(sized(2, 2), &hosts(&[90, 91, 92, 93]));
    assert_eq!(ring.size(), 2);
    let counts = histogram(&ring, 1024, 4);
    assert_eq!(counts.iter().filter(|count| **count == 0).count(), 2);
}

#[test]
fn lopsided_ring_has_the_points_of_envoys_test() {
    // The first host has 127 of 128 parts, the other 1,023 share one.
    let ports = (0..1024).map(|port| (port, if port == 0 { 127 * 1023 } else { 1 }));
    let ring = ring(sized(1024, 1024), &weighted(&ports.collect::<Vec<_>>()));
    assert_eq!(ring.size(), 1024);
    assert_eq!(ring.points().filter(|(_, node)| *node == 0).count(), 1016);
    let others = [
        (3_829_253_010_855_396_576, 512),
        (5_881_074_926_069_334_434, 896),
        (6_442_769_608_292_299_103, 768),
        (11_664_790_346_325_243_808, 1),
        (13_958_138_884_277_627_155, 256),
        (15_803_774_069_438_192_949, 384),
        (15_894_554_872_961_148_518, 128),
        (17_918_147_347_826_565_154, 640),
    ];
    assert_eq!(
        ring.points()
            .filter(|(_, node)| *node > 0)
            .collect::<Vec<_>>(),
        others
    );
}

#[test]
fn sizes_and_shares_are_within_those_of_grpc_gos_test() {
    let list = vec![
        ("a".to_owned(), 3),
        ("b".to_owned(), 3),
        ("c".to_owned(), 4),
    ];
    for (min, max) in [3, 4, 6, 8]
        .into_iter()
        .flat_map(|min| [(min, 20), (min, 8)])
    {
        let ring = ring(sized(min, max), &list);
        let size = ring.size();
        assert!(
            (min..=max).contains(&(size as u64)),
            "{size} of {min} to {max}"
        );
        for (node, (_, weight)) in list.iter().enumerate() {
            let points = ring.points().filter(|point| point.1 == node).count();
            let (share, wanted) = (points as f64 / size as f64, f64::from(*weight) / 10.0);
            assert!(
                (share - wanted).abs() / f64::midpoint(share, wanted) < 0.25,
                "{share}"
            );
        }
    }
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let refused = |config| {
        let error = Ring::build(config, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    let text = "ring hash: the minimum size 20 is greater than the maximum size 10";
    assert_eq!(refused(sized(20, 10)), text);
    refused(sized(0, 10));
    refused(sized(1, (8 << 20) + 1));
}

#[test]
fn weights_beyond_32_bits_together_stay_within_the_sizes() {
    let list = vec![
        ("a".to_owned(), 1 << 31),
        ("b".to_owned(), 1 << 31),
        ("c".to_owned(), 1 << 30),
    ];
    let even = ring(Config::grpc(), &list[..2].to_vec());
    assert_eq!(even.size(), 1024);
    assert_eq!(even.points().filter(|(_, node)| *node == 0).count(), 512);
    let uneven = ring(Config::grpc(), &list);
    assert!((1024..=4096).contains(&uneven.size()), "{}", uneven.size());
    let skewed = vec![("a".to_owned(), u32::MAX), ("b".to_owned(), 1)];
    assert_eq!(ring(Config::grpc(), &skewed).size(), 4096);
}

#[test]
fn a_node_that_leaves_moves_its_own_keys_alone() {
    let list: Named = (0..50).map(|n| (format!("node-{n}"), 1)).collect();
    // Two hundred points each with and without it.
    let before = ring(sized(10_000, 8 << 20), &list);
    let mut rest = list.clone();
    rest.remove(17);
    let config = sized(9800, 8 << 20);
    let after = ring(config, &rest);
    for hash in super::hashes() {
        let (was, now) = (before.lookup(hash).unwrap(), after.lookup(hash).unwrap());
        assert!(was == 17 || list[was] == rest[now], "{hash}");
    }
}

proptest! {
    #[test]
    fn ring_is_that_of_envoys_loop(
        list in lists(12, prop_oneof![0..4_u32, Just(1000), Just(u32::MAX)]),
        min in 1..600_u64,
        more in 0..600_u64,
        by_key in any::<bool>(),
    ) {
        let order = if by_key { Order::ByKey } else { Order::Given };
        let ring = ring(sized(min, min + more).order(order), &list);
        let points = loop_of_envoy((min, min + more), &list, order);
        prop_assert!(ring.points().eq(points.iter().copied()));
        prop_assert_eq!(ring.size(), points.len());
        let places = points.iter().flat_map(|point| [point.0, point.0.wrapping_add(1)]);
        for hash in places.chain([0, u64::MAX]) {
            let first = points.iter().find(|point| point.0 >= hash).or_else(|| points.first());
            prop_assert_eq!(ring.lookup(hash), first.map(|point| point.1));
        }
        for attempt in [0, 1, 5, 1000, u32::MAX] {
            let at = points.get(attempt as usize % points.len().max(1));
            prop_assert_eq!(ring.lookup_attempt(0, attempt), at.map(|point| point.1));
        }
        let mut seen = Vec::new();
        for &(_, node) in &points {
            if !seen.contains(&node) {
                seen.push(node);
            }
        }
        prop_assert_eq!(ring.walk(0).collect::<Vec<_>>(), seen);
    }

    #[test]
    fn updated_ring_is_the_one_built(
        history in histories(8, 0..4_u32),
        min in prop_oneof![1..40_u64, Just(1500)],
        by_key in any::<bool>(),
    ) {
        let order = if by_key { Order::ByKey } else { Order::Given };
        let config = sized(min, 8 << 20).order(order);
        let mut updated = ring(config, &history[0]);
        for list in &history {
            updated = updated.update(&nodes(list)).unwrap();
            prop_assert!(updated.points().eq(ring(config, list).points()), "{:?}", list);
        }
    }
}
