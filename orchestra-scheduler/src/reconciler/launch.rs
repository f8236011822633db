use orchestra_core::{InstanceId, Labels, NodeId, ServiceName};

use crate::runtime::ContainerSpec;

/// An instance that was given a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placed {
    /// The instance; the id is used once.
    pub instance: InstanceId,
    /// Its service.
    pub service: ServiceName,
    /// Its seat: replicas of a service are numbered from zero, and a replacement takes the same number.
    pub ordinal: u32,
    /// Its node.
    pub node: NodeId,
    /// The labels of its template.
    pub labels: Labels,
}

/// Completes the spec of an instance with what depends on the instance: its id in the environment, its
/// socket, its directory.
///
/// Law: it is called once for each instance, on a task of its own, before the runtime starts it.
/// A closure is a `Launch`.
pub trait Launch: Send + Sync {
    /// The spec to start, from the one made of the template.
    fn complete(&self, placed: &Placed, spec: ContainerSpec) -> ContainerSpec;
}

impl<F: Fn(&Placed, ContainerSpec) -> ContainerSpec + Send + Sync> Launch for F {
    fn complete(&self, placed: &Placed, spec: ContainerSpec) -> ContainerSpec {
        self(placed, spec)
    }
}

/// Starts what the template says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AsWritten;

impl Launch for AsWritten {
    fn complete(&self, _: &Placed, spec: ContainerSpec) -> ContainerSpec {
        spec
    }
}

/// Hears which instances run.
///
/// Laws: 1. `started` is called once the runtime has started the instance; 2. `stopped` follows each
/// `started`, once the end was observed and before the replacement starts; 3. calls come one at a time, so
/// they return at once.
pub trait PlacementListener: Send + Sync {
    /// The instance runs.
    fn started(&self, placed: &Placed);

    /// The instance has ended.
    fn stopped(&self, placed: &Placed);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unheard;

impl PlacementListener for Unheard {
    fn started(&self, _: &Placed) {}

    fn stopped(&self, _: &Placed) {}
}
