//! Which nodes can carry a replica at all.

mod available;
mod fit;
mod selector;

pub use available::Available;
pub use fit::Fit;
pub use selector::MatchesSelector;

use std::fmt;
use std::sync::Arc;

use crate::cluster::NodeView;
use crate::resources::Dimension;
use crate::workload::Workload;

/// Why a node cannot carry a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Too little of a resource is left.
    Insufficient(Dimension),
    /// The node's labels do not match the selector.
    SelectorMismatch,
    /// The node takes nothing new.
    Cordoned,
    /// The node is thought dead.
    Lost,
    /// The instance holds a place already.
    AlreadyPlaced,
    /// What a filter from outside this crate says.
    Other(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insufficient(dimension) => write!(f, "insufficient {dimension}"),
            Self::SelectorMismatch => f.write_str("node selector does not match"),
            Self::Cordoned => f.write_str("cordoned"),
            Self::Lost => f.write_str("lost"),
            Self::AlreadyPlaced => f.write_str("instance already placed"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// Says of one node whether it can carry a replica.
///
/// Laws: 1. the answer depends on the arguments alone; 2. it does not allocate or block.
///
/// ```
/// use orchestra_scheduler::filter::{NodeFilter, Reason};
/// use orchestra_scheduler::{NodeView, Workload};
///
/// /// At most ten replicas a node.
/// #[derive(Debug)]
/// struct AtMostTen;
///
/// impl NodeFilter for AtMostTen {
///     fn check(&self, _: &Workload, node: &NodeView<'_>) -> Result<(), Reason> {
///         if node.instances() < 10 { Ok(()) } else { Err(Reason::Other("ten replicas already")) }
///     }
/// }
/// ```
pub trait NodeFilter: fmt::Debug + Send + Sync {
    /// `Ok` if the node can carry a replica of the workload.
    fn check(&self, workload: &Workload, node: &NodeView<'_>) -> Result<(), Reason>;
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        impl<T: NodeFilter + ?Sized> NodeFilter for $pointer<T> {
            fn check(&self, workload: &Workload, node: &NodeView<'_>) -> Result<(), Reason> {
                (**self).check(workload, node)
            }
        }
    )+};
}

forward!(Arc, Box);
