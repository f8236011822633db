use orchestra_core::Score;

use super::{NodeScorer, each, mean, use_after};
use crate::cluster::{NodeIndex, View};
use crate::workload::Workload;

/// Prefers the node whose dimensions are used alike: one minus the standard deviation of the shares.
///
/// A node that is out of CPU with its memory idle strands the memory; a mean over the dimensions does
/// not see that.
#[derive(Debug, Clone, Copy, Default)]
pub struct Balanced;

impl NodeScorer for Balanced {
    fn name(&self) -> &'static str {
        "balanced"
    }

    fn score(
        &self,
        workload: &Workload,
        cluster: View<'_>,
        candidates: &[NodeIndex],
        out: &mut [Score],
    ) {
        each(cluster, candidates, out, |node| {
            let shares = use_after(workload, node).map(|share| share.min(1.0));
            let center = mean(shares.clone()).unwrap_or(0.0);
            let variance = mean(shares.map(|share| (share - center).powi(2))).unwrap_or(0.0);
            1.0 - variance.sqrt()
        });
    }
}
