use super::{NodeFilter, Reason};
use crate::cluster::NodeView;
use crate::workload::Workload;

/// Only nodes with enough left of everything the replica asks for; asking for nothing always fits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fit;

impl NodeFilter for Fit {
    fn check(&self, workload: &Workload, node: &NodeView<'_>) -> Result<(), Reason> {
        match workload.template.resources.shortage_in(&node.free()) {
            Some(dimension) => Err(Reason::Insufficient(dimension)),
            None => Ok(()),
        }
    }
}
