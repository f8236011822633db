use orchestra_core::Score;

use super::{NodeScorer, each, mean, use_after};
use crate::cluster::{NodeIndex, View};
use crate::workload::Workload;

/// Prefers the node with the largest share left: the mean of `1 - used/capacity`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastAllocated;

impl NodeScorer for LeastAllocated {
    fn name(&self) -> &'static str {
        "least-allocated"
    }

    fn score(
        &self,
        workload: &Workload,
        cluster: View<'_>,
        candidates: &[NodeIndex],
        out: &mut [Score],
    ) {
        each(cluster, candidates, out, |node| {
            mean(use_after(workload, node).map(|share| 1.0 - share)).unwrap_or(0.0)
        });
    }
}
