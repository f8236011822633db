//! Short names for things that every test makes.

use orchestra_core::{InstanceId, NodeId, ServiceName};
use orchestra_scheduler::{Command, Node, Resources, Template, Workload};

pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(crate) fn instance(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

pub(crate) fn node(name: &str, cpu: u64) -> Node {
    Node::new(NodeId::new(name).unwrap(), Resources::new().cpu(cpu))
}

pub(crate) fn workload(name: &str, cpu: u64) -> Workload {
    let template = Template::new(Command::new("true")).resources(Resources::new().cpu(cpu));
    Workload::new(service(name), template)
}
