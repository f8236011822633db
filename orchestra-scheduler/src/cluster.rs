//! The nodes and what is reserved on them.
//!
//! A [`Cluster`] is the scheduler's whole state. It changes through `&mut self` alone, so a decision and
//! its reservation are one act: nobody can take the room between the check and the reservation.
//! Columns are kept as slices, so that a scorer reads memory in order.

use std::collections::HashMap;

use orchestra_core::{InstanceId, Labels, NodeId, ServiceName};

use crate::error::{Error, ErrorKind, Result};
use crate::node::{Availability, Node};
use crate::resources::Resources;

/// The place of a node in a [`View`]; it means nothing in another view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub(crate) usize);

impl NodeIndex {
    /// The position in the columns of the view.
    pub const fn as_usize(self) -> usize {
        self.0
    }
}

/// What one instance holds on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reservation {
    /// The service of the instance.
    pub service: ServiceName,
    /// Where it is.
    pub node: NodeId,
    /// What is set aside.
    pub resources: Resources,
}

/// The nodes and the reservations on them.
///
/// ```
/// use orchestra_core::NodeId;
/// use orchestra_scheduler::{Cluster, Node, Resources};
///
/// let mut cluster = Cluster::new();
/// cluster.add_node(Node::new(NodeId::new("node-1")?, Resources::new().cpu(1_000)))?;
/// assert_eq!(cluster.view().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    nodes: Vec<Node>,
    availability: Vec<Availability>,
    reserved: Vec<Resources>,
    services: Vec<HashMap<ServiceName, u32>>,
    index: HashMap<NodeId, usize>,
    reservations: HashMap<InstanceId, Reservation>,
}

impl Cluster {
    /// No nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, ready to take replicas; refused with [`ErrorKind::AlreadyExists`] if its id is known.
    pub fn add_node(&mut self, node: Node) -> Result<()> {
        if self.index.contains_key(&node.id) {
            let context = format!("node {} is there already", node.id);
            return Err(Error::new(ErrorKind::AlreadyExists, context));
        }
        self.index.insert(node.id.clone(), self.nodes.len());
        self.nodes.push(node);
        self.availability.push(Availability::Ready);
        self.reserved.push(Resources::new());
        self.services.push(HashMap::new());
        Ok(())
    }

    /// Removes a node that carries nothing; otherwise [`ErrorKind::InUse`].
    pub fn remove_node(&mut self, id: &NodeId) -> Result<Node> {
        let at = self.position(id)?;
        if self.services.get(at).is_some_and(|held| !held.is_empty()) {
            let context = format!("node {id} still carries replicas");
            return Err(Error::new(ErrorKind::InUse, context));
        }
        self.index.remove(id);
        self.availability.swap_remove(at);
        self.reserved.swap_remove(at);
        self.services.swap_remove(at);
        let node = self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.index.insert(moved.id.clone(), at);
        }
        Ok(node)
    }

    /// Changes whether a node takes replicas; [`ErrorKind::NotFound`] if there is no such node.
    pub fn set_availability(&mut self, id: &NodeId, availability: Availability) -> Result<()> {
        let at = self.position(id)?;
        if let Some(slot) = self.availability.get_mut(at) {
            *slot = availability;
        }
        Ok(())
    }

    /// Gives back what an instance holds; `None` if it holds nothing.
    pub fn release(&mut self, instance: &InstanceId) -> Option<Reservation> {
        let reservation = self.reservations.remove(instance)?;
        if let Some(&at) = self.index.get(&reservation.node) {
            if let Some(reserved) = self.reserved.get_mut(at) {
                *reserved = reserved.saturating_sub(&reservation.resources);
            }
            self.uncount(at, &reservation.service);
        }
        Some(reservation)
    }

    fn uncount(&mut self, at: usize, service: &ServiceName) {
        let Some(held) = self.services.get_mut(at) else {
            return;
        };
        if let Some(count) = held.get_mut(service) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(service);
            }
        }
    }

    /// What an instance holds.
    pub fn reservation(&self, instance: &InstanceId) -> Option<&Reservation> {
        self.reservations.get(instance)
    }

    /// The state as decisions see it.
    pub fn view(&self) -> View<'_> {
        View { cluster: self }
    }

    /// Sets resources aside. The caller has checked that the instance is new and that they fit.
    pub(crate) fn reserve(
        &mut self,
        at: NodeIndex,
        instance: InstanceId,
        service: &ServiceName,
        resources: Resources,
    ) -> Option<NodeId> {
        let node = self.nodes.get(at.0)?.id.clone();
        let reserved = self.reserved.get_mut(at.0)?;
        *reserved = reserved.checked_add(&resources)?;
        *self
            .services
            .get_mut(at.0)?
            .entry(service.clone())
            .or_default() += 1;
        let reservation = Reservation {
            service: service.clone(),
            node: node.clone(),
            resources,
        };
        self.reservations.insert(instance, reservation);
        Some(node)
    }

    fn position(&self, id: &NodeId) -> Result<usize> {
        self.index
            .get(id)
            .copied()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("node {id} is not known")))
    }
}

/// A read-only look at a [`Cluster`], by column.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    cluster: &'a Cluster,
}

impl<'a> View<'a> {
    /// How many nodes there are.
    pub fn len(self) -> usize {
        self.cluster.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(self) -> bool {
        self.cluster.nodes.is_empty()
    }

    /// The nodes; a [`NodeIndex`] is a position in this slice and in [`View::reserved`].
    pub fn nodes(self) -> &'a [Node] {
        &self.cluster.nodes
    }

    /// What is reserved on each node.
    pub fn reserved(self) -> &'a [Resources] {
        &self.cluster.reserved
    }

    /// Each node's place.
    pub fn indices(self) -> impl ExactSizeIterator<Item = NodeIndex> + use<> {
        (0..self.len()).map(NodeIndex)
    }

    /// One node; `None` if the index is of another view.
    pub fn node(self, at: NodeIndex) -> Option<NodeView<'a>> {
        let cluster = self.cluster;
        Some(NodeView {
            node: cluster.nodes.get(at.0)?,
            availability: *cluster.availability.get(at.0)?,
            reserved: *cluster.reserved.get(at.0)?,
            services: cluster.services.get(at.0)?,
        })
    }
}

/// A read-only look at one node.
#[derive(Debug, Clone, Copy)]
pub struct NodeView<'a> {
    node: &'a Node,
    availability: Availability,
    reserved: Resources,
    services: &'a HashMap<ServiceName, u32>,
}

impl<'a> NodeView<'a> {
    /// The node's id.
    pub fn id(&self) -> &'a NodeId {
        &self.node.id
    }

    /// The node's labels.
    pub fn labels(&self) -> &'a Labels {
        &self.node.labels
    }

    /// What the node has.
    pub fn capacity(&self) -> Resources {
        self.node.capacity
    }

    /// What is set aside on it.
    pub fn reserved(&self) -> Resources {
        self.reserved
    }

    /// What is left of it.
    pub fn free(&self) -> Resources {
        self.node.capacity.saturating_sub(&self.reserved)
    }

    /// Whether it takes replicas.
    pub fn availability(&self) -> Availability {
        self.availability
    }

    /// How many instances of a service it carries.
    pub fn instances_of(&self, service: &ServiceName) -> u32 {
        self.services.get(service).copied().unwrap_or_default()
    }

    /// How many instances it carries.
    pub fn instances(&self) -> u32 {
        self.services
            .values()
            .fold(0, |sum, &count| sum.saturating_add(count))
    }
}
