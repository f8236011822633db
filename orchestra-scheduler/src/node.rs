//! The machines that replicas run on.

use std::fmt;

use orchestra_core::{Labels, NodeId};

use crate::resources::Resources;

/// Whether a node takes replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Availability {
    /// It takes new replicas.
    #[default]
    Ready,
    /// It keeps what it runs and takes nothing new.
    Cordoned,
    /// It is thought dead: what ran there is fenced, and it takes nothing new.
    Lost,
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Cordoned => "cordoned",
            Self::Lost => "lost",
        })
    }
}

/// A machine: its id, what it has, and its labels.
///
/// ```
/// use orchestra_core::NodeId;
/// use orchestra_scheduler::{Bytes, Node, Resources};
///
/// let node = Node::new(NodeId::new("node-1")?, Resources::new().cpu(4_000).memory(Bytes::gib(8)));
/// assert_eq!(node.capacity.cpu.0, 4_000);
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Node {
    /// Its id, unique in the cluster.
    pub id: NodeId,
    /// What replicas may use of it, all together.
    pub capacity: Resources,
    /// What selectors look at.
    #[cfg_attr(feature = "serde", serde(default))]
    pub labels: Labels,
}

impl Node {
    /// A node without labels.
    pub fn new(id: NodeId, capacity: Resources) -> Self {
        Self {
            id,
            capacity,
            labels: Labels::new(),
        }
    }

    /// With these labels.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }
}
