//! Which of the possible nodes is best.
//!
//! A scorer fills a column: one score for each candidate. Scores are combined as their weighted mean
//! `sum(w * s) / sum(w)`, so weights need not add up to one and nothing is clamped.
//! A resource scorer takes the mean over the dimensions that the node has: a dimension of zero capacity
//! drops out instead of dividing by zero.

mod balanced;
mod least_allocated;
mod per_node;
mod spread;
mod target;

pub use balanced::Balanced;
pub use least_allocated::LeastAllocated;
pub use per_node::PerNode;
pub use spread::Spread;
pub use target::TargetUse;

use std::fmt;
use std::sync::Arc;

use orchestra_core::Score;

use crate::cluster::{NodeIndex, NodeView, View};
use crate::resources::Dimension;
use crate::workload::Workload;

/// Scores candidates by column.
///
/// Laws: 1. `out` is as long as `candidates`, and every slot of it is written; 2. the scores depend on
/// the arguments alone; 3. it does not allocate or block.
///
/// For a score that looks at one node at a time, wrap a closure in [`PerNode`].
pub trait NodeScorer: fmt::Debug + Send + Sync {
    /// What the scorer is called in explanations.
    fn name(&self) -> &'static str;

    /// Writes the score of `candidates[i]` to `out[i]`.
    fn score(
        &self,
        workload: &Workload,
        cluster: View<'_>,
        candidates: &[NodeIndex],
        out: &mut [Score],
    );
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        impl<T: NodeScorer + ?Sized> NodeScorer for $pointer<T> {
            fn name(&self) -> &'static str {
                (**self).name()
            }

            fn score(
                &self,
                workload: &Workload,
                cluster: View<'_>,
                candidates: &[NodeIndex],
                out: &mut [Score],
            ) {
                (**self).score(workload, cluster, candidates, out);
            }
        }
    )+};
}

forward!(Arc, Box);

/// Writes one score for each candidate; a candidate that is not in the view scores zero.
fn each(
    cluster: View<'_>,
    candidates: &[NodeIndex],
    out: &mut [Score],
    score: impl Fn(&NodeView<'_>) -> f64,
) {
    for (slot, &at) in out.iter_mut().zip(candidates) {
        *slot = Score::clamped(cluster.node(at).map_or(0.0, |node| score(&node)));
    }
}

/// The share in use of each dimension the node has, as if the replica were placed there.
fn use_after<'a>(
    workload: &'a Workload,
    node: &'a NodeView<'_>,
) -> impl Iterator<Item = f64> + Clone + 'a {
    let used = node.reserved().saturating_add(&workload.template.resources);
    let capacity = node.capacity();
    Dimension::ALL
        .into_iter()
        .filter(move |&dimension| capacity.amount(dimension) > 0)
        .map(move |dimension| used.amount(dimension) as f64 / capacity.amount(dimension) as f64)
}

/// The mean; `None` of nothing.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}
