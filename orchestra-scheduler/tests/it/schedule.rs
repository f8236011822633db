//! Filter, score, reserve, against what must hold whatever the cluster.

use orchestra_core::{NodeId, Score};
use orchestra_scheduler::filter::Reason;
use orchestra_scheduler::resources::Dimension;
use orchestra_scheduler::score::{Balanced, LeastAllocated, NodeScorer, TargetUse};
use orchestra_scheduler::{
    Availability, BitsPerSecond, Bytes, Cluster, ErrorKind, Node, Resources, Scheduler, Workload,
};
use proptest::prelude::*;

use crate::support::{instance, node, service, workload};

fn cluster(nodes: impl IntoIterator<Item = Node>) -> Cluster {
    let mut cluster = Cluster::new();
    for node in nodes {
        cluster.add_node(node).unwrap();
    }
    cluster
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn asking(resources: Resources) -> Workload {
    let mut workload = workload("svc", 0);
    workload.template.resources = resources;
    workload
}

#[test]
fn a_refusal_counts_every_node_under_its_reason() {
    let mut cluster = cluster([
        node("a", 100),
        node("b", 1_000),
        node("c", 1_000),
        node("d", 1_000),
    ]);
    cluster
        .set_availability(&id("b"), Availability::Cordoned)
        .unwrap();
    cluster
        .set_availability(&id("c"), Availability::Lost)
        .unwrap();
    let mut workload = workload("svc", 500);
    workload.template.node_selector = "disk=ssd".parse().unwrap();
    let refusal = Scheduler::default()
        .place(&mut cluster, &workload, instance("i"), 0)
        .unwrap_err();
    assert_eq!(refusal.nodes, 4);
    let counts: Vec<_> = refusal.reasons.into_iter().collect();
    let expected = [
        (Reason::Insufficient(Dimension::Cpu), 1),
        (Reason::SelectorMismatch, 1),
        (Reason::Cordoned, 1),
        (Reason::Lost, 1),
    ];
    assert_eq!(counts, expected);
}

#[test]
fn an_instance_is_placed_once() {
    let mut cluster = cluster([node("a", 1_000)]);
    let scheduler = Scheduler::default();
    scheduler
        .place(&mut cluster, &workload("svc", 1), instance("i"), 0)
        .unwrap();
    let again = scheduler
        .place(&mut cluster, &workload("svc", 1), instance("i"), 0)
        .unwrap_err();
    assert_eq!(again.reasons.get(&Reason::AlreadyPlaced), Some(&1));
}

#[test]
fn a_selector_restricts_the_nodes() {
    let labels = [("disk", "ssd")].try_into().unwrap();
    let mut cluster = cluster([node("a", 1_000), node("b", 1_000).labels(labels)]);
    let mut workload = workload("svc", 1);
    workload.template.node_selector = "disk=ssd".parse().unwrap();
    for draw in 0..20 {
        let placed = Scheduler::default().place(
            &mut cluster,
            &workload,
            instance(&format!("i{draw}")),
            draw,
        );
        assert_eq!(placed.unwrap().node, id("b"));
    }
}

#[test]
fn equal_nodes_share_by_the_draw_and_the_same_draw_repeats() {
    let nodes = || ["a", "b", "c"].map(|name| node(name, 1_000));
    let choose = |draw| {
        let placed = Scheduler::default().place(
            &mut cluster(nodes()),
            &workload("svc", 1),
            instance("i"),
            draw,
        );
        placed.unwrap().node
    };
    let chosen: std::collections::BTreeSet<_> = (0..50).map(choose).collect();
    assert_eq!(chosen.len(), 3);
    assert!((0..50).all(|draw| choose(draw) == choose(draw)));
}

#[test]
fn a_node_in_use_is_not_removed() {
    let mut cluster = cluster([node("a", 1_000), node("b", 1_000)]);
    let placed = Scheduler::default()
        .place(&mut cluster, &workload("svc", 1), instance("i"), 0)
        .unwrap();
    assert_eq!(
        cluster.remove_node(&placed.node).unwrap_err().kind(),
        ErrorKind::InUse
    );
    cluster.release(&instance("i")).unwrap();
    cluster.remove_node(&placed.node).unwrap();
    assert_eq!(
        cluster.remove_node(&placed.node).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(cluster.view().len(), 1);
}

#[test]
fn explain_agrees_with_place() {
    let mut cluster = cluster([node("a", 100), node("b", 1_000), node("c", 4_000)]);
    let scheduler = Scheduler::bare()
        .filter(orchestra_scheduler::filter::Fit)
        .scorer(1.0, LeastAllocated);
    let verdicts = scheduler.explain(&cluster, &workload("svc", 500));
    let totals: Vec<_> = verdicts.iter().map(|verdict| verdict.total).collect();
    assert_eq!(totals[0], Err(Reason::Insufficient(Dimension::Cpu)));
    assert_eq!(totals[1], Ok(Score::clamped(0.5)));
    assert_eq!(totals[2], Ok(Score::clamped(0.875)));
    assert_eq!(
        verdicts[2].scores,
        [("least-allocated", Score::clamped(0.875))]
    );
    let placed = scheduler
        .place(&mut cluster, &workload("svc", 500), instance("i"), 0)
        .unwrap();
    assert_eq!(
        (placed.node, placed.score),
        (id("c"), Score::clamped(0.875))
    );
}

fn score(scorer: &dyn NodeScorer, capacity: Resources, asked: Resources) -> f64 {
    let cluster = cluster([Node::new(id("a"), capacity)]);
    let candidates: Vec<_> = cluster.view().indices().collect();
    let mut out = [Score::ONE];
    scorer.score(&asking(asked), cluster.view(), &candidates, &mut out);
    out[0].value()
}

#[test]
fn a_dimension_that_the_node_lacks_drops_out_of_the_mean() {
    let four = Resources::new()
        .cpu(100)
        .memory(Bytes(100))
        .storage(Bytes(100))
        .network(BitsPerSecond(100));
    let half = Resources::new()
        .cpu(50)
        .memory(Bytes(50))
        .storage(Bytes(50))
        .network(BitsPerSecond(50));
    assert!((score(&LeastAllocated, four, half) - 0.5).abs() < 1e-9);
    assert!(
        (score(
            &LeastAllocated,
            Resources::new().cpu(100),
            Resources::new().cpu(50)
        ) - 0.5)
            .abs()
            < 1e-9
    );
    assert!(score(&LeastAllocated, Resources::new(), Resources::new()).abs() < 1e-9);
}

#[test]
fn one_full_dimension_does_not_make_up_for_an_idle_one() {
    let node = Resources::new().cpu(100).memory(Bytes(100));
    let at_target = Resources::new().cpu(75).memory(Bytes(75));
    // The mean share is three quarters here as well.
    let lopsided = Resources::new().cpu(100).memory(Bytes(50));
    assert!((score(&TargetUse::default(), node, at_target) - 1.0).abs() < 1e-9);
    assert!(score(&TargetUse::default(), node, lopsided) < 0.7);
    assert!((score(&Balanced, node, at_target) - 1.0).abs() < 1e-9);
    assert!((score(&Balanced, node, lopsided) - 0.75).abs() < 1e-9);
}

fn amounts() -> impl Strategy<Value = Resources> {
    let amount = prop_oneof![4 => 0_u64..100, 1 => Just(u64::MAX), 1 => u64::MAX - 100..];
    (amount.clone(), amount.clone(), amount.clone(), amount).prop_map(
        |(cpu, memory, storage, network)| {
            Resources::new()
                .cpu(cpu)
                .memory(Bytes(memory))
                .storage(Bytes(storage))
                .network(BitsPerSecond(network))
        },
    )
}

#[derive(Debug, Clone)]
enum Step {
    Place(Resources, u64),
    Release(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (amounts(), any::<u64>()).prop_map(|(amounts, draw)| Step::Place(amounts, draw)),
        1 => any::<usize>().prop_map(Step::Release),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// The brute-force model keeps a list of what is placed and adds it up anew each time, in 128 bits.
    #[test]
    fn reservations_never_exceed_a_capacity_and_a_refusal_means_no_node_had_room(
        capacities in prop::collection::vec(amounts(), 1..5),
        steps in steps(),
    ) {
        let names: Vec<_> = (0..capacities.len()).map(|n| id(&format!("n{n}"))).collect();
        let nodes = names.iter().zip(&capacities).map(|(name, capacity)| Node::new(name.clone(), *capacity));
        let mut cluster = cluster(nodes);
        let scheduler = Scheduler::default();
        let mut placed: Vec<(String, NodeId, Resources)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Place(asked, draw) => {
                    let has_room = names.iter().zip(&capacities).any(|(name, capacity)| {
                        Dimension::ALL.iter().all(|&dimension| {
                            let held = placed.iter().filter(|(_, at, _)| at == name);
                            let held: u128 = held.map(|(_, _, r)| u128::from(r.amount(dimension))).sum();
                            held + u128::from(asked.amount(dimension)) <= u128::from(capacity.amount(dimension))
                        })
                    });
                    let name = format!("i{number}");
                    let answer = scheduler.place(&mut cluster, &asking(asked), instance(&name), draw);
                    prop_assert_eq!(answer.is_ok(), has_room);
                    if let Ok(placement) = answer {
                        placed.push((name, placement.node, asked));
                    }
                }
                Step::Release(at) if !placed.is_empty() => {
                    let (name, _, _) = placed.swap_remove(at % placed.len());
                    prop_assert!(cluster.release(&instance(&name)).is_some());
                }
                Step::Release(_) => {}
            }
            for at in cluster.view().indices() {
                let node = cluster.view().node(at).unwrap();
                prop_assert!(node.reserved().fits_in(&node.capacity()));
                let there = placed.iter().filter(|(_, at, _)| at == node.id()).count();
                prop_assert_eq!(node.instances_of(&service("svc")) as usize, there);
            }
        }
        for (name, _, _) in placed {
            cluster.release(&instance(&name));
        }
        prop_assert!(cluster.view().reserved().iter().all(|reserved| *reserved == Resources::new()));
    }

    #[test]
    fn resource_arithmetic_agrees_with_wide_integers(a in amounts(), b in amounts()) {
        for dimension in Dimension::ALL {
            let (x, y) = (u128::from(a.amount(dimension)), u128::from(b.amount(dimension)));
            let most = u128::from(u64::MAX);
            prop_assert_eq!(u128::from(a.saturating_add(&b).amount(dimension)), (x + y).min(most));
            prop_assert_eq!(u128::from(a.saturating_sub(&b).amount(dimension)), x.saturating_sub(y));
        }
        let fits = Dimension::ALL.iter().all(|&d| a.amount(d) <= b.amount(d));
        prop_assert_eq!(a.fits_in(&b), fits);
        prop_assert_eq!(b.checked_sub(&a).is_some(), fits);
        let overflows = Dimension::ALL.iter().any(|&d| a.amount(d).checked_add(b.amount(d)).is_none());
        prop_assert_eq!(a.checked_add(&b).is_none(), overflows);
    }
}
