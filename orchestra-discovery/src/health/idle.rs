//! Connections that wait for the next probe of their instance.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::{Pin, pin};

use orchestra_core::{Endpoint, InstanceId, ServiceName};
use parking_lot::Mutex;

use super::dial::target;
use crate::instance::{Incarnation, Instance};

/// How many are kept: half of what a process may usually open.
const MAX_IDLE: usize = 512;

/// At most one connection per instance, nothing of which runs while it waits.
pub(super) struct Idle<C>(Mutex<BTreeMap<(ServiceName, InstanceId), Kept<C>>>);

struct Kept<C> {
    incarnation: Incarnation,
    endpoint: Endpoint,
    port: Option<u16>,
    connection: C,
}

impl<C> Default for Idle<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C> Idle<C> {
    /// The connection to this instance, if one waits; one that leads elsewhere is closed.
    pub(super) fn take(&self, instance: &Instance) -> Option<C> {
        let kept = self.0.lock().remove(&key(instance))?;
        let same = kept.incarnation == instance.incarnation
            && kept.endpoint == instance.endpoint
            && kept.port == target(instance).port;
        same.then_some(kept.connection)
    }

    /// Keeps a connection, if there is room.
    pub(super) fn put(&self, instance: &Instance, connection: C) {
        let kept = Kept {
            incarnation: instance.incarnation,
            endpoint: instance.endpoint.clone(),
            port: target(instance).port,
            connection,
        };
        let mut idle = self.0.lock();
        if idle.len() < MAX_IDLE || idle.contains_key(&key(instance)) {
            idle.insert(key(instance), kept);
        }
    }

    pub(super) fn forget(&self, instance: &Instance) {
        let mut idle = self.0.lock();
        if let std::collections::btree_map::Entry::Occupied(kept) = idle.entry(key(instance))
            && kept.get().incarnation == instance.incarnation
        {
            kept.remove();
        }
    }
}

/// Polls a connection for as long as a call on it lasts, so that it needs no task of its own.
pub(super) async fn alongside<T>(
    call: impl Future<Output = T>,
    connection: Pin<&mut impl Future>,
    is_open: &mut bool,
) -> T {
    let mut call = pin!(call);
    if *is_open {
        // The connection may end with the answer, which then still has to be read.
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            _ended = connection => *is_open = false,
        }
    }
    call.await
}

fn key(instance: &Instance) -> (ServiceName, InstanceId) {
    (instance.service.clone(), instance.id.clone())
}

impl<C> fmt::Debug for Idle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle")
            .field("connections", &self.0.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::instance::ProbeTarget;

    fn instance(n: usize, incarnation: u64) -> Instance {
        Instance::new(
            "payments".parse().unwrap(),
            format!("p-{n}").parse().unwrap(),
            Incarnation::new(incarnation),
            "127.0.0.1:80".parse().unwrap(),
        )
    }

    #[test]
    fn connection_is_taken_by_the_instance_it_leads_to_alone() {
        let idle = Idle::default();
        let one = instance(1, 1);
        idle.put(&one, 'a');
        assert_eq!(idle.take(&instance(2, 1)), None);
        assert_eq!((idle.take(&one), idle.take(&one)), (Some('a'), None));

        let (mut moved, mut other_port) = (one.clone(), one.clone());
        moved.endpoint = "127.0.0.2:80".parse().unwrap();
        other_port.probe = Some(Arc::new(ProbeTarget::default().port(81)));
        for other in [instance(1, 2), moved, other_port] {
            idle.put(&one, 'b');
            assert_eq!(idle.take(&other), None);
            // And it is gone for good.
            assert_eq!(idle.take(&one), None);
        }
    }

    #[test]
    fn forgotten_is_what_the_incarnation_left() {
        let idle = Idle::default();
        idle.put(&instance(1, 2), 'a');
        idle.forget(&instance(1, 1));
        assert_eq!(idle.take(&instance(1, 2)), Some('a'));
        idle.put(&instance(1, 2), 'a');
        idle.forget(&instance(1, 2));
        assert_eq!(idle.take(&instance(1, 2)), None);
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let idle = Idle::default();
        (0..2 * MAX_IDLE).for_each(|n| idle.put(&instance(n, 1), n));
        assert_eq!(idle.0.lock().len(), MAX_IDLE);
        idle.put(&instance(0, 1), 7);
        assert_eq!(idle.take(&instance(0, 1)), Some(7));
    }
}
