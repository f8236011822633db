use proptest::prelude::*;

use super::super::rendezvous::Config;
use super::{Named, Rendezvous, histories, nodes};
use crate::error::ErrorKind;

fn table(size: u32, list: &Named) -> Rendezvous {
    Rendezvous::build(Config::new(size).unwrap(), &nodes(list)).unwrap()
}

fn even(count: usize) -> Named {
    (0..count)
        .map(|n| (format!("10.0.{}.{}:80", n / 256, n % 256), 1))
        .collect()
}

fn held(table: &Rendezvous, nodes: usize) -> Vec<usize> {
    let mut held = vec![0; nodes];
    table.slots().for_each(|node| held[node] += 1);
    held
}

/// How many slots differ when the node at `gone` is missing in the second table.
fn moved(with: &Rendezvous, without: &Rendezvous, gone: usize) -> usize {
    let back = |node: usize| if node >= gone { node + 1 } else { node };
    with.slots()
        .zip(without.slots())
        .filter(|&(a, b)| a != back(b))
        .count()
}

#[test]
fn no_node_of_a_thousand_has_more_than_110_percent() {
    let table = Rendezvous::build(Config::default(), &nodes(&even(1000))).unwrap();
    let most = held(&table, 1000).into_iter().max().unwrap();
    assert!(most as f64 / (262_147.0 / 1000.0) <= 1.1, "{most}");
}

#[test]
fn one_of_a_thousand_moves_no_more_than_a_quarter_too_much() {
    let list = even(1000);
    let with = Rendezvous::build(Config::default(), &nodes(&list)).unwrap();
    for gone in [0, 499, 999] {
        let mut rest = list.clone();
        rest.remove(gone);
        let without = with.update(&nodes(&rest)).unwrap();
        let leaving = moved(&with, &without, gone) as f64 / held(&with, 1000)[gone] as f64;
        assert!((1.0..=1.25).contains(&leaving), "{leaving}");
        let again = without.update(&nodes(&list)).unwrap();
        assert!(again.slots().eq(with.slots()));
    }
}

#[test]
fn shares_follow_the_weights() {
    let list: Named = (0..40_u32)
        .map(|n| (format!("node-{n}"), 1 + n % 4))
        .collect();
    let table = table(65_537, &list);
    for (held, (_, weight)) in held(&table, 40).into_iter().zip(&list) {
        let share = f64::from(*weight) / 100.0 * 65_537.0;
        assert!(
            (0.8..=1.1).contains(&(held as f64 / share)),
            "{held} of {share}"
        );
    }
}

#[test]
fn few_nodes_share_by_weight_too() {
    let list: Named = [1, 2, 5]
        .map(|weight| (format!("node-{weight}"), weight))
        .to_vec();
    for (held, share) in held(&table(65_537, &list), 3)
        .into_iter()
        .zip([1.0, 2.0, 5.0])
    {
        let ratio = held as f64 / (65_537.0 * share / 8.0);
        assert!((0.98..=1.02).contains(&ratio), "{ratio} of {share}");
    }
}

#[test]
fn numbered_keys_are_spread() {
    let table = table(65_537, &even(10));
    let mut counts = vec![0; 10];
    (0..10_000).for_each(|hash| counts[table.lookup(hash).unwrap()] += 1);
    assert!(
        counts.iter().all(|count| (800..1200).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn skewed_weights_are_no_burden() {
    let mut list = even(2000);
    list[3].1 = u32::MAX;
    let table = table(5003, &list);
    assert!(held(&table, 2000)[3] > 4900);
    list[3].1 = 65_535;
    let table = table.update(&nodes(&list)).unwrap();
    let share = 5003.0 * 65_535.0 / (65_535.0 + 1999.0);
    assert!(held(&table, 2000)[3] as f64 <= 1.1 * share);
    assert!(table.slots().all(|node| node < 2000));
}

#[test]
fn size_that_is_no_prime_is_refused() {
    for size in [0, 1, 4, 65_536, 5_000_013] {
        assert_eq!(
            Config::new(size).unwrap_err().kind(),
            ErrorKind::Invalid,
            "{size}"
        );
    }
}

#[test]
fn growth_from_one_to_a_thousand_is_repaired_and_filled_alike() {
    let list = even(1000);
    let mut grown = table(5003, &even(1));
    for count in (1..=1000).step_by(37).chain([1000, 999, 500, 3, 1]) {
        grown = grown.update(&nodes(&list[..count].to_vec())).unwrap();
        assert!(
            grown
                .slots()
                .eq(table(5003, &list[..count].to_vec()).slots()),
            "{count}"
        );
    }
}

proptest! {
    #[test]
    fn updated_table_is_the_one_built(
        history in histories(10, prop_oneof![0..4_u32, Just(1000)]),
        size in prop::sample::select(vec![2_u32, 7, 101, 1009]),
    ) {
        let mut updated = table(size, &history[0]);
        for list in &history {
            updated = updated.update(&nodes(list)).unwrap();
            let built = table(size, list);
            prop_assert!(built.is_stable(), "{:?}", list);
            prop_assert!(updated.slots().eq(built.slots()), "{:?}", list);
            prop_assert!(built.slots().all(|node| list[node].1 > 0));
            let has_weight = list.iter().any(|node| node.1 > 0);
            prop_assert_eq!(built.slots().len(), if has_weight { size as usize } else { 0 });
        }
    }

    #[test]
    fn order_of_the_nodes_is_irrelevant(weights in prop::collection::vec(0..5_u32, 1..12)) {
        let list: Named = weights.iter().enumerate().map(|(n, &w)| (format!("node-{n}"), w)).collect();
        let reversed: Named = list.iter().rev().cloned().collect();
        let (a, b) = (table(101, &list), table(101, &reversed));
        let turned = b.slots().map(|node| list.len() - 1 - node);
        prop_assert!(a.slots().eq(turned));
    }
}
