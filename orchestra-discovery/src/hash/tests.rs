//! The tables against the published values of their models, and against slow ones that follow the text.

mod bounded;
mod circle;
mod ketama;
mod maglev;
mod rendezvous;
mod ring;

use proptest::prelude::*;

use super::{Ketama, Maglev, Node, Rendezvous, Ring, combine, of};

/// Names of nodes with weights, as a test makes them up.
type Named = Vec<(String, u32)>;

fn nodes(named: &Named) -> Vec<Node<'_>> {
    named
        .iter()
        .map(|(key, weight)| Node::new(key, *weight))
        .collect()
}

/// Nodes on one host, as Envoy's tests have them.
fn hosts(ports: &[u16]) -> Named {
    weighted(&ports.iter().map(|&port| (port, 1)).collect::<Vec<_>>())
}

fn weighted(ports: &[(u16, u32)]) -> Named {
    let host = |&(port, weight): &(u16, u32)| (format!("127.0.0.1:{port}"), weight);
    ports.iter().map(host).collect()
}

/// Up to `most` nodes; keys may repeat.
fn lists(most: usize, weights: impl Strategy<Value = u32> + Clone) -> impl Strategy<Value = Named> {
    let key = (0..2 * most).prop_map(|number| format!("10.0.0.{number}:80"));
    prop::collection::vec((key, weights), 0..most)
}

/// A few lists, each as the one before with one node less, one more, another weight, or all in another order.
fn histories(
    most: usize,
    weights: impl Strategy<Value = u32> + Clone,
) -> impl Strategy<Value = Vec<Named>> {
    let change = (
        0..4_u8,
        any::<prop::sample::Index>(),
        0..2 * most,
        weights.clone(),
    );
    let changes = prop::collection::vec(change, 1..8);
    (lists(most, weights), changes).prop_map(|(mut list, changes)| {
        let mut history = vec![list.clone()];
        for (kind, at, key, weight) in changes {
            match kind {
                0 if !list.is_empty() => drop(list.remove(at.index(list.len()))),
                1 if !list.is_empty() => {
                    let at = at.index(list.len());
                    list[at].1 = weight;
                }
                2 => list.reverse(),
                _ => list.insert(
                    at.index(list.len() + 1),
                    (format!("10.0.0.{key}:80"), weight),
                ),
            }
            history.push(list.clone());
        }
        history
    })
}

/// A thousand hashes.
fn hashes() -> impl Iterator<Item = u64> {
    (0..1000_u64).map(|number| of(&number.to_le_bytes()))
}

#[test]
fn hash_of_a_request_is_xxh64() {
    // The values of the reference implementation.
    assert_eq!(of(b""), 0xef46_db37_51d8_e999);
    assert_eq!(of(b"a"), 0xd24e_c4f1_a98c_6e5b);
    assert_eq!(of(b"abc"), 0x44bc_2cf5_ad77_0999);
    // Envoy's point ":90_0", which its tests name.
    assert_eq!(of(b"127.0.0.1:90_0"), 16_117_243_373_044_804_889);
}

#[test]
fn hashes_of_policies_are_rotated_together() {
    assert_eq!(combine(None, 7), 7);
    assert_eq!(combine(Some(1 << 63), 6), 7);
    assert_ne!(combine(Some(1), 2), combine(Some(2), 1));
}

#[test]
fn no_weight_is_no_answer() {
    for list in [
        vec![],
        vec![("a".to_owned(), 0)],
        vec![("a".to_owned(), 0), (String::new(), 0)],
    ] {
        let nodes = nodes(&list);
        let ring = Ring::build(super::ring::Config::default(), &nodes).unwrap();
        let maglev = Maglev::build(super::maglev::Config::default(), &nodes).unwrap();
        let rendezvous = Rendezvous::build(super::rendezvous::Config::default(), &nodes).unwrap();
        let ketama = Ketama::build(&nodes).unwrap();
        assert_eq!(ring.lookup(5), None);
        assert_eq!(ring.lookup_attempt(5, 1), None);
        assert_eq!(ring.walk(5).count(), 0);
        assert_eq!(maglev.lookup(5), None);
        assert_eq!(maglev.walk(5).count(), 0);
        assert_eq!(rendezvous.lookup(5), None);
        assert_eq!(rendezvous.walk(5).count(), 0);
        assert_eq!(ketama.lookup(5), None);
        assert_eq!(ketama.walk(5).count(), 0);
        // And the way back: the first node with a weight gets everything.
        let next = [nodes.as_slice(), &[Node::new("b", 3)]].concat();
        let last = Some(nodes.len());
        assert_eq!(ring.update(&next).unwrap().lookup(5), last);
        assert_eq!(maglev.update(&next).unwrap().lookup(5), last);
        assert_eq!(rendezvous.update(&next).unwrap().lookup(5), last);
        assert_eq!(ketama.update(&next).unwrap().lookup(5), last);
        assert_eq!(
            rendezvous
                .update(&next)
                .unwrap()
                .update(&nodes)
                .unwrap()
                .lookup(5),
            None
        );
    }
}
