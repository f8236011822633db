use orchestra_core::Score;

use super::{NodeScorer, each, mean, use_after};
use crate::cluster::{NodeIndex, View};
use crate::workload::Workload;

/// Prefers the node that comes nearest to a target share of use, in each dimension by itself.
///
/// A dimension scores one at the target and falls linearly to zero at the end of `0..=1` that is
/// farther away. Scoring each dimension before the mean keeps a full CPU from making up for idle memory.
#[derive(Debug, Clone, Copy)]
pub struct TargetUse {
    target: Score,
}

impl TargetUse {
    /// Aims at this share.
    pub const fn new(target: Score) -> Self {
        Self { target }
    }
}

impl Default for TargetUse {
    /// Three quarters: packed, with room for a burst.
    fn default() -> Self {
        Self::new(Score::clamped(0.75))
    }
}

impl NodeScorer for TargetUse {
    fn name(&self) -> &'static str {
        "target-use"
    }

    fn score(
        &self,
        workload: &Workload,
        cluster: View<'_>,
        candidates: &[NodeIndex],
        out: &mut [Score],
    ) {
        let target = self.target.value();
        let widest = target.max(1.0 - target);
        each(cluster, candidates, out, |node| {
            let near = |share: f64| 1.0 - (share.min(1.0) - target).abs() / widest;
            mean(use_after(workload, node).map(near)).unwrap_or(0.0)
        });
    }
}
