use orchestra_core::Score;

use super::{NodeScorer, each};
use crate::cluster::{NodeIndex, View};
use crate::workload::Workload;

/// Prefers the node with the fewest replicas of the same service: `1 / (1 + replicas there)`.
///
/// One lost node should not take all replicas of a service with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spread;

impl NodeScorer for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn score(
        &self,
        workload: &Workload,
        cluster: View<'_>,
        candidates: &[NodeIndex],
        out: &mut [Score],
    ) {
        each(cluster, candidates, out, |node| {
            1.0 / (1.0 + f64::from(node.instances_of(&workload.name)))
        });
    }
}
