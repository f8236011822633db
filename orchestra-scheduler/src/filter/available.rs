use super::{NodeFilter, Reason};
use crate::cluster::NodeView;
use crate::node::Availability;
use crate::workload::Workload;

/// Only nodes that are neither cordoned nor lost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Available;

impl NodeFilter for Available {
    fn check(&self, _: &Workload, node: &NodeView<'_>) -> Result<(), Reason> {
        match node.availability() {
            Availability::Ready => Ok(()),
            Availability::Cordoned => Err(Reason::Cordoned),
            Availability::Lost => Err(Reason::Lost),
        }
    }
}
