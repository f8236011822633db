use std::fmt;

use orchestra_core::Score;

use super::NodeScorer;
use crate::cluster::{NodeIndex, NodeView, View};
use crate::workload::Workload;

/// A scorer that looks at one node at a time, from a closure.
///
/// ```
/// use orchestra_core::Score;
/// use orchestra_scheduler::score::{NodeScorer, PerNode};
/// use orchestra_scheduler::{NodeView, Workload};
///
/// let prefers_ssd = PerNode::new("prefers-ssd", |_: &Workload, node: &NodeView<'_>| {
///     if node.labels().value("disk") == Some("ssd") { Score::ONE } else { Score::ZERO }
/// });
/// assert_eq!(prefers_ssd.name(), "prefers-ssd");
/// ```
pub struct PerNode<F> {
    name: &'static str,
    score: F,
}

impl<F> fmt::Debug for PerNode<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerNode").field(&self.name).finish()
    }
}

impl<F: Fn(&Workload, &NodeView<'_>) -> Score + Send + Sync> PerNode<F> {
    /// Names a closure.
    pub const fn new(name: &'static str, score: F) -> Self {
        Self { name, score }
    }
}

impl<F: Fn(&Workload, &NodeView<'_>) -> Score + Send + Sync> NodeScorer for PerNode<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn score(
        &self,
        workload: &Workload,
        cluster: View<'_>,
        candidates: &[NodeIndex],
        out: &mut [Score],
    ) {
        for (slot, &at) in out.iter_mut().zip(candidates) {
            *slot = cluster
                .node(at)
                .map_or(Score::ZERO, |node| (self.score)(workload, &node));
        }
    }
}
