use proptest::prelude::*;

use super::super::Bounded;
use super::{Named, nodes};
use crate::error::ErrorKind;

fn bounded(factor: u32, weights: &[u32]) -> Bounded {
    let list: Named = weights
        .iter()
        .enumerate()
        .map(|(n, &w)| (format!("{n}"), w))
        .collect();
    Bounded::build(factor, &nodes(&list)).unwrap()
}

fn choose(bounded: &Bounded, hash: u64, first: usize, in_flight: &[u32]) -> Option<usize> {
    let total = in_flight.iter().copied().map(u64::from).sum();
    bounded.choose(hash, first, total, |node| in_flight.get(node).copied())
}

/// Envoy's choice by its own code, with the shuffle that the tests of the shuffle check.
fn choice_of_envoy(
    factor: u32,
    order: &[usize],
    first: usize,
    weights: &[u32],
    in_flight: &[u32],
) -> usize {
    let sum: u32 = weights.iter().sum();
    let total: u32 = in_flight.iter().sum();
    let slots = ((total + 1) * factor).div_ceil(100);
    let overload = |node: usize| {
        let limit = (f64::from(slots) * (f64::from(weights[node]) / f64::from(sum))).ceil();
        f64::from(in_flight[node]) / limit.max(1.0)
    };
    let (mut least, mut least_overload) = (first, overload(first));
    if least_overload <= 1.0 {
        return first;
    }
    for &other in order.iter().filter(|&&other| other != first) {
        if overload(other) <= 1.0 {
            return other;
        }
        if least_overload > overload(other) {
            (least, least_overload) = (other, overload(other));
        }
    }
    least
}

#[test]
fn a_node_with_room_is_left_alone() {
    let bounded = bounded(100, &[1; 5]);
    for first in 0..5 {
        assert_eq!(choose(&bounded, 2, first, &[0; 5]), Some(first));
        // One more call than the average is in flight on each, but a slot is there for the call to come.
        assert_eq!(choose(&bounded, 2, first, &[1; 5]), Some(first));
    }
}

#[test]
fn overload_goes_where_envoys_tests_send_it() {
    let bounded = bounded(100, &[1; 5]);
    // Hash 2 gives 2, 1, 0, 4, 3.
    assert_eq!(choose(&bounded, 2, 2, &[0, 0, 2, 0, 0]), Some(1));
    assert_eq!(choose(&bounded, 2, 2, &[9, 9, 9, 0, 0]), Some(4));
    // Hashes 6 and 7 give 4, 0, 2, 3, 1 and 0, 1, 4, 3, 2.
    assert_eq!(choose(&bounded, 6, 3, &[0, 0, 0, 9, 0]), Some(4));
    assert_eq!(choose(&bounded, 7, 3, &[0, 0, 0, 9, 0]), Some(0));
}

#[test]
fn the_least_overloaded_serves_if_all_are() {
    // The counts say thirty, the total says three: as when a gauge lags.
    let bounded = bounded(100, &[1; 3]);
    let in_flight = [11, 9, 10];
    assert_eq!(
        bounded.choose(0, 0, 3, |node| Some(in_flight[node])),
        Some(1)
    );
}

#[test]
fn closed_and_weightless_nodes_are_passed_over() {
    let bounded = bounded(150, &[1, 0, 1, 1]);
    let open = |node: usize| (node == 3).then_some(40);
    for hash in 0..50 {
        assert_eq!(bounded.choose(hash, 0, 40, open), Some(3));
        assert_eq!(bounded.choose(hash, 0, 40, |_| None), None);
        assert_ne!(choose(&bounded, hash, 0, &[90, 0, 0, 0]), Some(1));
    }
}

#[test]
fn factor_below_the_average_is_refused() {
    assert_eq!(
        Bounded::build(99, &[]).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(bounded(100, &[]).choose(1, 0, 0, |_| None), None);
}

#[test]
fn counts_at_the_limit_of_their_type_do_not_overflow() {
    let bounded = bounded(u32::MAX, &[u32::MAX, u32::MAX]);
    assert_eq!(bounded.choose(1, 0, u64::MAX, |_| Some(u32::MAX)), Some(0));
}

proptest! {
    #[test]
    fn choice_is_that_of_envoy(
        counts in prop::collection::vec((1..9_u32, 0..40_u32), 1..40),
        factor in 100..300_u32,
        hash in any::<u64>(),
        first in any::<prop::sample::Index>(),
    ) {
        let (weights, in_flight): (Vec<u32>, Vec<u32>) = counts.into_iter().unzip();
        let first = first.index(weights.len());
        let order: Vec<usize> = super::super::bounded::order(hash, weights.len());
        let chosen = choose(&bounded(factor, &weights), hash, first, &in_flight);
        let expected = choice_of_envoy(factor, &order, first, &weights, &in_flight);
        prop_assert_eq!(chosen, Some(expected));
    }
}
