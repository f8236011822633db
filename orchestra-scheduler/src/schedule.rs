//! Filter, score, reserve: one decision, taken in one act.
//!
//! Every node is looked at. Those that pass all filters are scored by every scorer, and the best
//! weighted mean wins; among equals the winner is drawn, by a hash of the draw and the node's position,
//! so that equal nodes share the load and a run can be repeated.

use std::collections::BTreeMap;
use std::fmt;

use orchestra_core::{InstanceId, NodeId, Score, ServiceName};

use crate::cluster::{Cluster, NodeIndex, View};
use crate::filter::{Available, Fit, MatchesSelector, NodeFilter, Reason};
use crate::score::{Balanced, LeastAllocated, NodeScorer, Spread};
use crate::workload::Workload;

/// Where an instance was put; its resources are reserved there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// The instance.
    pub instance: InstanceId,
    /// The node.
    pub node: NodeId,
    /// The weighted mean of its scores.
    pub score: Score,
}

/// No node can carry the replica, with the number of nodes for each reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unschedulable {
    /// The service.
    pub service: ServiceName,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes each reason excluded; a node counts once, under the first filter that refused.
    pub reasons: BTreeMap<Reason, usize>,
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, nodes, .. } = self;
        write!(f, "no node of {nodes} can carry a replica of {service}")?;
        for (index, (reason, count)) in self.reasons.iter().enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            write!(f, "{before}{reason} ({count})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unschedulable {}

/// What a decision would make of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The node.
    pub node: NodeId,
    /// Its weighted mean, or why it is out.
    pub total: Result<Score, Reason>,
    /// Each scorer's name and score; empty if the node is out.
    pub scores: Vec<(&'static str, Score)>,
}

/// Puts replicas on nodes.
///
/// ```
/// use orchestra_core::{InstanceId, NodeId, ServiceName};
/// use orchestra_scheduler::{Cluster, Command, Node, Resources, Scheduler, Template, Workload};
///
/// let mut cluster = Cluster::new();
/// cluster.add_node(Node::new(NodeId::new("node-1")?, Resources::new().cpu(1_000)))?;
///
/// let template = Template::new(Command::new("payments")).resources(Resources::new().cpu(600));
/// let payments = Workload::new(ServiceName::new("payments")?, template);
///
/// let scheduler = Scheduler::default();
/// let placed = scheduler.place(&mut cluster, &payments, InstanceId::new("payments-0")?, 7)?;
/// assert_eq!(placed.node.as_str(), "node-1");
///
/// let full = scheduler.place(&mut cluster, &payments, InstanceId::new("payments-1")?, 7);
/// assert_eq!(
///     full.unwrap_err().to_string(),
///     "no node of 1 can carry a replica of payments: insufficient cpu (1)",
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Scheduler {
    filters: Vec<Box<dyn NodeFilter>>,
    scorers: Vec<(f64, Box<dyn NodeScorer>)>,
}

impl Default for Scheduler {
    /// Availability, fit and node selector; then spread (weight 2), least allocated and balanced (1 each).
    fn default() -> Self {
        Self::bare()
            .filter(Available)
            .filter(Fit)
            .filter(MatchesSelector)
            .scorer(2.0, Spread)
            .scorer(1.0, LeastAllocated)
            .scorer(1.0, Balanced)
    }
}

impl Scheduler {
    /// No filters and no scorers: without [`Fit`] nodes may be overcommitted.
    pub fn bare() -> Self {
        Self {
            filters: Vec::new(),
            scorers: Vec::new(),
        }
    }

    /// One more filter, asked after those before.
    #[must_use]
    pub fn filter(mut self, filter: impl NodeFilter + 'static) -> Self {
        self.filters.push(Box::new(filter));
        self
    }

    /// One more scorer. A weight that is not a positive number takes it out.
    #[must_use]
    pub fn scorer(mut self, weight: f64, scorer: impl NodeScorer + 'static) -> Self {
        if weight > 0.0 && weight.is_finite() {
            self.scorers.push((weight, Box::new(scorer)));
        }
        self
    }

    /// Chooses a node for an instance and reserves its resources there, in one act.
    ///
    /// `draw` is uniform over `u64` and decides between equals. On failure nothing has changed.
    pub fn place(
        &self,
        cluster: &mut Cluster,
        workload: &Workload,
        instance: InstanceId,
        draw: u64,
    ) -> Result<Placement, Unschedulable> {
        if cluster.reservation(&instance).is_some() {
            let reasons = BTreeMap::from([(Reason::AlreadyPlaced, cluster.view().len())]);
            return Err(unschedulable(workload, cluster.view(), reasons));
        }
        let (candidates, reasons) = self.candidates(workload, cluster.view());
        let totals = self.totals(workload, cluster.view(), &candidates);
        let Some((at, score)) = best(&candidates, &totals, draw) else {
            return Err(unschedulable(workload, cluster.view(), reasons));
        };
        let resources = workload.template.resources;
        match cluster.reserve(at, instance.clone(), &workload.name, resources) {
            Some(node) => Ok(Placement {
                instance,
                node,
                score,
            }),
            None => Err(unschedulable(workload, cluster.view(), reasons)),
        }
    }

    /// What [`Scheduler::place`] would make of every node, in the order of the view.
    pub fn explain(&self, cluster: &Cluster, workload: &Workload) -> Vec<Verdict> {
        let view = cluster.view();
        view.indices()
            .filter_map(|at| {
                let node = view.node(at)?.id().clone();
                Some(match self.check(workload, view, at) {
                    Err(reason) => Verdict {
                        node,
                        total: Err(reason),
                        scores: Vec::new(),
                    },
                    Ok(()) => self.judge(workload, view, at, node),
                })
            })
            .collect()
    }

    fn judge(&self, workload: &Workload, view: View<'_>, at: NodeIndex, node: NodeId) -> Verdict {
        let scores = self.scorers.iter().map(|(_, scorer)| {
            let mut out = [Score::ZERO];
            scorer.score(workload, view, &[at], &mut out);
            let [score] = out;
            (scorer.name(), score)
        });
        let total = self.totals(workload, view, &[at]).first().copied();
        Verdict {
            node,
            total: Ok(Score::clamped(total.unwrap_or(0.0))),
            scores: scores.collect(),
        }
    }

    fn check(&self, workload: &Workload, view: View<'_>, at: NodeIndex) -> Result<(), Reason> {
        let Some(node) = view.node(at) else {
            return Err(Reason::Lost);
        };
        self.filters
            .iter()
            .try_for_each(|filter| filter.check(workload, &node))
    }

    fn candidates(
        &self,
        workload: &Workload,
        view: View<'_>,
    ) -> (Vec<NodeIndex>, BTreeMap<Reason, usize>) {
        let mut candidates = Vec::with_capacity(view.len());
        let mut reasons = BTreeMap::new();
        for at in view.indices() {
            match self.check(workload, view, at) {
                Ok(()) => candidates.push(at),
                Err(reason) => *reasons.entry(reason).or_default() += 1,
            }
        }
        (candidates, reasons)
    }

    /// The weighted mean of the scores of each candidate.
    fn totals(&self, workload: &Workload, view: View<'_>, candidates: &[NodeIndex]) -> Vec<f64> {
        let mut totals = vec![0.0; candidates.len()];
        let mut column = vec![Score::ZERO; candidates.len()];
        let weights: f64 = self.scorers.iter().map(|(weight, _)| weight).sum();
        for (weight, scorer) in &self.scorers {
            // A scorer that leaves a slot unwritten must not be credited with the one before it.
            column.fill(Score::ZERO);
            scorer.score(workload, view, candidates, &mut column);
            for (total, score) in totals.iter_mut().zip(&column) {
                *total += score.value() * (weight / weights);
            }
        }
        totals
    }
}

fn unschedulable(
    workload: &Workload,
    view: View<'_>,
    reasons: BTreeMap<Reason, usize>,
) -> Unschedulable {
    Unschedulable {
        service: workload.name.clone(),
        nodes: view.len(),
        reasons,
    }
}

fn best(candidates: &[NodeIndex], totals: &[f64], draw: u64) -> Option<(NodeIndex, Score)> {
    candidates
        .iter()
        .zip(totals)
        .map(|(&at, &total)| (Score::clamped(total), mix(draw, at.as_usize() as u64), at))
        .max()
        .map(|(score, _, at)| (at, score))
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood, 2014) over the draw and a position.
fn mix(draw: u64, position: u64) -> u64 {
    let mut z = draw.wrapping_add(position.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
