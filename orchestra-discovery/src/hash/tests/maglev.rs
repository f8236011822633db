use proptest::prelude::*;
use twox_hash::XxHash64;

use super::super::maglev::Config;
use super::{Maglev, Named, histories, hosts, lists, nodes, weighted};
use crate::error::ErrorKind;

fn maglev(size: u32, list: &Named) -> Maglev {
    Maglev::build(Config::new(size).unwrap(), &nodes(list)).unwrap()
}

fn slots(size: u32, list: &Named) -> Vec<usize> {
    maglev(size, list).slots().collect()
}

/// The table by Envoy's own loop.
fn loop_of_envoy(size: u32, list: &Named) -> Vec<usize> {
    struct Entry {
        position: usize,
        offset: u64,
        skip: u64,
        weight: f64,
        target: f64,
        next: u64,
    }
    let slots = size as usize;
    let size = u64::from(size);
    let sum: u64 = list.iter().map(|node| u64::from(node.1)).sum();
    let mut order: Vec<usize> = (0..list.len()).filter(|&at| list[at].1 > 0).collect();
    order.sort_by_key(|&at| (&list[at].0, at));
    let entry = |position: usize| Entry {
        position,
        offset: XxHash64::oneshot(0, list[position].0.as_bytes()) % size,
        skip: XxHash64::oneshot(1, list[position].0.as_bytes()) % (size - 1) + 1,
        weight: f64::from(list[position].1) / sum as f64,
        target: 0.0,
        next: 0,
    };
    let mut entries: Vec<Entry> = order.into_iter().map(entry).collect();
    let greatest = entries.iter().map(|entry| entry.weight).fold(0.0, f64::max);
    let mut table = vec![None; if entries.is_empty() { 0 } else { slots }];
    let mut left = table.len();
    let mut iteration = 1_u32;
    while left > 0 {
        for entry in &mut entries {
            if left == 0 || f64::from(iteration) * entry.weight < entry.target {
                continue;
            }
            entry.target += greatest;
            let slot =
                |next: u64| usize::try_from((entry.offset + entry.skip * next) % size).unwrap();
            while table[slot(entry.next)].is_some() {
                entry.next += 1;
            }
            table[slot(entry.next)] = Some(entry.position);
            left -= 1;
        }
        iteration += 1;
    }
    table.into_iter().flatten().collect()
}

#[test]
fn table_of_six_hosts_is_that_of_envoys_test() {
    let list = hosts(&[90, 91, 92, 93, 94, 95]);
    let table = maglev(7, &list);
    assert_eq!(table.slots().collect::<Vec<_>>(), [2, 4, 0, 1, 5, 0, 3]);
    for (hash, node) in (0..21).zip(table.slots().collect::<Vec<_>>().into_iter().cycle()) {
        assert_eq!(table.lookup(hash), Some(node));
    }
    assert_eq!(table.walk(4).collect::<Vec<_>>(), [5, 0, 3, 2, 4, 1]);
}

#[test]
fn order_of_the_hosts_is_irrelevant() {
    let shuffled = hosts(&[93, 90, 95, 92, 91, 94]);
    assert_eq!(slots(7, &shuffled), [3, 5, 1, 4, 2, 1, 0]);
}

#[test]
fn table_of_host_names_is_that_of_envoys_test() {
    let list: Named = (90..96).map(|port: u16| (port.to_string(), 1)).collect();
    assert_eq!(slots(7, &list), [2, 5, 0, 3, 4, 1, 0]);
}

#[test]
fn retries_are_those_of_envoys_test() {
    let table = maglev(7, &hosts(&[90, 91, 92, 93, 94, 95]));
    let attempts = (0..3).map(|attempt| table.lookup_attempt(10, attempt));
    assert_eq!(attempts.collect::<Vec<_>>(), [Some(1), Some(0), Some(5)]);
}

#[test]
fn weights_get_the_slots_of_envoys_tests() {
    let one_to_two = slots(17, &weighted(&[(90, 1), (91, 2)]));
    assert_eq!(
        one_to_two,
        [1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]
    );
    let even = slots(17, &weighted(&[(90, 1), (91, 1)]));
    assert_eq!(even, [1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1]);
    // Localities of eight, none and two parts with one host each.
    let eight_to_two = slots(17, &weighted(&[(90, 8), (92, 0), (91, 2)]));
    let expected = [2, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0, 2, 0, 0, 0, 0, 0];
    assert_eq!(eight_to_two, expected);
    assert_eq!(slots(17, &weighted(&[(90, 7)])), [0; 17]);
}

#[test]
fn size_that_is_no_prime_is_refused() {
    for size in [0, 1, 4, 8, 65_536, 5_000_013, u32::MAX] {
        assert_eq!(
            Config::new(size).unwrap_err().kind(),
            ErrorKind::Invalid,
            "{size}"
        );
    }
    for size in [2, 3, 7, 65_537, 5_000_011] {
        assert!(Config::new(size).is_ok(), "{size}");
    }
}

#[test]
fn a_heavy_node_among_thousands_is_no_burden() {
    let mut list: Named = (0..2000).map(|n| (format!("node-{n}"), 1)).collect();
    list[7].1 = u32::MAX;
    let table = maglev(5003, &list);
    assert_eq!(table.slots().filter(|&node| node == 7).count(), 5003 - 1999);
    assert_eq!(
        table.slots().collect::<Vec<_>>(),
        loop_of_envoy(5003, &list)
    );
}

#[test]
fn more_nodes_than_slots_give_one_to_the_first_by_key() {
    let list: Named = (0..10).map(|n| (format!("node-{n}"), 1)).collect();
    let mut slots = slots(7, &list);
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2, 3, 4, 5, 6]);
}

proptest! {
    #[test]
    fn table_is_that_of_envoys_loop(
        list in lists(12, prop_oneof![0..12_u32, Just(1000)]),
        size in prop::sample::select(vec![2_u32, 3, 7, 17, 101, 1009]),
    ) {
        prop_assert_eq!(slots(size, &list), loop_of_envoy(size, &list));
    }

    #[test]
    fn updated_table_is_the_one_built(history in histories(12, 0..4_u32)) {
        let mut updated = maglev(101, &history[0]);
        for list in &history {
            updated = updated.update(&nodes(list)).unwrap();
            prop_assert_eq!(updated.slots().collect::<Vec<_>>(), slots(101, list));
        }
    }

    #[test]
    fn equal_nodes_have_equal_shares(count in 1..60_usize) {
        let list: Named = (0..count).map(|n| (format!("node-{n}"), 3)).collect();
        let mut held = vec![0_usize; count];
        for node in slots(1009, &list) {
            held[node] += 1;
        }
        prop_assert!(held.iter().all(|&held| held == 1009 / count || held == 1009 / count + 1));
    }
}
