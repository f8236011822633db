use proptest::prelude::*;

use super::super::circle::{Circle, Point};

/// Places all over the circle, or crowded where the interpolation does not expect them.
fn places() -> impl Strategy<Value = Vec<u64>> {
    let place = prop_oneof![
        any::<u64>(),
        (0..50_u64).prop_map(|at| (1 << 61) + at),
        (0..500_u64).prop_map(|at| u64::MAX - at * at),
    ];
    prop::collection::vec(place, 0..1200)
}

fn points(mut places: Vec<u64>, from: u32) -> Vec<Point<u64>> {
    places.sort_unstable();
    (from..)
        .zip(places)
        .map(|(id, at)| Point { at, id })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn search_finds_what_a_plain_one_finds(places in places(), others in places()) {
        let points = points(places, 0);
        let circle = Circle::new(&points);
        prop_assert_eq!(circle.len(), points.len());
        prop_assert!(circle.points().eq(points.iter().copied()));
        let near = points.iter().map(|point| point.at.wrapping_sub(1));
        let at = points.iter().map(|point| point.at);
        for hash in at.chain(near).chain(others) {
            let first = points.partition_point(|point| point.at < hash);
            let expected = points.get(first).or_else(|| points.first()).copied();
            let found = circle.first_from(hash);
            prop_assert_eq!(found.map(|found| circle.point(found)), expected);
            prop_assert_eq!(found.map(|found| circle.id(found)), expected.map(|point| point.id));
        }
    }

    #[test]
    fn changed_circle_has_what_stayed_and_what_came(
        before in places(),
        come in places(),
        keep in 0..4_usize,
    ) {
        let before = points(before, 0);
        let come = points(come, 100_000);
        let is_gone = |point: &&Point<u64>| keep == 0 || point.id as usize % 4 >= keep;
        let gone: Vec<_> = before.iter().filter(is_gone).copied().collect();
        let circle = Circle::new(&before);
        let changed = circle.changed(&gone, &come, |a, b| a < b);
        let stayed = before.iter().filter(|point| !is_gone(point));
        let mut expected: Vec<_> = stayed.chain(&come).copied().collect();
        expected.sort_by_key(|point| (point.at, point.id));
        prop_assert_eq!(changed.len(), expected.len());
        prop_assert!(changed.points().eq(expected.iter().copied()));
        prop_assert!(circle.points().eq(before.iter().copied()));
        let walk = std::iter::successors(changed.first_from(0), |&at| changed.after(at));
        let walk = walk.take(expected.len()).map(|at| (changed.point(at), changed.id(at)));
        prop_assert!(walk.eq(expected.iter().map(|&point| (point, point.id))));
    }
}
