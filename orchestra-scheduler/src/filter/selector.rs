use super::{NodeFilter, Reason};
use crate::cluster::NodeView;
use crate::workload::Workload;

/// Only nodes whose labels match the template's node selector.
#[derive(Debug, Clone, Copy, Default)]
pub struct MatchesSelector;

impl NodeFilter for MatchesSelector {
    fn check(&self, workload: &Workload, node: &NodeView<'_>) -> Result<(), Reason> {
        if workload.template.node_selector.matches(node.labels()) {
            Ok(())
        } else {
            Err(Reason::SelectorMismatch)
        }
    }
}
