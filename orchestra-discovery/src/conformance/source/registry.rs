//! A registry as a source that is edited by registering and deregistering.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{InstanceId, ServiceName};
use tokio::sync::Mutex;

use super::{Expresses, SourceSubject};
use crate::error::Result;
use crate::instance::{Instance, Registration};
use crate::registry::{Lease, Registry};
use crate::source::Source;

type Held = BTreeMap<(ServiceName, InstanceId), (Instance, Lease)>;

impl SourceSubject {
    /// An empty registry, edited under leases of `ttl`, which must outlast the test.
    pub fn of_registry(registry: Arc<dyn Registry>, ttl: Duration, lag: Duration) -> Self {
        let source: Arc<dyn Source> = Arc::<dyn Registry>::clone(&registry);
        let held = Arc::new(Mutex::new(Held::new()));
        Self::new(source, lag, move |members| {
            let (registry, held) = (Arc::clone(&registry), Arc::clone(&held));
            async move { edit(&*registry, &mut *held.lock().await, members, ttl).await }
        })
        .expresses(Expresses::full())
    }
}

async fn edit(
    registry: &dyn Registry,
    held: &mut Held,
    members: Vec<Instance>,
    ttl: Duration,
) -> Result<()> {
    let mut former = std::mem::take(held);
    for member in members {
        let key = (member.service.clone(), member.id.clone());
        let kept = match former.remove(&key) {
            Some((same, lease)) if same == member => (same, lease),
            _ => {
                let lease = registry.register(asked(&member, ttl)).await?;
                (member, lease)
            }
        };
        held.insert(key, kept);
    }
    for (_, lease) in former.values() {
        registry.deregister(lease).await?;
    }
    Ok(())
}

fn asked(member: &Instance, ttl: Duration) -> Registration {
    let (service, id) = (member.service.clone(), member.id.clone());
    let probe = member.probe.as_deref().cloned().unwrap_or_default();
    Registration::new(service, id, member.endpoint.clone(), ttl)
        .weight(member.weight)
        .priority(member.priority)
        .status(member.status)
        .locality(member.locality.clone())
        .labels(member.labels.clone())
        .probe(probe)
}
